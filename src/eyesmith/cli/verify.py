"""`eyesmith verify`: is the model in a run folder the one that was trained?"""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import call
from eyesmith.cli.output import AsJson, answer, print_json

RunFolder = Annotated[Positional[Path], tyro.conf.arg(metavar="RUN", help="A run folder.")]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(check, argv, prog=prog)


def check(run: RunFolder, /, *, as_json: AsJson = False) -> int:
    """Compare a run folder's files and its model's features, or words, with its fingerprint.

    Exit status 1 when they differ.
    """
    from eyesmith.hub.run_folder import CHAT_KIND, read_config
    from eyesmith.hub.verification import verify

    if read_config(run)["model"].get("kind") == CHAT_KIND:
        from eyesmith.multimodal.verification import verify_chat as verify
    report = verify(run)
    if as_json:
        print_json({"run": str(run), "ok": report.ok, "lines": list(report.lines)})
    else:
        for line in report.lines:
            answer(line)
        answer(f"{run}: {'this is the model that was trained' if report.ok else 'NOT the model that was trained'}")
    return 0 if report.ok else 1
