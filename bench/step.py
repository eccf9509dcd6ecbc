"""A training step of a CLIP against open_clip's: the same weights, pictures, captions and optimiser, fp32 on the CPU.

Ours is the real loop: it tokenizes, normalises the pixels, masks equal captions and takes the gradient norm inside the
timed step. Theirs is the body of open_clip_train's loop with tensors that are ready: tokenized and normalised before.
"""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bench.captions import captions
from bench.memory import of_fresh_process, reset_peak_mib, status_mib
from bench.pairs import Row, speed
from eyesmith.data.loader import Batch
from eyesmith.images import PreprocessConfig
from eyesmith.images.pixels import normalize
from eyesmith.models.clip import ClipConfig
from eyesmith.models.eva02.weights import from_clip as eva02_from_clip
from eyesmith.models.foreign.timm import TimmConfig
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.registry import config as named
from eyesmith.models.registry import override
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.text.weights import from_open_clip as text_from_open_clip
from eyesmith.models.vitamin.weights import from_open_clip
from eyesmith.optim.config import OptimConfig
from eyesmith.runs.machine import keep_freed_memory
from eyesmith.tasks.contrastive import Contrastive, TrainConfig
from eyesmith.train.config import DataConfig, ParallelConfig
from eyesmith.train.loop import new_state, train

Name = Literal["vitamin_s", "vitamin_b", "vitamin_l", "vit_b32", "vit_b16", "vit_l14", "eva02_l14"]
BATCH = 16
ACCUMULATE, PART = 8, 8  # parts of a step, pairs in each
LR, DECAY, BETAS, EPS = 1e-5, 0.2, (0.9, 0.98), 1e-6
BOUND = 1e-4  # of the losses of each step, relative
PEERS: dict[Name, str] = {
    "vitamin_s": "ViTamin-S",
    "vitamin_b": "ViTamin-B",
    "vitamin_l": "ViTamin-L",
    "vit_b32": "ViT-B-32",
    "vit_b16": "ViT-B-16",
    "vit_l14": "ViT-L-14",
    "eva02_l14": "EVA02-L-14",
}
TIMM = {
    "vit_b32": "vit_base_patch32_clip_224",
    "vit_b16": "vit_base_patch16_clip_224",
    "vit_l14": "vit_large_patch14_clip_224",
}


def rows() -> list[Row]:
    """Two models' steps at batch 16, and the memory of a step in 8 parts."""
    return [_step("vitamin_s"), _step("vit_b32"), _memory("vit_b32")]


@dataclass(frozen=True)
class Pairs:
    """Pictures [B, 3, H, W] uint8 and their captions."""

    pixels: Tensor
    texts: list[str]


def pairs(seed: int, count: int, *, image_size: tuple[int, int] = (224, 224), device: str = "cpu") -> Pairs:
    """Noise for pictures, which costs as much as any; captions of real length, no two equal."""
    generator = torch.Generator(device).manual_seed(seed)
    texts = list(dict.fromkeys(captions(2 * count, seed)))[:count]
    shape = (count, 3, *image_size)
    return Pairs(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator, device=device), texts)


class Ours:
    """Our loop, a step at each call."""

    def __init__(
        self,
        config: ClipConfig,
        weights: dict[str, Tensor],
        *,
        batch_size: int,
        accumulate: int = 1,
        device: str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
        compile_blocks: bool = False,
    ) -> None:
        clip = config.build()
        clip.load_state_dict(weights)
        clip.to(device)
        self._config = TrainConfig(
            model=clip.config,
            data=DataConfig(path="none"),
            optim=OptimConfig(peak_lr=LR, weight_decay=DECAY, betas=BETAS, eps=EPS, schedule="constant", warmup_frac=0),
            batch_size=batch_size,
            accumulate=accumulate,
            epochs=1e6,
            precision=precision,
            parallel=ParallelConfig(compile_blocks=compile_blocks),
        )
        self.clip = clip
        self._objective = Contrastive(clip, self._config)
        self._state = new_state(self._objective, self._config)
        self._pairs: Pairs | None = None
        self.steps_per_epoch = 1

    def samples(self, step: int) -> int:
        return step * self._config.batch_size

    def batch(self, step: int) -> Batch:
        """The pairs of the step that runs now."""
        assert self._pairs is not None
        count = len(self._pairs.texts)
        keys = tuple(map(str, range(count)))
        batch = Batch(
            pixels=self._pairs.pixels, texts=self._pairs.texts, labels=None, keys=keys, rows=torch.arange(count)
        )
        return batch.with_extra(self._objective.prepare(batch, step))

    def __call__(self, given: Pairs) -> float:
        """One step; returns its loss."""
        self._pairs = given
        stop_after = self._state.step + 1
        found: list[float] = []
        train(
            self._state,
            self._objective,
            self,
            self._config,
            hooks=[lambda _, facts: found.append(facts.loss)],
            should_stop=lambda: self._state.step == stop_after,
        )
        return found[0]


