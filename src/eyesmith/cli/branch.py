"""`eyesmith branch`: let the rate of a constant-rate run fall from one of its kept states on."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import call
from eyesmith.cli.failures import on_interrupt
from eyesmith.cli.numbers import Written
from eyesmith.cli.tasks import take_tasks
from eyesmith.cli.verify import RunFolder

Out = Annotated[Positional[Path], Written("folder"), tyro.conf.arg(metavar="OUT", help="The folder to write.")]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments; --task FILE brings a task of the user's own."""
    argv, _ = take_tasks(argv)
    return call(branch, argv, prog=prog)


def branch(run: RunFolder, out: Out, /, *, at: int, steps: int, decay: Literal["linear", "sqrt"] = "sqrt") -> int:
    """Go on from a kept state of a run with optim.schedule=constant while the rate falls to 0; RUN is left as it is.

    Args:
        at: The step of the state; the run's keep_states and save_every_steps say which it keeps.
        steps: Steps of the cool-down; a fifth of the steps before it is usual.
        decay: How the rate falls: linear, or by 1 less the root of the share done.
    """
    from eyesmith.cli.output import show_run
    from eyesmith.runs.branch import branch as run_branch
    from eyesmith.runs.folder import CONFIG_FILE

    with on_interrupt(f"go on with `eyesmith resume {out}`", begun=out / CONFIG_FILE):
        show_run(lambda console: run_branch(run, out, at=at, steps=steps, shape=decay, console=console))
    return 0
