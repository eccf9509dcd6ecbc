"""`eyesmith curate`: which samples of a pool are worth training on, and the shards made of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import Verb, call, dispatch
from eyesmith.cli.images import Device, ModelName, load_model
from eyesmith.cli.numbers import OutFile, OutFolder, Seed, Within, Written, check_place
from eyesmith.cli.output import AsJson, answer, messages, print_json, print_table, say
from eyesmith.cli.overrides import parse_config
from eyesmith.data.curate.places import Executor, Progress
from eyesmith.data.curate.plan import PLAN_SUMMARIES, named_run
from eyesmith.data.curate.reshard import ReshardConfig
from eyesmith.errors import ConfigError

_HERE = "eyesmith.cli.curate"
_VERBS = {
    **{name: Verb(_HERE, f"plan: {summary}", "plan") for name, summary in PLAN_SUMMARIES.items()},
    "reshard": Verb(_HERE, "write the shards of a subset", "reshard"),
    "marks": Verb(_HERE, "hashes (and embeddings) of pictures, for near-duplicates and decontamination", "marks"),
    "make-pool": Verb(_HERE, "make a small pool in the real formats, to try a plan", "make_pool"),
}
Shards = Annotated[Positional[str], tyro.conf.arg(metavar="SHARDS", help="A folder or pattern of tars, or an address.")]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    about = "Curate a pool: `PLAN --pool DIR --out DIR rule.field=value ...`, then reshard."
    return dispatch(_VERBS, argv, prog=prog, about=about)


def plan(argv: list[str], prog: str) -> int:
    """Run one plan, which `prog` ends with, on its own arguments."""
    from eyesmith.data.curate import curate

    as_json = "--json" in argv
    run = parse_config(named_run(prog.split()[-1]), [word for word in argv if word != "--json"], prog=prog)
    for name in ("pool", "out"):
        if not getattr(run, name):
            raise ConfigError(f"{name}: expected a folder; give --{name} DIR")
    if "://" not in run.out:
        check_place("out", run.out, "folder")
    with _progress() as show:
        report = curate(run.plan, run.pool, run.out, workers=run.workers, executor=run.executor, on_progress=show)
    if as_json:
        print_json(report.as_dict())
        return 0
    rows = [(row.rule, f"{row.rows_in:,}", f"{row.kept:,}", f"{row.dropped:,}", _share(row.kept, row.rows_in))
            for row in report.funnel]  # fmt: skip
    total = ("all", f"{report.samples:,}", f"{report.kept:,}", f"{report.samples - report.kept:,}",
             _share(report.kept, report.samples))  # fmt: skip
    print_table(("rule", "in", "kept", "dropped", "share"), [*rows, total], right=("in", "kept", "dropped", "share"))
    if report.clip_threshold is not None:
        answer(f"CLIP score of at least {report.clip_threshold:.6g}")
    if report.balance is not None:
        answer(f"t {report.balance['threshold']:,}: tail share {report.balance['tail_share']:.2%}")
    answer(f"{report.out}: subset.npy ({report.rows:,} rows), kept.parquet, report.json")
    return 0


def reshard(argv: list[str], prog: str) -> int:
    """Run `curate reshard` on its own arguments."""
    return call(_reshard, argv, prog=prog)


def marks(argv: list[str], prog: str) -> int:
    """Run `curate marks` on its own arguments."""
    return call(_marks, argv, prog=prog)


def make_pool(argv: list[str], prog: str) -> int:
    """Run `curate make-pool` on its own arguments."""
    return call(_make_pool, argv, prog=prog)


def _reshard(
    shards: Shards,
    /,
    *,
    subset: Annotated[Path, tyro.conf.arg(metavar="FILE", help="The subset file, subset.npy of a curation.")],
    out: Annotated[OutFolder, tyro.conf.arg(metavar="DIR", help="The folder for the shards.")],
    config: ReshardConfig,
    workers: int = 1,
    executor: Executor = "local",
    as_json: AsJson = False,
) -> int:
    """Write the samples of a subset as new shards, each as often as its uid stands in the subset.

    Args:
        workers: Processes.
        executor: Processes of this machine, or Ray Data.
    """
    from eyesmith.data.curate.reshard import reshard

    with _progress() as show:
        report = reshard(shards, subset, out, config=config, workers=workers, executor=executor, on_progress=show)
    if as_json:
        print_json(report.as_dict())
        return 0
    rows = [("in", report.shards_in, f"{report.samples_in:,}"), ("out", report.shards_out, f"{report.samples_out:,}")]
    print_table(("", "shards", "samples"), rows, right=("shards", "samples"))
    for kind, count in report.broken.items():
        answer(f"left out: {count:,} {kind}")
    answer(f"{out}: {report.subset_missing:,} of {report.subset_rows:,} rows of the subset are not in these shards")
    return 0


def _marks(
    place: Annotated[Positional[str], tyro.conf.arg(metavar="DIR", help="Tar shards, or with --evaluation a set.")],
    /,
    *,
    out: Annotated[OutFile, tyro.conf.arg(metavar="FILE", help="The .npz to write.")],
    evaluation: bool = False,
    model: str = "",
    name: ModelName = None,
    device: Device = None,
    as_json: AsJson = False,
) -> int:
    """Perceptual hashes of pictures and, with a model, their embeddings.

    Args:
        evaluation: DIR is an evaluation set, not shards of a pool.
        model: A run folder, weight file or hub id whose image tower embeds the pictures.
    """
    from eyesmith.data.curate import mark_evaluation, mark_shards, write_marks
    from eyesmith.hub.device import find_device

    embed = None
    if model:
        clip = load_model(model, name, find_device(device))
        embed = lambda images: clip.encode_image(list(images)).cpu().numpy()  # noqa: E731
    with _progress() as show:
        made = (mark_evaluation if evaluation else mark_shards)(
            place, embed=embed, on_progress=lambda done, total: show("pictures", done, total)
        )
    write_marks(out, made)
    if as_json:
        print_json({"out": str(out), "pictures": len(made.hashes), "broken": made.num_broken})
    else:
        answer(f"{out}: {len(made.hashes):,} pictures, {made.num_broken:,} could not be read")
    return 0


def _make_pool(
    folder: Annotated[
        Positional[Path], Written("folder"), tyro.conf.arg(metavar="DIR", help="The folder to make the pool in.")
    ],
    /,
    *,
    samples: int = 1000,
    files: int = 3,
    shard_samples: Annotated[int, Within(0)] = 250,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> int:
    """Make a small pool in DataComp's format with drawn pictures and captions; numbers on it say nothing.

    Args:
        samples: How many.
        files: Parquet files.
        shard_samples: Samples in a tar; 0 makes no tars.
        seed: Chooses everything.
    """
    from eyesmith.data.curate import make_pool

    if folder.is_dir() and (there := sorted(one.name for one in folder.iterdir())):
        raise ConfigError(
            f"{folder}: expected an empty folder, found {', '.join(there[:3])}{' ...' if len(there) > 3 else ''}; "
            "choose another place, nothing was changed"
        )
    made = make_pool(folder, samples=samples, files=files, shard_samples=shard_samples, seed=seed)
    if as_json:
        print_json({"metadata": str(made.metadata), "shards": None if made.shards is None else str(made.shards)})
    else:
        say(f"{made.metadata}: metadata and features; {made.shards or 'no shards'}")
    return 0


@contextmanager
def _progress() -> Iterator[Progress]:
    """A line a step on a terminal, nothing when stderr is a file."""
    console = messages()
    if not console.is_terminal:
        yield lambda *_: None
        return
    with console.status("") as status:
        yield lambda what, done, total: status.update(f"{what}: {done:,} of {total:,}")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""
