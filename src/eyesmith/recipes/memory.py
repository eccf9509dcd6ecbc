"""Memory of one GPU in a run, by part: an upper bound of the worst moment, in torch's eager mode."""

from dataclasses import dataclass

import torch

from eyesmith.losses.tiles import TILE_ROWS
from eyesmith.models.clip import Clip
from eyesmith.optim.groups import text_blocks
from eyesmith.recipes.activations import Activations, activations
from eyesmith.train.config import TrainConfig

_FP32, _BF16 = 4, 2  # bytes
_CONTEXT_BYTES = 1 << 30  # of the driver, libraries' workspaces and the allocator's rounding


@dataclass(frozen=True, kw_only=True)
class MemoryPart:
    """Bytes of one purpose."""

    part: str
    num_bytes: int


def memory_parts(clip: Clip, config: TrainConfig, *, gpus: int, strategy: str) -> tuple[MemoryPart, ...]:
    """What one of `gpus` GPUs holds at the end of a forward pass, and what its backward pass adds.

    clip: on the meta device. strategy: none, ddp or fsdp. Gradients count in full although the first appear when
    activations are already released, so the sum is a bound. Texts count at full length; real captions are shorter.
    """
    parameters = list(clip.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    locked = sum(parameter.numel() for parameter in clip.text.parameters()) if config.model.lock_text else 0
    is_bf16 = config.precision != "fp32"
    rows = -(-config.batch_size // (gpus * config.accumulate))

    shards = gpus if strategy == "fsdp" else 1
    # a locked text tower is encoded into a bank before the run, and stays where it is
    weights = _FP32 * ((total - locked) // shards + locked)
    if strategy == "fsdp":
        weights += 2 * _FP32 * max(sum(p.numel() for p in block.parameters()) for block in _blocks(clip))
    image = _image_activations(clip, is_bf16)
    text = None if config.model.lock_text else _text_activations(clip, is_bf16)
    checkpoint = config.parallel.checkpoint_blocks
    pixels = 3 * config.model.image.image_size[0] * config.model.image.image_size[1]
    parts = {
        "weights": weights,
        "gradients": _FP32 * trained // shards,
        "optimizer": 2 * _FP32 * trained // shards,
        "average": _FP32 * trained // shards if config.optim.ema_decay else 0,
        "weights in bfloat16": image.fixed + (text.fixed if text else 0),
        "image activations": image.at(rows, checkpoint=checkpoint) - image.fixed,
        "text activations": text.at(rows, checkpoint=checkpoint) - text.fixed if text else 0,
        "pixels": config.batch_size // gpus * pixels,
        "loss": loss_bytes(config, gpus),
        "context": _CONTEXT_BYTES,
    }
    return tuple(MemoryPart(part=name, num_bytes=size) for name, size in parts.items() if size)


def loss_bytes(config: TrainConfig, gpus: int) -> int:
    """Features of this GPU's rows and their gradients, what is exchanged, and logits: a tile of them, or all.

    The dense form keeps four B x B matrices and, between GPUs, everyone's features.
    """
    rows, width = config.batch_size // gpus, config.model.image.embed_dim
    features = 4 * _FP32 * rows * width
    form = config.loss.form
    if form == "auto":
        form = "ring" if gpus > 1 else "dense" if rows < TILE_ROWS else "tiled"
    if form == "dense":
        return 4 * _FP32 * config.batch_size * config.batch_size + 4 * _FP32 * config.batch_size * width
    tile_rows = config.loss.tile_rows or TILE_ROWS
    tile = 2 * _FP32 * min(tile_rows, rows) * min(2 * tile_rows, rows)
    exchanged = 4 * _FP32 * rows * width if form == "ring" else 0  # the block at hand and the next, and gradients
    return features + tile + exchanged


def _image_activations(clip: Clip, is_bf16: bool) -> Activations:
    image = clip.image
    return activations(image, image.blocks(), ((3, *image.image_size), torch.uint8), bf16=is_bf16)


def _text_activations(clip: Clip, is_bf16: bool) -> Activations:
    return activations(clip.text, text_blocks(clip.text), ((clip.text.context_len,), torch.int64), bf16=is_bf16)


def _blocks(clip: Clip) -> list[torch.nn.Module]:
    return [*clip.image.blocks(), *text_blocks(clip.text)]
