"""The plan of a run on the terminal: `eyesmith train RECIPE --plan`."""

from eyesmith.cli.output import print_json, print_table
from eyesmith.plain import plain
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
    for note in made.notes:
        print(f"note: {note}")
    return 0


def _parameters(made: Plan) -> None:
    print(plain(f"{made.model}: parameters"))
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


def _number(value: float) -> str:
    """Three digits, more where there are more before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
