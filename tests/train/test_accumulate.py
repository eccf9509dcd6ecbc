from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from eyesmith.data.loader import Batch
from eyesmith.errors import DataError
from eyesmith.images import PreprocessConfig
from eyesmith.losses import softmax_loss
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.tasks.contrastive import Contrastive, TrainConfig
from eyesmith.train.accumulate import Features, backward, cut
from eyesmith.train.config import DataConfig, ParallelConfig
from eyesmith.train.distributed import World
from eyesmith.train.rng import StepDraws
from eyesmith.train.sharding import Parallel

ROWS = 12


@pytest.fixture(scope="module", params=["fp32", "fp64"])
def clip(request: pytest.FixtureRequest) -> Clip:
    torch.manual_seed(0)
    made = ClipConfig(
        name="tiny",
        image=ViTaminConfig(
            image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=16, drop_path_prob=0.5
        ),
        text=ClipTextConfig(width=16, depth=2, heads=2, embed_dim=16, context_len=16),
        preprocess=PreprocessConfig(image_size=(32, 32)),
    ).build()
    return made.to(torch.float64 if request.param == "fp64" else torch.float32).train()


def _gradients(
    clip: Clip, num_parts: int, *, keep_graphs: bool = False
) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
    """Loss, gradients, image features of every pass. keep_graphs: the oracle, one backward pass of all parts."""
    pixels = torch.randn(ROWS, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(clip.logit_scale.dtype)
    texts = [f"a {word} thing number {i}" for i, word in enumerate(("red", "green", "blue") * 4)]
    config = TrainConfig(model=clip.config, data=DataConfig(path="none"))
    parallel = Parallel(Contrastive(clip, config), ParallelConfig(), World())
    seen: list[Tensor] = []

    def part(rows: Tensor) -> Callable[[], Features]:
        def features() -> Features:
            draws.give(rows)
            image, text, scale, bias = parallel(pixels[rows], clip.text.tokenize([texts[row] for row in rows]))
            assert text is not None
            seen.append(image.detach())
            return Features(image, text, scale, bias)

        return features

    clip.zero_grad()
    parts = [part(rows) for rows in torch.arange(ROWS).tensor_split(num_parts)]
    with StepDraws(clip, seed=5, device=torch.device("cpu")) as draws:
        if keep_graphs:
            found = [one() for one in parts]
            image, text = torch.cat([one.image for one in found]), torch.cat([one.text for one in found])
            loss = softmax_loss(image, text, found[0].scale)
            loss.backward()
        else:
            is_double = clip.logit_scale.dtype == torch.float64
            objective = lambda found: softmax_loss(found.image, found.text, found.scale)  # noqa: E731
            loss, _ = backward(parallel, parts, objective, same_kernels=is_double)
    return loss, {name: value.grad.clone() for name, value in clip.named_parameters() if value.grad is not None}, seen


@pytest.mark.parametrize("num_parts", [2, 3, 12])
def test_the_gradient_of_parts_is_that_of_the_whole(clip: Clip, num_parts: int) -> None:
    whole_loss, whole, _ = _gradients(clip, 1)
    loss, parts, _ = _gradients(clip, num_parts)
    assert parts.keys() == whole.keys() == dict(clip.named_parameters()).keys()
    is_double = clip.logit_scale.dtype == torch.float64
    assert loss.item() == pytest.approx(whole_loss.item(), rel=1e-13 if is_double else 1e-6)
    for name, value in whole.items():  # sums in another order: the last digits
        error = (parts[name] - value).abs().max() / value.abs().max().clamp_min(1e-3)
        assert float(error) < (1e-13 if is_double else 1e-4), name


@pytest.mark.parametrize("num_parts", [1, 2, 5])
@pytest.mark.parametrize("clip", ["fp64"], indirect=True)
def test_in_fp64_it_is_bit_for_bit_that_of_keeping_all_graphs(clip: Clip, num_parts: int) -> None:
    oracle_loss, oracle, _ = _gradients(clip, num_parts, keep_graphs=True)
    loss, parts, _ = _gradients(clip, num_parts)
    assert torch.equal(loss, oracle_loss)
    for name, value in oracle.items():
        assert torch.equal(parts[name], value), name


def test_both_passes_see_the_same_draws(clip: Clip) -> None:
    _, _, seen = _gradients(clip, 3)
    for first, second in zip(seen[:3], seen[:2:-1], strict=True):
        if first.dtype == torch.float64:
            assert torch.equal(first, second)
        else:  # without gradient fp32 takes fused kernels
            torch.testing.assert_close(first, second)


def test_rows_have_their_own_draws() -> None:
    """Whatever part a row is in, and dropped rows differ from one another."""
    torch.manual_seed(0)
    encoder = ViTaminConfig(
        image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=16, drop_path_prob=0.5
    ).build()
    encoder.train()
    pixels = torch.randn(1, 3, 32, 32).expand(6, -1, -1, -1)
    with StepDraws(encoder, seed=3, device=torch.device("cpu")) as draws, torch.no_grad():
        draws.give(torch.arange(6))
        whole = encoder(pixels)
        draws.give(torch.tensor([4, 1]))
        torch.testing.assert_close(encoder(pixels[:2]), whole[[4, 1]])
    assert len({tuple(row.tolist()) for row in whole}) > 1
    assert all(getattr(module, "factors", None) is None for module in encoder.modules())


def test_fewer_rows_than_parts_are_a_row_a_part_and_refused_where_processes_must_pass_alike(clip: Clip) -> None:
    rows = torch.arange(2)
    batch = Batch(pixels=rows, texts=["a", "b"], labels=None, keys=("a", "b"), rows=rows)
    config = TrainConfig(model=clip.config, data=DataConfig(path="none"), batch_size=4, accumulate=4)
    assert [part.keys for part in cut(batch, config)] == [("a",), ("b",)]
    with pytest.raises(DataError, match="has 2 samples of a step that can be read, and needs one for each of 4"):
        cut(batch, replace(config, parallel=ParallelConfig(strategy="fsdp")))
