"""The large world: whole names only, what the small world holds out, and splits that do not depend on what is asked."""

import hashlib
import json
from pathlib import Path

import pytest

from eyesmith.data.make.icons import GROUPS, STYLES
from eyesmith.data.make.names import NameMatcher, alike_drawings, refused_names, slug
from eyesmith.data.make.npm import is_cached
from eyesmith.data.make.world_splits import assign_large_splits, assign_splits
from eyesmith.data.make.worlds import read_world
from eyesmith.errors import ConfigError
from eyesmith.files import cache_folder

SMALL = {f"{number:X}" for number in range(40)}
OTHERS = {f"{number:X}" for number in range(100, 260)}
MORE = ("noto-v1", "emojione", "fxemoji")
REAL = cache_folder()


def available(codes: set[str], styles: int = 7) -> dict[str, list[str]]:
    return {code: [*STYLES, *MORE][: 1 + (int(code, 16) % styles)] for code in sorted(codes)}


def splits(codes: set[str], **changes) -> dict[str, list[tuple[str, str]]]:
    how = {"holdout": "drawing", "style": "openmoji", "seed": 0} | changes
    return assign_large_splits(available(codes), SMALL & codes, **how)


@pytest.mark.parametrize("holdout", ["drawing", "style"])
@pytest.mark.parametrize("seed", [0, 5])
def test_every_drawing_is_in_one_split_and_unseen_concepts_are_in_no_other(holdout, seed):
    found = splits(SMALL | OTHERS, holdout=holdout, seed=seed)
    members = [one for some in found.values() for one in some]
    everything = {(code, style) for code, styles in available(SMALL | OTHERS).items() for style in styles}
    assert len(members) == len(set(members))
    assert set(members) == everything
    hidden = [name for name in found if "concept" in name]
    for code in {code for name in hidden for code, _ in found[name]}:
        assert not any(code == other for name in set(found) - set(hidden) for other, _ in found[name])
    train = {code for code, _ in found["train"]}
    assert all(code in train for name in set(found) - set(hidden) for code, _ in found[name] if holdout == "drawing")
    if holdout == "style":
        assert {style for name in found if name.startswith("unseen_style") for _, style in found[name]} == {"openmoji"}
        assert "openmoji" not in {style for _, style in found["train"]}


def test_what_the_small_world_holds_out_is_held_out_here_too():
    found = splits(SMALL | OTHERS)
    four = {code: [one for one in styles if one in STYLES] for code, styles in available(SMALL).items()}
    small = assign_splits(four, holdout="drawing", style="openmoji", seed=0)
    assert set(found["unseen_drawing"]) == set(small["unseen_drawing"])
    assert set(found["unseen_concept"]) == set(small["unseen_concept"])


def test_names_are_matched_whole_one_to_one_by_the_most_trusted_kind():
    labels = {"A": ["red apple"], "B": ["green apple"], "C": ["crying cat"], "D": ["party popper"], "E": ["baby"]}
    codes = {"A": ["apple"], "B": ["apple"], "C": ["sad-cat"], "D": ["tada", "hooray"], "E": ["red-apple"]}
    matcher = NameMatcher([labels, codes])
    names = ["red-apple", "apple", "cat", "tada", "hooray", "baby", "crying-cat"]
    found, left_out = matcher.match(names, refused=["baby"])
    assert found == {"A": "red-apple", "C": "crying-cat"}  # two shortcodes claim the popper, one apple means two things
    assert left_out == {"refused": 1, "unknown": 1, "doubtful": 3}
    assert matcher.match(["redapple", "cryingcat"], is_joined=True)[0] == {"A": "redapple", "C": "cryingcat"}
    assert slug("Ogre’s “Piñata” & Co") == "ogres-pinata-and-co"


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match="world: expected 'large' or 'small'"):
        read_world("huge")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="groups: expected some of"):
        read_world("large", groups=("plants",))
    with pytest.raises(ConfigError, match="the small world has its own"):
        read_world("small", groups=("objects",))
    with pytest.raises(ConfigError, match="fxemoji"):
        read_world("large", holdout="style", style="comic")


def _is_there() -> bool:
    from eyesmith.data.make import icons

    return all(is_cached(package) for package in (icons.NAMES, *icons.STYLES.values(), *icons.NAMED_STYLES.values()))


@pytest.mark.skipif(not _is_there(), reason="the real packages are not in the cache")
def test_the_real_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Which drawings each split has, by a hash; and that leaving kinds out moves nothing."""
    monkeypatch.setenv("EYESMITH_CACHE", str(REAL))
    world = read_world("large")
    counts = {name: len(members) for name, members in world.splits.items()}
    assert counts == {
        "train": 7646,
        "unseen_drawing": 262,
        "unseen_concept": 116,
        "unseen_drawing_wide": 1147,
        "unseen_concept_wide": 1111,
        "choose_drawing": 1338,
        "choose_concept": 485,
    }
    content = json.dumps({name: list(map(list, members)) for name, members in world.splits.items()})
    digest = hashlib.sha256(content.encode()).hexdigest()
    assert digest == "343097a33ee78d0280d22f243cd10f134af3b794d2f8d5603b76c642c51074f5"
    fewer = read_world("large", groups=GROUPS)
    assert all(set(members) <= set(world.splits[name]) for name, members in fewer.splits.items())
    assert len(fewer.splits["unseen_drawing"]) == 262
    left = {(code, style) for style, codes in alike_drawings().items() for code in codes}
    assert not left & {member for members in world.splits.values() for member in members}
    assert {source["licence"] for source in world.sources} == {"Apache-2.0", "CC-BY-4.0", "CC-BY-SA-4.0", "MIT"}
    assert world.left_out["fluent-emoji: refused"] == len(refused_names()["fluent-emoji"])
