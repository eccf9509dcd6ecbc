"""`eyesmith replay`: run a step again that was not finite, and say where it went wrong."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import call
from eyesmith.cli.output import AsJson, answer, print_json
from eyesmith.cli.tasks import take_tasks

ReplayPath = Annotated[
    Positional[Path], tyro.conf.arg(metavar="FILE", help="replay.json, or its folder RUN/replay/step-N.")
]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments; --task FILE brings a task of the user's own."""
    argv, _ = take_tasks(argv)
    return call(run_again, argv, prog=prog)


def run_again(file: ReplayPath, /, *, as_json: AsJson = False) -> int:
    """Run the step of a replay file again and explain it; exit status 1 when it is not finite this time either."""
    from eyesmith.cli.output import say
    from eyesmith.runs.replay import replay

    say(f"running the step of {file} again")
    found = replay(file)
    if as_json:
        print_json(
            {
                "step": found.step,
                "is_reproduced": found.is_reproduced,
                "first_output": found.trace.forward,
                "first_gradient": found.trace.backward,
                "first_weight": found.trace.weights,
                "samples": list(found.samples),
                "largest": found.trace.largest,
                "sentences": list(found.sentences),
            }
        )
    else:
        for sentence in found.sentences:
            answer(sentence)
    return 1 if found.is_reproduced else 0
