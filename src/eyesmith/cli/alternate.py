"""`eyesmith alternate`: CLIP, masked images with that CLIP as the teacher, CLIP from what came out."""

from pathlib import Path

from eyesmith.cli.failures import on_interrupt
from eyesmith.cli.numbers import check_place
from eyesmith.cli.overrides import parse_config
from eyesmith.errors import ConfigError

REPORT_FILE = "alternate.html"


def main(argv: list[str], prog: str) -> int:
    """Run all stages, or those that are not finished; called again it goes on."""
    from eyesmith.cli.output import console as output
    from eyesmith.cli.output import messages
    from eyesmith.report.alternation import StageRow, stage_table, write_alternation
    from eyesmith.runs.alternate import AlternateConfig, alternate

    if not any(word.partition("=")[0].lstrip("-") == "data" for word in argv) and not {"-h", "--help"} & set(argv):
        raise ConfigError(f"data: expected the pairs to train on: `{prog} --data DIR --out RUN`")
    config: AlternateConfig = parse_config(AlternateConfig(data=Path("data")), argv, prog=prog)
    check_place("out", config.out, "folder")
    with on_interrupt(f"what was finished is kept; the same `{prog}` command goes on"):
        stages = alternate(config, console=messages())
        shown = [StageRow(name=one.name, source=one.source, train_s=one.run.train_s, rows=one.rows()) for one in stages]
        page = write_alternation(config.out / REPORT_FILE, shown)
    output().print(stage_table(shown))
    output().print(f"report: {page}")
    return 0
