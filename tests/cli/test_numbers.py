"""Every number that any verb takes, walked without a list of them: a wrong one is one line and no work at all."""

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from eyesmith.cli import dispatch
from eyesmith.cli.dispatch import Verb
from eyesmith.cli.main import VERBS, main
from eyesmith.cli.numbers import Within, Written, check_place
from eyesmith.cli.overrides import as_options, parse_config
from eyesmith.data.curate.plan import PLAN_SUMMARIES, named_run
from eyesmith.errors import ConfigError, EyesmithError, InputError
from eyesmith.recipes import RECIPES

MODULES = {verb.module for verb in VERBS.values()}
BAD = ("-1", "nan", "inf", "-inf", "1e999")


def _leaf_verbs(verbs: dict[str, Verb], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Verb]]:
    for name, verb in verbs.items():
        module = importlib.import_module(verb.module)
        tables = {"data": "_VERBS", "make": "_MAKERS", "curate": "_VERBS", "lab": "_VERBS"}
        if name in tables and hasattr(module, tables[name]):
            yield from _leaf_verbs(getattr(module, tables[name]), (*before, name))
        else:
            yield (*before, name), verb


class _Found(BaseException):
    """Ends a verb where its arguments would be read."""


def _reads(module: ModuleType, words: tuple[str, ...], verb: Verb, patch: pytest.MonkeyPatch) -> Any:
    """The function that the verb hands to `call`, or the config that it hands to `parse_config`."""
    found: list[Any] = []

    def note(what: Any, *_: Any, **__: Any) -> Any:
        found.append(what)
        raise _Found

    for name in ("call", "parse_config"):
        if hasattr(module, name):
            patch.setattr(module, name, note)
    first = {"train": ["debug"], "lab": ["laptop"]}.get(words[0], []) if words[-1] in ("train", "run", "report") else []
    first = [] if words == ("report",) else first
    argv = ["--data", "x"] if words == ("alternate",) else first
    with pytest.raises(_Found):
        verb(argv, prog=" ".join(("eyesmith", *words)))
    return found[0]


LEAVES = list(_leaf_verbs(VERBS))
COMMANDS = ["/".join(words) for words, _ in LEAVES]


def _options(function: Callable[..., int]) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Name, type and marks of every option; those of a config are options by themselves."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        marks = getattr(parameter.annotation, "__metadata__", ())
        kind = getattr(parameter.annotation, "__origin__", parameter.annotation) if marks else parameter.annotation
        if dataclasses.is_dataclass(kind):
            hints = typing.get_type_hints(kind)
            yield from ((field.name, hints[field.name], ()) for field in dataclasses.fields(kind))
        else:
            yield name, kind, marks


def _is_number(kind: Any) -> bool:
    return kind in (int, float) or any(map(_is_number, typing.get_args(kind)))


def _least_words(function: Callable[..., int]) -> list[str]:
    """What a command line cannot go without, so that its numbers are looked at."""
    words: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind = parameter.annotation
        kind = kind.__origin__ if hasattr(kind, "__metadata__") else kind
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            words.append("nothing-here")
        elif parameter.default is inspect.Parameter.empty and not dataclasses.is_dataclass(kind):
            choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else []
            word = choices[0] if choices else "1" if _is_number(kind) else "nothing-here.npz"
            words += [f"--{name.replace('_', '-')}", word]
    if "train" in {name for name, _, _ in _options(function)}:
        words += ["--train", "nothing-here"]
    return words


def test_the_walk_reaches_every_verb() -> None:
    assert {words[0] for words, _ in LEAVES} == VERBS.keys()
    assert ("data", "make", "scenes") in [words for words, _ in LEAVES]
    assert ("curate", "reshard") in [words for words, _ in LEAVES]


