"""`eyesmith data`: make data sets, find what is wrong with one, and how fast it is read."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import Verb, call, dispatch
from eyesmith.cli.numbers import OutFolder, Within
from eyesmith.cli.output import AsJson, answer, bars, print_json, print_table, say
from eyesmith.errors import ConfigError
from eyesmith.plain import plain_json

if TYPE_CHECKING:
    from eyesmith.data.check import CheckReport

_HERE = "eyesmith.cli.data"
_VERBS = {
    "make": Verb(
        "eyesmith.cli.data_make", "make a data set: emoji, scenes of them or of shapes, or miniature evaluation sets"
    ),
    "fetch": Verb(_HERE, "fetch the sets of evaluation tasks and suites", "fetch"),
    "convert": Verb(_HERE, "boxes and masks from one format into another", "convert"),
    "check": Verb(_HERE, "what is wrong with a data set, an evaluation set, or boxes and masks", "check"),
    "probe": Verb(_HERE, "how fast shards are read and decoded, and what a model needs", "probe"),
}
Data = Annotated[
    Positional[str],
    tyro.conf.arg(
        metavar="DATA",
        help="A made data set, tar shards, a table, a folder of images, evaluation sets, or boxes and masks.",
    ),
]
Places = Annotated[
    Positional[str],
    tyro.conf.arg(
        metavar="DATA",
        help="A JSON of COCO, LVIS or panoptic, a made set, or a folder of YOLO, VOC, PNG masks, ADE20K, Cityscapes, "
        "Mapillary or Pascal Context.",
    ),
]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return dispatch(_VERBS, argv, prog=prog, about="Make data sets, find what is wrong with one, and what is slow.")


def fetch(argv: list[str], prog: str) -> int:
    """Run `data fetch` on its own arguments."""
    return call(_fetch, argv, prog=prog)


def convert(argv: list[str], prog: str) -> int:
    """Run `data convert` on its own arguments."""
    return call(_convert, argv, prog=prog)


def check(argv: list[str], prog: str) -> int:
    """Run `data check` on its own arguments."""
    return call(_check, argv, prog=prog)


def probe(argv: list[str], prog: str) -> int:
    """Run `data probe` on its own arguments."""
    return call(_probe, argv, prog=prog)


def _fetch(
    names: Annotated[
        Positional[tuple[str, ...]], tyro.conf.arg(metavar="TASK_OR_SUITE", help="Such as datacomp or vtab/dtd.")
    ],
    /,
    *,
    to: Annotated[OutFolder, tyro.conf.arg(metavar="DIR", help="The folder that holds one folder for each set.")],
    as_json: AsJson = False,
) -> int:
    """Fetch evaluation sets from the hub, with checksums; run again to go on. Exit status 1 when one is missing."""
    from eyesmith.eval.sets.folders import fetch_tasks

    if not names:
        raise ConfigError("name at least one task or suite to fetch, such as datacomp or vtab/dtd")
    with bars(unit="byte") as show:
        rows = fetch_tasks(names, to, on_bytes=show)
    for row in rows:
        if row.detail:
            say(f"{row.key}: {row.detail}")
    if as_json:
        print_json([{**asdict(row), "folder": str(row.folder)} for row in rows])
    else:
        cells = [(row.key, row.state, f"{row.num_bytes / 1e6:,.1f}", row.folder) for row in rows]
        print_table(("task", "state", "new MB", "folder"), cells, right=("new MB",))
    return int(any(row.state in ("failed", "by hand") for row in rows))


def _convert(
    data: Places,
    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="DIR", help="The folder to write into.")],
    /,
    *,
    to: Literal["coco", "panoptic", "yolo", "png"],
    split: str | None = None,
    name: str | None = None,
    images: str | None = None,
    form: str | None = None,
    keep: Literal["all", "ov-coco-train", "ov-coco-val", "ov-lvis-train", "ov-lvis-val"] = "all",
    pictures: bool = True,
    as_json: AsJson = False,
) -> int:
    """Write boxes and masks in another format, with their pictures; says what that format cannot hold.

    Args:
        to: COCO json, COCO's panoptic form, YOLO's text files, or PNG masks with a list of classes.
        split: One split of a set that has several.
        name: What the split is called in the new folder; as it is called here, or train.
        images: The folder of the pictures, when they do not lie beside the annotations.
        form: What DATA is, where its layout does not say it: voc or voc-boxes, coco, panoptic, yolo ...
        keep: All of it, or the open-vocabulary split of COCO (48 base and 17 novel classes) or of LVIS (866 and 337).
        pictures: Whether the pictures are copied too; --no-pictures leaves them where they are.
    """
    from eyesmith.data.annotations import convert_annotations, open_annotations, ov_coco, ov_lvis

    found = open_annotations(data, split, images=images, form=form)
    if keep != "all":
        found = (ov_coco if "coco" in keep else ov_lvis)(found, train=keep.endswith("train"))
    part = name or split or "train"
    with bars(unit="picture") as show:
        lost = convert_annotations(
            found,
            folder,
            to=to,
            split=part,
            pictures=pictures,
            on_progress=lambda done, total: show("copying pictures", done, total),
        )
    for line in lost:
        say(f"not kept: {line}")
    if as_json:
        facts = {"folder": str(folder), "form": to, "split": part, "pictures": len(found), "not_kept": lost}
        print_json({**facts, "categories": list(found.names)})
    else:
        answer(f"{folder}: {len(found):,} pictures, {len(found.categories):,} categories as {to}, split {part}")
    return 0


def _check_evaluation(data: str, *, workers: int, as_json: bool) -> int:
    from eyesmith.eval.sets.folders import check_folder

    with bars(unit="sample") as show:
        reports = check_folder(data, num_workers=workers, on_progress=show)
    if as_json:
        print_json({name: json.loads(report.to_json()) for name, report in reports.items()})
        return max(report.exit_status for report in reports.values())
    rows = [
        (name, one.severity, one.kind, one.where, one.key, one.detail)
        for name, report in reports.items()
        for one in report.findings
    ]
    if rows:
        print_table(("set", "severity", "kind", "where", "key", "detail"), rows)
    num_errors = sum(report.num_errors for report in reports.values())
    num_samples = sum(report.num_samples for report in reports.values())
    answer(
        f"{data}: {len(reports)} sets, {num_samples} usable samples, {num_errors} errors, "
        f"{len(rows) - num_errors} warnings"
    )
    return max(report.exit_status for report in reports.values())


def _check(
    data: Data,
    /,
    *,
    split: str | None = None,
    workers: int = 2,
    evaluation: bool = False,
    places: bool = False,
    as_json: AsJson = False,
) -> int:
    """Read every sample of a data set and name what is wrong with it; exit status 1 when something costs samples.

    Args:
        split: One split of a data set that has several; all of them, and leaks between them, when not given.
        workers: Decoding threads.
        evaluation: Check class folders or a table as `eyesmith eval` would take them. Folders in the layout of the
            evaluation sets, and a folder of those, are known without it.
        places: Check the boxes and masks of a made data set, not its pairs. A JSON of boxes and folders in the layouts
            of YOLO, VOC, PNG masks and the like are known without it.
    """
    from eyesmith.data.annotations import holds_annotations
    from eyesmith.data.check import check as check_data
    from eyesmith.data.evaluation.check import holds_evaluation_sets

    if places or (not evaluation and holds_annotations(data)):
        return _check_places(data, split, as_json=as_json)
    if evaluation or (split is None and holds_evaluation_sets(data)):
        return _check_evaluation(data, workers=workers, as_json=as_json)

    with bars(unit="sample") as show:  # how many there are is known only when the first one has been read
        found = check_data(
            data, split, num_workers=workers, on_progress=lambda done, total: show(f"checking {data}", done, total)
        )
    return _show_findings(data, found, "usable samples", as_json=as_json)


def _check_places(data: str, split: str | None, *, as_json: bool) -> int:
    from eyesmith.data.annotations import check_annotations, open_annotations

    with bars(unit="picture") as show:
        found = check_annotations(
            open_annotations(data, split), on_progress=lambda done, total: show(f"checking {data}", done, total)
        )
    return _show_findings(data, found, "pictures", as_json=as_json)


def _show_findings(data: str, found: "CheckReport", what: str, *, as_json: bool) -> int:
    if as_json:
        print(plain_json(found.to_json()))
        return found.exit_status
    if found.findings:
        rows = [(one.severity, one.kind, one.where, one.key, one.detail) for one in found.findings]
        print_table(("severity", "kind", "where", "key", "detail"), rows)
    answer(
        f"{data}: {found.num_samples} {what}, {found.num_errors} errors, "
        f"{len(found.findings) - found.num_errors} warnings"
    )
    return found.exit_status


def _probe(
    data: Annotated[Positional[str], tyro.conf.arg(metavar="DATA", help="Tar shards: a folder, pattern or address.")],
    /,
    *,
    split: str | None = None,
    model: str | None = None,
    gpu: str = "H100",
    gpus: int = 1,
    mfu: Annotated[float, Within(0, 1)] = 0.4,
    image_size: int = 224,
    workers: Annotated[int, Within(0)] = 0,
    seconds: float = 5.0,
    as_json: AsJson = False,
) -> int:
    """Measure reading, decoding, transforming and collating on this machine, then all of it with decoding processes.

    Args:
        split: One split of a data set that has several; the first when not given.
        model: A model by name: also say how many images a second its training takes.
        gpu: The device it trains on.
        gpus: How many of them this machine feeds.
        mfu: Share of the device's peak that training reaches.
        image_size: Side of the pictures in pixels, when no model says it.
        workers: Decoding processes; 0 is one a core.
        seconds: How long to measure.
    """
    from eyesmith.runs.probe import probe_data, probe_json

    found, need = probe_data(
        data,
        split=split,
        model=model,
        device=gpu,
        num_devices=gpus,
        mfu=mfu,
        image_size=image_size,
        num_workers=workers,
        seconds=seconds,
    )
    if as_json:
        print_json(probe_json(found, need))
        return 0
    height, width = found.mean_px
    answer(
        f"{data}: {found.num_samples} samples, {width:.0f} x {height:.0f} px and {found.mean_bytes / 1e3:.0f} kB each"
    )
    rows = [
        (one.name, f"{one.images_per_s:,.0f}", f"{one.mib_per_s:,.1f}", f"{one.time_frac:.0%}") for one in found.stages
    ]
    columns = ("one process", "images/s", "MiB/s", "share of time")
    print_table(columns, rows, right=columns[1:])
    answer(
        f"all together: {found.images_per_s:,.0f} images/s with {found.num_workers} decoding processes, "
        f"{found.images_per_s_each:,.0f} each"
    )
    if need is not None:
        answer(
            f"{need.model} on {need.num_devices} x {need.device} at {need.mfu:.0%} of its peak takes "
            f"{need.images_per_s:,.0f} images/s: {need.workers} such processes"
        )
    return 0
