"""Whether loading keeps up with a model: what it gives, and what a model on a device takes."""

from dataclasses import asdict, dataclass
from typing import Any

from eyesmith.data.sources import split_names
from eyesmith.data.stream.places import is_remote
from eyesmith.data.stream.probe import Probe, default_num_workers, probe_shards
from eyesmith.errors import ConfigError, DataError
from eyesmith.models.cost import model_cost
from eyesmith.models.registry import config
from eyesmith.train.utilisation import PEAK_BF16, peak_flops

_FLOPS_PER_STEP = 2 * 3  # a multiply-add counts two; the backward pass is twice the forward


@dataclass(frozen=True, kw_only=True)
class Need:
    """What training a model takes. images_per_s: of all devices; workers: decoding processes that give as much."""

    model: str
    device: str
    num_devices: int
    mfu: float
    images_per_s: float
    workers: int


def probe_data(
    path: str,
    *,
    split: str | None = None,
    model: str | None = None,
    device: str = "H100",
    num_devices: int = 1,
    mfu: float = 0.4,
    image_size: int = 224,
    num_workers: int = 0,
    seconds: float = 5.0,
) -> tuple[Probe, Need | None]:
    """Measure the shards at `path` on this machine; with `model` (its own image size counts), also what it takes.

    num_workers: 0 is one a core. Raises ConfigError for a device whose peak is not known, and what `probe_shards` does.
    """
    if num_workers < 0 or num_devices < 1 or image_size < 1 or seconds <= 0 or not 0 < mfu <= 1:
        raise ConfigError(
            "expected workers of 0 or more, gpus, image_size and seconds above 0 and mfu in 0..1, got "
            f"{num_workers}, {num_devices}, {image_size}, {seconds} and {mfu}"
        )
    peak = peak_flops(device)
    if model is not None and peak is None:
        raise ConfigError(f"gpu: the peak of {device!r} is not known; known are {', '.join(PEAK_BF16)}")
    size = max(config(model).preprocess.image_size) if model is not None else image_size
    workers = num_workers or default_num_workers()
    probe = probe_shards(_folder(path, split), size_px=size, num_workers=workers, seconds=seconds)
    if model is None or peak is None:
        return probe, None
    rate = num_devices * peak * mfu / (_FLOPS_PER_STEP * _macs(model))
    need = Need(
        model=model,
        device=device,
        num_devices=num_devices,
        mfu=mfu,
        images_per_s=rate,
        workers=-int(-rate // probe.images_per_s_each),
    )
    return probe, need


def probe_json(probe: Probe, need: Need | None) -> dict[str, Any]:
    """Both as JSON values."""
    return {
        **asdict(probe),
        "images_per_s_each": probe.images_per_s_each,
        "slowest": max(probe.stages, key=lambda stage: stage.time_frac).name,
        "need": None if need is None else asdict(need),
    }


def _macs(model: str) -> float:
    cost = model_cost(config(model))
    if cost.image is None:
        raise ConfigError(f"{model}: its cost cannot be counted here; timm models need the package timm")
    return cost.image.tower.macs + (cost.text.macs if cost.text is not None else 0)


def _folder(path: str, split: str | None) -> str:
    splits = [] if is_remote(path) else split_names(path)
    if not splits:
        if split is not None:
            raise DataError(f"{path}: has no splits, but the split {split!r} was asked for; leave it out")
        return path
    chosen = split or splits[0]
    if chosen not in splits:
        raise DataError(f"{path}: no split {chosen!r}; it has: {', '.join(splits)}")
    return f"{path.rstrip('/')}/{chosen}"