class Theirs:
    """The body of open_clip 3.3's train_one_epoch, without data and logging."""

    def __init__(self, model: Any, *, accumulate: int = 1, precision: Literal["fp32", "bf16"] = "fp32") -> None:
        import open_clip

        self._model = model.train()
        device = model.logit_scale.device
        self._autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == "bf16")
        self._loss = open_clip.ClipLoss()
        self._accumulate = accumulate
        plain = [p for n, p in model.named_parameters() if p.ndim < 2 or "logit_scale" in n]
        decayed = [p for n, p in model.named_parameters() if p.ndim >= 2]
        groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": DECAY}]
        self._optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS)

    def __call__(self, images: Tensor, ids: Tensor) -> float:
        """One step; returns its loss."""
        self._optimizer.zero_grad()
        loss = self._whole(images, ids) if self._accumulate == 1 else self._in_parts(images, ids)
        self._optimizer.step()
        with torch.no_grad():
            self._model.logit_scale.clamp_(0, math.log(100))
        return loss.item()

    def _whole(self, images: Tensor, ids: Tensor) -> Tensor:
        with self._autocast():
            loss: Any = sum(self._loss(**self._model(images, ids), output_dict=True).values())
        loss.backward()
        return loss

    def _in_parts(self, images: Tensor, ids: Tensor) -> Tensor:
        kept_images, kept_ids = images.chunk(self._accumulate), ids.chunk(self._accumulate)
        kept: dict[str, list[Tensor]] = {}
        with torch.no_grad(), self._autocast():
            for part_images, part_ids in zip(kept_images, kept_ids, strict=True):
                out = self._model(part_images, part_ids)
                for key in ("image_features", "text_features"):
                    kept.setdefault(key, []).append(out[key])
        self._optimizer.zero_grad()
        loss: Any = None
        for j in range(self._accumulate):
            with self._autocast():
                out = self._model(kept_images[j], kept_ids[j])
                scale = out.pop("logit_scale")
                inputs = {key: torch.cat([*parts[:j], out[key], *parts[j + 1 :]]) for key, parts in kept.items()}
                loss = sum(self._loss(**inputs, logit_scale=scale, output_dict=True).values())
            loss.backward()
        return loss


def config(name: Name) -> ClipConfig:
    """Our config of a model, without drop path: the same draws cannot be had in both."""
    if name not in TIMM:
        return override(named(PEERS[name]), {"image.drop_path_prob": 0.0})
    text = ClipTextConfig(width=512, depth=12, heads=8, embed_dim=512)
    if name == "vit_l14":
        text = ClipTextConfig(width=768, depth=12, heads=12, embed_dim=768)
    return ClipConfig(
        name=PEERS[name],
        image=TimmConfig(model_name=TIMM[name], embed_dim=text.embed_dim, pooling="token"),
        text=text,
        preprocess=PreprocessConfig(image_size=(224, 224)),
    )


def peer_model(name: Name) -> Any:
    """open_clip's model of the same shape, random weights, no drop path."""
    ensure_torchvision()
    import open_clip

    torch.manual_seed(0)
    model: Any = open_clip.create_model(PEERS[name], output_dict=True)
    for module in model.modules():
        if type(module).__name__ == "DropPath":
            module.drop_prob = 0.0
    return model


def our_weights(name: Name, peer: Any) -> dict[str, Tensor]:
    """open_clip's weights under our names."""
    state = {key: value.clone() for key, value in peer.state_dict().items()}
    if name == "eva02_l14":
        return eva02_from_clip(state, config(name))
    if name not in TIMM:
        return from_open_clip(state, config(name))
    from timm.models.vision_transformer import checkpoint_filter_fn

    encoder: Any = config(name).image.build()
    backbone = checkpoint_filter_fn(
        {key: value for key, value in state.items() if key.startswith("visual.")}, encoder.backbone
    )
    ours = {f"image.backbone.{key}": value for key, value in backbone.items() if not key.startswith("head.")}
    ours["image.head.weight"] = state["visual.proj"].mT.contiguous()
    ours |= {f"text.{key}": value for key, value in text_from_open_clip(state).items()}
    return ours | {"logit_scale": state["logit_scale"]}


def ready(given: Pairs) -> tuple[Tensor, Tensor]:
    """What open_clip's loader hands over, on the device of the pictures."""
    import open_clip

    clip = PreprocessConfig(image_size=(224, 224))
    ids = open_clip.get_tokenizer("ViT-B-32")(given.texts)
    return normalize(given.pixels, clip.mean, clip.std), ids.to(given.pixels.device)


