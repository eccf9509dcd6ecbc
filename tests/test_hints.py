"""A message never names a field that does not exist."""

import ast
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import eyesmith
from eyesmith.recipes import RECIPES

SECTIONS = ("data", "eval", "optim", "augment", "transform", "health", "parallel", "initial", "mask", "teacher")
HINT = re.compile(rf"(?<![\w./`'\"])({'|'.join(SECTIONS)})\.([a-z][a-z0-9_]*)(?![\w(/.])")
BARE = re.compile(r"(?<![\w.\[{(])([a-z][a-z_]+)=(?=[\w'\[{.]|\Z)")
# of a lab's plan, of a curation, the word itself, arguments of Python
OTHERS = {"recipes", "executor", "field", "over", "alpha", "size", "folder"}


def known_fields() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}

    def add(config: Any) -> None:
        for one in fields(config):
            value = getattr(config, one.name)
            if is_dataclass(value):
                found.setdefault(one.name, set()).update(inner.name for inner in fields(value))
                add(value)

    for recipe in RECIPES.values():
        add(recipe())
    return found


def messages(tree: ast.AST) -> list[str]:
    """The literal parts of what is raised."""
    return [
        part.value
        for raised in ast.walk(tree)
        if isinstance(raised, ast.Raise)
        for part in ast.walk(raised)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


def test_fields_in_messages_are_fields_of_a_config() -> None:
    known, seen = known_fields(), 0
    every = OTHERS.union(*known.values(), *({one.name for one in fields(make())} for make in RECIPES.values()))
    for path in Path(eyesmith.__file__).parent.rglob("*.py"):
        for message in messages(ast.parse(path.read_text("utf-8"))):
            for section, name in HINT.findall(message):
                seen += 1
                assert name in known[section], f"{path}: {section}.{name} in {message!r}"
            for name in BARE.findall(message):
                assert name in every, f"{path}: {name}= in {message!r}"
    assert seen > 20
