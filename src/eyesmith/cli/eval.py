"""`eyesmith eval`: measure a model on a suite, a task or a folder, into result files that other programs read."""

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import BatchSize, Device, Model, ModelName, load_clip_or_classifier, load_model
from eyesmith.cli.output import AsJson, console, messages, print_json, print_table, say
from eyesmith.errors import ConfigError
from eyesmith.eval.features.precision import Precision
from eyesmith.eval.results.rows import append_rows, as_line
from eyesmith.train.distributed import joined
from eyesmith.writer import check_writable, one_writer

if TYPE_CHECKING:
    import torch

    from eyesmith.dense.measuring import MeasuredFinder
    from eyesmith.eval.engine import Settings
    from eyesmith.eval.features.classifier import LogitTower
    from eyesmith.eval.results.rows import ResultRow
    from eyesmith.eval.results.task_result import TaskResult
    from eyesmith.eval.sets.suite import Suite
    from eyesmith.models.clip import Clip

What = Annotated[
    Positional[str],
    tyro.conf.arg(
        metavar="WHAT",
        help="Class folders, a table, an evaluation set, a caption test; annotated pictures for a detector or "
        "segmenter; a suite (datacomp, eva02, imagenet-variants, video, retrieval) or tasks such as cifar10,vtab/dtd "
        "below --data; or all, zero_shot, retrieval on a made data set, boxes on made scenes.",
    ),
]
Data = Annotated[
    str | None,
    tyro.conf.arg(metavar="DIR", help="Where the sets of a suite lie; or a made data set, tar shards, a table."),
]


_OF_SUITES = ("compare_templates", "formats")
_OF_TEXTS = ("precision", "language", "templates")
_OF_FINDERS = ("model", "what", "splits", "out", "label", "device", "limit", "as_json")


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(evaluate, argv, prog=prog)


def evaluate(
    model: Model,
    what: What = "all",
    /,
    *,
    data: Data = None,
    splits: tuple[str, ...] = (),
    out: Path | None = None,
    name: ModelName = None,
    label: str | None = None,
    task: tuple[Path, ...] = (),
    batch_size: BatchSize = 64,
    device: Device = None,
    num_workers: int = 4,
    precision: Precision = "fp32",
    language: str = "en",
    templates: Path | None = None,
    compare_templates: tuple[Path, ...] = (),
    formats: Annotated[tuple[Literal["clip_benchmark", "open_clip"], ...], tyro.conf.arg(name="format")] = (),
    limit: int | None = None,
    explain: str | None = None,
    cache: Path | None = None,
    keep_features: bool = True,
    fresh: bool = False,
    as_json: AsJson = False,
) -> int:
    """Zero-shot classification, retrieval and whole suites, with 95 % intervals and chance.

    Args:
        splits: Of a made data set: the splits to measure; all but train when not given.
        out: Where results go: a file whose name ends in .jsonl, which lines are added to (RUN/results.jsonl by default
            for a run folder, else results.jsonl here), or a folder for that file and predictions; of a suite a folder
            (RUN/eval by default).
        task: Python files that define tasks of your own, below --data; docs/own-task.md.
        label: What tables of results call the model; the run's folder when not given.
        num_workers: Threads that decode pictures.
        precision: fp32; bf16; or reference, the mixture that DataComp's evaluation computes in on a GPU.
        language: Of ImageNet's class names and sentences: en, ar, cn, it or jp.
        templates: A file of sentences with {c} for the class name, one a line, instead of each set's own.
        compare_templates: Such files to compare with the sentences of one set, paired, on its images.
        formats: Files of other evaluators to write beside a suite's results: clip_benchmark, open_clip.
        limit: Only so many images of each set, spread evenly over its classes, to try a command out.
        explain: The key of one picture: show each step from its bytes to its rank, beside open_clip's.
        cache: Where features of images and classifiers are kept for the next evaluation of the same weights.
        keep_features: Whether they are kept; --no-keep-features leaves nothing behind.
        fresh: Measure everything anew, whatever features and results are kept.
    """
    given = dict(locals())
    from eyesmith.dense.detect.measure import MeasuredDetector
    from eyesmith.dense.segment.measure import MeasuredSegmenter
    from eyesmith.eval.engine import Settings, UnwrittenError, evaluate_suite
    from eyesmith.eval.sets.choice import chosen_suite, is_suite_folder
    from eyesmith.eval.sets.file import register_task_file
    from eyesmith.eval.sets.made import MADE_TASKS, is_made_data
    from eyesmith.eval.sets.wording import Wording, read_templates
    from eyesmith.files import cache_folder
    from eyesmith.hub.device import find_device

    finder = next((one for one in (MeasuredDetector, MeasuredSegmenter) if one.is_in(model)), None)
    if finder is not None:
        wanted = inspect.signature(evaluate).parameters
        unheeded = [name for name, value in given.items() if name not in _OF_FINDERS and value != wanted[name].default]
        if unheeded:
            raise ConfigError(
                f"{', '.join(unheeded)}: a {finder.kind} has its own, and keeps no features; leave them out"
            )
        return _finder(finder, model, what, splits, out, label, find_device(device), limit, as_json=as_json)
    where = find_device(device, local_rank=int(os.environ.get("LOCAL_RANK", "0")))
    settings = Settings(
        batch_size=batch_size,
        num_workers=num_workers,
        precision=precision,
        wording=Wording(language=language, templates=read_templates(templates) if templates else ()),
        limit=limit,
        cache=(cache or cache_folder() / "eval") if keep_features else None,
        fresh=fresh,
        source=model,
        label=label,
        note=say,
        progress=_bar,
    )
    own = [one.key for file in task for one in register_task_file(file)]
    what = ",".join(own) if own and what == "all" else what
    is_path = data is None and Path(what).exists()
    if explain is not None:
        return _explain(model, what, None if is_path else data, explain, name, where, settings, as_json=as_json)
    is_made = is_made_data(what) if is_path else what in (*MADE_TASKS, "boxes") and not is_suite_folder(what, data)
    if is_made:
        _refuse(given, _OF_SUITES, f"{what}: a data set with splits is measured as it is")
        if what == "boxes" and not is_path:
            _refuse(given, _OF_TEXTS, "boxes: are named in the words and precision of the model")
            return _boxes(model, data, splits, out, name, where, settings, as_json=as_json)
        task_words, place = ("all", what) if is_path else (what, data)
        return _made(model, task_words, place, splits, out, name, where, settings, given, as_json=as_json)
    _refuse(given, ("splits",), f"{what}: has no splits to choose from; those are of made data sets")
    suite = None if is_path else chosen_suite(what, data)
    if compare_templates:
        return _prompts(model, what, suite, data, compare_templates, name, where, settings, as_json=as_json)
    if formats and suite is None:
        raise ConfigError("--format: other evaluators know tasks by name; it goes with a suite or tasks and --data")
    if suite is None:
        return _own(model, what, out, name, where, settings, as_json=as_json)
    with joined() as world:
        target = world.once(lambda: _target(model, out, "eval"))
        clip = _measurable(model, name, where)
        settings, unwritten = dataclasses.replace(settings, world=world), None
        try:
            results = evaluate_suite(clip, suite, str(data), out=target, formats=formats, settings=settings)
        except UnwrittenError as error:
            results, unwritten = error.results, error
        status = _show_suite(suite, results, None if unwritten else target, as_json=as_json) if world.is_first else 0
        if unwritten is not None:
            raise unwritten
        return status


