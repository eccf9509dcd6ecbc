"""`eyesmith data make`: data sets that are drawn here."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import Verb, call, dispatch
from eyesmith.cli.numbers import Seed, Written
from eyesmith.cli.output import AsJson, answer, bars, print_json, print_table

_HERE = "eyesmith.cli.data_make"
_MAKERS = {
    "emoji": Verb(
        _HERE, "drawings of animals, food, things, people and signs in ten styles (fetched with npm)", "emoji"
    ),
    "emoji-scenes": Verb(
        _HERE, "scenes of emoji drawings on all kinds of backgrounds, with boxes, masks and questions", "emoji_scenes"
    ),
    "scenes": Verb(_HERE, "drawn scenes of coloured shapes with captions, boxes, masks and questions", "scenes"),
    "evaluation": Verb(
        _HERE, "miniature copies of all evaluation sets, to try a suite without a download", "evaluation"
    ),
}
Group = Literal[  # data.make.icons.ALL_GROUPS, which costs a second to import
    "animals-nature",
    "food-drink",
    "travel-places",
    "activities",
    "objects",
    "symbols",
    "smileys-emotion",
    "people-body",
]
Folder = Annotated[
    Positional[Path], Written("folder"), tyro.conf.arg(metavar="DIR", help="The folder to make the data set in.")
]


def main(argv: list[str], prog: str) -> int:
    """Run `data make` on its own arguments."""
    return dispatch(_MAKERS, argv, prog=prog, about="Make a data set of image-text pairs with fixed splits.")


def emoji(argv: list[str], prog: str) -> int:
    """Run `data make emoji` on its own arguments."""
    return call(_make_emoji, argv, prog=prog)


def emoji_scenes(argv: list[str], prog: str) -> int:
    """Run `data make emoji-scenes` on its own arguments."""
    return call(_make_emoji_scenes, argv, prog=prog)


def scenes(argv: list[str], prog: str) -> int:
    """Run `data make scenes` on its own arguments."""
    return call(_make_scenes, argv, prog=prog)


def evaluation(argv: list[str], prog: str) -> int:
    """Run `data make evaluation` on its own arguments."""
    return call(_make_evaluation, argv, prog=prog)


def _make_emoji(
    folder: Folder,
    /,
    *,
    world: Literal["large", "small"] = "large",
    holdout: Literal["drawing", "style"] = "drawing",
    style: str = "openmoji",
    groups: tuple[Group, ...] = get_args(Group),
    size_px: int = 72,
    seed: Seed = 0,
    alpha: bool = False,
    as_json: AsJson = False,
) -> int:
    """Emoji drawings, one concept in several styles, with captions; a tenth of the concepts is always held out.

    Args:
        world: Large: 1,644 concepts of all kinds in ten styles. Small: 291 animals, plants, food and drink in four.
        holdout: Hold out one drawing of each concept (unseen_drawing), or one style in whole (unseen_style).
        style: The style that `--holdout style` holds out.
        groups: Which kinds of concepts the large world has; leave out, say, people-body and smileys-emotion.
        size_px: Height and width of a picture.
        seed: Chooses what is held out.
        alpha: Keep pictures transparent where nothing is drawn (RGBA), instead of white.
    """
    from eyesmith.data.make.emoji import make_emoji

    facts = make_emoji(
        folder, world=world, holdout=holdout, style=style, groups=groups, size_px=size_px, seed=seed, alpha=alpha
    )
    return _show(folder, facts, as_json=as_json)


def _make_emoji_scenes(
    folder: Folder,
    /,
    *,
    world: Literal["large", "small"] = "large",
    groups: tuple[Group, ...] = ("animals-nature", "food-drink"),
    samples: int = 4000,
    test_samples: int = 500,
    size_px: int = 224,
    seed: Seed = 0,
    novel: Literal["unseen", "known"] = "unseen",
    as_folder: bool = False,
    workers: int = 2,
    as_json: AsJson = False,
) -> int:
    """Scenes of 1 to 8 emoji drawings: boxes, masks, relations, captions, questions, COCO json; run again to go on.

    Args:
        world: Where the drawings come from, as `data make emoji` has it; the small one has no split to choose by.
        groups: Which kinds of concepts of the large world.
        samples: How many scenes for training.
        test_samples: How many in each of the other splits.
        size_px: Height and width of a picture.
        seed: Chooses the scenes.
        novel: Which concepts no training scene holds: those that no training drawing shows either, or every fifth of
            those that an eye trained on drawings knows.
        as_folder: Write the pictures as single files too, images/SPLIT/KEY.jpg beside annotations/SPLIT.json.
        workers: Processes; the data set is the same with any number, 0 makes it in this one.
    """
    from eyesmith.data.make.emoji_scenes import make_emoji_scenes

    with bars(unit="scene") as show:
        facts = make_emoji_scenes(
            folder,
            world=world,
            groups=groups,
            samples=samples,
            test_samples=test_samples,
            size_px=size_px,
            seed=seed,
            novel=novel,
            as_folder=as_folder,
            workers=workers,
            on_progress=lambda done, total: show(f"drawing {folder}", done, total),
        )
    return _show(folder, facts, as_json=as_json)


def _make_scenes(
    folder: Folder, /, *, samples: int = 2016, size_px: int = 72, seed: Seed = 0, as_json: AsJson = False
) -> int:
    """Scenes of coloured shapes, sizes and relations, drawn here; combinations are held out.

    Args:
        samples: How many scenes for training; the other splits have a fixed number of each kind.
        size_px: Height and width of a picture.
        seed: Chooses the scenes and what is held out.
    """
    from eyesmith.data.make.scenes import make_scenes

    facts = make_scenes(folder, samples=samples, seed=seed, size_px=size_px)
    return _show(folder, facts, as_json=as_json)


def _make_evaluation(
    folder: Annotated[
        Positional[Path], Written("folder"), tyro.conf.arg(metavar="DIR", help="The folder to make the sets in.")
    ],
    tasks: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="TASK", help="Task keys; all of them.")] = (),
    /,
    *,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> int:
    """A few drawn pictures of each evaluation set, in its exact layout; numbers on them say nothing about a model.

    Args:
        seed: Chooses the pictures.
    """
    from eyesmith.data.make import make_miniatures

    made = make_miniatures(folder, tasks or None, seed=seed)
    if as_json:
        print_json({key: str(place) for key, place in made.items()})
    else:
        print_table(("task", "folder"), list(made.items()))
    return 0


def _show(folder: Path, facts: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        print_json(facts)
        return 0
    rows = [
        (name, split["samples"], len(split.get("classes") or ()) or None) for name, split in facts["splits"].items()
    ]
    answer(f"{folder}: {facts['name']}")
    print_table(("split", "samples", "classes"), rows, right=("samples", "classes"))
    return 0
