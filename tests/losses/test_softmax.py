import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from slow_loss import inputs, relative_error, slow_sigmoid, slow_softmax, value_and_grads
from torch.utils._python_dispatch import TorchDispatchMode

from eyesmith.errors import ConfigError, ShapeError
from eyesmith.losses import Same, sigmoid_loss, softmax_loss
from eyesmith.losses.all_pairs import WHOLE_BELOW, tile_shape

# of fp32 the gradient of the scale is the worst: its terms cancel to a fiftieth of their size
BOUND = {torch.float32: 2e-6, torch.float64: 1e-12}
# 11 rows: all logits at once, tiles of one row, of 2 x 4 with a rest, and one tile that holds all
TILE_ROWS = [None, 1, 2, 3, 64]


def loss_and_grads(loss: str, values: dict[str, Any], same: Any, dtype: torch.dtype, **options: Any) -> list[Any]:
    names = ["image", "text", "scale"] + (["bias"] if loss == "sigmoid" else [])
    leaves = [values[name].to(dtype, copy=True).requires_grad_() for name in names]
    value = (softmax_loss if loss == "softmax" else sigmoid_loss)(*leaves, same, **options)
    value.backward()
    return [value.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_every_tile_equals_the_slow_loop(loss: str, dtype: torch.dtype) -> None:
    values = inputs(11)
    for has_same in (False, True):
        exact = value_and_grads(loss, values, has_same=has_same)
        same = Same(values["labels"], values["texts"]) if has_same else None
        for tile_rows in TILE_ROWS:
            found = loss_and_grads(loss, values, same, dtype, tile_rows=tile_rows)
            assert [value.dtype for value in found] == [dtype] * len(found)
            for value, wanted in zip(found, exact, strict=True):
                assert relative_error(value, wanted) <= BOUND[dtype], (tile_rows, has_same)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_a_matrix_says_the_same_as_codes(loss: str) -> None:
    values = inputs(11)
    same = Same(values["labels"], values["texts"])
    for given in (same.matrix(), same):
        found = loss_and_grads(loss, values, given, torch.float64)
        for value, wanted in zip(found, value_and_grads(loss, values, has_same=True), strict=True):
            assert relative_error(value, wanted) <= 1e-12


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_a_matrix_may_say_one_way_only(loss: str) -> None:
    values, matrix = inputs(11), torch.zeros(11, 11, dtype=torch.bool)
    matrix[1, 4] = matrix[2, 2] = True  # image 1 and text 4; an own pair is always kept
    leaves = [values[name] for name in ("image", "text", "scale", "bias")][: 3 if loss == "softmax" else 4]
    left_out = [[(i, j) == (1, 4) for j in range(11)] for i in range(11)]
    exact = (slow_softmax if loss == "softmax" else slow_sigmoid)(*leaves, left_out)
    assert relative_error(loss_and_grads(loss, values, matrix, torch.float64)[0], exact) <= 1e-12


@pytest.mark.parametrize("tile_rows", [None, 8])
def test_equal_rows_cost_log_of_the_batch(tile_rows: int | None) -> None:
    rows = torch.ones(4, 8) / 8**0.5
    torch.testing.assert_close(
        softmax_loss(rows, rows, torch.tensor(1.0), tile_rows=tile_rows), torch.tensor(4.0).log()
    )


@pytest.mark.parametrize("tile_rows", [None, 1])
def test_values_published_for_two_pairs(tile_rows: int | None) -> None:
    logits = torch.tensor(
        [[-0.7531657975063976, -0.3438383778883346], [-0.8428723074569605, -0.4641141567719522]], dtype=torch.float64
    )
    scale = torch.tensor(1 / 0.07).double()
    image, text = logits / scale, torch.eye(2).double()
    assert softmax_loss(image, text, scale, tile_rows=tile_rows).item() == pytest.approx(0.711148954092, abs=1e-9)
    found = sigmoid_loss(image, text, torch.tensor(10.0).double(), torch.tensor(-10.0).double(), tile_rows=tile_rows)
    assert found.item() == pytest.approx(10.4261082122, abs=1e-6)


def test_a_small_loss_keeps_its_digits() -> None:
    rows = torch.eye(6)  # each pair certain: all logits at once round this loss to 0
    found = loss_and_grads("softmax", {"image": rows, "text": rows, "scale": torch.tensor(25.0)}, None, torch.float32,
                           tile_rows=2)  # fmt: skip
    others = 5 * math.exp(-25.0)
    assert found[0].item() == pytest.approx(math.log1p(others), rel=1e-6)
    share = others / (1 + others)  # what all other pairs have of a row
    assert found[3].item() == pytest.approx(-share, rel=1e-6)
    assert found[1][0, 0].item() == pytest.approx(-25.0 * share / 6, rel=1e-6)


def test_large_logits_neither_overflow_nor_vanish() -> None:
    values = inputs(11) | {"scale": torch.tensor(1e4).double()}
    values["image"], values["text"] = values["text"].flip(0), values["image"]  # most own pairs are the worse ones
    exact = loss_and_grads("softmax", values, None, torch.float64)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-3)):  # logits of 1e4 end at 1e-3 in fp32
        found = loss_and_grads("softmax", values, None, dtype, tile_rows=2)
        assert all(relative_error(value, wanted) <= bound for value, wanted in zip(found, exact, strict=True))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_without_negatives(loss: str) -> None:
    values, codes = inputs(11), torch.zeros(11, dtype=torch.int64)
    found = loss_and_grads(loss, values, Same(codes, codes), torch.float64, tile_rows=2)
    wanted = loss_and_grads(loss, values, Same(codes, codes), torch.float64)
    for value, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-12, atol=1e-14)


