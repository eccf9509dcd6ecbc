"""Code blocks of the README, docs/ and pages beside the code run, unless after a line `<!-- not run: REASON -->`."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from eyesmith.cli.main import VERBS, main
from eyesmith.eval.kinds import KINDS
from eyesmith.eval.sets import TASKS
from eyesmith.hub import save_model
from eyesmith.models import create

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md")), *sorted((ROOT / "src").glob("**/*.md"))]
HEAVY = {"published-models.md", "bring-it-elsewhere.md"}  # they make and convert models of published size
BLOCK = re.compile(
    r"^(?P<skip><!-- not run: [^\n]+ -->\n)?```(?P<language>\w*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    save_model(folder, create("ViTamin-Nano").eval())
    return folder


@pytest.fixture(autouse=True)
def _no_task_stays() -> Iterator[None]:
    """Tasks that a page registers from files end with it."""
    tasks, kinds = dict(TASKS), dict(KINDS)
    yield
    for known, before in ((TASKS, tasks), (KINDS, kinds)):
        for name in set(known) - set(before):
            del known[name]


@pytest.fixture
def place(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder but for what the pages take for granted: a trained run, a few photos, the examples."""
    shutil.copytree(run, tmp_path / "runs" / "quickstart")
    for name, colour in (("cat/1", "grey"), ("cat/2", "black"), ("dog/1", "brown")):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 50), colour).save(path)
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow) if page.name in HEAVY else page for page in PAGES],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_block_runs(page: Path, place: Path) -> None:
    names: dict[str, object] = {"__name__": "page"}  # the Python blocks of a page are one program
    for found in BLOCK.finditer(page.read_text("utf-8")):
        if found["skip"]:
            continue
        if found["language"] == "python":
            code = "\n" * page.read_text("utf-8")[: found.start("body")].count("\n") + found["body"]
            exec(compile(code, str(page), "exec"), names)
        elif found["language"] == "bash":
            for command in found["body"].splitlines():
                _run(command)


def _run(command: str) -> None:
    words = shlex.split(command, comments=True)
    if words and words[0] == "eyesmith":  # in this process: importing torch anew for each line takes seconds
        assert main(words[1:]) == 0, command
    elif words:
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True, timeout=60)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    text = page.read_text("utf-8")
    commands = "\n".join(found["body"] for found in BLOCK.finditer(text) if found["language"] == "bash")
    for verb in re.findall(r"`eyesmith ([a-z]+)", text) + re.findall(r"^eyesmith ([a-z]+)", commands, re.MULTILINE):
        assert verb in VERBS, f"eyesmith {verb}"
    for target in re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^make ([a-z-]+)", commands, re.MULTILINE):
        assert target in targets, f"make {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), link
