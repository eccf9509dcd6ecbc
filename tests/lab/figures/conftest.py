import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """Results of a plan that was never run."""
    spec = importlib.util.spec_from_file_location("lab_synthetic", Path(__file__).parents[1] / "synthetic.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def results(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    return synthetic.lab_results(tmp_path_factory.mktemp("lab"))