def test_a_nan_is_passed_on() -> None:
    values = inputs(11)
    values["image"][7, 2] = torch.nan
    for loss in ("softmax", "sigmoid"):
        assert all(value.isnan().any() for value in loss_and_grads(loss, values, None, torch.float32, tile_rows=2))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("frozen", ["image", "text", "scale", "image text", "text scale", "bias"])
def test_gradients_are_given_to_what_asks_for_them(loss: str, frozen: str) -> None:
    values = inputs(11)
    exact = value_and_grads(loss, values, has_same=False)
    names = ["image", "text", "scale"] + (["bias"] if loss == "sigmoid" else [])
    leaves = {name: values[name].clone().requires_grad_(name not in frozen.split()) for name in names}
    function: Callable[..., torch.Tensor] = softmax_loss if loss == "softmax" else sigmoid_loss
    value = function(*leaves.values(), tile_rows=2)
    (3 * value).backward()
    for (name, leaf), wanted in zip(leaves.items(), exact[1:], strict=True):
        if name in frozen.split():
            assert leaf.grad is None
        else:
            assert leaf.grad is not None
            assert relative_error(leaf.grad, 3 * wanted) <= 1e-12


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_without_grad_mode_only_the_value(loss: str) -> None:
    values = inputs(11)
    leaves = [values[name].requires_grad_() for name in ("image", "text", "scale", "bias")]
    function: Callable[..., torch.Tensor] = softmax_loss if loss == "softmax" else sigmoid_loss
    with torch.no_grad():
        value = function(*leaves[: 3 if loss == "softmax" else 4], tile_rows=2)
    assert not value.requires_grad
    assert relative_error(value, value_and_grads(loss, inputs(11), has_same=False)[0]) <= 1e-12


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("tile_rows", [None, 2])
def test_autocast_does_not_reach_the_loss(loss: str, tile_rows: int | None) -> None:
    plain = loss_and_grads(loss, inputs(11), None, torch.float32, tile_rows=tile_rows)
    with torch.autocast("cpu", torch.bfloat16):
        cast = loss_and_grads(loss, inputs(11), None, torch.float32, tile_rows=tile_rows)
    assert all(torch.equal(a, b) for a, b in zip(plain[:1], cast[:1], strict=True))
    if tile_rows:  # without tiles a backward inside of autocast is the user's
        assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("tile_rows", [None, 2])
