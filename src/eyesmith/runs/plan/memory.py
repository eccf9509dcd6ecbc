"""Memory of one GPU in a run, by part: an upper bound of the worst moment, in torch's eager mode."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from eyesmith.models.clip import ClipConfig
from eyesmith.models.encoder import Encoder
from eyesmith.optim.groups import text_blocks
from eyesmith.runs.plan.activations import activations
from eyesmith.runs.plan.scale import MOMENTS
from eyesmith.tasks import task_of
from eyesmith.train.config import RunConfig

_FP32, _BF16 = 4, 2  # bytes
_CONTEXT_BYTES = 1 << 30  # of the driver, libraries' workspaces and the allocator's rounding


@dataclass(frozen=True, kw_only=True)
class MemoryPart:
    """Bytes of one purpose."""

    part: str
    num_bytes: int


def memory_parts(model: nn.Module, config: RunConfig, *, gpus: int, strategy: str) -> tuple[MemoryPart, ...]:
    """What one of `gpus` GPUs holds at the end of a forward pass, and what its backward pass adds.

    model: on the meta device. strategy: none, ddp or fsdp, there over config.parallel.shards of them. Gradients count
    in full although the first appear when activations are already released, so the sum is a bound. Texts count at full
    length; real captions are shorter.
    """
    image_tower, text_tower = cast(Encoder, model.image), cast(nn.Module | None, getattr(model, "text", None))
    is_locked = isinstance(config.model, ClipConfig) and config.model.lock_text
    parameters = list(model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    locked = sum(p.numel() for p in text_tower.parameters()) if text_tower is not None and is_locked else 0
    is_bf16 = config.precision != "fp32"
    rows = -(-config.batch_size // (gpus * config.accumulate))

    shards = (config.parallel.shards or gpus) if strategy == "fsdp" else 1
    # a locked text tower is encoded into a bank before the run, and stays where it is
    weights = _FP32 * ((total - locked) // shards + locked)
    gathered = 0
    if strategy == "fsdp":
        # two blocks are whole at a time, in the products' format, and the gradient of one is added up in fp32
        blocks = [*image_tower.blocks(), *(text_blocks(text_tower) if text_tower is not None else ())]
        largest = max(sum(p.numel() for p in block.parameters()) for block in blocks)
        gathered = (2 * (_BF16 if is_bf16 else _FP32) + _FP32) * largest
    sample = ((3, *image_tower.image_size), torch.uint8)
    image, text = activations(image_tower, image_tower.blocks(), sample, bf16=is_bf16), None
    if text_tower is not None and not is_locked:
        asked = task_of(config).text_plan(config, model)
        length = cast(Any, text_tower).context_len if asked is None else asked.length
        text = activations(text_tower, text_blocks(text_tower), ((length,), torch.int64), bf16=is_bf16)
    checkpoint = config.parallel.checkpoint_blocks
    pixels = 3 * config.image_size[0] * config.image_size[1]
    parts = {
        "weights": weights,
        "gathered weights": gathered,
        "gradients": _FP32 * trained // shards,
        "optimizer": MOMENTS[config.optim.name] * _FP32 * trained // shards,
        "average": _FP32 * trained // shards if config.optim.ema_decay else 0,
        # sharded ones are gathered in it, block by block
        "weights in bfloat16": 0 if strategy == "fsdp" else image.fixed + (text.fixed if text else 0),
        "image activations": image.at(rows, checkpoint=checkpoint) - image.fixed,
        "text activations": text.at(rows, checkpoint=checkpoint) - text.fixed if text else 0,
        "pixels": config.batch_size // gpus * pixels,
        "loss": task_of(config).loss_bytes(config, gpus),
        "context": _CONTEXT_BYTES,
    }
    return tuple(MemoryPart(part=name, num_bytes=size) for name, size in parts.items() if size)
