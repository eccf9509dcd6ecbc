"""What the best cell and a plain one say about the same held-out pictures."""

from collections.abc import Sequence
from pathlib import Path

from eyesmith.errors import EyesmithError
from eyesmith.eval.sets.made import WHOLE
from eyesmith.hub.load import load_clip
from eyesmith.hub.run_folder import MODEL_FILE
from eyesmith.lab.answers.spread import Metric, has
from eyesmith.lab.result import CellResult, LabResults
from eyesmith.report.markup import Child, Markup, element, join
from eyesmith.report.pictures import image
from eyesmith.report.predictions import Predictions, predict
from eyesmith.report.thumbnails import thumbnail
from eyesmith.report.words import percent, shorten, split_title

NUM_PICTURES = 18
RUN = "run"  # below a cell's folder, where its weights are
PLAIN = "ViT"  # the family beside which the best is shown


def samples_section(results: LabResults, metric: Metric | None, notices: list[str]) -> Markup | None:
    """Every k-th picture of the split with two cells' first guesses; None (and a notice) where none kept weights."""
    chosen = choose_cells(results.cells, metric) if metric is not None and metric.task == "zero_shot" else []
    if not chosen or metric is None:
        notices.append("No cell kept its weights, so no predictions are shown.")
        return None
    found: list[tuple[CellResult, Predictions]] = []
    for cell in chosen:
        try:
            split = None if metric.split == WHOLE else metric.split
            made = predict(load_clip(cell.folder / RUN), results.plan.eval_data or cell.data, split)
        except (EyesmithError, OSError) as error:
            notices.append(f"No predictions of {cell.id} can be shown: {error}")
            continue
        if made is not None:
            found.append((cell, made))
    if not found:
        return None
    first = found[0][1]
    order = sorted(range(len(first.indices)), key=lambda row: first.source.keys[first.indices[row]])
    num = min(NUM_PICTURES, len(order))
    rows = [order[(2 * place + 1) * len(order) // (2 * num)] for place in range(num)]
    names = [f"{cell.encoder} {cell.size}" for cell, _ in found]
    return element(
        "section",
        element("h2", "What they see", id="samples-title"),
        element(
            "p",
            f"{split_title(metric.split)}: {num} of {len(order)}, every k-th in the order of their keys, none "
            f"chosen by hand. Under each the first guess of {' and of '.join(names)}, with the model's probability; a "
            "right one is coloured.",
        ),
        element("ul", [_card(row, found) for row in rows], class_="cards"),
        id="samples",
        aria_labelledby="samples-title",
    )


def choose_cells(cells: Sequence[CellResult], metric: Metric | None) -> list[CellResult]:
    """The best cell with weights, and a plain one of the same size, budget, recipe and data; else the worst."""
    kept = [
        cell
        for cell in cells
        if metric is not None and has(cell, metric) and (Path(cell.folder) / RUN / MODEL_FILE).is_file()
    ]
    if metric is None or not kept:
        return []

    def value(cell: CellResult) -> float:
        return cell.value(metric.split, metric.metric, metric.task)

    best = max(kept, key=value)
    rivals = [cell for cell in kept if cell.encoder != best.encoder]
    same = [
        cell
        for cell in rivals
        if (cell.size, cell.level, cell.recipe, cell.data) == (best.size, best.level, best.recipe, best.data)
    ]
    plain = [cell for cell in same if cell.family == PLAIN]
    pool = plain or same or rivals
    return [best, *([max(plain, key=value) if plain else min(pool, key=value)] if pool else [])]


def _card(row: int, found: Sequence[tuple[CellResult, Predictions]]) -> Markup:
    first = found[0][1]
    index = first.indices[row]
    truth = first.names[int(first.targets[row])]
    lines: list[Child] = []
    for cell, made in found:
        if index not in made.indices:
            continue
        mine = made.indices.index(index)
        guess = int(made.probabilities[mine].argmax())
        is_right = int(made.ranks[mine]) == 0
        lines.append(
            element(
                "li",
                element("span", f"{'✓' if is_right else '✗'} {shorten(made.names[guess], 50)}"),
                element("span", percent(float(made.probabilities[mine, guess]))),
                class_="true" if is_right else None,
                style=f"--p:{100 * float(made.probabilities[mine, guess]):.1f}%",
                title=f"{cell.encoder} {cell.size}",
            )
        )
    picture = thumbnail(first.source.image_bytes(index))
    text = element("div", element("p", shorten(truth, 60), class_="truth"), element("ol", lines, class_="guesses"))
    return element("li", image(picture, truth), join(text), class_="card")
