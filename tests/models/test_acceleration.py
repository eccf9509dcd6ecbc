"""Compiled and prepared encoders against the plain ones."""

import copy
import logging
import pickle
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend
from torch._dynamo.utils import counters

from eyesmith.errors import ConfigError
from eyesmith.models.acceleration import compile_blocks, prepare_for_inference
from eyesmith.models.encoder import Encoder
from eyesmith.models.foreign.timm import TIMM
from eyesmith.models.vitamin.model import VITAMIN

TINY = replace(VITAMIN["nano"], image_size=(32, 48), depths=(2, 2, 2), embed_dim=16, drop_path_prob=0.0)
NUM_KINDS = 7  # stem; first and later block of stage 1; the same of stage 2; transition; transformer block


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "handlers", [])  # pytest would have it write every step
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def tiny(**changes: Any) -> Encoder:
    torch.manual_seed(0)
    encoder = replace(TINY, **changes).build().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return encoder


def noise(batch: int, size: tuple[int, int] = (32, 48)) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(batch))


def is_compiled(encoder: Encoder) -> bool:
    return all(block._compiled_call_impl is not None for block in encoder.blocks())


class Graphs(list[int]):
    """A backend that runs graphs as they are and keeps how many sizes of each are variables."""

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        self.append(sum(isinstance(value, torch.SymInt) for value in inputs))
        return graph.forward


def test_equal_blocks_share_a_graph_and_results_stay() -> None:
    plain, encoder, graphs = tiny(), tiny(), Graphs()
    names = list(encoder.state_dict())
    assert compile_blocks(encoder, backend=graphs) is encoder
    assert list(encoder.state_dict()) == names
    with torch.no_grad():
        for batch in (2, 3, 5, 7):  # more batch sizes than torch's limit of graphs would bear
            torch.testing.assert_close(encoder(noise(batch)), plain(noise(batch)), rtol=0, atol=1e-5)
        torch.testing.assert_close(encoder.tokens(noise(3)), plain.tokens(noise(3)), rtol=0, atol=1e-5)
        maps, expected = encoder.pyramid(noise(3)), plain.pyramid(noise(3))
        for name, value in expected.items():
            torch.testing.assert_close(maps[name], value, rtol=0, atol=1e-5)
    assert graphs == [0] * NUM_KINDS + [1] * NUM_KINDS  # all sizes constant at first, then all but the batch's
    assert not counters["graph_break"]

    other = Graphs()  # a second model finds its sizes constant too
    with torch.no_grad():
        compile_blocks(tiny(widths=(8, 16, 48)), backend=other)(noise(2))
    assert other == [0] * NUM_KINDS


def test_compiling_again_does_nothing_and_copies_are_plain() -> None:
    backend = CompileCounter()
    encoder = compile_blocks(tiny(), backend=backend)
    runs = [block._compiled_call_impl for block in encoder.blocks()]
    compile_blocks(encoder, backend=backend)
    assert all(block._compiled_call_impl is run for block, run in zip(encoder.blocks(), runs, strict=True))
    compile_blocks(encoder, backend="eager")
    assert not any(block._compiled_call_impl is run for block, run in zip(encoder.blocks(), runs, strict=True))
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert not any(block._compiled_call_impl for block in twin.blocks())
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
            assert not twin(noise(1)).any()  # its own weights, not those of the original


def test_new_weights_and_another_image_size_take_effect() -> None:
    encoder, plain = compile_blocks(tiny(), backend="eager"), tiny()
    with torch.no_grad():
        encoder(noise(2))
        for model in (encoder, plain):
            model.load_state_dict({name: 0.5 * value for name, value in plain.state_dict().items()})
            model.set_image_size(48, 32)
        pixels = noise(2, (48, 32))
        torch.testing.assert_close(encoder(pixels), plain(pixels), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch 2.13 asks while it traces
def test_gradients_are_those_of_the_plain_encoder() -> None:
    plain, backend = tiny().train(), CompileCounterWithBackend("aot_eager")
    encoder = compile_blocks(tiny().train(), backend=backend)
    for model in (plain, encoder):
        model(noise(2)).square().sum().backward()
    assert backend.frame_count == NUM_KINDS
    for (name, parameter), expected in zip(encoder.named_parameters(), plain.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize(
    ("scope", "dtype"),
    [("none", torch.float32), ("none", torch.bfloat16), ("blocks", torch.bfloat16), ("whole", torch.float32)],
)
def test_prepared_encoders_give_the_same_features(scope: Any, dtype: torch.dtype) -> None:
    plain = tiny()
    backend = CompileCounter()
    encoder = prepare_for_inference(tiny().train(), dtype=dtype, compile=scope, backend=backend)
    assert not encoder.training
    assert {value.dtype for value in encoder.state_dict().values()} == {dtype}
    assert all(v.is_contiguous(memory_format=torch.channels_last) for v in encoder.parameters() if v.ndim == 4)
    pixels = (noise(4) * 60 + 128).clamp(0, 255).to(torch.uint8)
    with torch.no_grad():
        for given in (pixels, noise(4)):
            feature, expected = encoder(given), plain(given)
            assert feature.dtype == dtype
            error = float((feature.float() - expected).norm() / expected.norm())
            assert error < (1e-6 if dtype == torch.float32 else 0.02)
    assert backend.frame_count == {"none": 0, "blocks": NUM_KINDS, "whole": 2}[scope]  # whole: per type of pixels
    assert not counters["graph_break"]


@pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
def test_a_timm_backbone_compiles_by_block_too() -> None:
    torch.manual_seed(0)
    encoder = replace(TIMM["vit_nano"], drop_path_prob=0.0).build().eval()
    pixels, backend = noise(2, encoder.image_size), CompileCounter()
    with torch.no_grad():
        expected = encoder(pixels)
        torch.testing.assert_close(compile_blocks(encoder, backend=backend)(pixels), expected, rtol=0, atol=1e-5)
    assert backend.frame_count == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch 2.13's compiler uses what torch deprecates
def test_the_default_compiler_gives_the_same_features() -> None:
    plain = tiny()
    encoder = prepare_for_inference(tiny(), compile="blocks")
    assert is_compiled(encoder)
    with torch.no_grad():
        torch.testing.assert_close(encoder(noise(2)), plain(noise(2)), rtol=0, atol=1e-5)


def test_wrong_settings_are_refused_before_anything_is_changed() -> None:
    encoder = tiny().train()
    wrong: Any = "reduce-overhead"
    for call in (
        lambda: compile_blocks(encoder, mode=wrong),
        lambda: prepare_for_inference(encoder, mode=wrong),
        lambda: prepare_for_inference(encoder, dtype=torch.int8),
        lambda: prepare_for_inference(encoder, compile=wrong),
    ):
        with pytest.raises(ConfigError, match="expected"):
            call()
    assert encoder.training
    assert not is_compiled(encoder)
