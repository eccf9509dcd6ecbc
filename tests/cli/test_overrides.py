from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from eyesmith.cli.overrides import parse_config
from eyesmith.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Wide:
    widths: tuple[int, ...] = (1, 2)
    is_deep: bool = False


@dataclass(frozen=True, kw_only=True)
class Tall:
    height: int = 3


@dataclass(frozen=True, kw_only=True)
class Run:
    model: Wide | Tall = field(default_factory=Wide)
    peak_lr: float = 0.5
    precision: Literal["auto", "fp32"] = "auto"
    split: str | None = None
    prompts: tuple[str, ...] = ("a {}",)
    baseline: bool = True
    data: Path = Path("data")


def parse(*words: str, config: Run | None = None) -> Run:
    return parse_config(config or Run(), list(words), prog="eyesmith train x")


@pytest.mark.parametrize(
    "words",
    [
        ["model.widths=3,4,5", "peak_lr=2", "split=test", "baseline=false", "data=b"],
        ["--model.widths", "3", "4", "5", "--peak_lr", "2", "--split", "test", "--baseline", "False", "--data", "b"],
        ["--model.widths=(3, 4, 5)", "--peak-lr=2", "--split=test", "--no-baseline", "--data=b"],
        ["--no_baseline", "model.widths=[3,4,5]", "--peak_lr", "2.0", "split=test", "data=b"],
    ],
)
def test_both_forms_say_the_same(words: list[str]) -> None:
    want = Run(model=Wide(widths=(3, 4, 5)), peak_lr=2.0, split="test", baseline=False, data=Path("b"))
    assert parse(*words) == want


def test_a_switch_needs_no_value() -> None:
    assert parse("--model.is_deep", "peak_lr=1") == Run(model=Wide(is_deep=True), peak_lr=1.0)
    assert parse("--model.is-deep", "no") == Run()
    assert parse("model.is_deep=on") == Run(model=Wide(is_deep=True))


def test_values_after_an_option_may_hold_an_equals_sign() -> None:
    assert parse("--prompts", "a {}", "size=big {}").prompts == ("a {}", "size=big {}")
    assert parse("split=a=b").split == "a=b"
    assert parse("--split", "a=b", "data=c") == Run(split="a=b", data=Path("c"))


@pytest.mark.parametrize(
    ("typed", "want"),
    [
        ("""("a {}","big {}")""", ("a {}", "big {}")),
        ("""['a {}', "it's {}",]""", ("a {}", "it's {}")),
        ("""('runs/my pictures',)""", ("runs/my pictures",)),
        ("it's,b", ("it's", "b")),
        ("", ()),
        ('""', ("",)),
        ('"text (small)",x', ("text (small)", "x")),
    ],
)
def test_items_of_a_list_may_stand_in_quotes(typed: str, want: tuple[str, ...]) -> None:
    """Quotes were part of the item, and a blank in it ended it."""
    assert parse(f"prompts={typed}").prompts == want
    assert parse(f"--prompts={typed}").prompts == want


def test_a_union_keeps_the_kind_of_the_recipe() -> None:
    assert parse("model.height=5", config=Run(model=Tall())).model == Tall(height=5)
    with pytest.raises(ConfigError, match="unknown field 'model.widths'"):
        parse("model.widths=5", config=Run(model=Tall()))


@pytest.mark.parametrize(
    ("word", "closest"),
    [
        ("peek_lr=1", "peak_lr"),
        ("lr=1", "peak_lr"),
        ("--widths", "model.widths"),
        ("model.width=3", "model.widths"),
        ("--no-baselin", "baseline"),
    ],
)
def test_an_unknown_field_names_the_closest(word: str, closest: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown field .*did you mean .*{closest}"):
        parse(word)


@pytest.mark.parametrize(
    "words", [("fast",), ("--peak_lr", "1", "fast"), ("peak_lr=1", "fast"), ("--baseline", "no", "fast")]
)
def test_a_word_that_is_no_override_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="expected field=value or --field value, got 'fast'"):
        parse(*words)


def test_a_wrong_value_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="^precision: expected one of 'auto', 'fp32', got 'fp16'; [^\n]*$"):
        parse("precision=fp16")
    with pytest.raises(ConfigError, match="^peak_lr: expected a number, got 'x'; "):
        parse("peak_lr=x")
    assert capsys.readouterr().err == ""


def test_help_shows_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for name in ("--model.widths", "--model.is_deep", "--peak_lr", "--precision", "--split", "--prompts", "--data"):
        assert name in out
