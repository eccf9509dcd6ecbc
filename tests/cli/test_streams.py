"""Where output goes when nobody reads it: no message, no traceback, whatever the state of stdout and stderr."""

import os
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "eyesmith"]
# more than a pipe holds, from the command itself
LONG = (
    "import sys; from eyesmith.cli import main as m; m.dispatch = lambda *a, **k: print('x' * 400_000) or 0; "
    "sys.exit(m.main(['models']))"
)


def test_the_package_is_a_command() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("eyesmith ")


@pytest.mark.parametrize("words", ["--help", "data --help", "models --help"])
def test_a_closed_stdout_is_quiet(words: str) -> None:
    command = f'"$0" -m eyesmith {words} >&-'
    done = subprocess.run(["bash", "-c", command, sys.executable], stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_stderr_is_quiet() -> None:
    command = '"$0" -m eyesmith nonsense 2>&-'
    done = subprocess.run(["bash", "-c", command, sys.executable], stdout=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("program", [["-m", "eyesmith", "models", "--help"], ["-c", LONG]], ids=["help", "output"])
def test_a_reader_that_went_away_is_quiet(program: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, *program], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_nobody_reads_the_messages_either() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, "nonsense"], stderr=writer, stdout=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_full_pipe_waits_for_its_reader() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with subprocess.Popen([sys.executable, "-c", LONG], stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        with open(reader, "rb") as stream:
            content = stream.read()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert (process.returncode, len(content)) == (0, 400_001)
