"""`eyesmith quickstart`: the main job on real data, from nothing to a report."""

from rich.console import Console

from eyesmith.cli.failures import on_interrupt
from eyesmith.cli.overrides import parse_config


def main(argv: list[str], prog: str) -> int:
    """Make pairs, train, evaluate, compare with a plain ViT, write the report. Called again it goes on."""
    from eyesmith.runs.quickstart import QuickstartConfig, quickstart

    config: QuickstartConfig = parse_config(QuickstartConfig(), argv, prog=prog)
    with on_interrupt(f"what was finished is kept; the same `{prog}` command goes on"):
        quickstart(config, console=Console(highlight=False))
    return 0
