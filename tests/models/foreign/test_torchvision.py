"""The feature test before timm and open_clip are imported, and that our own import stays light."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from eyesmith.errors import MissingDependencyError
from eyesmith.models.foreign.torchvision import ensure_torchvision


def test_importing_our_rooms_imports_no_optional_package() -> None:
    code = (
        "import sys, eyesmith.models, eyesmith.models.foreign.timm, eyesmith.models.vitamin.weights\n"
        "heavy = {'timm', 'torchvision', 'transformers', 'open_clip', 'matplotlib', 'pandas', 'pyarrow'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision")
def test_torchvision_can_be_imported_afterwards_and_twice() -> None:
    ensure_torchvision()
    ensure_torchvision()
    import torchvision.transforms  # noqa: F401


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'torchvision'"), "torchvision is not installed.*eyesmith"),
        (RuntimeError("wrong ABI"), "cannot be imported with torch .*: wrong ABI"),
    ],
)
def test_an_absent_or_broken_torchvision_is_one_clear_error(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr("eyesmith.models.foreign.torchvision.import_module", fail)
    with pytest.raises(MissingDependencyError, match=message):
        ensure_torchvision()
