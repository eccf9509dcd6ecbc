"""Whether an encoder keeps the contract of `encoder.py`: one test for every family and for a user's own."""

from collections.abc import Callable

import torch
from torch import Tensor

from eyesmith.errors import ConfigError, EyesmithError, InputError, ShapeError
from eyesmith.models.encoder import Encoder


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
    and mode as they were; position tables are restored. Raises ConformanceError, which lists all violated clauses;
    `find_violations` gives the list.
    """
    if violations := find_violations(encoder, other_size=other_size, batch=batch, tolerance=tolerance, seed=seed):
        raise ConformanceError(violations)


def find_violations(
    encoder: Encoder,
    *,
    other_size: tuple[int, int] | None = None,
    batch: int = 2,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> list[str]:
    """Every clause of the contract that the encoder breaks, one sentence each; see check_encoder."""
    violations: list[str] = []
    was_training, size = encoder.training, (encoder.image_size[0], encoder.image_size[1])
    state = {name: value.detach().clone() for name, value in encoder.state_dict().items()}
    other_size = other_size or (size[0] + encoder.stride, size[1])
    clauses: list[tuple[str, Callable[[], None]]] = [
        ("facts", lambda: _check_facts(encoder)),
        ("at_size", lambda: _check_view(encoder, size, other_size, seed, tolerance)),
    ]
    for height, width in (size, other_size):
        pixels = _noise((batch, 3, height, width), encoder, seed)
        where = f"at {height} x {width}"
        clauses += [
            (f"set_image_size({height}, {width})", lambda h=height, w=width: _check_resize(encoder, h, w)),
            (f"forward {where}", lambda p=pixels: _check_forward(encoder, p, tolerance)),
            (f"dense {where}", lambda p=pixels: _check_dense(encoder, p, tolerance)),
            (f"pyramid {where}", lambda p=pixels: _check_pyramid(encoder, p)),
            (f"tokens {where}", lambda p=pixels: _check_tokens(encoder, p, tolerance)),
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
    return violations


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
    for name, values, least in (("mean", encoder.mean, 0.0), ("std", encoder.std, 1e-6)):
        in_range = len(values) == 3 and all(least <= value <= 1 for value in values)
        _require(in_range, f"{name} must be three numbers in 0..1")
    strides = [tap.stride for tap in encoder.taps.values()]
    _require(bool(strides), "taps is empty")
    _require(strides == sorted(strides), f"taps must run from fine to coarse, strides are {strides}")
    _require(strides[-1] == encoder.stride, f"the last tap has stride {strides[-1]}, the encoder {encoder.stride}")
    half = encoder.half_tap
    _require(half is None or half in encoder.taps, f"half_tap is {half!r}, taps has {', '.join(encoder.taps)}")


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


def _check_tokens(encoder: Encoder, pixels: Tensor, tolerance: float) -> None:
    height, width = _grid(encoder, encoder.stride)
    channels = list(encoder.taps.values())[-1].channels
    for layer in (-2, -1):
        tokens = encoder.tokens(pixels, layer)
        _require_shape(f"tokens(layer={layer})", tokens, (len(pixels), height * width, channels))
    _require(torch.equal(encoder.tokens(pixels), encoder.tokens(pixels, -2)), "tokens' default layer is not -2")
    count = len(encoder.blocks())
    for layer in (count, -count - 1):
        _require_raises(ConfigError, lambda layer=layer: encoder.tokens(pixels, layer), f"tokens(layer={layer})")
    if encoder.half_tap is not None:
        middle = encoder.pyramid(pixels, [encoder.half_tap])[encoder.half_tap].flatten(2).mT
        layer = _num_layers(encoder, pixels) // 2 - 1
        message = f"half_tap {encoder.half_tap} differs from tokens(layer={layer}), after half of the blocks"
        _require_close(middle, encoder.tokens(pixels, layer), tolerance, message)


def _num_layers(encoder: Encoder, pixels: Tensor) -> int:
    """How many layers `tokens` knows."""
    for layer in range(len(encoder.blocks())):
        try:
            encoder.tokens(pixels, layer)
        except ConfigError:
            return layer
    return len(encoder.blocks())


def _check_view(encoder: Encoder, size: tuple[int, int], other: tuple[int, int], seed: int, tolerance: float) -> None:
    """Ends with the encoder at the other size."""
    pixels, others = (_noise((1, 3, *sides), encoder, seed) for sides in (size, other))
    before, state = encoder(pixels), {name: value.clone() for name, value in encoder.state_dict().items()}
    view = encoder.at_size(*other)
    _require(tuple(view.image_size) == other, f"the view's image_size is {view.image_size}")
    at_other, back = view(others), view.at_size(*size)(pixels)
    now = encoder.state_dict()
    left_alone = tuple(encoder.image_size) == size and now.keys() == state.keys()
    left_alone = left_alone and all(torch.equal(now[name], value) for name, value in state.items())
    _require(left_alone and torch.equal(encoder(pixels), before), "making a view changes the encoder")
    _require(torch.equal(back, before), "a view of a view at the first size differs: a resampled table was resampled")
    own = dict(encoder.named_parameters())
    copied = [name for name, value in view.named_parameters() if name in own and value.shape == own[name].shape]
    copied = [name for name in copied if view.get_parameter(name) is not own[name]]
    _require(not copied, f"the view has its own {', '.join(copied[:3])}")
    _require_raises(ShapeError, lambda: encoder.at_size(0, size[1]), "at_size with a height of 0")
    encoder.set_image_size(*other)
    _require_close(at_other, encoder(others), tolerance, "the view differs from the encoder resized to its size")


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
