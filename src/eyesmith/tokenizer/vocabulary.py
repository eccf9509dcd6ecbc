"""CLIP's byte-pair vocabulary: where it is found, how it is stored, and the merges it defines."""

import gzip
import hashlib
import importlib.util
import os
import zlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tokenizers.models import BPE

from eyesmith.errors import CheckpointError, MissingDependencyError
from eyesmith.files import write_atomic

NUM_MERGES = 49152 - 256 - 2  # of the 262,144 lines in the published file, the ones CLIP was trained with
SHA256 = "f61f2adf497e6f5357c347aeb4646fabe82f341e946de5bdec5d2858e41bef4a"  # of those lines, joined by "\n"
NUM_BYTES = 256
FILE_NAME = "bpe_simple_vocab_16e6.txt.gz"
WORD_END = "</w>"
_GZIP, _HEADER = b"\x1f\x8b", "#version:"
_PACKAGES = ("open_clip", "clip")  # open_clip_torch; OpenAI's own and its repackagings
_HUB_FILE = "merges.txt"  # the same merges as plain text, in the folders of these models on the Hugging Face hub
_HUB_MODELS = ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch16", "openai/clip-vit-large-patch14")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Token ids: 0..255 a byte, 256..511 a byte that ends a word, then one id a merge, then the two special tokens.

    merges: pairs of symbols as they stand in the file, in the order in which they are joined. Every symbol is a byte or
    made by an earlier merge, and no two merges make the same one. So joining the best pair one place at a time, as the
    `tokenizers` library does, gives the same as joining it everywhere at once, as the reference does.
    """

    merges: tuple[tuple[str, str], ...]

    @property
    def start_id(self) -> int:
        """Id of `<start_of_text>`."""
        return 2 * NUM_BYTES + len(self.merges)

    @property
    def end_id(self) -> int:
        """Id of `<end_of_text>`, the largest."""
        return self.start_id + 1

    def whole_pieces(self) -> dict[str, int]:
        """Pieces of text that are one token: the special tokens, and the words of ASCII letters that a merge ends.

        Merging such a word does end in its own token: that is a property of CLIP's merges, tested for every one.
        """
        joined = enumerate(("".join(pair) for pair in self.merges), start=2 * NUM_BYTES)
        words = ((name.removesuffix(WORD_END), index) for index, name in joined if name.endswith(WORD_END))
        pieces = {word: index for word, index in words if word.isascii() and word.isalpha()}
        return pieces | {"<start_of_text>": self.start_id, "<end_of_text>": self.end_id}

    def model(self) -> BPE:
        """What turns one word, written in `byte_symbols`, into tokens with these ids."""
        symbols = byte_symbols().values()
        names = [*symbols, *(symbol + WORD_END for symbol in symbols), *("".join(pair) for pair in self.merges)]
        ids = {name: index for index, name in enumerate(names)}
        return BPE(vocab=ids, merges=list(self.merges), end_of_word_suffix=WORD_END, cache_capacity=0)


BYTES = Vocabulary(merges=())
"""Bytes alone: 514 tokens, which need no file. For text towers that train from nothing; of no published model."""


def find_vocabulary() -> Path:
    """CLIP's vocabulary file, on this machine: inside open_clip_torch or OpenAI's clip, which are not imported, or in
    the Hugging Face cache. Raises MissingDependencyError, which says how to get it."""
    for name in _PACKAGES:
        package = importlib.util.find_spec(name)
        for folder in (package.submodule_search_locations if package is not None else None) or ():
            path = Path(folder) / FILE_NAME
            if path.is_file():
                return path
    from huggingface_hub import try_to_load_from_cache  # slow to import, and seldom needed

    for model in _HUB_MODELS:
        cached = try_to_load_from_cache(model, _HUB_FILE)
        if isinstance(cached, str):
            return Path(cached)
    raise MissingDependencyError(
        "CLIP's vocabulary is not on this machine: pip install 'eyesmith[clip]', or fetch the one file with "
        f"`hf download {_HUB_MODELS[0]} {_HUB_FILE}`"
    )


def read_vocabulary(path: str | os.PathLike[str]) -> Vocabulary:
    """Read a list of merges, gzipped or plain: one header line, then two symbols a line; no merges are `BYTES`.

    Raises CheckpointError for a damaged file and for other merges than CLIP's.
    """
    try:
        with Path(path).open("rb") as file:
            is_gzip = file.read(len(_GZIP)) == _GZIP
        with (gzip.open if is_gzip else open)(path, "rt", encoding="utf-8", newline="\n") as stream:
            header, *lines = islice(stream, 1 + NUM_MERGES)  # no more is read, however much there is
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise CheckpointError(f"{path}: expected a CLIP vocabulary, got another or a damaged file: {error}") from error
    if header.startswith(_HEADER) and not lines:
        return BYTES
    merges = [tuple(line.split()) for line in lines]
    if len(merges) != NUM_MERGES:
        raise CheckpointError(f"{path}: expected {NUM_MERGES} merges after a header line, got {len(merges)}")
    if (digest := hashlib.sha256("\n".join(map(" ".join, merges)).encode()).hexdigest()) != SHA256:
        raise CheckpointError(f"{path}: these are not CLIP's merges: expected SHA-256 {SHA256}, got {digest}")
    return Vocabulary(merges=tuple((pair[0], pair[1]) for pair in merges))


def write_vocabulary(vocabulary: Vocabulary, path: str | os.PathLike[str]) -> None:
    """Write the merges in use as a file that `read_vocabulary` reads; equal vocabularies give equal bytes."""
    lines = [f"{_HEADER} 0.2", *(f"{left} {right}" for left, right in vocabulary.merges)]
    write_atomic(path, gzip.compress("\n".join(lines).encode() + b"\n", mtime=0))


def byte_symbols() -> dict[int, str]:
    """A visible character for each byte value, in the order of the token ids.

    Bytes that are printable in Latin-1 stand for themselves and come first; the rest take characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(NUM_BYTES) if byte not in set(printable)]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}
