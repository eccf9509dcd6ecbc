"""`eyesmith alternate`: CLIP, masked images with that CLIP as the teacher, CLIP from what came out."""

from pathlib import Path

from rich.console import Console

from eyesmith.cli.failures import on_interrupt
from eyesmith.cli.overrides import parse_config
from eyesmith.errors import ConfigError


def main(argv: list[str], prog: str) -> int:
    """Run all stages, or those that are not finished; called again it goes on."""
    from eyesmith.cli.output import console as output
    from eyesmith.report.alternation import stage_table
    from eyesmith.runs.alternate import AlternateConfig, alternate

    if not any(word.partition("=")[0].lstrip("-") == "data" for word in argv) and not {"-h", "--help"} & set(argv):
        raise ConfigError(f"data: expected the pairs to train on: `{prog} --data DIR --out RUN`")
    config: AlternateConfig = parse_config(AlternateConfig(data=Path("data")), argv, prog=prog)
    with on_interrupt(f"what was finished is kept; the same `{prog}` command goes on"):
        stages = alternate(config, console=Console(stderr=True, highlight=False))
    output().print(stage_table([stage.reported() for stage in stages]))
    return 0
