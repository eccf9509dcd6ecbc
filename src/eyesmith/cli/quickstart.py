"""`eyesmith quickstart`: the main job on real data, from nothing to a report."""

from eyesmith.cli.failures import on_interrupt
from eyesmith.cli.numbers import check_place
from eyesmith.cli.overrides import parse_config
from eyesmith.console import PlainConsole


def main(argv: list[str], prog: str) -> int:
    """Make pairs, train, evaluate, compare with a plain ViT, write the report. Called again it goes on."""
    from eyesmith.report.page import write_report
    from eyesmith.report.terminal import splits_table
    from eyesmith.runs.quickstart import QuickstartConfig, quickstart

    config: QuickstartConfig = parse_config(QuickstartConfig(), argv, prog=prog)
    check_place("folder", config.folder, "folder")
    check_place("data", config.data, "folder")
    console = PlainConsole()
    with on_interrupt(f"what was finished is kept; the same `{prog}` command goes on"):
        done = quickstart(config, console=console)
        run, other = done.run, done.baseline
        report = write_report(run.folder, baseline=other.folder if other else None, data=done.data)
    both = f" and the baseline {other.train_s:.0f} s" if other else ""
    console.print(f"trained {run.train_s:.0f} s{both}, {done.wall_s:.0f} s in all; report: {report}")
    for row in done.pixels:
        console.print(f"{row.split} {row.metric} by the nearest training drawing, pixel by pixel: {row.value:.1%}")
    console.print(splits_table(run.rows, other.rows if other else [], tasks=("zero_shot", "retrieval")))
    return 0
