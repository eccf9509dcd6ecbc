import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image, ImageDraw

from eyesmith.lab.cells import Cell, cells_of, data_facts, data_of, samples_as_stated
from eyesmith.lab.plan import Group, LabPlan

COLORS = ("red", "green", "blue", "black")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders: discs of four colours, each at four sizes."""
    folder = tmp_path_factory.mktemp("discs")
    for color in COLORS:
        (folder / color).mkdir()
        for size in range(4):
            image = Image.new("RGB", (40, 40), "white")
            ImageDraw.Draw(image).ellipse((8 - size, 8 - size, 30 + size, 30 + size), fill=color)
            image.save(folder / color / f"{size}.png")
    return folder


@pytest.fixture(scope="session")
def group() -> Group:
    return Group(
        name="grid",
        question="grid",
        encoders=("ViTamin", "TrV"),
        sizes=("pico",),
        budgets=(8.0, 16.0),
        seeds=(0,),
        recipes=("lab-joint",),
    )


@pytest.fixture(scope="session")
def plan(pairs: Path, group: Group) -> LabPlan:
    """Four cells of two or four steps of four pairs."""
    return LabPlan(name="tiny", title="Two encoders", groups=(group,), data=str(pairs), image_px=32, batch_size=4)


@pytest.fixture(scope="session")
def cells(plan: LabPlan) -> list[Cell]:
    return cells_of(plan, data_facts(data_of(plan)), samples_as_stated)


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """Results of a plan that was never run."""
    spec = importlib.util.spec_from_file_location("lab_synthetic", Path(__file__).with_name("synthetic.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def results(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    """All of the synthetic plan's results."""
    return synthetic.lab_results(tmp_path_factory.mktemp("lab"))
