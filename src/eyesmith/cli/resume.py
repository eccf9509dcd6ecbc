"""`eyesmith resume`: go on with a run that was stopped, as if it never had been."""

from eyesmith.cli.dispatch import call
from eyesmith.cli.failures import on_interrupt
from eyesmith.cli.tasks import take_tasks
from eyesmith.cli.verify import RunFolder


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments; --task FILE brings a task of the user's own."""
    argv, _ = take_tasks(argv)
    return call(resume, argv, prog=prog)


def resume(run: RunFolder, /, *, allow_other_data: bool = False) -> int:
    """Go on with a run from its last saved state; the result is that of a run that was never stopped.

    A run whose model could not be measured is measured.

    Args:
        allow_other_data: Go on although the data are not those that the run began with; log.jsonl says so.
    """
    from eyesmith.cli.output import show_run
    from eyesmith.runs.train import resume as resume_run

    with on_interrupt(f"go on with `eyesmith resume {run}`"):
        show_run(lambda console: resume_run(run, console=console, allow_other_data=allow_other_data))
    return 0