def _refuse(given: dict[str, Any], names: Sequence[str], reason: str) -> None:
    """Raise ConfigError where one of these options was given: what it asks for would silently not be done."""
    usual = inspect.signature(evaluate).parameters
    if unheeded := [name for name in names if given[name] != usual[name].default]:
        raise ConfigError(f"{', '.join(unheeded)}: {reason}; leave out what cannot be heeded")


def _measurable(model: str, name: str | None, device: "torch.device") -> "Clip | LogitTower":
    """An image-text model, or a classifier in its place."""
    from eyesmith.eval.features.classifier import LogitTower
    from eyesmith.models.classifier import Classifier

    found = load_clip_or_classifier(model, name, device)
    return LogitTower(found) if isinstance(found, Classifier) else found


def _made(
    model: str,
    task: str,
    data: str | None,
    splits: tuple[str, ...],
    out: Path | None,
    name: str | None,
    device: "torch.device",
    settings: "Settings",
    given: dict[str, Any],
    *,
    as_json: bool,
) -> int:
    """Zero-shot and retrieval on the splits of a data set. given: the options as they were typed."""
    from eyesmith.eval.engine import evaluate as evaluate_splits
    from eyesmith.eval.features.classified import split_rows
    from eyesmith.eval.sets.made import MADE_TASKS
    from eyesmith.models.classifier import Classifier

    if data is None:
        raise ConfigError(
            f"{task}: expected --data DIR, the data set to measure on; or give a folder instead of {task}"
        )
    target = _file(model, out)
    with _alone(target, model):
        found = load_clip_or_classifier(model, name, device)
        if isinstance(found, Classifier):
            _refuse(given, (*_OF_TEXTS, "limit", "fresh"), f"{model}: is a classifier, which reads no texts")
            rows = split_rows(found, data, splits, batch_size=settings.batch_size, model_source=model, note=say)
        else:
            rows = evaluate_splits(found, data, splits or None, tasks=MADE_TASKS[task], settings=settings)
        if not rows:
            raise ConfigError(f"{data}: cannot carry the task {task!r}: zero_shot needs labels, retrieval captions")
        _show_rows(rows, as_json=as_json)
        return _add(rows, target)


