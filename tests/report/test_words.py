import math

from eyesmith.report.content import Interval
from eyesmith.report.words import (
    SPLIT_MEANINGS,
    SPLIT_TITLES,
    count,
    duration,
    interval_text,
    params,
    percent,
    shorten,
    split_title,
)


def plain(value: str) -> str:
    return value.replace("\N{NO-BREAK SPACE}", " ")


def test_numbers() -> None:
    assert plain(percent(0.38168)) == "38.2 %"
    assert percent(None) == percent(math.nan) == "–"
    assert count(1234567) == "1,234,567"
    assert plain(params(2_512_345)) == "2.51 M"
    assert plain(params(999)) == "999"
    assert plain(params(1500)) == "1.5 k"
    assert plain(interval_text(Interval(value=0.5, low=0.4, high=0.6))) == "40.0 – 60.0"
    assert interval_text(Interval(value=0.5)) == interval_text(None) == ""


def test_durations() -> None:
    shown = [plain(duration(seconds)) for seconds in (0.26, 59.4, 60.0, 336.2, 3599.7, 7260.0)]
    assert shown == ["0.3 s", "59 s", "1 min", "5 min 36 s", "1 h 0 min", "2 h 1 min"]


def test_unknown_splits_read_as_words() -> None:
    assert split_title("unseen_drawing") == "Unseen drawings"
    assert split_title("my_own_split") == "My own split"
    assert split_title("all") == "All pictures"


def test_every_split_that_is_made_has_a_title_and_a_meaning_of_its_own() -> None:
    made = {f"unseen_{what}{wide}" for what in ("drawing", "concept", "style") for wide in ("", "_wide")}
    made |= {"choose_drawing", "choose_concept", "unseen_combination", "test", "train"}
    assert made <= SPLIT_TITLES.keys() & SPLIT_MEANINGS.keys()
    assert len(set(SPLIT_TITLES.values())) == len(SPLIT_TITLES)


def test_splits_of_what_is_located_are_of_names() -> None:
    assert split_title("all", "segment") == "All names"
    assert split_title("unseen_combination:novel", "detect") == "Unseen combinations: novel names"
    assert split_title("val:odd", "detect") == "Val: odd"


def test_shorten_keeps_one_line_and_whole_characters() -> None:
    assert shorten("a\n b\t c") == "a b c"
    assert shorten("x" * 10_000, 50) == "x" * 49 + "…"
    assert shorten("ab\u0301cd", 3) == "a…"