def test_half_features_are_computed_in_fp32(loss: str, tile_rows: int | None) -> None:
    values = inputs(11)
    for name in ("image", "text"):
        values[name] = values[name].bfloat16()
    leaves = [
        values["image"].clone().requires_grad_(),
        values["text"].clone().requires_grad_(),
        values["scale"].float(),
    ]
    leaves += [values["bias"].float()] if loss == "sigmoid" else []
    function: Callable[..., torch.Tensor] = softmax_loss if loss == "softmax" else sigmoid_loss
    value = function(*leaves, tile_rows=tile_rows)
    value.backward()
    exact = value_and_grads(loss, values | {n: values[n].double() for n in ("image", "text")}, has_same=False)
    assert value.dtype == torch.float32
    assert relative_error(value.detach(), exact[0]) <= 1e-6
    for leaf, wanted in zip(leaves[:2], exact[1:3], strict=True):
        assert leaf.grad is not None
        assert leaf.grad.dtype == torch.bfloat16
        assert relative_error(leaf.grad, wanted) <= 2**-8


@pytest.mark.gpu
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(loss: str, dtype: torch.dtype) -> None:
    values = {name: value.cuda() for name, value in inputs(1000, width=64).items()}
    rows = [values[name].to(dtype).double() for name in ("image", "text")]
    exact = loss_and_grads(loss, values | dict(zip(("image", "text"), rows, strict=True)), None, torch.float64)
    names = ["image", "text", "scale"] + (["bias"] if loss == "sigmoid" else [])
    leaves = [values[name].to(dtype if name in ("image", "text") else torch.float32, copy=True) for name in names]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    value = (softmax_loss if loss == "softmax" else sigmoid_loss)(*leaves, tile_rows=256)
    value.backward()
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    for found, wanted in zip([value.detach(), *(leaf.grad for leaf in leaves)], exact, strict=True):
        assert found is not None
        assert relative_error(found, wanted) <= bound


class _Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation gives."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.largest = max(
            [self.largest, *(t.numel() for t in torch.utils._pytree.tree_leaves(out) if torch.is_tensor(t))]
        )
        return out


class _Operations(TorchDispatchMode):
    """Names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names = set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_no_tensor_is_larger_than_a_tile_or_the_features(loss: str) -> None:
    values = inputs(300, width=4)
    codes = torch.arange(300) // 2
    for tile_rows, largest in ((16, 16 * 32 * 4), (None, 300 * 300)):
        with _Largest() as seen:
            loss_and_grads(loss, values, Same(codes, codes), torch.float32, tile_rows=tile_rows)
        assert (seen.largest <= largest) if tile_rows else (seen.largest == largest)


def test_few_rows_are_computed_at_once_and_more_by_tiles() -> None:
    for count, is_whole in ((WHOLE_BELOW - 1, True), (WHOLE_BELOW, False)):
        generator = torch.Generator().manual_seed(0)
        image, text = (F.normalize(torch.randn(count, 2, generator=generator), dim=1) for _ in range(2))
        with _Operations() as seen:
            softmax_loss(image, text, torch.tensor(1.0))
        assert any("_log_softmax" in name for name in seen.names) == is_whole


def test_few_rows_take_more_texts_at_a_time() -> None:
    assert tile_shape(32_768, 32_768) == (2048, 4096)
    assert tile_shape(176, 90_112) == (176, 47_662)  # two tiles on each of 512 ranks, not 22
    assert tile_shape(8, 4096) == (8, 4096)
    assert tile_shape(11, 11, 2) == (2, 4)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_what_is_refused(loss: str) -> None:
    values = inputs(11)
    leaves = [values[name] for name in ("image", "text", "scale", "bias")][: 3 if loss == "softmax" else 4]
    function: Callable[..., torch.Tensor] = softmax_loss if loss == "softmax" else sigmoid_loss
    with pytest.raises(ShapeError, match="equal shapes"):
        function(leaves[0], leaves[1][:4], *leaves[2:])
    with pytest.raises(ShapeError, match="expected 11 rows"):
        function(*leaves, Same(torch.arange(3), torch.arange(3)))
    with pytest.raises(ConfigError, match="give codes"):
        function(*leaves, torch.zeros(11, 11, dtype=torch.bool), tile_rows=2)
    with pytest.raises(ShapeError, match=r"expected \[11, 11\]"):
        function(*leaves, torch.zeros(11, 4, dtype=torch.bool))
    with pytest.raises(ConfigError, match="tile_rows"):
        function(*leaves, tile_rows=0)
