"""Code blocks of the README, docs/ and pages beside the code run, unless after a line `<!-- not run: REASON -->`."""

import importlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from eyesmith.cli import dispatch, numbers, overrides
from eyesmith.cli.main import VERBS, main, register_encoders
from eyesmith.errors import EyesmithError
from eyesmith.eval.kinds import KINDS
from eyesmith.eval.sets import TASKS
from eyesmith.hub import save_model
from eyesmith.models import create
from eyesmith.tasks import registry as training_tasks

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


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = re.findall(r"\]\(([^)#\s]+)", index.read_text("utf-8"))
    pages = {page.relative_to(index.parent).as_posix() for page in index.parent.glob("**/*.md")} - {"index.md"}
    assert set(linked) >= pages, f"not linked: {sorted(pages - set(linked))}"
    assert len(linked) == len(set(linked))
    assert "(docs/index.md)" in (ROOT / "README.md").read_text("utf-8")


def _commands(page: Path) -> Iterator[str]:
    """Every command line of ours on a page: in blocks, run here or not, and in running text where it is whole."""
    text = page.read_text("utf-8")
    for found in BLOCK.finditer(text):
        if found["language"] == "bash":
            for line in found["body"].replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|;|\|", line.split(" #")[0]):
                    yield from re.findall(r"(?:^|no-python )(eyesmith .*)", part.strip())
    for span in re.findall(r"`(eyesmith [^`]+)`", BLOCK.sub("", text)):
        # VERB, [options], "..." and a bare verb stand for others
        if re.search(r"[/=]| --", span) and not re.search(r"\b[A-Z]{2,}\b|\.\.\.|[\[\]{}<>…|]", span):
            yield span.replace("\n", " ")


def _without_files(command: str) -> str:
    """Without what would be opened or run while arguments are read, where it is not there."""

    def kept(found: re.Match[str]) -> str:
        return found[0] if found[1] != "from" and (ROOT / found[2]).exists() else ""

    return re.sub(r" --(from|task(?= \S+\.py)|encoder)[ =](\S+)", kept, re.sub(r"\$\w+", "1", command))


class _Parsed(BaseException):
    """The arguments were read, and no work was done."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # --task docs/examples/...
    real = overrides.parse_config

    def fill(function: Callable[..., int], argv: list[str], *, prog: str, **options: Any) -> int:
        real_call(function, argv, prog=prog, **options)
        raise AssertionError

    def stop(*_: Any, **__: Any) -> None:
        raise _Parsed

    def parse(config: Any, words: list[str], *, prog: str) -> Any:
        real(config, words, prog=prog)
        raise _Parsed

    real_call = dispatch.call
    monkeypatch.setattr(numbers, "check_arguments", stop)  # after the parser, before the verb
    for module in {verb.module for verb in VERBS.values()}:
        loaded = importlib.import_module(module)
        for name, mine in (("call", fill), ("parse_config", parse)):
            if hasattr(loaded, name):
                monkeypatch.setattr(loaded, name, mine)
    with monkeypatch.context() as tasks:
        tasks.setattr(training_tasks, "_OWN", {})
        for command in _commands(page):
            try:
                words = [word for word in shlex.split(_without_files(command)) if word not in ("--help", "--version")]
                if len(words) == 1:
                    continue
                status = dispatch.dispatch(VERBS, register_encoders(words[1:]), prog="eyesmith", about="")
                assert (len(words), status) == (2, 2), command  # a verb alone shows its help
            except _Parsed:
                continue
            except EyesmithError as error:
                raise AssertionError(f"{command}: {error}") from None
