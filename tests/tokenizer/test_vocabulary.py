import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from eyesmith.errors import CheckpointError, MissingDependencyError
from eyesmith.models.text import ClipTextConfig
from eyesmith.tokenizer.vocabulary import (
    Vocabulary,
    byte_symbols,
    find_vocabulary,
    read_vocabulary,
    write_vocabulary,
)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return read_vocabulary(find_vocabulary())


def test_special_ids(vocabulary: Vocabulary) -> None:
    assert (len(vocabulary.merges), vocabulary.start_id, vocabulary.end_id) == (48894, 49406, 49407)


def test_every_symbol_is_made_once_and_before_its_use(vocabulary: Vocabulary) -> None:
    # what makes joining one place at a time equal to joining everywhere at once
    known = {*byte_symbols().values(), *(symbol + "</w>" for symbol in byte_symbols().values())}
    for left, right in vocabulary.merges:
        assert left in known
        assert right in known
        assert left + right not in known
        known.add(left + right)


def test_every_whole_piece_merges_to_its_own_token(vocabulary: Vocabulary) -> None:
    model = vocabulary.model()
    whole = vocabulary.whole_pieces()
    assert len(whole) > 30_000
    for word, index in whole.items():
        if not word.startswith("<"):
            assert [token.id for token in model.tokenize(word)] == [index]


def test_byte_symbols_are_256_different_characters() -> None:
    symbols = byte_symbols()
    assert sorted(symbols) == list(range(256))
    assert len(set(symbols.values())) == 256
    assert list(symbols)[:2] == [0x21, 0x22]
    assert not any(s.isspace() for s in symbols.values())


def test_finding_the_file_imports_nothing() -> None:
    code = (
        "import sys; from eyesmith.tokenizer.vocabulary import find_vocabulary; find_vocabulary();"
        "assert not {'open_clip', 'ftfy', 'regex', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"eyesmith\[clip\].*hf download openai/\S+ merges.txt") as raised:
        find_vocabulary()
    assert "\n" not in str(raised.value)


def test_the_hugging_face_cache_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vocabulary: Vocabulary) -> None:
    snapshot = tmp_path / "models--openai--clip-vit-base-patch32" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in vocabulary.merges)]
    (snapshot / "merges.txt").write_text("\n".join(lines), "utf-8")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert read_vocabulary(find_vocabulary()) == vocabulary


def test_bytes_need_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    text = ClipTextConfig(width=8, depth=1, heads=1, embed_dim=8).of_bytes().build()
    # by the rule alone: start, one id a byte in the order of byte_symbols, 256 more for the last of a word, end
    order = list(byte_symbols())
    ids = [512, *(order.index(byte) for byte in "kö".encode()), 256 + order.index(ord("t")), 513]
    assert text.tokenize(["Köt"]).tolist() == [ids]
    text.save_assets(tmp_path)
    again = ClipTextConfig(width=8, depth=1, heads=1, embed_dim=8).of_bytes().build()
    again.load_assets(tmp_path)
    assert again.tokenize(["a cat"]).tolist() == text.tokenize(["a cat"]).tolist()


def test_damaged_files_are_refused(vocabulary: Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.gz"
    write_vocabulary(vocabulary, path)
    whole = path.read_bytes()
    swapped = list(vocabulary.merges)
    swapped[10], swapped[11] = swapped[11], swapped[10]
    write_vocabulary(Vocabulary(merges=tuple(swapped)), tmp_path / "swapped.gz")
    bad = {
        "cut in half": whole[: len(whole) // 2],
        "not gzip": b"hello",
        "empty": b"",
        "few lines": gzip.compress(b"header\na b\n"),
        "other merges": (tmp_path / "swapped.gz").read_bytes(),
    }
    for content in bad.values():
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"vocabulary\.gz"):
            read_vocabulary(path)
    with pytest.raises(CheckpointError, match=r"absent\.gz"):
        read_vocabulary(tmp_path / "absent.gz")
