import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests share no cache with the user, nor with the run before."""
    patch = pytest.MonkeyPatch()
    patch.setenv("EYESMITH_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()