@pytest.mark.parametrize(("words", "verb"), LEAVES, ids=COMMANDS)
def test_wrong_numbers_are_refused_before_any_work(
    words: tuple[str, ...], verb: Verb, tmp_path: Path, eyesmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    module = importlib.import_module(verb.module)
    with pytest.MonkeyPatch.context() as patch:
        reads = _reads(module, words, verb, patch)
    if not inspect.isfunction(reads):
        _fields_are_refused(reads)
        return
    for name, kind, marks in _options(reads):
        if not _is_number(kind):
            continue
        bad = list(BAD[: 1 if int in (kind, *typing.get_args(kind)) else None])
        within = next((mark for mark in marks if isinstance(mark, Within)), None)
        if within is None and name not in ("shuffle_window", "seed", "alpha", "shrinkage"):  # 0 has a meaning there
            bad.append("0")
        if within is not None and within.most < 10:
            bad.append("1.5")
        for value in bad:
            head = (
                ["--head", "gaussian"] if words == ("probe",) and name in ("shrinkage", "alpha") else []
            )  # it is theirs
            option = f"--{name.replace('_', '-')}"
            count = 2 if (*words, name) in (("export", "image_size"), ("lab", "vlm", "grid")) else 1
            status, out, err = eyesmith(*words, *_least_words(reads), *head, option, *[value] * count)
            what = f"{' '.join(words)} {option} {value}: {err}"
            assert (status, out) == (2, ""), what
            assert err.startswith(f"eyesmith: {name.replace('_', '-')}: expected ") or name in err, what
            assert err.count("\n") == 1, what
            assert "expected" in err, what
    assert list(tmp_path.iterdir()) == []


def _fields_are_refused(config: Any) -> None:
    names = [name for name, kind in _numeric_fields(config)]
    assert names
    for name in names:
        end = name.rpartition(".")[2]
        for value in BAD:
            if value in ("inf", "1e999") and name == "balance.threshold":
                continue
            if value == "-1" and end in ("mean", "init_bias", "threshold", "min_similarity", "tail_share"):
                continue
            with pytest.raises(ConfigError, match=rf"^{name}: expected .*, got {value}$"):
                as_options([f"{name}={value}"], config, prog="x")
            with pytest.raises(ConfigError, match=rf"^{name}: expected .*, got {value}$"):
                as_options([f"--{name}", value], config, prog="x")


def _numeric_fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _numeric_fields(value, f"{prefix}{field.name}.")
        elif _is_number(hints[field.name]):
            yield prefix + field.name, hints[field.name]


def test_no_recipe_or_plan_takes_them() -> None:
    seen: set[tuple[str, ...]] = set()
    for config in [make() for make in RECIPES.values()] + [named_run(name) for name in PLAN_SUMMARIES]:
        names = tuple(name for name, _ in _numeric_fields(config))
        if names not in seen:  # recipes of one task differ in their values alone
            seen.add(names)
            _fields_are_refused(config)
    assert len(seen) > 5


@pytest.mark.parametrize(
    "field",
    ["batch_size", "epochs", "optim.peak_lr", "optim.eps", "data.decode_px", "data.num_workers", "log_every_steps",
     "save_every_steps", "keep_states", "accumulate", "model.init_scale", "eval.every_epochs", "model.text.width"],
)  # fmt: skip
def test_nought_is_refused_where_it_means_nothing(field: str) -> None:
    with pytest.raises(ConfigError, match=field.rpartition(".")[2]):
        parse_config(RECIPES["debug"](), [f"{field}=0"], prog="x")


def test_a_verb_without_its_arguments_says_what_it_needs(
    tmp_path: Path, eyesmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    works_alone = {("models",), ("quickstart",), ("lab", "plans"), ("lab", "encoders"), ("train",)}  # train: help
    for words, _ in LEAVES:
        if words in works_alone:
            continue
        status, out, err = eyesmith(*words)
        assert (status, out, err.count("\n")) == (2, "", 1), f"{words}: {out}{err}"
        assert err.startswith("eyesmith: "), f"{words}: {err}"
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_tried_first(
    tmp_path: Path, eyesmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for words in (
        "embed none none --out file/below/x.npz",
        "embed none none --out folder",
        "report none --out file/x.html",
        "average file none none",
        "export none file/below",
        "probe none --train none --out file",
        "data make scenes file",
        "data make emoji file/below",
        "data make evaluation file",
        "data fetch datacomp --to file",
        "curate basic --pool none --out file/below",
        "curate reshard none --subset none --out file",
        "curate marks none --out file/x.npz",
        "curate make-pool file",
        "train debug --out file/below",
        "alternate --data none --out file/below",
        "lab run laptop out=file",
        "quickstart folder=file/run",
    ):
        status, out, err = eyesmith(*words.split())
        assert (status, out, err.count("\n")) == (2, "", 1), f"{words}: {out}{err}"
        assert err.startswith("eyesmith: "), f"{words}: {err}"
        assert "choose another place" in err, f"{words}: {err}"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


def test_every_written_place_is_marked() -> None:
    marked = [words for words, verb in LEAVES for mark in _marks(verb) if isinstance(mark, Written)]
    assert len(marked) >= 8


def _marks(verb: Verb) -> Iterator[Any]:
    module = importlib.import_module(verb.module)
    for function in vars(module).values():
        if inspect.isfunction(function) and function.__module__ == verb.module:
            for parameter in inspect.signature(function).parameters.values():
                yield from getattr(parameter.annotation, "__metadata__", ())


def test_a_place_leaves_nothing_behind(tmp_path: Path) -> None:
    check_place("out", tmp_path / "a" / "b", "folder")
    check_place("out", tmp_path / "a.npz", "file")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="out: expected a file to write"):
        check_place("out", tmp_path, "file")


def test_empty_and_missing_names_are_said_before_the_model_is_read(tmp_path: Path, photos: Path, eyesmith) -> None:
    (tmp_path / "names.txt").write_text("\n\n")
    (tmp_path / "twice.txt").write_text("cat\ncat\n")
    for words, message in (
        (["--names-file", tmp_path / "names.txt"], "names.txt: expected one name a line"),
        (["--names-file", tmp_path / "none.txt"], "none.txt"),
        (["--names-file", tmp_path / "twice.txt"], "'cat' is given twice"),
        (["--names", "cat", ""], "class name 2 is empty"),
        (["--names", "cat", "dog", "--prompts", "a photo"], "has no {}"),
    ):
        status, out, err = eyesmith("classify", tmp_path / "no-model", photos, *words)
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert message in err
    status, _, err = eyesmith("search", tmp_path / "no-model", photos, "  ")
    assert status == 2
    assert "the text to search for is empty" in err


def test_parser_and_checks_share_one_style(eyesmith) -> None:
    for words in ("search a b c --top x", "search a b c --top 0", "train debug batch_size=x", "convert a b --to c"):
        status, _, err = eyesmith(*words.split())
        assert status == 2
        assert ": expected " in err, err
    assert issubclass(InputError, EyesmithError)
    assert dispatch.call is not None
    assert main(["--version"]) == 0
