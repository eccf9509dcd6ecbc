"""What a plan costs before it is run: images, operations, and time by cells that were run here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eyesmith.lab.budget import train_flops
from eyesmith.lab.cells import Cell
from eyesmith.lab.folder import cell_folder, is_done, read_result

NOMINAL_FLOPS = 25e9  # a second on one core, where no cell was run yet: half of what small products reach


@dataclass(frozen=True, kw_only=True)
class CellCost:
    """One cell: what it trains, operations (a multiply-add is 2), and seconds it will take or took."""

    id: str
    samples: int
    tflop: float
    seconds: float
    is_measured: bool
    """Whether `seconds` comes from cells that were run in this folder."""
    is_done: bool


def costs(cells: Sequence[Cell], out: Path) -> list[CellCost]:
    """The cost of each cell; seconds are those of a cell by itself with the threads it was given.

    A cell that was not run takes the rate of finished ones with its encoder, size and recipe, else of any, else a
    nominal rate.
    """
    done = {cell.id: is_done(cell_folder(out, cell.id)) for cell in cells}
    took = {cell.id: read_result(cell_folder(out, cell.id), cell).train_s for cell in cells if done[cell.id]}
    alike: dict[tuple[str, str, str], list[float]] = {}
    flops = {cell.id: train_flops(cell.config) * cell.samples for cell in cells}
    for cell in cells:
        if cell.id in took:
            alike.setdefault(_kind(cell), []).append(took[cell.id] / cell.samples)
    overall = sum(took.values()) / sum(flops[name] for name in took) if took else 1 / NOMINAL_FLOPS
    found = []
    for cell in cells:
        rates = alike.get(_kind(cell))
        seconds = took.get(cell.id) or (cell.samples * sum(rates) / len(rates) if rates else flops[cell.id] * overall)
        found.append(
            CellCost(
                id=cell.id,
                samples=cell.samples,
                tflop=flops[cell.id] / 1e12,
                seconds=seconds,
                is_measured=bool(took),
                is_done=done[cell.id],
            )
        )
    return found


def _kind(cell: Cell) -> tuple[str, str, str]:
    return cell.contender.encoder, cell.contender.size, cell.recipe
