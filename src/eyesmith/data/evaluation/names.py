"""Class names and prompt templates: from a data set's own files, and from the installed packages that carry them.

No package is imported and nothing of it is run: clip-benchmark's lists are JSON files, open_clip's are one file of
literals and templates (`lambda c: f"a photo of a {c}."`), which is read as text. A name that no
list knows is an error; nobody falls back to another set's templates in silence.
"""

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from eyesmith.config import closest
from eyesmith.errors import ConfigError, DataError, MissingDependencyError
from eyesmith.files import load_json

CLASS_FILE = "classnames.txt"
TEMPLATE_FILE = "zeroshot_classification_templates.txt"
IMAGENET = "imagenet1k"
LANGUAGES = ("en", "ar", "cn", "it", "jp")  # the lists of clip-benchmark; other languages: `babel_imagenet`

_INSTALL = "pip install clip-benchmark (or, without its dependencies, pip install --no-deps clip-benchmark)"


def class_names(name: str, *, language: str = "en") -> tuple[str, ...]:
    """Class names of a set by its name in the packages ("imagenet1k", "caltech101_vtab"), in the order of its labels.

    language: one of LANGUAGES; all but "en" have ImageNet only. English ImageNet comes from open_clip or, which
    agrees in all thousand, clip-benchmark; everything else from clip-benchmark. Raises ConfigError for an unknown
    name or language, MissingDependencyError when no installed package has the list.
    """
    if name == IMAGENET and language == "en" and (found := _open_clip("IMAGENET_CLASSNAMES")) is not None:
        return found
    return tuple(_entry("classnames", name, language))


def templates_for(name: str, *, language: str = "en") -> tuple[str, ...]:
    """Prompt templates of a set by its name in the packages, with {c} for the class.

    As `class_names`; a prefix such as "vtab/" may stand before the name. The 80 of ImageNet are those of OpenAI.
    """
    short = name.rpartition("/")[2]
    if short == IMAGENET and language == "en" and (found := _open_clip("OPENAI_IMAGENET_TEMPLATES")) is not None:
        return found
    return tuple(_entry("zeroshot_classification_templates", short, language))


def babel_imagenet(language: str) -> tuple[tuple[int, ...], tuple[str, ...], tuple[str, ...]]:
    """ImageNet in one of Babel-ImageNet's languages ("DE", "SW"): class indices, their names, templates.

    A language has names for some of the thousand classes only; images of the others do not count.
    """
    lists = _clip_benchmark("babel_imagenet.json")
    code = language.upper()
    if code not in lists:
        raise ConfigError(f"language: Babel-ImageNet has no {language!r}{closest(code, lists)}")
    indices, names = lists[code]
    prompts = _clip_benchmark("nllb_dist13b_prompts.json").get(code) or [
        template.replace("{c}", "{}") for template in templates_for(IMAGENET)
    ]
    return tuple(indices), tuple(names), tuple(prompt.replace("{}", "{c}") for prompt in prompts)


def _entry(kind: str, name: str, language: str) -> list[str]:
    if language not in LANGUAGES:
        known = f"{', '.join(LANGUAGES)}; `babel_imagenet` has 93 others"
        raise ConfigError(f"language: expected one of {known}; got {language!r}")
    lists = _clip_benchmark(f"{language}_{kind}.json")
    if name not in lists:
        what = "class names" if kind == "classnames" else "templates"
        place = CLASS_FILE if kind == "classnames" else TEMPLATE_FILE
        raise ConfigError(f"no installed {what} for {name!r}{closest(name, lists)}; put them into the set's {place}")
    return lists[name]


@cache
def _clip_benchmark(file: str) -> dict[str, Any]:
    path = package_file("clip_benchmark", f"datasets/{file}")
    if path is None:
        raise MissingDependencyError(f"class names and templates of this set come with clip-benchmark: {_INSTALL}")
    return load_json(path.read_text("utf-8"))


@cache
def _open_clip(table: str) -> tuple[str, ...] | None:
    """A table of open_clip's, None where the package is not installed; a template as a text with {c}."""
    path = package_file("open_clip", "zero_shot_metadata.py")
    if path is None:
        return None
    for node in ast.parse(path.read_text("utf-8"), str(path)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == table and isinstance(node.value, ast.Tuple):
            return tuple(_text(entry, path) for entry in node.value.elts)
    raise DataError(f"{path}: expected a table {table}; install the pinned open_clip_torch")


def _text(entry: ast.expr, path: Path) -> str:
    body = entry.body if isinstance(entry, ast.Lambda) else entry
    parts = body.values if isinstance(body, ast.JoinedStr) else [body]
    texts = ["{c}" if isinstance(part, ast.FormattedValue) else ast.literal_eval(part) for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"{path}: line {entry.lineno} is neither a text nor a template")
    return "".join(texts)


def package_file(package: str, file: str) -> Path | None:
    """A file inside an installed package, which is not imported; None where package or file are not there."""
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations if found is not None else None) or ():
        path = Path(folder) / file
        if path.is_file():
            return path
    return None
