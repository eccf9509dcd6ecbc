"""Random views of a whole batch at once, on the device its pixels are on: one grid, one colour matrix a sample."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import ConfigError, ShapeError

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's conversion to grey
_FADED = (122.77, 116.75, 104.09)  # CLIP's mean colour: an erased patch is zero after normalisation
# source pixels a bilinear tap may stand for: at 72 to 48 px one tap a pixel is nearer to a bicubic resize than four are
_CLEAN_SHRINK = 1.5
_NUM_DRAWS = 18
# an outline begins where a channel changes by 30 to 120 of 255 within 3 x 3 pixels, is whole 40 above, and half to all
# of the light goes
_EDGE, _EDGE_SOFTNESS, _DARKNESS = (30.0, 120.0), 40.0, (0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What `augment_batch` may do to a sample. The default of every field does nothing."""

    scale: tuple[float, float] = (1.0, 1.0)  # share of the area in view, uniform; above 1 shows what lies around
    ratio: tuple[float, float] = (1.0, 1.0)  # stretch of the view, width / height, uniform in the logarithm
    rotation_degrees: float = 0.0  # +-, about the middle of the view
    shear_degrees: float = 0.0  # +-, along each axis
    translate_frac: float = 0.0  # +-, of the picture's sides, added to where the view lies
    horizontal_flip_prob: float = 0.0
    brightness: float = 0.0  # factor in [max(0, 1 - b), 1 + b]; so contrast and saturation
    contrast: float = 0.0  # distance from the picture's mean grey
    saturation: float = 0.0  # distance from each pixel's grey
    hue: float = 0.0  # +-, in turns, 0.5 = opposite colour
    grayscale_prob: float = 0.0
    erase_prob: float = 0.0  # one rectangle in CLIP's mean colour
    erase_scale: tuple[float, float] = (0.02, 0.2)  # its share of the area
    outline_prob: float = 0.0  # dark lines along what is in the picture, as in an outlined drawing
    fill: Literal["border", "white"] = "border"  # what lies outside of a picture

    def __post_init__(self) -> None:
        for name in ("scale", "ratio", "erase_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"{name}: expected 0 < low <= high, got {getattr(self, name)}")
        for name in ("horizontal_flip_prob", "grayscale_prob", "erase_prob", "outline_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: expected a number in 0..1, got {getattr(self, name)}")
        for name in ("rotation_degrees", "shear_degrees", "translate_frac", "brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected a strength >= 0, got {getattr(self, name)}")
        if self.shear_degrees >= 60:
            raise ConfigError(f"shear_degrees: expected less than 60, got {self.shear_degrees}")
        if not 0 <= self.hue <= 0.5:
            raise ConfigError(f"hue: expected 0..0.5 turns, got {self.hue}")
        if self.erase_scale[1] > 1:
            raise ConfigError(f"erase_scale: expected shares up to 1, got {self.erase_scale}")
        if self.fill not in ("border", "white"):
            raise ConfigError(f"fill: expected 'border' or 'white', got {self.fill!r}")

    @property
    def moves_pixels(self) -> bool:
        """Whether a view can be anything but the largest centred one."""
        still = (self.scale, self.ratio) == ((1.0, 1.0), (1.0, 1.0))
        return not still or any(
            (self.rotation_degrees, self.shear_degrees, self.translate_frac, self.horizontal_flip_prob)
        )

    @property
    def changes_color(self) -> bool:
        """Whether a colour can change."""
        return any((self.brightness, self.contrast, self.saturation, self.hue, self.grayscale_prob))


def augment_batch(
    pixels: Tensor,
    config: AugmentConfig,
    out_size: tuple[int, int],
    generator: torch.Generator,
    *,
    rows: Tensor | None = None,
    num_rows: int | None = None,
) -> Tensor:
    """One random view of each picture of a batch, [B, 3, H, W] uint8, (H, W) = out_size.

    pixels: [B, 3, h, w] uint8 RGB, on any device (channels-last memory is fastest). generator: on the CPU, so that
    a seed gives the same views on every device; each call takes the same number of draws a sample, whatever
    `config` asks for, so that turning one change on leaves the draws of all others as they were. rows, num_rows: where
    the pictures stand in a larger batch, int64 [B] in 0 .. num_rows - 1; they get the views they would have in it.
    A view is the largest centred rectangle of out_size's shape, scaled, stretched, sheared, rotated, flipped and
    moved, sampled bilinearly (four taps a pixel where it shrinks); then brightness, contrast, saturation and hue in
    this order, as one matrix; then the outline; then the erased rectangle. Without any movement it is an antialiased
    bicubic resize. The outline darkens a pixel by how far colours lie apart in the 3 x 3 about it, from a threshold on.
    Departs from torchvision: hue is a rotation about the grey axis that keeps luma, and there is no rounding between
    the colour steps. Raises ShapeError on other pixels.
    """
    if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.dtype != torch.uint8 or 0 in pixels.shape[2:]:
        raise ShapeError(f"pixels: expected [B, 3, h, w] uint8, got {list(pixels.shape)} {pixels.dtype}")
    if min(out_size) < 1:
        raise ShapeError(f"out_size: expected (height, width), both at least 1, got {out_size}")
    draws = torch.rand(num_rows or len(pixels), _NUM_DRAWS, generator=generator)
    draws = draws if rows is None else draws[rows]
    if len(pixels) == 0:
        return pixels.new_empty((0, 3, *out_size))
    is_plain = not (config.changes_color or config.outline_prob or config.erase_prob)
    if not config.moves_pixels:
        views = _resize_center(pixels, out_size)
        if is_plain:
            return views
        views = views.float()
    else:
        views = _sample_views(pixels, config, out_size, draws[:, :8])
    if config.changes_color:
        views = _change_colors(views, config, draws[:, 8:13])
    if config.outline_prob > 0:
        views = _outline(views, config, _low_bits(draws[:, 13:16]))
    if config.erase_prob > 0:
        views = _erase(views, config, draws[:, 13:18])
    return views.round_().clamp_(0, 255).to(torch.uint8)


def view_matrices(draws: Tensor, config: AugmentConfig, in_size: tuple[int, int], out_size: tuple[int, int]) -> Tensor:
    """Where each view looks: [B, 2, 3] float32, from pixels about the view's middle to pixels about the picture's.

    draws: [B, 8] in 0..1, for area, ratio, rotation, two shears, two positions, flip. A view's point (x, y), in its
    own pixels from its middle, shows the picture's point matrix[:, :2] @ (x, y) + matrix[:, 2], in the picture's.
    """
    (height, width), (out_height, out_width) = in_size, out_size
    unit = 2 * draws - 1
    area = _between(draws[:, 0], *config.scale)
    stretch = torch.exp(_between(draws[:, 1], math.log(config.ratio[0]), math.log(config.ratio[1])))
    step = min(height / out_height, width / out_width)  # source pixels per pixel of the largest centred view
    step_x, step_y = step * (area * stretch).sqrt(), step * (area / stretch).sqrt()
    angle = math.radians(config.rotation_degrees) * unit[:, 2]
    shear_x, shear_y = (math.radians(config.shear_degrees) * unit[:, 3:5]).tan().unbind(1)
    # what does not fit stays half in view: a view smaller than the picture lies inside, a larger one around it
    room_x, room_y = (width - step_x * out_width).abs() / 2, (height - step_y * out_height).abs() / 2
    move_x = unit[:, 5] * (room_x + config.translate_frac * width)
    move_y = unit[:, 6] * (room_y + config.translate_frac * height)
    step_x = torch.where(draws[:, 7] < config.horizontal_flip_prob, -step_x, step_x)
    cos, sin = angle.cos(), angle.sin()
    row_x = torch.stack([step_x * (cos - sin * shear_y), step_y * (cos * shear_x - sin), move_x], dim=1)
    row_y = torch.stack([step_x * (sin + cos * shear_y), step_y * (sin * shear_x + cos), move_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def color_matrices(draws: Tensor, config: AugmentConfig, mean_gray: Tensor) -> tuple[Tensor, Tensor]:
    """What happens to colours: matrix [B, 3, 3] and offset [B], new = matrix @ rgb + offset, on a 0..255 scale.

    draws: [B, 5] in 0..1, for brightness, contrast, saturation, hue, greyscale. mean_gray: [B], of the pictures.
    """
    luma = torch.tensor(_LUMA, device=draws.device)
    strengths = (config.brightness, config.contrast, config.saturation)
    brightness, contrast, saturation = (
        _between(draws[:, i], max(0.0, 1 - strength), 1 + strength) for i, strength in enumerate(strengths)
    )
    is_gray = draws[:, 4] < config.grayscale_prob
    saturation = torch.where(is_gray, 0.0, saturation)[:, None, None]
    eye, gray = torch.eye(3, device=draws.device), luma.expand(3, 3)
    matrix = saturation * eye + (1 - saturation) * gray
    if config.hue > 0:
        turn = 2 * math.pi * config.hue * (2 * draws[:, 3] - 1)
        matrix = _hue_rotation(turn) @ matrix
    gain = brightness * contrast
    return gain[:, None, None] * matrix, (1 - contrast) * brightness * mean_gray


def _between(draw: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * draw


def _hue_rotation(turn: Tensor) -> Tensor:
    """[B, 3, 3]: colours turned by `turn` radians about the grey axis in YIQ, where luma and grey stay."""
    to_yiq = torch.tensor([_LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)], device=turn.device)
    zero, one = torch.zeros_like(turn), torch.ones_like(turn)
    cos, sin = turn.cos(), turn.sin()
    rows = [torch.stack(row, dim=1) for row in ((one, zero, zero), (zero, cos, -sin), (zero, sin, cos))]
    return torch.linalg.inv(to_yiq) @ torch.stack(rows, dim=1) @ to_yiq


def _resize_center(pixels: Tensor, out_size: tuple[int, int]) -> Tensor:
    """The largest centred rectangle of out_size's shape, resized: [B, 3, h, w] uint8 to [B, 3, H, W] uint8."""
    height, width = pixels.shape[2:]
    step = min(height / out_size[0], width / out_size[1])
    part = (max(1, round(step * out_size[0])), max(1, round(step * out_size[1])))
    top, left = (height - part[0]) // 2, (width - part[1]) // 2
    cut = pixels[:, :, top : top + part[0], left : left + part[1]]
    if part == tuple(out_size):
        return cut.contiguous()
    return _resize(cut, out_size)


def _resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    if pixels.device.type == "cpu":  # with vector code for channels-last bytes, without a way through floats
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return F.interpolate(pixels, size, mode="bicubic", antialias=True)
    resized = F.interpolate(pixels.float(), size, mode="bicubic", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def _sample_views(pixels: Tensor, config: AugmentConfig, out_size: tuple[int, int], draws: Tensor) -> Tensor:
    """[B, 3, h, w] uint8 to [B, 3, H, W] float32 on a 0..255 scale."""
    middle = (config.scale[0] * config.scale[1]) ** 0.25  # side of the middling view, as a share
    shrink = middle * min(pixels.shape[2] / out_size[0], pixels.shape[3] / out_size[1])
    if shrink > 2 * _CLEAN_SHRINK:  # two taps a side reach no further; a plain resize does the rest first
        size = [math.ceil(side * 2 * _CLEAN_SHRINK / shrink) for side in pixels.shape[2:]]
        pixels = _resize(pixels, (size[0], size[1]))
    height, width = pixels.shape[2:]
    matrices = view_matrices(draws, config, (height, width), out_size).to(pixels.device)
    # grid_sample (align_corners=False) counts from -1 to 1 across the picture: half a side is 1
    matrices = matrices * torch.tensor([[2 / width], [2 / height]], device=pixels.device)

    y = torch.arange(out_size[0], device=pixels.device) - (out_size[0] - 1) / 2
    x = torch.arange(out_size[1], device=pixels.device) - (out_size[1] - 1) / 2
    points = torch.stack(torch.broadcast_tensors(x, y[:, None], torch.ones(out_size, device=pixels.device)), dim=-1)
    grid = points.view(1, -1, 3) @ matrices.mT  # [B, H*W, 2]
    grid = grid.view(-1, *out_size, 2)  # [B, H, W, 2]

    source = pixels.to(torch.float32, memory_format=torch.channels_last)  # grid_sample is twice as fast on it
    if config.fill == "white":
        source.sub_(255)  # outside of the picture grid_sample reads 0
    padding = "border" if config.fill == "border" else "zeros"
    if shrink <= _CLEAN_SHRINK:
        views = F.grid_sample(source, grid, padding_mode=padding, align_corners=False)
    else:
        views = torch.zeros((), device=pixels.device)
        for tap in ((-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25)):
            shift = matrices[:, :, :2] @ torch.tensor(tap, device=pixels.device)  # [B, 2]
            tap_views = F.grid_sample(source, grid + shift[:, None, None], padding_mode=padding, align_corners=False)
            views = tap_views.add_(views)
        views.mul_(0.25)
    return views.add_(255) if config.fill == "white" else views


def _change_colors(views: Tensor, config: AugmentConfig, draws: Tensor) -> Tensor:
    """[B, 3, H, W] float32, 0..255, to the same; may leave 0..255."""
    luma = torch.tensor(_LUMA, device=views.device)
    mean_gray = views.mean(dim=(2, 3)) @ luma  # [B]
    matrix, offset = color_matrices(draws.to(views.device), config, mean_gray)
    changed = torch.bmm(matrix, views.flatten(2)).add_(offset[:, None, None])  # [B, 3, H*W]
    return changed.view(views.shape)


def _low_bits(draws: Tensor) -> Tensor:
    """Further draws in 0..1 out of the lower 12 of 24 bits: what stands above them says nothing of them."""
    return (draws * 4096) % 1


def _outline(views: Tensor, config: AugmentConfig, draws: Tensor) -> Tensor:
    """[B, 3, H, W] float32, 0..255, with dark lines in some samples where colours meet; draws: [B, 3] in 0..1."""
    chosen, threshold, darkness = draws.to(views.device)[:, :, None, None, None].unbind(1)  # [B, 1, 1, 1] each
    apart = F.max_pool2d(views, 3, stride=1, padding=1) + F.max_pool2d(-views, 3, stride=1, padding=1)
    edge = apart.amax(dim=1, keepdim=True)  # [B, 1, H, W]: of the channel that changes most
    line = ((edge - _between(threshold, *_EDGE)) / _EDGE_SOFTNESS).clamp_(0, 1)
    darkness = _between(darkness, *_DARKNESS) * (chosen < config.outline_prob)
    return views * (1 - line * darkness)


def _erase(views: Tensor, config: AugmentConfig, draws: Tensor) -> Tensor:
    """[B, 3, H, W] float32 with one rectangle of some samples in CLIP's mean colour; sides 1 : 2 to 2 : 1."""
    height, width = views.shape[2:]
    draws = draws.to(views.device)
    area = _between(draws[:, 1], *config.erase_scale)
    stretch = torch.exp(_between(draws[:, 2], -math.log(2), math.log(2)))
    tall, wide = (area / stretch).sqrt().clamp_(max=1) * height, (area * stretch).sqrt().clamp_(max=1) * width
    top, left = draws[:, 3] * (height - tall), draws[:, 4] * (width - wide)
    y = torch.arange(height, device=views.device) + 0.5
    x = torch.arange(width, device=views.device) + 0.5
    in_rows = (y >= top[:, None]) & (y < (top + tall)[:, None])  # [B, H]
    in_columns = (x >= left[:, None]) & (x < (left + wide)[:, None])  # [B, W]
    is_erased = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    is_erased &= (draws[:, 0] < config.erase_prob)[:, None, None, None]
    return torch.where(is_erased, torch.tensor(_FADED, device=views.device).view(1, 3, 1, 1), views)
