"""How other people's packages prepare pictures, as our `PreprocessConfig`; what we cannot do exactly is refused."""

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.images import PreprocessConfig

_PILLOW = {2: "bilinear", 3: "bicubic", "bilinear": "bilinear", "bicubic": "bicubic"}  # numbers of PIL.Image.Resampling


def of_open_clip(content: Mapping[str, Any], where: str) -> PreprocessConfig:
    """open_clip's preprocess_cfg. Raises CheckpointError for a resize or an interpolation that is not known here."""
    size = _pair(content.get("size"), where)
    resize, interpolation = content.get("resize_mode") or "shortest", content.get("interpolation") or "bicubic"
    if resize not in ("shortest", "squash"):
        raise CheckpointError(f"{where}: open_clip resizes pictures by {resize!r}, which is not known here")
    return _made(
        where,
        content.get("mean"),
        content.get("std"),
        image_size=size,
        # `random` is a choice of training; when a model is used open_clip takes bicubic for it
        interpolation=_interpolation("bicubic" if interpolation == "random" else interpolation, where),
        resize=resize,
    )


def of_timm(content: Mapping[str, Any], where: str) -> PreprocessConfig:
    """timm's pretrained_cfg (or what timm.data.resolve_data_config gives). Raises CheckpointError for a crop or an
    interpolation that is not known here.
    """
    shape = content.get("input_size") or (3, 224, 224)
    size = _pair(shape[-2:] if isinstance(shape, list | tuple) else shape, where)
    crop = content.get("crop_mode") or "center"
    if crop not in ("center", "squash"):
        raise CheckpointError(f"{where}: timm cuts pictures by {crop!r}, which is not known here")
    return _made(
        where,
        content.get("mean"),
        content.get("std"),
        image_size=size,
        interpolation=_interpolation(content.get("interpolation") or "bilinear", where),
        resize="squash" if crop == "squash" else "shortest",
        crop_frac=_number(content.get("crop_pct") or 0.875, "crop_pct", where),
    )


def of_transformers(content: Mapping[str, Any], image_size: tuple[int, int], where: str) -> PreprocessConfig:
    """An image processor's preprocessor_config.json. image_size: of the model, where the file names no crop.

    transformers turns pictures to RGB first, and rounds half a pixel of the middle down; so do we. Raises
    CheckpointError for steps that are not known here.
    """
    if content.get("do_pad") or content.get("do_resize") is False or content.get("do_normalize") is False:
        raise CheckpointError(f"{where}: expected pictures that are resized and normalised, none padded")
    scale = content.get("rescale_factor")
    if scale is not None and not math.isclose(_number(scale, "rescale_factor", where), 1 / 255, rel_tol=1e-4):
        raise CheckpointError(f"{where}: pixels are scaled by {scale}, expected 1/255")
    if not content.get("image_mean") or not content.get("image_std"):
        raise CheckpointError(f"{where}: names no image_mean and image_std")
    size = content.get("size")
    size = {"shortest_edge": size} if isinstance(size, int) and content.get("do_center_crop") else size
    whole = _named(size, where) or image_size
    is_shortest = isinstance(size, Mapping) and "shortest_edge" in size
    crop = image_size
    if content.get("do_center_crop"):
        crop = _named(content.get("crop_size"), where) or image_size
    elif is_shortest:
        raise CheckpointError(f"{where}: pictures keep their shape, and the model takes one size")
    else:
        crop = whole
    return _made(
        where,
        content["image_mean"],
        content["image_std"],
        image_size=crop,
        interpolation=_interpolation(content.get("resample", 3), where),
        resize="shortest" if is_shortest else "squash",
        crop_frac=_share(crop[0], whole[0]),
        half_px="down",
        rgb="first",
    )


def _share(part: int, whole: int) -> float:
    """part / whole, such that part / share rounds down to whole."""
    share = part / whole
    while math.floor(part / share) < whole:
        share = math.nextafter(share, 0.0)
    return share


def _made(where: str, mean: Any, std: Any, **fields: Any) -> PreprocessConfig:
    for name, values in (("mean", mean), ("std", std)):
        if values and not isinstance(values, list | tuple):
            raise CheckpointError(f"{where}: {name}: expected three numbers, got {values!r}")
        if values:
            fields[name] = tuple(_number(value, name, where) for value in values)
    try:
        return PreprocessConfig(**fields)
    except (ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: asks for preprocessing that is not known here: {error}") from None


def _interpolation(name: Any, where: str) -> Literal["bicubic", "bilinear"]:
    found = _PILLOW.get(name) if isinstance(name, str | int | float) else None
    if found is None:
        raise CheckpointError(f"{where}: resizes pictures by {name!r}, expected bicubic or bilinear")
    return cast(Literal["bicubic", "bilinear"], found)


def _pair(value: Any, where: str) -> tuple[int, int]:
    if isinstance(value, int):
        return _side(value, where), _side(value, where)
    if isinstance(value, list | tuple) and len(value) == 2:
        return _side(value[0], where), _side(value[1], where)
    raise CheckpointError(f"{where}: expected a size of pictures, got {value!r}")


def _named(value: Any, where: str) -> tuple[int, int] | None:
    if isinstance(value, Mapping):
        if "shortest_edge" in value:
            return _side(value["shortest_edge"], where), _side(value["shortest_edge"], where)
        if "height" in value and "width" in value:
            return _side(value["height"], where), _side(value["width"], where)
        raise CheckpointError(f"{where}: expected a size with height and width, got {dict(value)}")
    return None if value is None else _pair(value, where)


def _side(value: Any, where: str) -> int:
    pixels = int(_number(value, "size", where))
    if pixels < 1:
        raise CheckpointError(f"{where}: size: expected pixels, got {value!r}")
    return pixels


def _number(value: Any, name: str, where: str) -> float:
    """A number that a file has under a name. Raises CheckpointError for anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise CheckpointError(f"{where}: {name}: expected a number, got {value!r}")
    return found
