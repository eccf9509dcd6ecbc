import re
import subprocess
import sys
from typing import get_args

import pytest

from eyesmith.cli.data_make import Group
from eyesmith.cli.main import VERBS
from eyesmith.data.make.icons import ALL_GROUPS


def test_help_names_every_verb(eyesmith) -> None:
    status, out, _ = eyesmith("--help")
    assert status == 0
    for verb in VERBS:
        assert f"  {verb} " in out


def test_no_verb_is_wrong_input_and_shows_the_help(eyesmith) -> None:
    status, out, err = eyesmith()
    assert (status, out) == (2, "")
    assert "usage: eyesmith VERB" in err


@pytest.mark.parametrize(
    ("words", "closest"),
    [(["clasify"], "classify"), (["data", "mak"], "make"), (["data", "make", "emojis"], "emoji")],
)
def test_an_unknown_verb_names_the_closest(eyesmith, words: list[str], closest: str) -> None:
    status, _, err = eyesmith(*words)
    assert status == 2
    assert f"did you mean {closest}?" in err


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("train", "data")])
def test_every_verb_has_help(eyesmith, verb: str) -> None:
    status, out, _ = eyesmith(verb, "--help")
    assert status == 0
    assert f"usage: eyesmith {verb}" in out


@pytest.mark.parametrize("words", [["eval"], ["probe"], ["report"], ["data", "convert"]])
def test_an_option_that_says_no_tells_what_it_leaves_out(eyesmith, words: list[str]) -> None:
    _, out, _ = eyesmith(*words, "--help")
    text = " ".join(out.replace("│", " ").split())
    options = re.findall(r"--no-[\w-]+", text)
    assert options, "none left: this test can go"
    for option in set(options):  # in the option's column, and in the words beside it
        assert options.count(option) >= 2, option


def test_an_unknown_option_names_the_closest(eyesmith) -> None:
    status, out, err = eyesmith("search", "run", "photos", "a cat", "--topp", "3")
    assert status == 2
    assert out == ""
    assert "Unrecognized options: --topp" in err
    assert "--top INT" in err


def test_help_and_wrong_verbs_do_not_load_torch() -> None:
    program = (
        "import sys; from eyesmith.cli.main import main; import eyesmith; eyesmith.__version__\n"
        "assert main(['--help']) == 0 and main(['nonsense']) == 2 and main(['--version']) == 0\n"
        "heavy = {'torch', 'tyro', 'rich', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_groups_that_are_offered_are_those_that_there_are() -> None:
    assert get_args(Group) == ALL_GROUPS
