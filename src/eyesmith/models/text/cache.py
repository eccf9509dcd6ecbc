"""Features of a frozen text tower, encoded once and kept on disk for every later run.

Source: Locked-Text Tuning (ViTamin, section 4.3) keeps the text tower fixed, so its features are constants.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from eyesmith.files import SEAL_BYTES, cache_folder, is_sealed, sealed_path
from eyesmith.models.identity import module_hash

BATCH = 256  # texts of one call of the tower


class TextCache:
    """Features by text, for one frozen tower.

    The file in the cache folder is keyed by the tower (`text_tower_hash`) and the precision, inside it by the text, so
    no text is encoded twice by one tower. It only saves time: a damaged or missing file is made anew. `num_encoded`
    counts the texts that had to be encoded.
    """

    def __init__(
        self,
        tower: nn.Module,
        encode: Callable[[Sequence[str]], Tensor],
        *,
        precision: str = "fp32",
        folder: Path | None = None,
    ) -> None:
        """encode: texts to unit features [T, D]; called with texts of similar length. precision: what it computes in,
        for features of another are others.
        """
        self._encode = encode
        name = text_tower_hash(tower) + ("" if precision == "fp32" else f"-{precision}")
        self._path = (folder or cache_folder() / "text") / f"{name}.safetensors"
        self._known = _read(self._path)
        self.num_encoded = 0

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Unit features [T, D] fp32 on the CPU, equal bits for equal texts."""
        keys = [_key(text) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if missing:
            # sorted: the texts of a batch then need about the same padding, and the order they came in does not matter
            pairs = sorted(missing.items(), key=lambda pair: (len(pair[1]), pair[1]))
            for start in range(0, len(pairs), BATCH):
                part = pairs[start : start + BATCH]
                rows = self._encode([text for _, text in part]).float().cpu()
                self._known |= {key: row for (key, _), row in zip(part, rows, strict=True)}
            self.num_encoded += len(missing)
            _write(self._path, self._known)
        return torch.stack([self._known[key] for key in keys])


def text_tower_hash(tower: nn.Module) -> str:
    """Hexadecimal digest of all that the features of a text depend on: weights, structure, and the tower's tokenizer,
    which lies in files beside the weights and can be another with the same ones."""
    tokenizer = tokenizer_hash(tower)
    return module_hash(tower) + (f"-{tokenizer}" if tokenizer else "")


def tokenizer_hash(tower: nn.Module) -> str:
    """Digest of a tower's tokenizer whose files can be others with the same weights; "" where it is fixed."""
    known = getattr(tower, "tokenizer_hash", None)
    return known() if known is not None else ""


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if not is_sealed(path):
            return {}
        stored = load(path.read_bytes()[:-SEAL_BYTES])
        names = stored["keys"].numpy().tobytes().decode().split()
        return dict(zip(names, stored["features"], strict=True))
    except (OSError, SafetensorError, KeyError, ValueError):
        return {}


def _write(path: Path, known: dict[str, Tensor]) -> None:
    names = torch.frombuffer(bytearray("\n".join(known).encode()), dtype=torch.uint8)
    with sealed_path(path) as part:
        save_file({"keys": names, "features": torch.stack(list(known.values()))}, part)
