"""tokenizer.json, read by the `tokenizers` library alone, against the ids our models were checked with."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from eyesmith.hub.export.tokenizer import save_tokenizer
from eyesmith.models.clip import Clip
from eyesmith.tokenizer import ClipTokenizer

TEXTS = [
    "a photo of a cat",
    "A DIAGRAM.  With\ttabs,\nlines and   spaces ",
    "it's the 42nd café's naïve façade, isn't it?",
    "Two red cubes, left of a blue ball!!! :-) ... #1/2 100%",
    "日本語のテキスト и кириллица ☕ 🏳️‍🌈 👩‍🚀",
    "",
    " ",
    "word " * 200,
    "<end_of_text> inside",
    "x" * 300,
]


@pytest.fixture(scope="module")
def made(tiny: Clip, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Path]:
    folder = tmp_path_factory.mktemp("tokenizer")
    return Tokenizer.from_file(str(folder / save_tokenizer(tiny.text, folder))), folder


@pytest.mark.parametrize("text", TEXTS, ids=[repr(text[:12]) for text in TEXTS])
def test_ids_equal_ours(text: str, made: tuple[Tokenizer, Path], tiny: Clip) -> None:
    assert made[0].encode(text).ids == tiny.text.tokenizer.encode(text)


def test_a_batch_is_padded_as_ours(made: tuple[Tokenizer, Path], tiny: Clip) -> None:
    texts = ["a cat", "a photo of two cats"]
    assert [row.ids for row in made[0].encode_batch(texts)] == tiny.text.tokenize(texts).tolist()


def test_the_list_of_merges_is_there_too(made: tuple[Tokenizer, Path], tiny: Clip) -> None:
    again = ClipTokenizer.load(made[1] / "clip_vocabulary.txt.gz", context_len=20)
    assert again.encode("a cat") == tiny.text.tokenizer.encode("a cat")
