"""The shape of the house: rooms import to the left only, names are public, importing is light."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import eyesmith

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "eyesmith"
# a room may import those before it, and files of no room; images and tokenizer stand side by side
ROOMS = [
    "images",
    "tokenizer",
    "data",
    "models",
    "losses",
    "optim",
    "hub",
    "train",
    "eval",
    "dense",
    "multimodal",
    "tokens",
    "tasks",
    "recipes",
    "runs",
    "report",
    "lab",
    "cli",
]
# what may be absent, or is slow to import, is imported where it is used
LAZY = {
    "transformers",
    "timm",
    "torchvision",
    "open_clip",
    "matplotlib",
    "pyarrow",
    "pandas",
    "simplejpeg",
    "resvg_py",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "faiss",
    "fsspec",
    "scipy",
    "webdataset",
    "tensorboard",
    "trackio",
    "wandb",
    "av",
}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imports(path: Path, *, at_import: bool = False, members: bool = False) -> set[str]:
    """Full names of the modules a file imports; at_import: only those that run when the file is imported.

    members: what is taken out of a module too, which may be a module; of a package then its own file only where nothing
    else can be meant.
    """
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{name.name}" for name in node.names}
            files = {name for name in inner if (ROOT / "src" / (name.replace(".", "/") + ".py")).exists()}
            found.update(files if members and files else {node.module or ""})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text("utf-8")))
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_no_room_to_its_right(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0]
    if room not in ROOMS:
        assert room.endswith(".py"), f"{room}: a new room, add it to ROOMS"
        return
    for name in imports(path):
        if name.startswith("eyesmith."):
            other = name.split(".")[1]
            assert other not in ROOMS or ROOMS.index(other) <= ROOMS.index(room), f"{room} imports {name}"


@pytest.mark.parametrize("room", ["models", "train", "tasks", "runs", "recipes"])
def test_no_circle_among_the_files_of_a_room(room: str) -> None:
    """Imports inside functions and for types are arrows too."""
    files = {".".join(path.relative_to(ROOT / "src").with_suffix("").parts): path for path in modules()}
    files = {name.removesuffix(".__init__"): path for name, path in files.items() if f".{room}." in f"{name}."}
    arrows = {name: {other for other in imports(path, members=True) if other in files} for name, path in files.items()}
    while free := {name for name, others in arrows.items() if not others & arrows.keys()}:
        arrows = {name: others for name, others in arrows.items() if name not in free}
    assert not arrows


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_optional_and_slow_packages_are_imported_where_they_are_used(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports(path, at_import=True)} & LAZY


def test_public_names_are_there_and_importing_them_is_light() -> None:
    for name in eyesmith.__all__:
        assert getattr(eyesmith, name) is not None
        assert name in dir(eyesmith)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        eyesmith.lod  # noqa: B018
    program = "import sys, eyesmith; assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    names = {re.split(r"[<>=!\[ ]", item)[0] for item in wanted} - {"eyesmith"}
    pins = {
        line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line
    }
    normal = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    assert {name for name in names if re.sub(r"[-_.]+", "-", name).lower() not in normal} == set()


def test_pre_commit_runs_what_ci_runs() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    checks = re.search(r"^check: (.*)$", makefile, re.MULTILINE)
    assert checks
    hooks = re.findall(r"entry: make --silent (\S+)", (ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert hooks == checks[1].split()
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "\nmake check\n" in ci
    assert "\nmake test\n" in ci


# where a foreign file could run code, and the few files that may do it: the last of a dotted call, and where
DANGEROUS = {
    "exec": {
        "models/own.py",
        "eval/sets/file.py",
        "tasks/registry.py",
        "data/evaluation/names.py",
    },  # files the user named; an installed package's table
    "eval": set(),
    "os.system": set(),
    "os.popen": set(),
    "import_module": {
        "__init__.py",
        "cli/dispatch.py",
        "models/foreign/torchvision.py",
        "tasks/registry.py",  # a name among the files beside it
        "train/callbacks/trackers.py",
    },
    "pickle.load": set(),
    "pickle.loads": {"data/curate/places.py"},  # of its own Ray tasks
}
# calls that are safe with one argument only
REQUIRED = {"torch.load": ("weights_only", True), "from_pretrained": ("trust_remote_code", False)}


def test_nothing_but_a_named_file_runs_code() -> None:
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            where = f"{name}:{node.lineno}: {called}"
            allowed = DANGEROUS.get("import_module" if called.endswith("import_module") else called)
            assert allowed is None or name in allowed, f"{where}: runs code"
            given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            for dangerous, (argument, value) in REQUIRED.items():
                if called == dangerous or called.endswith("." + dangerous):
                    assert given.get(argument, ...) is value, f"{where}: needs {argument}={value}"
            assert given.get("allow_pickle") is not True, f"{where}: unpickles"
            assert given.get("shell") is not True, f"{where}: starts a shell"


def test_the_evaluator_is_one_engine_beside_rooms() -> None:
    assert sorted(file.name for file in (SOURCE / "eval").glob("*.py")) == ["__init__.py", "engine.py"]
