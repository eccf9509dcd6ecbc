import errno
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