def _step(name: Name) -> Row:
    """Each side in a process of its own, as its program runs: ours keeps freed memory (runs/memory.py), in turns."""
    with _Side("ours", name) as ours, _Side("theirs", name) as theirs:

        def inputs(seed: int) -> int:
            for side in (ours, theirs):
                side.tell(seed)  # it makes its inputs, outside the timed part
            return seed

        return speed(
            f"{name}_step",
            inputs,
            lambda _: ours.tell("step"),
            lambda _: theirs.tell("step"),
            equal=_equal,
            count=BATCH,
            unit="pairs/s",
            peer=peer_title(),
            note=f"{PEERS[name]}, batch {BATCH}, captions of 5 to 25 words, fp32, AdamW, {torch.get_num_threads()} "
            f"threads, a process a side; losses of every step equal within {BOUND} relative",
            num_pairs=7,
            num_warmups=2,
        )


class _Side:
    """A side's process: told a seed it makes the inputs, told "step" it makes a step and answers with the loss."""

    def __init__(self, who: str, name: Name) -> None:
        command = [sys.executable, "-m", "bench.step", who, name, "serve"]
        place = Path(__file__).parents[1]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=place
        )

    def tell(self, what: int | str) -> float:
        """The answer of the process. Raises RuntimeError when it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(what, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("answer "):
                return float(line.split()[1])
        raise RuntimeError(f"the process of this side ended with status {self._process.wait()}")

    def __enter__(self) -> "_Side":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _serve(who: str, name: Name) -> None:
    step: Callable[[Any], float]
    peer = peer_model(name)
    if who == "ours":
        keep_freed_memory()
        step = Ours(config(name), our_weights(name, peer), batch_size=BATCH)
        del peer
    else:
        theirs = Theirs(peer)
        step = lambda given: theirs(*given)  # noqa: E731
    given: Any = None
    for line in sys.stdin:
        answer = 0.0
        if line.strip() == "step":
            answer = step(given)
        else:
            made = pairs(int(line), BATCH)
            given = made if who == "ours" else ready(made)
        print(f"answer {answer!r}", flush=True)


def _memory(name: Name) -> Row:
    """The high-water mark of a second step in parts, above what a process holds before it makes the model."""
    peaks, losses = {}, {}
    for who in ("ours", "theirs"):
        peaks[who], losses[who] = of_fresh_process("bench.step", who, name)
    ratio = peaks["theirs"] / peaks["ours"]
    return Row(
        row="accumulation_memory",
        ours=peaks["ours"],
        theirs=peaks["theirs"],
        unit="MiB",
        ratio=ratio,
        low=ratio,
        high=ratio,
        equal=all(_equal(ours, theirs) for ours, theirs in zip(losses["ours"], losses["theirs"], strict=True)),
        peer=f"{peer_title()} --accum-freq {ACCUMULATE}",
        note=f"{PEERS[name]}, {ACCUMULATE} parts of {PART} pairs, fp32, a fresh process a side: weights, moments, "
        "gradients, inputs and activations at their highest",
    )


def _peak(who: str, name: Name) -> tuple[float, list[float]]:
    """MiB that the second step of a process needs at its highest, above an empty one's, and the losses of both."""
    ensure_torchvision()
    import open_clip  # noqa: F401  counted before the model is made

    empty_mib = status_mib("VmRSS")
    count = PART * ACCUMULATE
    peer = peer_model(name)
    weights = our_weights(name, peer)  # both sides pay for the libraries
    step: Callable[[Pairs], float]
    if who == "ours":
        del peer
        ours = Ours(config(name), weights, batch_size=count, accumulate=ACCUMULATE)
        step = ours
    else:
        theirs = Theirs(peer, accumulate=ACCUMULATE)
        step = lambda given: theirs(*ready(given))  # noqa: E731
    del weights
    losses = [step(pairs(0, count))]
    reset_peak_mib()
    given = pairs(1, count)
    losses.append(step(given))
    return status_mib("VmHWM") - empty_mib, losses


def _equal(ours: float, theirs: float) -> bool:
    return math.isclose(ours, theirs, rel_tol=BOUND)


def peer_title() -> str:
    """What is measured beside ours."""
    return f"open_clip {version('open_clip_torch')}, its own loop"


if __name__ == "__main__":
    arguments: Any = sys.argv[1:]
    if arguments[2:] == ["serve"]:
        _serve(arguments[0], arguments[1])
    else:
        print(json.dumps(_peak(arguments[0], arguments[1])))