def _boxes(
    model: str,
    data: str | None,
    splits: tuple[str, ...],
    out: Path | None,
    name: str | None,
    device: "torch.device",
    settings: "Settings",
    *,
    as_json: bool,
) -> int:
    """Naming what stands in the boxes of made scenes, by the dense map and by each box cut out."""
    from eyesmith.dense.named_boxes import named_boxes
    from eyesmith.eval.sets.made import choose_splits
    from eyesmith.report.terminal import splits_table

    if data is None:
        raise ConfigError("boxes: expected --data DIR, scenes of `eyesmith data make emoji-scenes`")
    target = _file(model, out)
    with _alone(target, model):
        clip = load_model(model, name, device)
        rows = [
            row
            for split in choose_splits(data, splits or None)
            for row in named_boxes(
                clip, data, split or "", limit=settings.limit, num_workers=settings.num_workers, note=say
            )
        ]
        if as_json:
            print_json([as_line(row) for row in rows])
        for one in dict.fromkeys(row.model for row in rows if not as_json):
            console().print(splits_table([row for row in rows if row.model == one]))
        return _add(rows, target)


def _finder(
    kind: "type[MeasuredFinder[Any, Any]]",
    model: str,
    what: str,
    splits: tuple[str, ...],
    out: Path | None,
    label: str | None,
    device: "torch.device",
    limit: int | None,
    *,
    as_json: bool,
) -> int:
    """A detector or segmenter on annotated pictures, by each source; a page of what it finds beside the result file."""
    from eyesmith.data.annotations import open_annotations
    from eyesmith.report.finders import measure_finder
    from eyesmith.report.terminal import splits_table

    if not Path(what).exists():
        raise ConfigError(
            f"{what}: expected annotated pictures to measure the {kind.kind} {model} on, a file or folder"
        )
    if len(splits) > 1:
        raise ConfigError(f"splits: a {kind.kind} is measured on one at a time, got {', '.join(splits)}")
    target = _file(model, out)
    data = open_annotations(what, splits[0] if splits else None)
    called, page = label or Path(model).resolve().name, target.with_name("located.html")
    with _alone(target, model):
        finder = kind.load(model, device=device)
        rows = measure_finder(finder, data, page, model=called, limit=limit or 0)
        if as_json:
            print_json([as_line(row) for row in rows])
        for one in dict.fromkeys(row.model for row in rows if not as_json):
            console().print(splits_table([row for row in rows if row.model == one]))
        say(f"the page of what is found where: {page}")
        return _add(rows, target)


def _own(
    model: str,
    what: str,
    out: Path | None,
    name: str | None,
    device: "torch.device",
    settings: "Settings",
    *,
    as_json: bool,
) -> int:
    """A user's folder, table or caption test."""
    from eyesmith.eval.engine import UnwrittenError, evaluate_own
    from eyesmith.report.task_table import tasks_table

    target, unwritten = _target(model, out), None
    is_file = target.suffix == ".jsonl"
    with _alone(target, model):
        clip = _measurable(model, name, device)
        try:
            result = evaluate_own(clip, what, None if is_file else target, settings=settings)
        except UnwrittenError as error:
            (result,), unwritten = error.results, error
        if len({row.split for row in result.rows}) > 1:  # a caption test with categories
            _show_rows(result.rows, as_json=as_json)
        elif as_json:
            print_json([as_line(row) for row in result.rows])
        else:
            console().print(tasks_table([result], {}, {}, all_metrics=True))
        if unwritten is not None:
            raise unwritten
        if is_file:
            return _add(result.rows, target)
    say(f"{len(result.rows)} result lines added to {target}")
    return 0


def _file(model: str, out: Path | None) -> Path:
    """`_target` where results are lines of one file: of a folder its results.jsonl."""
    return _target(model, out if out is None or out.suffix == ".jsonl" else out / "results.jsonl")


def _target(model: str, out: Path | None, name: str = "results.jsonl") -> Path:
    """Where results go, known to be writable: `out`, else `name` in the model's folder where that may be, else here.

    Raises ConfigError where it cannot be, before anything is loaded or measured.
    """
    beside = Path(model) / name if out is None and Path(model).is_dir() else None
    for place in (beside, out or Path(name)):
        if place is None:
            continue
        try:
            check_writable(place)
        except OSError as error:
            if place is not beside:
                reason = error.strerror or error
                raise ConfigError(
                    f"{place}: results cannot be written there ({reason}); choose another --out"
                ) from None
            say(f"{model}: may not be written to ({error.strerror or error}), so results go to {name} here")
            continue
        return place
    raise AssertionError("one of the two is always tried")


