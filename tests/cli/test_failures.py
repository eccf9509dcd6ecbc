import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from eyesmith.cli.dispatch import Verb
from eyesmith.cli.failures import on_interrupt
from eyesmith.cli.main import VERBS
from eyesmith.errors import ImageError, MissingDependencyError, TrainingError


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Puts a verb `fail` into the table that raises the given error."""

    def put(error: BaseException) -> None:
        def fail(argv: list[str], prog: str) -> int:
            raise error

        monkeypatch.setattr(sys.modules[__name__], "fail", fail, raising=False)
        monkeypatch.setitem(VERBS, "fail", Verb(__name__, "fails", "fail"))
        monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])

    return put


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ImageError("cat.jpg: truncated"), 2, "eyesmith: cat.jpg: truncated\n"),
        (MissingDependencyError("pip install 'eyesmith[demo]'"), 2, "eyesmith: pip install 'eyesmith[demo]'\n"),
        (TrainingError("the loss is not finite"), 1, "eyesmith: the loss is not finite\n"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.txt"), 2, "x.txt: No such file or directory"),
        (OSError(errno.EIO, "Input/output error", "x.tar"), 1, "x.tar: Input/output error"),
        (OSError(errno.EFBIG, "File too large", "x.npz"), 1, "x.npz: would be larger than files may be here"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, "out of memory: "),
        (MemoryError(), 1, "out of memory: "),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 1, "out of memory: "),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), 1, "out of memory: "),
        (RecursionError("maximum recursion depth exceeded"), 2, "nested too deep"),
    ],
)
def test_errors_become_one_message(eyesmith, failing, error: BaseException, status: int, message: str) -> None:
    failing(error)
    got, out, err = eyesmith("fail")
    assert (got, out) == (status, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_full_disk_names_the_file_and_says_that_nothing_half_written_is_left(eyesmith, failing) -> None:
    failing(OSError(errno.ENOSPC, "No space left on device", "runs/a/model.safetensors"))
    status, _, err = eyesmith("fail")
    assert status == 1
    assert "runs/a/model.safetensors: the disk is full" in err
    assert "removed again" in err


def test_ctrl_c_says_how_to_go_on(eyesmith, failing) -> None:
    failing(KeyboardInterrupt())
    assert eyesmith("fail") == (
        130,
        "",
        "eyesmith: stopped; files that were not finished are removed, finished ones are kept\n",
    )
    with pytest.raises(KeyboardInterrupt) as caught, on_interrupt("go on with `eyesmith resume runs/a`"):
        raise KeyboardInterrupt
    failing(caught.value)
    assert eyesmith("fail") == (130, "", "eyesmith: stopped; go on with `eyesmith resume runs/a`\n")
    with pytest.raises(KeyboardInterrupt) as caught, on_interrupt("not this"):
        raise KeyboardInterrupt("stopped after step 3, saved")
    failing(caught.value)
    assert eyesmith("fail") == (130, "", "eyesmith: stopped after step 3, saved\n")


def test_a_reader_that_went_away_is_no_message(eyesmith, failing) -> None:
    failing(BrokenPipeError())
    assert eyesmith("fail") == (141, "", "")


def test_what_nobody_expected_is_one_line_and_a_file_with_the_traceback(
    eyesmith, failing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    failing(ZeroDivisionError("division by zero"))
    status, out, err = eyesmith("fail")
    (log,) = tmp_path.glob("eyesmith-*.log")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "ZeroDivisionError: division by zero" in err
    assert str(log) in err
    assert "Traceback" in log.read_text()


def test_debug_shows_the_traceback(
    failing, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from eyesmith.cli.main import main

    monkeypatch.setenv("EYESMITH_DEBUG", "1")
    failing(ImageError("cat.jpg: truncated"))
    assert main(["fail"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_what_fails_because_of_ctrl_c_is_ctrl_c(eyesmith, failing) -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        try:
            raise ImportError("cannot import name 'nn' from partially initialized module 'torch'")
        except ImportError as error:
            failing(error)
    status, _, err = eyesmith("fail")
    assert status == 130
    assert err == "eyesmith: stopped; files that were not finished are removed, finished ones are kept\n"


SLOW = """
import sys, time
from eyesmith.cli import main as command
from eyesmith.cli.dispatch import Verb

def work(argv, prog):
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        print("tidying", flush=True)
        time.sleep(60 if argv[0] == "long" else 0)

sys.modules["slow"] = sys.modules["__main__"]
command.VERBS["slow"] = Verb("slow", "sleeps", "work")
status = command.main()
print("over", flush=True)
time.sleep(60 if sys.argv[2] == "over" else 0)
sys.exit(status)
"""


@pytest.mark.parametrize(("way", "seen"), [("long", "tidying"), ("over", "over")])
def test_two_ctrl_c_end_with_130_and_without_a_traceback(way: str, seen: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, "slow", way], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "working\n"
        child.send_signal(signal.SIGINT)
        while child.stdout.readline() != f"{seen}\n":
            pass
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert err == "eyesmith: stopped; files that were not finished are removed, finished ones are kept\n"


@pytest.mark.skipif(os.name != "posix", reason="ulimit")
def test_a_limit_on_the_size_of_files_is_named_and_nothing_half_written_stays(tmp_path: Path) -> None:
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from eyesmith.cli.main import main; sys.exit(main())"
    )
    words = ["curate", "make-pool", str(tmp_path / "pool")]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "would be larger than files may be here" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not [*(tmp_path / "pool").rglob("*.part")]
