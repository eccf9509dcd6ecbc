"""What an image encoder must offer, and the conformance test that shows whether one does.

Heads for detection, segmentation and language models use this contract and nothing else, so an encoder that passes
`check_encoder` works in all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eyesmith.errors import ConfigError, EyesmithError, InputError, ShapeError
from eyesmith.images.pixels import normalize


@dataclass(frozen=True, slots=True)
class Tap:
    """One named feature map an encoder can give."""

    stride: int  # input pixels per cell
    channels: int


class Encoder(nn.Module, ABC):
    """An image encoder: plain facts, and seven methods.

    The facts. `taps` is ordered from fine to coarse; its last entry has the stride and the channels of `dense`.
    `is_mean_pooled` says that the pooled feature is the plain mean of `dense`, so that project(mean(dense)) = forward.
    """

    image_size: tuple[int, int]  # height, width in pixels; changed by set_image_size only
    mean: tuple[float, float, float]  # of the pixels the weights expect, in 0..1
    std: tuple[float, float, float]
    stride: int  # input pixels per cell of `dense`; image sizes are multiples of it
    embed_dim: int  # D of forward's result
    taps: Mapping[str, Tap]
    is_mean_pooled: bool = True

    @abstractmethod
    def forward(self, pixels: Tensor) -> Tensor:
        """The pooled feature before L2 normalisation: pixels [B, 3, H, W] -> [B, D]."""

    @abstractmethod
    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Feature maps by tap name, [B, channels, H/stride, W/stride] each, in the order asked for (None: all of them).

        Raises ConfigError for a name that is not in `taps`.
        """

    @abstractmethod
    def dense(self, pixels: Tensor) -> Tensor:
        """The last map before pooling: [B, C, H/stride, W/stride]."""

    @abstractmethod
    def project(self, vectors: Tensor) -> Tensor:
        """Pooling norm and head, applied to pooled or dense vectors of any leading shape: [..., C] -> [..., D]."""

    @abstractmethod
    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        """The output of one block of the last stage as a sequence without class token: [B, N, C].

        Tokens are in row-major order. layer counts the blocks that work at `stride`, as a list index does; the default
        is the input of the last one, which is what language models read. Raises ConfigError for another layer.
        """

    @abstractmethod
    def set_image_size(self, height: int, width: int) -> None:
        """Prepare for images of another size; position tables are resampled in place by the family's rule.

        Raises ShapeError when a side is not a positive multiple of the stride.
        """

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The residual units in the order they run: for sharding, compiling, checkpointing and layer-wise decay."""

    def prepare(self, pixels: Tensor) -> Tensor:
        """Pixels as the first layer wants them; every public method starts with this.

        pixels: uint8 [B, 3, H, W] is scaled and normalised with mean and std, in fp32; floats are taken as already
        normalised. Both come back in the type of the weights. Raises ShapeError for another rank, channel count, size
        or dtype.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3 or tuple(pixels.shape[2:]) != tuple(self.image_size):
            height, width = self.image_size
            raise ShapeError(
                f"pixels: expected [B, 3, {height}, {width}], got {list(pixels.shape)}; "
                "resize the images, or call set_image_size(height, width) on the encoder"
            )
        if pixels.dtype == torch.uint8:
            pixels = normalize(pixels, self.mean, self.std)
        if not pixels.is_floating_point():
            raise ShapeError(f"pixels: expected uint8 (0..255) or normalised floats, got {pixels.dtype}")
        return pixels.to(next(self.parameters()).dtype)

    def check_size(self, height: int, width: int) -> None:
        """Raise ShapeError unless both sides are positive multiples of the stride."""
        if min(height, width) < self.stride or height % self.stride or width % self.stride:
            raise ShapeError(
                f"image_size: expected positive multiples of {self.stride}, got {height} x {width}; "
                f"the nearest below is {height // self.stride * self.stride} x {width // self.stride * self.stride}"
            )

    def check_taps(self, taps: Sequence[str] | None) -> list[str]:
        """The asked-for tap names, all of them for None. Raises ConfigError for an unknown one."""
        if unknown := [name for name in taps or () if name not in self.taps]:
            raise ConfigError(f"taps: no {', '.join(unknown)}; this encoder has {', '.join(self.taps)}")
        return list(self.taps if taps is None else taps)

    def check_layer(self, layer: int, count: int) -> int:
        """The list index of a layer among `count`, negative ones counted from the end. Raises ConfigError beyond."""
        if not -count <= layer < count:
            raise ConfigError(f"layer: expected {-count} to {count - 1}, got {layer}")
        return layer % count


