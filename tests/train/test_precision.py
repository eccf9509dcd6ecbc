import pytest
import torch

from eyesmith.train.config import ParallelConfig
from eyesmith.train.precision import autocast, choose_precision, set_switches


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_precision("auto", torch.device("cpu")) == expected


def test_a_wish_is_followed() -> None:
    assert choose_precision("fp32", torch.device("cpu")) == "fp32"
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"


def test_products_inside_the_context_are_in_the_chosen_format() -> None:
    a = torch.ones(2, 2)
    with autocast("bf16", torch.device("cpu")):
        assert (a @ a).dtype == torch.bfloat16
    with autocast("fp32", torch.device("cpu")):
        assert (a @ a).dtype == torch.float32


@pytest.mark.parametrize("is_on", [False, True])
def test_the_switches_of_a_gpu_are_those_of_the_config(is_on: bool) -> None:
    before = (
        ParallelConfig(tf32=torch.backends.cuda.matmul.allow_tf32, cudnn_benchmark=torch.backends.cudnn.benchmark),
        torch.backends.cudnn.allow_tf32,
    )
    try:
        set_switches(ParallelConfig(tf32=is_on, cudnn_benchmark=is_on))
        assert torch.backends.cuda.matmul.allow_tf32 == is_on
        assert torch.backends.cudnn.allow_tf32 == is_on
        assert torch.backends.cudnn.benchmark == is_on
    finally:
        set_switches(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
