"""The plan of a run on the terminal: `eyesmith train RECIPE --plan`."""

from eyesmith.cli.output import answer, print_json, print_table
from eyesmith.runs.plan import Cluster, Plan, plan, teacher_config
from eyesmith.train.config import RunConfig


def show_plan(config: RunConfig, cluster: Cluster, *, as_json: bool) -> int:
    """Print the plan of `config` on `cluster`; returns the exit status."""
    made = plan(config, cluster, teacher=teacher_config(config))
    if as_json:
        print_json(made.as_dict())
        return 0
    _parameters(made)
    _steps(made)
    _cost(made)
    _machines(made)
    for note in made.notes:
        answer(f"note: {note}")
    return 0


def _parameters(made: Plan) -> None:
    answer(f"{made.model}: parameters")
    columns = ("part", "trained", "of them decayed", "frozen")
    rows = [
        (part.part, f"{part.trained:,}", f"{part.decayed:,}", f"{part.frozen:,}")
        for part in made.parts
        if part.trained or part.frozen
    ]
    print_table(columns, rows, right=columns[1:])
    if any(group.lr_scale != 1 for group in made.groups if group.is_trained):
        print("\nfactors on the rate")
        counts: dict[tuple[str, int | None, float], int] = {}
        for group in made.groups:
            if group.is_trained:
                key = (group.part, group.layer, group.lr_scale)
                counts[key] = counts.get(key, 0) + group.num_parameters
        columns = ("part", "layer", "factor", "parameters")
        rows = [
            (part, "" if layer is None else layer, f"{factor:.3g}", f"{count:,}")
            for (part, layer, factor), count in counts.items()
        ]
        print_table(columns, rows, right=columns[1:])


def _steps(made: Plan) -> None:
    parts = f" in {made.accumulate} parts" if made.accumulate > 1 else ""
    print(
        f"\n{made.steps:,} steps of {made.batch_size:,} {made.unit}s ({made.gpu_batch:,} a GPU{parts}): "
        f"{made.samples_seen:,} "
        f"{made.unit}s, {made.epochs:g} x {made.samples_per_epoch:,}"
    )
    print_table(("step", "rate"), [(f"{rate.step:,}", f"{rate.lr:.3g}") for rate in made.rates], right=("step", "rate"))


def _cost(made: Plan) -> None:
    cluster = made.cluster
    print(f"\nmemory of a GPU ({made.strategy}), at most")
    rows = [(part.part, f"{part.num_bytes / 2**30:.2f} GiB") for part in made.memory]
    total = f"{made.memory_bytes / 2**30:.2f} GiB"
    room = f"{cluster.gpu_memory_gib:g} GiB"
    print_table(("part", "memory"), [*rows, ("all", total)], right=("memory",))
    print(f"fits into {room}" if made.fits else f"does not fit into {room}: raise accumulate, plan.gpus, or take fsdp")
    text = "" if made.text_flops is None else f" + text {made.text_flops / 1e9:.1f}"
    teacher = "" if made.teacher_flops is None else f", its teacher {made.teacher_flops / 1e9:.1f} GFLOP forward"
    print(
        f"\n{made.total_flops:.3g} FLOP (one {made.unit}: image {made.image_flops / 1e9:.1f}{text} GFLOP, "
        f"forward and backward{teacher})"
    )
    gpus = f"{cluster.gpus} GPU{'s' if cluster.gpus > 1 else ''}"
    print(
        f"{_number(made.gpu_hours)} GPU-hours at {cluster.mfu:.3g} of {cluster.peak_tflops:g} TFLOP/s: "
        f"{_number(made.hours)} hours on {gpus}, {made.samples_per_s:,.0f} {made.unit}s/s"
    )


def _machines(made: Plan) -> None:
    """What the run asks of what is around its GPUs."""
    saving, fetch, cluster = made.saving, made.fetch, made.cluster
    rows: list[tuple[str, str]] = []
    if fetch is not None:
        one = f"; {_bytes(fetch.one_lane_bytes)} with data.lanes=1" if fetch.lanes > 1 else ""
        lanes = f"{fetch.lanes} lane{'s' if fetch.lanes > 1 else ''} on {fetch.machines} machine"
        rows += [
            (f"a machine, {lanes}{'s' if fetch.machines > 1 else ''}", _bytes(fetch.machine_bytes) + one),
            ("all machines", _bytes(fetch.total_bytes)),
            ("counts, at the start", f"{fetch.start_reads:,} small files at most, read by one process for all"),
        ]
        print(
            f"\nfetched in an epoch where shards are remote, at {cluster.sample_kb:g} KB a sample, "
            f"{cluster.shard_samples:,} a shard"
        )
        print_table(("what", "bytes"), rows)
    print(
        f"\na state is {_bytes(saving.state_bytes)}: {_seconds(saving.save_s)} at {cluster.write_gb_s:g} GB/s, every "
        f"{_seconds(saving.interval_s)}, {saving.save_frac:.2%} of the time"
    )
    print(
        f"a failure every {_seconds(saving.mtbf_s)} ({cluster.gpu_mtbf_hours:,.0f} hours a GPU) takes half of that and "
        f"{cluster.restart_minutes:g} minutes: {saving.lost_frac:.2%} of the time; {_number(made.hours_with_losses)} "
        f"hours with both"
    )
    print(f"saving every {_seconds(saving.best_interval_s)} would lose least (save_every_steps)")


def _bytes(value: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{_number(value / size)} {unit}"
    return f"{_number(value / 1e3)} KB"


def _seconds(value: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if value >= 2 * size:
            return f"{_number(value / size)} {unit}"
    return f"{_number(value)} s"


def _number(value: float) -> str:
    """Three digits, more where there are more before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
