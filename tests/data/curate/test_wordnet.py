from pathlib import Path

import pytest

from eyesmith.data.curate.wordnet import WordNet, read_synset_ids
from eyesmith.errors import DataError

_LICENCE = "  1 This software and database is being provided to you\n"
_INDEX = {
    # lemma part synsets pointers [pointers] senses tagged offsets
    "noun": "dog n 2 3 @ ~ #m 2 1 02084071 10114209\ngoose n 1 1 @ 1 0 01855672\naxis n 1 1 @ 1 0 06060845\n"
    "box n 1 0 1 0 02883344\nrun n 1 1 @ 1 1 00555195\nwoman n 1 1 @ 1 1 10787470\n",
    "verb": "run v 1 1 @ 1 1 01926311\ngo v 1 1 @ 1 1 01835496\nbake v 1 0 1 1 00319886\n",
    "adj": "small a 1 1 ! 1 1 01391351\n",
    "adv": "here r 1 0 1 1 00109461\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, lines in _INDEX.items():
        (tmp_path / f"index.{part}").write_text(_LICENCE + lines)
    (tmp_path / "noun.exc").write_text("geese goose\naxes axis\n")
    (tmp_path / "verb.exc").write_text("went go\n")
    return tmp_path


@pytest.mark.parametrize(
    ("word", "offset"),
    [
        ("dog", 2084071),
        ("DOGS", 2084071),
        ("geese", 1855672),  # irregular
        ("axes", 6060845),
        ("boxes", 2883344),
        ("women", 10787470),
        ("run", 555195),  # the noun stands before the verb
        ("runs", 555195),
        ("went", 1835496),
        ("baking", 319886),
        ("smaller", 1391351),
        ("here", 109461),
        ("dog,", -1),  # marks stay on the word, as a split at blanks leaves them
        ("", -1),
        ("unknown", -1),
    ],
)
def test_first_meaning(folder: Path, word: str, offset: int) -> None:
    assert WordNet(folder).first_offset(word) == offset


def test_a_missing_or_damaged_index_is_named(folder: Path) -> None:
    (folder / "index.adv").write_text("here r\n")
    with pytest.raises(DataError, match=r"index.adv, line 1"):
        WordNet(folder)
    (folder / "index.adj").unlink()
    with pytest.raises(DataError, match="WordNet 3.0"):
        WordNet(folder)


def test_ids_with_and_without_a_letter(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("n02084071\n01855672\n\n")
    assert read_synset_ids(file) == {2084071, 1855672}
    file.write_text("dog\n")
    with pytest.raises(DataError, match="line 1"):
        read_synset_ids(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_synset_ids(tmp_path / "none.txt")
