"""What the frozen teacher of a run costs, from its config alone."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from eyesmith.hub.run_folder import is_run_folder, read_model_config
from eyesmith.hub.stored import read_stored
from eyesmith.models.classifier import ClassifierConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.encoder import Encoder
from eyesmith.models.registry import ENCODERS, EncoderConfig, config, encoder_config, list_models
from eyesmith.runs.plan.activations import activations
from eyesmith.tasks import task_of
from eyesmith.train.config import RunConfig
from eyesmith.train.teacher import PART_ROWS, encode_macs, shortest

_FP32, _BF16 = 4, 2  # bytes


@dataclass(frozen=True, kw_only=True)
class TeacherCost:
    """params: numbers, all frozen; flops: for one image, forward alone, every patch projected.

    weight_bytes, activation_bytes: what it takes of a GPU beside the run, at most.
    """

    params: int
    flops: float
    weight_bytes: int
    activation_bytes: int


def teacher_config(config: RunConfig) -> EncoderConfig | None:
    """The image tower of a run's frozen teacher where it lies on this machine; None elsewhere, and for others.

    Of a run folder config.json alone is read, of a weight file its tensors. Raises as `eyesmith.load` does.
    """
    asked = task_of(config).frozen_teacher(config)
    if asked is None or not asked.source or not Path(asked.source).exists():
        return None
    folder = Path(asked.source)
    found = read_model_config(folder) if is_run_folder(folder) else read_stored(folder).config
    return found.image if isinstance(found, ClipConfig | ClassifierConfig) else found


def named_teacher(source: str) -> EncoderConfig | None:
    """The image tower that a teacher's name tells of, without opening anything; None where it tells of none.

    A name, or a hub id that has one of ours or timm's in it, such as hf:timm/eva_giant_patch14_clip_224.laion400m.
    """
    names = [name for name in (*list_models(), *ENCODERS) if name.lower() in source.lower()]
    if not names:
        return None
    name = max(names, key=len)
    return config(name).image if name in list_models() else encoder_config(name)


def teacher_cost(teacher: EncoderConfig, *, grid: tuple[int, int] | None, rows: int, is_bf16: bool) -> TeacherCost:
    """The cost of `teacher`, at the image size that gives it `grid` cells; None: at its own.

    rows: images that go through it together. is_bf16: under bfloat16 autocast. Activations are an upper bound: all that
    a training step would keep of its largest block and at the blocks' borders, the largest weight cast to the products'
    format.
    """
    with torch.device("meta"):
        encoder = shortest(teacher).build()
    assert isinstance(encoder, Encoder)
    if grid is not None:
        teacher = replace(teacher, image_size=(grid[0] * encoder.stride, grid[1] * encoder.stride))
        with torch.device("meta"):
            encoder = shortest(teacher).build()
    macs, params = encode_macs(teacher)
    sample = ((3, *teacher.image_size), torch.uint8)
    kept = activations(encoder, encoder.blocks(), sample, bf16=is_bf16)
    cast = _BF16 * max(value.numel() for value in encoder.parameters()) if is_bf16 else 0
    return TeacherCost(
        params=params,
        flops=2.0 * macs,
        weight_bytes=_FP32 * params,
        activation_bytes=cast + min(rows, PART_ROWS) * (kept.boundary + kept.largest_block),
    )
