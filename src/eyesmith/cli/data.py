"""`eyesmith data`: make data sets, and find what is wrong with one."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from tyro.conf import Positional

from eyesmith.cli.dispatch import Verb, call, dispatch
from eyesmith.cli.output import AsJson, print_json, print_table

_HERE = "eyesmith.cli.data"
_MAKERS = {
    "emoji": Verb(_HERE, "drawings of animals, nature, food and drink in four styles (fetched with npm)", "emoji"),
    "scenes": Verb(_HERE, "drawn scenes of coloured shapes with captions, boxes, masks and questions", "scenes"),
}
_VERBS = {
    "make": Verb(_HERE, "make a data set: emoji or scenes", "make"),
    "check": Verb(_HERE, "what is wrong with a data set", "check"),
}
Folder = Annotated[Positional[Path], tyro.conf.arg(metavar="DIR", help="The folder to make the data set in.")]
Data = Annotated[
    Positional[str], tyro.conf.arg(metavar="DATA", help="A made data set, tar shards, a table, or a folder of images.")
]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return dispatch(_VERBS, argv, prog=prog, about="Make data sets, and find what is wrong with one.")


def make(argv: list[str], prog: str) -> int:
    """Run `data make` on its own arguments."""
    return dispatch(_MAKERS, argv, prog=prog, about="Make a data set of image-text pairs with fixed splits.")


def emoji(argv: list[str], prog: str) -> int:
    """Run `data make emoji` on its own arguments."""
    return call(_make_emoji, argv, prog=prog)


def scenes(argv: list[str], prog: str) -> int:
    """Run `data make scenes` on its own arguments."""
    return call(_make_scenes, argv, prog=prog)


def check(argv: list[str], prog: str) -> int:
    """Run `data check` on its own arguments."""
    return call(_check, argv, prog=prog)


def _make_emoji(
    folder: Folder,
    /,
    *,
    holdout: Literal["drawing", "style"] = "drawing",
    style: str = "openmoji",
    size_px: int = 72,
    seed: int = 0,
    as_json: AsJson = False,
) -> int:
    """Emoji drawings of 291 concepts in four styles, with captions; a tenth of the concepts is always held out.

    Args:
        holdout: Hold out one drawing of each concept (unseen_drawing), or one style in whole (unseen_style).
        style: The style that `--holdout style` holds out.
        size_px: Height and width of a picture.
        seed: Chooses what is held out.
    """
    from eyesmith.data.emoji import make_emoji

    facts = make_emoji(folder, holdout=holdout, style=style, size_px=size_px, seed=seed)
    return _show(folder, facts, as_json=as_json)


def _make_scenes(
    folder: Folder, /, *, samples: int = 2016, size_px: int = 72, seed: int = 0, as_json: AsJson = False
) -> int:
    """Scenes of coloured shapes, sizes and relations, drawn here; combinations are held out.

    Args:
        samples: How many scenes for training; the other splits have a fixed number of each kind.
        size_px: Height and width of a picture.
        seed: Chooses the scenes and what is held out.
    """
    from eyesmith.data.scenes import make_scenes

    facts = make_scenes(folder, samples=samples, seed=seed, size_px=size_px)
    return _show(folder, facts, as_json=as_json)


def _check(data: Data, /, *, split: str | None = None, workers: int = 2, as_json: AsJson = False) -> int:
    """Read every sample of a data set and name what is wrong with it; exit status 1 when something costs samples.

    Args:
        split: One split of a data set that has several; all of them, and leaks between them, when not given.
        workers: Decoding threads.
    """
    from eyesmith.data.check import check as check_data
    from eyesmith.runs.progress import progress

    with ExitStack() as bars:
        # how many samples there are is known only when the first one has been read
        advance: list[Callable[[int], None]] = []

        def show(done: int, total: int) -> None:
            if not advance:
                bar = progress(Console(stderr=True, highlight=False), f"checking {data}", total, unit="sample")
                advance.append(bars.enter_context(bar))
            advance[0](done)

        found = check_data(data, split, num_workers=workers, on_progress=show)
    if as_json:
        print(found.to_json())
        return found.exit_status
    if found.findings:
        rows = [(one.severity, one.kind, one.where, one.key, one.detail) for one in found.findings]
        print_table(("severity", "kind", "where", "key", "detail"), rows)
    print(
        f"{data}: {found.num_samples} usable samples, {found.num_errors} errors, "
        f"{len(found.findings) - found.num_errors} warnings"
    )
    return found.exit_status


def _show(folder: Path, facts: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        print_json(facts)
        return 0
    rows = [
        (name, split["samples"], len(split.get("classes") or ()) or None) for name, split in facts["splits"].items()
    ]
    print(f"{folder}: {facts['name']}")
    print_table(("split", "samples", "classes"), rows, right=("samples", "classes"))
    return 0
