import pickle
from pathlib import Path

import pytest
import torch

from eyesmith.errors import ConfigError, DataError
from eyesmith.tokenizer import ClipTokenizer
from eyesmith.tokenizer import clip as module

# computed with open_clip 3.3.0
REFERENCE = {
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "A diagram.": [320, 22697, 269],
    "Hello   WORLD!!  it's 2024": [3306, 1002, 748, 585, 568, 273, 271, 273, 275],
    "caf\u00e9 na\u00efve \u2014 \u00bfqu\u00e9?": [15304, 1097, 35689, 563, 2005, 17133, 666, 4166, 286],
    "&lt;b&gt;bold&amp;amp;&lt;/b&gt;": [283, 321, 285, 8911, 5, 34308, 321, 285],
    "": [],
    "\U0001f600 emoji \u4f60\u597d": [7334, 16327, 47466, 254, 29290, 377],
    "<end_of_text> trick <start_of_text>": [49407, 8172, 49406],
    "a " * 100: [320] * 75,
    "don't they'll we're I'd": [847, 713, 889, 1342, 649, 982, 328, 1896],
    "snake_case_text 3.14159": [8798, 318, 2068, 318, 4160, 274, 269, 272, 275, 272, 276, 280],
}


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer.load()


@pytest.mark.parametrize("text", REFERENCE)
def test_ids_of_the_reference(tokenizer: ClipTokenizer, text: str) -> None:
    assert tokenizer.encode(text) == [49406, *REFERENCE[text], 49407]


def test_a_batch_is_its_rows_zero_padded(tokenizer: ClipTokenizer) -> None:
    ids = tokenizer(list(REFERENCE))
    assert ids.dtype == torch.int64
    assert ids.shape == (len(REFERENCE), 77)
    for row, text in zip(ids.tolist(), REFERENCE, strict=True):
        expected = [49406, *REFERENCE[text], 49407]
        assert row == expected + [0] * (77 - len(expected))


def test_one_text_and_no_text(tokenizer: ClipTokenizer) -> None:
    assert torch.equal(tokenizer("a cat"), tokenizer(["a cat"]))
    assert tokenizer([]).shape == (0, 77)


def test_cut_keeps_the_columns_in_use(tokenizer: ClipTokenizer) -> None:
    texts = ["a cat", "a photo of a cat", ""]
    assert torch.equal(tokenizer(texts, cut=True), tokenizer(texts)[:, :7])
    assert tokenizer([""], cut=True).tolist() == [[49406, 49407]]


def test_a_long_text_ends_with_the_end_token() -> None:
    short = ClipTokenizer.load(context_len=5)
    assert short.encode("a photo of a cat") == [49406, 320, 1125, 539, 49407]
    assert len(short.encode("x1 " * 10_000)) == 5


def test_ten_thousand_letters_and_nul_bytes(tokenizer: ClipTokenizer) -> None:
    assert len(tokenizer.encode("q" * 10_000)) == 77
    assert tokenizer.encode("a\0 ca\0t") == tokenizer.encode("a cat")


def test_forgetting_changes_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    small = ClipTokenizer.load()
    texts = ["a photo of a cat, a dog; and 12 birds", "caf\u00e9 zzyzx qwrtpsd " * 3]
    expected = ClipTokenizer.load()(texts)
    for _ in range(2):
        assert torch.equal(small(texts), expected)
    small.forget()
    assert torch.equal(small(texts), expected)


def test_saved_tokenizer_is_the_same_and_small(tokenizer: ClipTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "text" / "vocabulary.gz"
    tokenizer.save(path)
    first = path.read_bytes()
    assert len(first) < 400_000
    loaded = ClipTokenizer.load(path, context_len=16)
    assert loaded.context_len == 16
    assert torch.equal(loaded(["a photo of a cat"]), tokenizer(["a photo of a cat"])[:, :16])
    loaded.save(path)
    assert path.read_bytes() == first


def test_workers_get_an_equal_tokenizer(tokenizer: ClipTokenizer) -> None:
    texts = list(REFERENCE)
    assert torch.equal(pickle.loads(pickle.dumps(tokenizer))(texts), tokenizer(texts))


def test_what_is_no_text_is_named(tokenizer: ClipTokenizer) -> None:
    with pytest.raises(DataError, match=r"texts\[1\]: expected a text, got NoneType"):
        tokenizer(["a", None])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="context_len"):
        ClipTokenizer.load(context_len=1)