def _alone(target: Path, model: str) -> AbstractContextManager[None]:
    """Nobody else writes to the model's folder where results go into it: a run that ends there writes them anew."""
    return one_writer(target.parent) if target.parent == Path(model) else nullcontext()


def _add(rows: "Sequence[ResultRow]", target: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    append_rows(target, rows)
    say(f"{len(rows)} result lines added to {target}")
    return 0


def _show_rows(rows: "Sequence[ResultRow]", *, as_json: bool) -> None:
    from eyesmith.report.terminal import splits_table

    if as_json:
        print_json([as_line(row) for row in rows])
    else:
        console().print(splits_table(rows))


def _prompts(
    model: str,
    what: str,
    suite: "Suite | None",
    data: str | None,
    files: tuple[Path, ...],
    name: str | None,
    device: "torch.device",
    settings: "Settings",
    *,
    as_json: bool,
) -> int:
    """Sets of sentences on the images of one set."""
    from eyesmith.eval.sets.prompts import compare_prompt_files
    from eyesmith.report.comparison import prompt_sets_table

    if suite is not None and len(suite.tasks) != 1:
        raise ConfigError(f"{what}: sentences are compared on one set; name one task, or a folder")
    task = suite.tasks[0] if suite else None
    place = Path(str(data)) / task.folder if task else Path(what)
    found = compare_prompt_files(load_model(model, name, device), place, files, task=task, settings=settings)
    if as_json:
        print_json([dataclasses.asdict(one) for one in found])
    else:
        columns, rows = prompt_sets_table(found)
        print_table(columns, rows, right=columns[1:])
        say("choose sentences on other images than those of the number you report")
    return 0


def _explain(
    model: str,
    what: str,
    data: str | None,
    key: str,
    name: str | None,
    device: "torch.device",
    settings: "Settings",
    *,
    as_json: bool,
) -> int:
    """One picture step by step, beside open_clip."""
    from eyesmith.eval.engine import task_job
    from eyesmith.eval.features.explain import explain
    from eyesmith.eval.kinds.measurement import with_sentences
    from eyesmith.eval.sets.choice import chosen_suite
    from eyesmith.eval.sets.made import MADE_TASKS, is_made_data, labelled_split
    from eyesmith.eval.sets.own import own_job

    clip = load_model(model, name, device)
    place = data if what in MADE_TASKS else what
    made = labelled_split(place, key) if place is not None and is_made_data(place) else None
    if made is not None:
        task, found = made.task, made.found
    elif data is None:
        job = own_job(what)
        task, found = job.task, job.open()
    else:
        suite = chosen_suite(what, data)
        if len(suite.tasks) != 1:
            raise ConfigError(f"{what}: a picture is followed in one set; name one task, or a folder")
        job = task_job(suite.tasks[0], Path(data))
        task, found = job.task, job.open()
    found = settings.wording.applied(task, with_sentences(task, found, clip))
    cache = None if settings.cache is None else Path(settings.cache)
    steps = explain(clip, found, key, source=model, cache=cache, note=say)
    if as_json:
        print_json([dataclasses.asdict(step) for step in steps])
        return 0
    first = next((place for place, step in enumerate(steps) if step.is_equal is False), None)
    marks = ["first difference" if place == first else "" for place in range(len(steps))]
    has_theirs = any(step.theirs is not None for step in steps)
    columns = ("step", "ours", "open_clip", "") if has_theirs else ("step", "ours")
    cells = [(step.name, step.ours, step.theirs or "", mark) for step, mark in zip(steps, marks, strict=True)]
    print_table(columns, [row[: len(columns)] for row in cells])
    if has_theirs:
        say("every step agrees with open_clip" if first is None else f"open_clip differs from: {steps[first].name}")
    return 0


def _show_suite(suite: "Suite", results: "list[TaskResult]", target: Path | None, *, as_json: bool) -> int:
    from eyesmith.eval.sets.choice import summary_of
    from eyesmith.report.task_table import tasks_table

    summary = summary_of(suite, results)
    if as_json:
        print_json(summary.to_json())
    else:
        console().print(tasks_table(results, summary.mains, summary.averages))
    for line in summary.notes:
        say(line)
    if target is not None:
        say(f"results are in {target}")
    return summary.status


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr that is told the images of each batch."""
    from eyesmith.train.callbacks.progress import progress

    done = 0
    with progress(messages(), title, total, unit="image") as advance:

        def add(number: int) -> None:
            nonlocal done
            done += number
            advance(done)

        yield add
