import json
from dataclasses import dataclass, field
from typing import Literal

import pytest

from eyesmith.config import check_choices, check_least, from_dict, to_dict
from eyesmith.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Red:
    width: int = 1
    sides: tuple[int, int] = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Blue:
    rate: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Whole:
    part: Red | Blue
    maybe: Blue | None = None
    mode: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    red: Red = field(default_factory=Red)


def test_a_config_survives_json() -> None:
    config = Whole(part=Blue(rate=2.5), names=("x", "y"), red=Red(width=3))
    stored = json.loads(json.dumps(to_dict(config)))
    assert stored["part"] == {"rate": 2.5, "kind": "Blue"}
    assert from_dict(Whole, stored) == config


def test_a_whole_number_may_stand_for_a_float() -> None:
    assert from_dict(Blue, {"rate": 2}).rate == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nmaes": []}, "unknown field 'nmaes'; did you mean names"),
        ({"red": {"widht": 2}}, "unknown field 'red.widht'; did you mean width"),
        ({"red": {"width": "3"}}, "red.width: expected a whole number, got '3'"),
        ({"red": {"width": True}}, "red.width: expected a whole number, got True"),
        ({"part": {"kind": "Green"}}, "part: missing or unknown kind 'Green'"),
        ({"part": {}}, "part: missing or unknown kind 'kind'"),
        ({"mode": "c"}, "mode"),
        ({"red": {"sides": [1, 2, 3]}}, "red.sides"),
    ],
)
def test_a_wrong_field_is_named(change: dict, message: str) -> None:
    stored = to_dict(Whole(part=Red())) | change
    with pytest.raises(ConfigError, match=message.replace("'", ".")):
        from_dict(Whole, stored)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match="missing field 'part'"):
        from_dict(Whole, {})


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    way: Literal["one", "other", "third"] = "one"
    text: str = ""


def test_a_value_beside_those_of_its_type_is_named() -> None:
    check_choices(_Chosen(way="third", text="x"), "run.")
    with pytest.raises(ConfigError, match=r"run.way: expected one, other or third, got 'fourth'"):
        check_choices(_Chosen(way="fourth"), "run.")  # pyright: ignore[reportArgumentType]


def test_a_number_below_what_is_allowed_is_named() -> None:
    check_least(Red(), "red.", width=1)
    with pytest.raises(ConfigError, match=r"^red\.width: expected 2 or more, got 1$"):
        check_least(Red(), "red.", width=2)
