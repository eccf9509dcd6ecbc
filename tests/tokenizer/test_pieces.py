"""SigLIP's tokenizers beside transformers' on 20,000 texts. The published vocabularies are not at hand: those here are
made of captions, with the settings of the published ones.
"""

import random
import string
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from bench.captions import captions
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from eyesmith.errors import CheckpointError, DataError, MissingDependencyError
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.tokenizer import PieceTokenizer
from eyesmith.tokenizer.clean import canonical, single_spaces
from eyesmith.tokenizer.sentencepiece import read_pieces

ODD = (
    "äöüßéèçñœ日本語中文한국어русскийελληνικάعربيעברית🎉🐱😀½ⅷﬁﬂ①ＡＢ１２³²℃™…—–“”‘’«»¿¡\u00a0\u200b\u200d\u3000\u2028\u0301"
    "\u0327ẞİıſς\ufeff\u00ad\ufffd▁<>/&;_#@'\"-.,!?()[]{}|\\\t\n\r\x07\x0b\x7f0123456789"
)
SPECIAL = ["", "  ", "</s>", "a </s> b", "<unk>", "<unk> x</s>y", "▁", "▁ a", "a" * 500, "hello world " * 40, "\x00"]
SPECIAL += ["&lt;b&gt; it&#39;s", "A_B c_d", "ΟΔΥΣΣΕΥΣ", "İstanbul", "5hhh", "mmmmm a"]


def texts(count: int, seed: int) -> list[str]:
    """Captions, captions as found on web pages, captions with odd characters in them, and strings of any characters."""
    rng = random.Random(seed)

    def junk() -> str:
        return "".join(rng.choice(ODD if rng.random() < 0.6 else "abcdefghij KLMN ") for _ in range(rng.randint(0, 30)))

    def mixed(caption: str) -> str:
        words = caption.split()
        for _ in range(rng.randint(0, 4)):
            words.insert(rng.randint(0, len(words)), junk())
        return rng.choice([" ", "  "]).join(words)

    def anything() -> str:
        codes = (
            rng.choice((rng.randrange(1, 0x3000), rng.randrange(0xE000, 0x1FFFF))) for _ in range(rng.randint(1, 12))
        )
        return "".join(map(chr, codes))

    share = count // 5
    found = captions(share, seed) + captions(share, seed + 1, web=True)
    found += [mixed(caption) for caption in captions(share, seed + 2, web=True)]
    found += [junk() for _ in range(share)] + SPECIAL
    return found + [anything() for _ in range(count - len(found))]


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a spiece.model as SigLIP's: unigram, nmt_nfkc, T5's special tokens."""
    spm = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("unigram")
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(texts(4000, 50)[:3200]),  # without the strings of any characters
        model_prefix=str(folder / "spiece"),
        vocab_size=3000,
        character_coverage=0.995,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        num_threads=1,
    )
    return folder


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer.json as SigLIP 2's: byte pairs that fall back to bytes, an end token."""
    folder = tmp_path_factory.mktemp("gemma")
    names = ["<pad>", "<eos>", "<bos>", "<unk>"]
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")  # pyright: ignore[reportAttributeAccessIssue]
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")  # pyright: ignore[reportAttributeAccessIssue]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=3000, special_tokens=names + bytes_, show_progress=False)
    made.train_from_iterator(captions(3000, 60), trainer)
    vocab: Any = made.get_vocab()
    merges = [tuple(pair) if isinstance(pair, list) else pair for pair in _merges(made)]
    whole = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    whole.normalizer, whole.pre_tokenizer = made.normalizer, made.pre_tokenizer
    whole.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    ends = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    whole.post_processor = ends  # pyright: ignore[reportAttributeAccessIssue]
    whole.save(str(folder / "tokenizer.json"))
    return folder


def _merges(tokenizer: Tokenizer) -> Sequence[Any]:
    import json

    return json.loads(tokenizer.to_str())["model"]["merges"]