class ConformanceError(EyesmithError, AssertionError):
    """An encoder breaks the contract; `violations` lists every clause, one sentence each."""

    def __init__(self, violations: list[str]) -> None:
        self.violations = violations
        super().__init__(f"{len(violations)} violation(s) of the encoder contract:\n- " + "\n- ".join(violations))


def check_encoder(
    encoder: Encoder,
    *,
    other_size: tuple[int, int] | None = None,
    batch: int = 2,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> None:
    """Take an encoder through every clause of the contract, on its own device, in fp32 and eval mode.

    other_size: a non-square size (height, width) in pixels to resize to; None: one stride taller than image_size.
    tolerance: the largest difference, relative to the largest value, between results that should be equal. Leaves size
    and mode as they were; position tables are restored. Raises ConformanceError, which lists all violated clauses.
    """
    violations: list[str] = []
    was_training, size = encoder.training, tuple(encoder.image_size)
    state = {name: value.detach().clone() for name, value in encoder.state_dict().items()}
    other_size = other_size or (size[0] + encoder.stride, size[1])
    clauses: list[tuple[str, Callable[[], None]]] = [("facts", lambda: _check_facts(encoder))]
    for height, width in (size, other_size):
        pixels = _noise((batch, 3, height, width), encoder, seed)
        where = f"at {height} x {width}"
        clauses += [
            (f"set_image_size({height}, {width})", lambda h=height, w=width: _check_resize(encoder, h, w)),
            (f"forward {where}", lambda p=pixels: _check_forward(encoder, p, tolerance)),
            (f"dense {where}", lambda p=pixels: _check_dense(encoder, p, tolerance)),
            (f"pyramid {where}", lambda p=pixels: _check_pyramid(encoder, p)),
            (f"tokens {where}", lambda p=pixels: _check_tokens(encoder, p)),
        ]
    clauses += [
        ("pixels", lambda: _check_pixels(encoder, tolerance, seed)),
        ("set_image_size of a size off the stride", lambda: _check_refusals(encoder)),
        ("blocks", lambda: _check_blocks(encoder, _noise((batch, 3, *encoder.image_size), encoder, seed))),
    ]
    try:
        encoder.eval()
        for name, clause in clauses:
            try:
                with torch.no_grad():
                    clause()
            except _Violation as violation:
                violations.append(f"{name}: {violation}")
            except Exception as error:  # a clause that cannot run is violated, and the others are still worth hearing
                violations.append(f"{name}: raised {type(error).__name__}: {error}")
    finally:
        try:
            encoder.set_image_size(*size)
            encoder.load_state_dict(state)
        except Exception as error:
            violations.append(f"set_image_size back to {size}: raised {type(error).__name__}: {error}")
        encoder.train(was_training)
    if violations:
        raise ConformanceError(violations)


class _Violation(Exception):
    pass


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise _Violation(message)


def _require_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    _require(tuple(tensor.shape) == shape, f"{name} is {list(tensor.shape)}, expected {list(shape)}")
    _require(bool(tensor.isfinite().all()), f"{name} has values that are not finite")


def _require_close(left: Tensor, right: Tensor, tolerance: float, message: str) -> None:
    difference = float((left - right).abs().max() / right.abs().max().clamp_min(1e-12))
    _require(difference <= tolerance, f"{message} (relative difference {difference:.1e}, allowed {tolerance:.0e})")


def _require_raises(error: type[InputError], call: Callable[[], object], message: str) -> None:
    try:
        call()
    except error:
        return
    raise _Violation(f"{message} must raise {error.__name__}")


def _noise(shape: tuple[int, ...], encoder: Encoder, seed: int) -> Tensor:
    device = next(encoder.parameters()).device
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def _grid(encoder: Encoder, stride: int) -> tuple[int, int]:
    return encoder.image_size[0] // stride, encoder.image_size[1] // stride


def _check_facts(encoder: Encoder) -> None:
    height, width = encoder.image_size
    _require(height % encoder.stride == 0 == width % encoder.stride, "image_size is no multiple of stride")
    for name, values in (("mean", encoder.mean), ("std", encoder.std)):
        _require(len(values) == 3 and all(0 < value < 1 for value in values), f"{name} must be three numbers in 0..1")
    strides = [tap.stride for tap in encoder.taps.values()]
    _require(bool(strides), "taps is empty")
    _require(strides == sorted(strides), f"taps must run from fine to coarse, strides are {strides}")
    _require(strides[-1] == encoder.stride, f"the last tap has stride {strides[-1]}, the encoder {encoder.stride}")


def _check_resize(encoder: Encoder, height: int, width: int) -> None:
    encoder.set_image_size(height, width)
    _require(tuple(encoder.image_size) == (height, width), f"image_size is then {encoder.image_size}")


def _check_forward(encoder: Encoder, pixels: Tensor, tolerance: float) -> None:
    feature = encoder(pixels)
    _require_shape("the result", feature, (len(pixels), encoder.embed_dim))
    _require_close(encoder(pixels[:1]), feature[:1], tolerance, "a sample's feature depends on the rest of the batch")


def _check_dense(encoder: Encoder, pixels: Tensor, tolerance: float) -> None:
    last = list(encoder.taps.values())[-1]
    dense = encoder.dense(pixels)
    _require_shape("dense", dense, (len(pixels), last.channels, *_grid(encoder, encoder.stride)))
    vectors = dense.permute(0, 2, 3, 1)  # [B, H, W, C]
    projected = encoder.project(vectors)
    _require_shape("project(dense as [B, H, W, C])", projected, (*vectors.shape[:-1], encoder.embed_dim))
    cell = encoder.project(vectors[0, 0, 0])
    _require_close(cell, projected[0, 0, 0], tolerance, "project of one vector differs from project of the map")
    if encoder.is_mean_pooled:
        pooled = encoder.project(dense.mean((2, 3)))
        _require_close(pooled, encoder(pixels), tolerance, "project(mean(dense)) differs from forward")


def _check_pyramid(encoder: Encoder, pixels: Tensor) -> None:
    maps = encoder.pyramid(pixels)
    _require(list(maps) == list(encoder.taps), f"pyramid gives {list(maps)}, taps declares {list(encoder.taps)}")
    for name, tap in encoder.taps.items():
        _require_shape(f"tap {name}", maps[name], (len(pixels), tap.channels, *_grid(encoder, tap.stride)))
    for name in encoder.taps:
        alone = encoder.pyramid(pixels, [name])
        _require(list(alone) == [name], f"pyramid(pixels, ['{name}']) gives {list(alone)}")
        _require(torch.allclose(alone[name], maps[name]), f"tap {name} alone differs from {name} among all")
    _require_raises(ConfigError, lambda: encoder.pyramid(pixels, ["no such tap"]), "an unknown tap")


def _check_tokens(encoder: Encoder, pixels: Tensor) -> None:
    height, width = _grid(encoder, encoder.stride)
    channels = list(encoder.taps.values())[-1].channels
    for layer in (-2, -1):
        tokens = encoder.tokens(pixels, layer)
        _require_shape(f"tokens(layer={layer})", tokens, (len(pixels), height * width, channels))
    _require(torch.equal(encoder.tokens(pixels), encoder.tokens(pixels, -2)), "tokens' default layer is not -2")
    count = len(encoder.blocks())
    for layer in (count, -count - 1):
        _require_raises(ConfigError, lambda layer=layer: encoder.tokens(pixels, layer), f"tokens(layer={layer})")


def _check_pixels(encoder: Encoder, tolerance: float, seed: int) -> None:
    height, width = encoder.image_size
    noise = _noise((1, 3, height, width), encoder, seed)
    pixels = (noise.clamp(-2, 2) * 63 + 127).to(torch.uint8)
    mean, std = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in (encoder.mean, encoder.std))
    floats = (pixels.float() / 255 - mean) / std
    _require_close(encoder(pixels), encoder(floats), tolerance, "uint8 pixels differ from the same pixels normalised")
    wrong = {
        "pixels of another size": noise[..., :-1],
        "pixels with four channels": noise.new_zeros(1, 4, height, width),
        "pixels without batch axis": noise[0],
        "int64 pixels": pixels.long(),
    }
    for name, tensor in wrong.items():
        for method in (encoder.forward, encoder.dense, encoder.pyramid, encoder.tokens):
            _require_raises(ShapeError, lambda m=method, t=tensor: m(t), f"{method.__name__} of {name}")


def _check_refusals(encoder: Encoder) -> None:
    before = tuple(encoder.image_size)
    if encoder.stride > 1:
        wrong = (before[0] + 1, before[1])
        _require_raises(ShapeError, lambda: encoder.set_image_size(*wrong), f"set_image_size{wrong}")
    _require_raises(ShapeError, lambda: encoder.set_image_size(0, before[1]), "a height of 0")
    _require(tuple(encoder.image_size) == before, "a refused size changed image_size")


def _check_blocks(encoder: Encoder, pixels: Tensor) -> None:
    blocks = encoder.blocks()
    _require(len(blocks) >= 2, f"expected two or more, got {len(blocks)}")
    known = {id(module) for module in encoder.modules()}
    _require(all(id(block) in known for block in blocks), "a block is no sub-module of the encoder")
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, index=index: ran.append(index)) for index, block in enumerate(blocks)
    ]
    try:
        encoder(pixels)
    finally:
        for handle in handles:
            handle.remove()
    _require(ran == list(range(len(blocks))), f"forward runs them in the order {ran}, blocks() lists {len(blocks)}")
