"""A plan, whole: its cells run, its contenders measured, its answers written. Called again it goes on."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from eyesmith.config import to_dict
from eyesmith.errors import CheckpointError, ConfigError, MissingDependencyError
from eyesmith.files import write_json
from eyesmith.lab.budget import samples_of
from eyesmith.lab.cells import Cell, cells_of, data_facts, data_of
from eyesmith.lab.folder import PLAN_FILE, cell_folder, check_data, is_done, read_failure, read_result, write_request
from eyesmith.lab.grid import GridState, run_grid
from eyesmith.lab.measure import measured
from eyesmith.lab.place import PlaceConfig, open_place
from eyesmith.lab.plan import LabPlan
from eyesmith.lab.result import LabResults, Measured
from eyesmith.models.registry import register_encoder
from eyesmith.models.text.hugging_face import HuggingFaceTextConfig, locate
from eyesmith.runs.machine import machine_facts
from eyesmith.train.callbacks.progress import progress


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A plan with where and how it is run. encoder_files: of encoders that are no part of this library."""

    plan: LabPlan
    out: Path = Path("runs/lab")
    place: PlaceConfig = field(default_factory=PlaceConfig)
    encoder_files: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Of the plan's answers."""
        return self.out / self.plan.name

    def cells(self) -> list[Cell]:
        """All cells of the plan.

        Raises ConfigError and DataError where it cannot be run, or a finished cell was of other data, and what `locate`
        raises where a recipe's frozen text encoder is not on this machine.
        """
        for file in self.encoder_files:
            register_encoder(file)
        facts = data_facts(list(dict.fromkeys([*data_of(self.plan), *filter(None, [self.plan.eval_data])])))
        cells = cells_of(self.plan, facts, samples_of(self.plan, self.folder, threads=self.place.threads))
        for text in {cell.config.model.text for cell in cells}:
            if isinstance(text, HuggingFaceTextConfig):
                _check_text_encoder(text)
        for cell in cells:
            if is_done(folder := cell_folder(self.out, cell.id)):
                check_data(folder, cell)
        return cells


def _check_text_encoder(text: HuggingFaceTextConfig) -> None:
    try:
        locate(text.source)
    except (MissingDependencyError, CheckpointError) as error:
        raise MissingDependencyError(f"{error}; or take recipes=lab-joint, which trains a small text tower") from None


def run_lab(lab: Lab, *, only: Sequence[str] = (), retry: bool = True, console: Console | None = None) -> LabResults:
    """Run the cells that are not done, then write the answers over all that are.

    only: ids of the cells to run, all where none is named. retry: run cells again that failed before.
    Raises ConfigError for a plan that cannot be run or an unknown id, KeyboardInterrupt on Ctrl-C.
    """
    console = console or Console(stderr=True, quiet=True)
    cells = lab.cells()
    if unknown := set(only) - {cell.id for cell in cells}:
        raise ConfigError(f"only: {lab.plan.name} has no cell {sorted(unknown)[0]}; `--plan` lists them")
    write_json(lab.folder / PLAN_FILE, to_dict(lab.plan))
    todo = [cell for cell in cells if _is_wanted(lab, cell, only, retry)]
    for cell in todo:
        folder = cell_folder(lab.out, cell.id)
        folder.mkdir(parents=True, exist_ok=True)
        write_request(folder, cell, lab.plan, lab.encoder_files)
    state = _run(lab, todo, console) if todo else GridState()
    for cell_id in state.failed:
        failure = read_failure(cell_folder(lab.out, cell_id))
        console.print(f"{cell_id}: failed: {failure.message if failure else ''}", style="yellow", markup=False)
    if state.elsewhere:
        console.print(f"{len(state.elsewhere)} cells are run by another process", markup=False)
    return results(lab, cells, measures=not only, console=console)


def results(
    lab: Lab, cells: Sequence[Cell] | None = None, *, measures: bool = False, console: Console | None = None
) -> LabResults:
    """What is known of a plan's cells. measures: also what each contender costs here, where that is not known yet."""
    cells = lab.cells() if cells is None else cells
    folders = {cell.id: cell_folder(lab.out, cell.id) for cell in cells}
    done = [read_result(folders[cell.id], cell) for cell in cells if is_done(folders[cell.id])]
    left = [cell.id for cell in cells if not is_done(folders[cell.id])]
    failed = [failure for cell_id in left if (failure := read_failure(folders[cell_id])) is not None]
    known = {failure.id for failure in failed}
    return LabResults(
        plan=lab.plan,
        cells=tuple(done),
        missing=tuple(cell_id for cell_id in left if cell_id not in known),
        failed=tuple(failed),
        measured=_measured(lab, cells, console or Console(quiet=True)) if measures else (),
        encoder_files=lab.encoder_files,
        machine=machine_facts(),
        versions={name: importlib.metadata.version(name) for name in ("eyesmith", "torch", "timm") if _has(name)},
        folder=lab.folder,
    )


def _is_wanted(lab: Lab, cell: Cell, only: Sequence[str], retry: bool) -> bool:
    folder = cell_folder(lab.out, cell.id)
    if is_done(folder) or (only and cell.id not in only):
        return False
    return retry or read_failure(folder) is None


def _run(lab: Lab, todo: Sequence[Cell], console: Console) -> GridState:
    place = open_place(lab.place, lab.out)
    samples = {cell.id: cell.samples for cell in todo}
    total = sum(samples.values())
    console.print(f"{lab.plan.name}: {len(todo)} cells to run, {place.room} at a time", markup=False)
    try:
        with progress(console, lab.plan.name, len(todo), unit="cell") as advance:

            def show(state: GridState) -> None:
                ended = len(state.done) + len(state.failed) + len(state.elsewhere)
                share = sum(samples[cell] for cell in state.done) / total
                advance(ended, f"{share:.0%} of the images; now {', '.join(state.running)}")

            return run_grid([cell_folder(lab.out, cell.id) for cell in todo], place, on_change=show)
    finally:
        place.close()


def _measured(lab: Lab, cells: Sequence[Cell], console: Console) -> tuple[Measured, ...]:
    """One record a contender of the plan's image size."""
    found: dict[tuple[str, str], Measured] = {}
    for cell in cells:
        key = (cell.contender.encoder, cell.contender.size)
        if key not in found:
            console.print(f"measuring {' '.join(key)}", markup=False)
            found[key] = measured(cell.contender, cell.config.model, lab.out, lab.encoder_files)
    return tuple(found.values())


def _has(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
