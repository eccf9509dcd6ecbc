"""tokenizer.json, read by the `tokenizers` library alone, against the ids our models were checked with."""

import html
import random
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import ftfy
import ftfy.badness
import pytest
from tokenizers import Tokenizer

from eyesmith.hub.export.tokenizer import clip_tokenizer, save_tokenizer
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


@pytest.mark.parametrize(
    "text",
    [
        "don\u2019t \u201cstop\u201d",
        "\uff11\uff12\uff13",
        "\ufb01sh \u0149",
        "\u0391\u03a3 \u03a3\u0391\u03a3 \u0391\u03a3\u02c0",
        "a\u0000b \x1b[31mred",
        "\ufeffbom",
        "x\u0345y",
        "<END_OF_TEXT> +<end_of_text><end_of_text><start_of_text>",
    ],
    ids=ascii,
)
def test_what_ftfy_replaces_one_by_one_gives_our_ids(text: str, whole: tuple[Tokenizer, ClipTokenizer]) -> None:
    assert whole[0].encode(text).ids == whole[1].encode(text)


def test_20000_made_texts_of_whole_encoding_give_our_ids(whole: tuple[Tokenizer, ClipTokenizer]) -> None:
    theirs, ours = whole
    texts = list(islice(filter(needs_no_mending, made_texts(random.Random(16))), 20_000))
    assert [text for text in texts if theirs.encode(text).ids != ours.encode(text)] == []


RANGES = (
    *[(0x20, 0x7F)] * 3,
    *[(0, 0x20), (0x7F, 0x100), (0x100, 0x250), (0x2B0, 0x400), (0x400, 0x530), (0x5D0, 0x700), (0x900, 0xE00)],
    *[(0x1E00, 0x2070), (0x2070, 0x2C00), (0x3000, 0x3100), (0x4E00, 0x4F00), (0xFB00, 0xFB10), (0xFF00, 0xFFF0)],
    *[(0x1F300, 0x1F700), (0x20, 0xD800), (0xE000, 0x110000)],
)
WORDS = (
    *("don\u2019t", "\u03a3\u0391\u03a3", "A.\u03a3.", "\u201cCat\u201d", "\ufb01sh", "Stra\u00dfe", "\u0130stanbul"),
    *("it's", "I'LL", "<start_of_text>", "<END_OF_TEXT>", "\x1b[31mred", "\r\n", "\u2028", "e\u0301", "."),
)


def made_texts(rng: random.Random) -> Iterator[str]:
    """Texts of words and of neighbours in Unicode, with and without spaces between."""
    while True:
        parts: list[str] = []
        for _ in range(rng.randint(1, 6)):
            low, high = rng.choice(RANGES)
            signs = "".join(chr(rng.randrange(low, high)) for _ in range(rng.randint(1, 5)))
            parts += [rng.choice(WORDS) if rng.random() < 0.3 else signs, rng.choice(["", " "])]
        yield "".join(parts)


def needs_no_mending(text: str) -> bool:
    """By ftfy's own word; characters that this Python does not know are of no class that can be compared."""
    if any(unicodedata.category(sign) in ("Cn", "Cs") for sign in text) or html.unescape(text) != text:
        return False
    return not ftfy.badness.is_bad(text) and ftfy.fix_encoding(text) == text


@pytest.fixture(scope="module")
def whole() -> tuple[Tokenizer, ClipTokenizer]:
    """At CLIP's own length, so that no difference is cut off."""
    ours = ClipTokenizer.load()
    return Tokenizer.from_str(clip_tokenizer(ours).to_str()), ours