def siglip_ids(folder: Path, given: list[str]) -> list[list[int]]:
    ensure_torchvision()
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("google.protobuf")
    theirs = transformers.SiglipTokenizer(str(folder / "spiece.model"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of texts that hold the end token
        return theirs(given, padding="max_length", truncation=True, max_length=64)["input_ids"]


def compare(ours: list[list[int]], theirs: list[list[int]], given: list[str]) -> None:
    wrong = [text for text, left, right in zip(given, ours, theirs, strict=True) if left != right]
    assert not wrong, f"{len(wrong)} of {len(given)}, such as {wrong[0]!r}"


@pytest.mark.parametrize("count", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_siglip_ids_are_transformers(unigram: Path, count: int) -> None:
    given = texts(count, 7)
    ours = PieceTokenizer.load(unigram, "siglip", cleaning="siglip", context_len=64)
    compare(ours(given).tolist(), siglip_ids(unigram, given), given)


@pytest.mark.parametrize("count", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_siglip2_ids_are_transformers(gemma: Path, count: int) -> None:
    ensure_torchvision()
    transformers = pytest.importorskip("transformers")
    theirs = transformers.Siglip2Tokenizer.from_pretrained(gemma, padding_side="right")
    given = [text.encode("utf-8", "replace").decode() for text in texts(count, 8)]
    ours = PieceTokenizer.load(gemma, "siglip2", cleaning="siglip2", context_len=64)
    found = theirs(given, padding="max_length", truncation=True, max_length=64)["input_ids"]
    compare(ours(given).tolist(), found, given)
    assert ours.encode("a CAT")[-1] == 1


def test_cleaning_is_open_clips() -> None:
    ensure_torchvision()
    theirs = pytest.importorskip("open_clip.tokenizer")
    for text in texts(1500, 9):
        assert canonical(text) == theirs._clean_canonicalize(text)
        assert single_spaces(text) == theirs._clean_whitespace(text)


def test_rows_are_padded_and_cut(gemma: Path) -> None:
    ours = PieceTokenizer.load(gemma, "siglip2", cleaning="siglip2", context_len=8)
    ids = ours(["a", "a photo of a dog in a park with a red ball"])
    assert ids.shape == (2, 8)
    assert ids.dtype == torch.int64
    assert ids[0].tolist().count(0) > 4
    assert ids[1, -1] == 1
    assert ours(["a", "a cat"], cut=True).shape[1] < 8


def test_a_saved_vocabulary_gives_the_same_ids(unigram: Path, gemma: Path, tmp_path: Path) -> None:
    for folder, name, cleaning in ((unigram, "siglip", "siglip"), (gemma, "siglip2", "siglip2")):
        ours: Any = PieceTokenizer.load(folder, name, cleaning=cleaning, context_len=16)  # pyright: ignore[reportArgumentType]
        place = tmp_path / name
        place.mkdir()
        ours.save(place / ours.FILE)
        again: Any = PieceTokenizer.load(place, name, cleaning=cleaning, context_len=16)  # pyright: ignore[reportArgumentType]
        assert torch.equal(ours(SPECIAL), again(SPECIAL))


def test_what_is_missing_or_damaged_says_so(tmp_path: Path, unigram: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: Path) -> PieceTokenizer:
        return PieceTokenizer.load(path, "siglip", cleaning="siglip", context_len=64)

    with pytest.raises(CheckpointError, match=r"expected tokenizer.json or spiece.model"):
        load(tmp_path)
    (tmp_path / "spiece.model").write_bytes((unigram / "spiece.model").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="expected a"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(CheckpointError, match="cannot be read as a tokenizer"):
        load(tmp_path / "tokenizer.json")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(MissingDependencyError, match="the vocabulary of timm/ViT-B-16-SigLIP is needed"):
        PieceTokenizer.find("siglip", cleaning="siglip", context_len=64)
    with pytest.raises(DataError, match=r"texts\[1\]: expected a text, got int"):
        load(unigram)(["a", 3])  # pyright: ignore[reportArgumentType]


def test_a_model_of_byte_pairs_is_told_apart(tmp_path: Path) -> None:
    spm = pytest.importorskip("sentencepiece")
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(captions(500, 3)),
        model_prefix=str(tmp_path / "bpe"),
        vocab_size=400,
        model_type="bpe",
        minloglevel=2,
    )
    with pytest.raises(CheckpointError, match="this one is of another kind"):
        read_pieces((tmp_path / "bpe.model").read_bytes(), "bpe.model")


def test_clipas_separator_becomes_padding() -> None:
    words = ["[PAD]", *string.ascii_lowercase]
    vocab = {word: index for index, word in enumerate(words)} | {"[CLS]": 101, "[SEP]": 102, "[UNK]": 100}
    made = Tokenizer(models.WordLevel(vocab, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    ends = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 101), ("[SEP]", 102)])
    made.post_processor = ends  # pyright: ignore[reportAttributeAccessIssue]
    ours = PieceTokenizer(made.to_str().encode(), "f", "bert", cleaning="spaces", context_len=6)
    assert ours(["a b", "a b c d e f"]).tolist() == [[101, 1, 2, 0, 0, 0], [101, 1, 2, 3, 4, 0]]
