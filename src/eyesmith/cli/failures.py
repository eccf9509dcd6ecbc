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
from pathlib import Path

from eyesmith.errors import EyesmithError, InputError
from eyesmith.plain import plain

_TORCH_SAYS = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
_BULLET = "\n- "  # a message may be a list, its names hold no lines of their own
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
    status, message = _message(_interrupt(error) or error)
    with suppress(BrokenPipeError):  # whoever read the messages went away
        print("eyesmith: " + _BULLET.join(map(plain, message.split(_BULLET))), file=sys.stderr, flush=True)
    return status


@contextmanager
def on_interrupt(advice: str, *, begun: Path | None = None) -> Iterator[None]:
    """Let the line shown after Ctrl-C inside this block say `advice`: what is kept, and how to go on.

    begun: a file without which there is nothing to go on with yet; then the line says that instead.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if begun is not None and not begun.is_file():
            advice = "nothing was trained yet; the same command begins anew"
        if not interrupt.args:  # a run that saved its state says so itself
            interrupt.add_note(advice)
        raise


def _interrupt(error: BaseException) -> KeyboardInterrupt | None:
    """The Ctrl-C of which this error came: imports and libraries that are cut off fail in ways of their own."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, KeyboardInterrupt):
        found = found.__cause__ or found.__context__
    return None if isinstance(error, EyesmithError) else found


def _message(error: BaseException) -> tuple[int, str]:
    if isinstance(error, KeyboardInterrupt):
        notes = "; ".join(getattr(error, "__notes__", ()))
        advice = notes or "files that were not finished are removed, finished ones are kept"
        return 130, str(error) or f"stopped; {advice}"
    if isinstance(error, EyesmithError):
        return (2 if isinstance(error, InputError) else 1), str(error)
    if isinstance(error, OSError):
        return _os_error(error)
    if _is_out_of_memory(error):
        return 1, (
            "out of memory: the system gave no more; finished files are kept. Lower --batch-size (batch_size, "
            "num_workers of a run), take a smaller model or picture, or close other programs"
        )
    if isinstance(error, RecursionError):
        return 2, "something in the input is nested too deep to be read; EYESMITH_DEBUG=1 shows where"
    return 1, _unexpected(error)


def _is_out_of_memory(error: BaseException) -> bool:
    """Also as torch says it, on the CPU by a plain RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH_SAYS)


def _os_error(error: OSError) -> tuple[int, str]:
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else ""
    if error.errno == errno.ENOMEM:
        return _message(MemoryError())
    if error.errno == errno.EFBIG:
        return 1, (
            f"{where or 'a file'}: would be larger than files may be here (`ulimit -f` shows the limit); what was "
            "being written was removed again, finished files are kept"
        )
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
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="eyesmith-", suffix=".log", delete=False) as log:
            lines = "".join(traceback.format_exception(error)).split("\n")
            log.write("\n".join(map(plain, lines)) + "\n")
        where = f"the traceback is in {log.name}"
    except OSError:
        where = "EYESMITH_DEBUG=1 shows the traceback"
    return f"this should not have happened: {summary} ({where}; please report it)"
