"""Text features of one model: each distinct string, and each beginning of one, encoded once; kept on disk if wanted."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.features.agreement import agree
from eyesmith.eval.features.cache import prune, touch
from eyesmith.eval.features.identity import cache_key, model_facts
from eyesmith.eval.features.images import own_rows, sum_over_processes
from eyesmith.eval.features.precision import TowerPrecision
from eyesmith.eval.features.prefixes import shared_features, text_batches
from eyesmith.files import is_sealed, sealed_path
from eyesmith.models.clip import Clip, evaluating
from eyesmith.models.text.cache import TextCache, tokenizer_hash
from eyesmith.models.text.model import ClipText
from eyesmith.train.distributed import World


class TextFeatures:
    """Text features of one model, each distinct string encoded once.

    Besides the time saved, equal strings so get equal bits, and ties between equal class names stay exact.
    precision: what the tower computes in. folder: where finished classifiers are kept, by the hash of the tower, so
    that the next run needs no text at all; None: nowhere. fresh: encode anew what is kept. world: processes that share
    the work; all of them must then ask for the same. `num_reused` counts the classifiers taken from the folder.
    """

    def __init__(
        self,
        clip: Clip,
        *,
        batch_size: int = 256,
        precision: TowerPrecision | None = None,
        folder: Path | None = None,
        fresh: bool = False,
        world: World | None = None,
    ) -> None:
        self._clip = clip
        self._batch_size = batch_size
        self._precision = precision or TowerPrecision()
        self._folder = folder
        self._world = world or World()
        self._state = _text_state(clip)
        self._place: dict[str, int] = {}  # text to row
        self._rows = torch.zeros(0, 1)
        self._cache: TextCache | None = None
        self._fresh = fresh
        self._tower_hash = ""
        self.num_reused = 0

    def is_current(self, clip: Clip) -> bool:
        """Whether the features still hold for `clip`: the same text tower, frozen and never written to since."""
        return clip is self._clip and self._state is not None and self._state == _text_state(clip)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Unit rows [T, D] fp32 on the CPU for `texts`."""
        if not texts:
            raise DataError("no texts were given to encode")
        agree(self._world)
        self._learn(texts)
        return self._rows[torch.tensor([self._place[text] for text in texts])]  # [T, D]

    def class_weights(self, names: Sequence[str], prompts: Sequence[str]) -> Tensor:
        """One unit row a class, [K, D] fp32: the normalised mean over prompts of the normalised prompt features.

        A prompt holds the place of the name as {} or {c}. Source: CLIP (arXiv 2103.00020), section 3.1.4.
        Raises ConfigError for a prompt without a place, DataError without names or prompts.
        """
        if not names or not prompts:
            raise DataError(f"zero-shot classes need names and prompts, got {len(names)} names, {len(prompts)} prompts")
        agree(self._world)
        path = self._kept("classes", [list(names), list(prompts)])
        kept = self._read(path, len(names))
        if kept is not None:
            return kept
        texts = [fill_prompt(prompt, name) for name in names for prompt in prompts]
        self._learn(texts)
        place = torch.tensor([self._place[text] for text in texts]).view(len(names), len(prompts))
        sums = [self._rows[places].mean(0) for places in place]  # a class at a time: [K, P, D] may be gigabytes
        weights = F.normalize(torch.stack(sums), dim=-1)  # [K, D]
        self._write(path, weights)
        return weights

    def captions(self, texts: Sequence[str]) -> Tensor:
        """As a call, [T, D], for retrieval sets: where there is a folder, one matrix there and nothing in memory."""
        if self._folder is None:
            return self(texts)
        agree(self._world)
        path = self._kept("captions", list(texts))
        kept = self._read(path, len(texts))
        if kept is not None:
            return kept
        rows = TextFeatures(self._clip, batch_size=self._batch_size, precision=self._precision, world=self._world)(
            texts
        )
        self._write(path, rows)
        return rows

    def _learn(self, texts: Sequence[str]) -> None:
        new = sorted({text for text in texts if text not in self._place}, key=lambda text: (len(text), text))
        if not new:
            return
        # a tower that no training changes has its texts on a disk or not, so one process decides what to encode
        is_kept = self._clip.config.lock_text and self._precision.half is None
        with self._precision(self._clip.logit_scale.device):
            found = self._world.once(lambda: self._on_disk(new)) if is_kept else self._encode(new).float().cpu()
        first = len(self._place)
        self._place.update({text: first + row for row, text in enumerate(new)})
        self._rows = torch.cat([self._rows, found]) if first else found

    def _encode(self, texts: Sequence[str]) -> Tensor:
        """[T, D] for texts that are sorted by their length in characters."""
        rows, error = torch.zeros(0, 1), None
        try:
            rows = self._own_share(texts)
        except Exception as stopped:  # the others must not wait for rows that will not come
            error = stopped
        agree(self._world, error)
        return sum_over_processes(rows, self._world)

    def _own_share(self, texts: Sequence[str]) -> Tensor:
        """[T, D] on the CPU: the rows that this process encodes, zeros for the others'."""
        tower, world = self._clip.text, self._world
        if not isinstance(tower, ClipText) or not tower.is_cut:  # the beginnings of texts have states of their own
            share = own_rows(len(texts), self._batch_size, world)
            own = self._clip.encode_text(texts[share.start : share.stop] or texts[:1], batch_size=self._batch_size)
            rows = torch.zeros(len(texts), own.shape[1])
            rows[share.start : share.stop] = own[: len(share)].float().cpu()
            return rows
        ids = tower.tokenize(texts)  # [T, L]
        ends = tower.ends(ids) + 1  # [T]
        rows = torch.zeros(len(texts), tower.out_dim)
        device = self._clip.logit_scale.device
        with evaluating(tower), torch.inference_mode():
            for chosen in text_batches(ids, ends)[world.rank :: world.size]:
                own = ends[chosen]
                part = ids[chosen, : int(own.max())].to(device)
                rows[chosen] = F.normalize(shared_features(tower, part, own).float(), dim=-1).cpu()
        return rows

    def _on_disk(self, texts: Sequence[str]) -> Tensor:
        """As `_encode`; what earlier runs encoded is taken from the disk."""
        self._cache = self._cache or TextCache(self._clip.text, self._clip.encode_text)
        return self._cache(texts)

    def _kept(self, what: str, content: object) -> Path | None:
        if self._folder is None:
            return None
        if not self._tower_hash:
            tokenizer = tokenizer_hash(self._clip.text)
            facts = model_facts(self._clip.text) | ({"tokenizer": tokenizer} if tokenizer else {})
            self._tower_hash = cache_key(facts, precision=self._precision.name)
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
        return self._folder / f"{what}-{self._tower_hash}" / f"{digest}.npy"

    def _read(self, path: Path | None, num_rows: int) -> Tensor | None:
        """What is kept; the first process decides for all, whose disks may hold other things."""
        if path is None or self._fresh:
            return None
        kept = self._world.once(lambda: _read(path, num_rows))
        if kept is not None:
            touch(path)
            self.num_reused += 1
        return kept

    def _write(self, path: Path | None, rows: Tensor) -> None:
        if path is not None and self._folder is not None and self._world.is_first:
            with sealed_path(path) as part, part.open("wb") as stream:
                np.save(stream, rows.numpy())
            prune(self._folder)


def fill_prompt(prompt: str, name: str) -> str:
    """`prompt` with `name` in place of {} (our prompts) or {c} (template files of data sets)."""
    for place in ("{}", "{c}"):
        if place in prompt:
            return prompt.replace(place, name)
    raise ConfigError(f"prompt {prompt!r}: expected a place for the class name, {{}} or {{c}}")


def _read(path: Path, num_rows: int) -> Tensor | None:
    """[num_rows, D] as it was kept; None where it was not, or the file is damaged."""
    if not is_sealed(path):
        return None
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_ours = rows.ndim == 2 and rows.dtype == np.float32 and len(rows) == num_rows
    return torch.from_numpy(rows) if is_ours else None


def _text_state(clip: Clip) -> tuple[tuple[int, int], ...] | None:
    """Identity and write counter of every tensor of the text tower; None when it is being trained."""
    if any(parameter.requires_grad for parameter in clip.text.parameters()):
        return None
    try:
        return tuple((id(tensor), tensor._version) for tensor in _tensors(clip))
    except RuntimeError:  # tensors made in inference mode count no writes
        return None


def _tensors(clip: Clip) -> Iterator[Tensor]:
    yield from clip.text.parameters()
    yield from clip.text.buffers()
