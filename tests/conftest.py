from collections.abc import Iterator

import pytest
import torch

from eyesmith.models import own


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests share no cache with the user, nor with the run before."""
    patch = pytest.MonkeyPatch()
    patch.setenv("EYESMITH_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """The models of tests are tiny: threads that wait for each other cost far more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders that a test registers from files end with it."""
    for table in ("_BY_NAME", "_BY_HASH"):
        monkeypatch.setattr(own, table, {})
