"""`eyesmith lab vlm` and `lab vlm-fit`: choosing the eye of a language model, by training it and without."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from eyesmith.cli.failures import on_interrupt
from eyesmith.cli.numbers import SEED, Within
from eyesmith.cli.output import AsJson, answer, messages, print_json, print_table
from eyesmith.errors import ConfigError

Eyes = Annotated[
    Positional[tuple[str, ...]],
    tyro.conf.arg(metavar="EYE...", help="Models as `eyesmith.load` takes them; NAME=MODEL gives one a name."),
]


def vlm(
    eyes: Eyes,
    /,
    *,
    data: str = "data/scenes",
    out: Path = Path("runs/vlm"),
    lm: str = "tiny",
    grid: Annotated[tuple[int, int], Within(0)] = (0, 0),
    seeds: Annotated[tuple[int, ...], SEED] = (0, 1, 2),
    epochs: Annotated[float, Within(0)] = 0.0,
    as_json: AsJson = False,
) -> int:
    """Train one language model with each eye, and one that sees nothing, and tell which sees best.

    Runs that are there are not trained again.

    Args:
        data: Scenes with questions.
        out: The folder of all runs and of the page.
        lm: tiny, smollm2, or a folder with a language model.
        grid: Rows and columns of tokens a picture becomes with every eye; 0 0 leaves each its own.
        seeds: Each trains all eyes once.
        epochs: Passes over the data; 0 leaves the recipe's.
    """
    from eyesmith.lab.vlm import run_vlm
    from eyesmith.lab.vlm_page import vlm_sentence, vlm_table, write_vlm_page
    from eyesmith.recipes.chat import chat_scenes
    from eyesmith.tasks.chat import ChatConfig

    base: ChatConfig = chat_scenes()
    base = replace(
        base,
        lm=lm,
        data=replace(base.data, path=data),
        eye=replace(base.eye, grid=grid),
        epochs=epochs or base.epochs,
    )
    with on_interrupt("finished runs are kept; the same command goes on"):
        found = run_vlm(_named(eyes), base, out, seeds, console=messages())
    page = write_vlm_page(found, out / "vlm.html")
    if as_json:
        print_json({**asdict(found), "folder": str(found.folder), "page": str(page)})
        return 0
    columns, rows = vlm_table(found)
    print_table(columns, rows, right=columns[1:])
    answer(vlm_sentence(found))
    answer(str(page))
    return 0


def vlm_fit(
    eyes: Eyes,
    /,
    *,
    data: str = "data/scenes",
    lm: str = "words",
    grid: Annotated[tuple[int, int], Within(0)] = (0, 0),
    reference: str | None = None,
    results: Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Score eyes for a language model without training it.

    Args:
        data: Scenes that say what is in them.
        lm: Whose geometry of captions the eye is compared with: words (shared words alone), smollm2, or a folder.
        grid: Rows and columns of tokens a picture becomes; 0 0 leaves each eye its own.
        reference: An eye, best a CLIP, that the others' tokens are compared with (alignment).
        results: The folder of `lab vlm` with the same eyes, to correlate with.
    """
    from eyesmith.lab.vlm_fit import correlations, fit_eyes

    named = _named(eyes)
    found = fit_eyes(named, data, lm=lm, grid=grid, reference=reference)
    related = correlations(found, results, eyes=named) if results is not None else {}
    if as_json:
        print_json({"eyes": [asdict(one) for one in found], "spearman": related})
        return 0
    columns = ("eye", "probe", "correspondence", "alignment", "gromov-wasserstein")
    rows = [
        (
            one.name,
            f"{100 * one.probe:.1f} %",
            f"{100 * one.correspondence:.1f} %",
            "" if one.alignment is None else f"{one.alignment:.3f}",
            f"{one.distance:.4f}",
        )
        for one in found
    ]
    print_table(columns, rows, right=columns[1:])
    for name, pair in related.items():
        told = "not defined, as all are equal" if pair is None else f"{pair[0]:+.2f} (p = {pair[1]:.2f})"
        answer(f"{name}: Spearman's rank correlation with lab vlm of {len(found)} eyes: {told}")
    return 0


def _named(eyes: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in eyes:
        name, given, source = word.partition("=")
        name, source = (name, source) if given else (Path(word).name, word)
        if not name or not source or name in found:
            raise ConfigError(f"eyes: expected NAME=MODEL with names that differ, got {word!r}")
        found[name] = source
    if not found:
        raise ConfigError("expected eyes to compare: runs/a runs/b, or a=runs/a b=runs/b")
    return found
