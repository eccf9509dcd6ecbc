"""What a person sees when something goes wrong: one message that says what to do, and the right exit status.

0 done, 1 the work failed, 2 the user's input is wrong; as every program, 130 after Ctrl-C and 141 when the reader of
the output went away. A traceback is shown only with EYESMITH_DEBUG=1.
"""

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from eyesmith.errors import EyesmithError, InputError
from eyesmith.plain import plain

_USERS_PATH = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


def explain(error: BaseException) -> int:
    """Print the message for `error` on stderr and return the exit status."""
    if isinstance(error, BrokenPipeError):
        # Python flushes stdout once more at exit, which would fail again with a message of its own
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if os.environ.get("EYESMITH_DEBUG", "") not in ("", "0"):
        traceback.print_exception(error)
    status, message = _message(error)
    with suppress(BrokenPipeError):  # whoever read the messages went away
        print("eyesmith: " + plain(message), file=sys.stderr, flush=True)
    return status


@contextmanager
def on_interrupt(advice: str) -> Iterator[None]:
    """Let the line shown after Ctrl-C inside this block say `advice`: what is kept, and how to go on."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not interrupt.args:  # a run that saved its state says so itself
            interrupt.add_note(advice)
        raise


def _message(error: BaseException) -> tuple[int, str]:
    if isinstance(error, KeyboardInterrupt):
        notes = "; ".join(getattr(error, "__notes__", ()))
        advice = notes or "files that were not finished are removed, finished ones are kept"
        return 130, str(error) or f"stopped; {advice}"
    if isinstance(error, EyesmithError):
        return (2 if isinstance(error, InputError) else 1), str(error)
    if isinstance(error, OSError):
        return _os_error(error)
    return 1, _unexpected(error)


def _os_error(error: OSError) -> tuple[int, str]:
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f"{where}: " if where else ""
        return 1, (
            f"{place}the disk is full; what was being written was removed again, finished files are kept. "
            "Free some space and repeat the command"
        )
    reason = error.strerror or str(error) or type(error).__name__
    message = f"{where}: {reason}" if where else reason
    return (2 if isinstance(error, _USERS_PATH) else 1), message


def _unexpected(error: BaseException) -> str:
    summary = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    try:
        with tempfile.NamedTemporaryFile("w", prefix="eyesmith-", suffix=".log", delete=False) as log:
            traceback.print_exception(error, file=log)
        where = f"the traceback is in {log.name}"
    except OSError:
        where = "EYESMITH_DEBUG=1 shows the traceback"
    return f"this should not have happened: {summary} ({where}; please report it)"
