"""Training from masked images: the loss of the hidden patches of a batch."""

from functools import partial
from typing import Protocol, cast

from torch import Tensor, nn

from eyesmith.images.pixels import OPENAI_MEAN, OPENAI_STD, normalize
from eyesmith.losses.patch_regression import masked_cosine, masked_l1, patch_pixels
from eyesmith.models.cost import encoder_cost
from eyesmith.models.encoder import Encoder
from eyesmith.models.eva02.masked import MaskedEva02
from eyesmith.train.accumulate import add_up, cut
from eyesmith.train.batches import Batch
from eyesmith.train.masked_config import MaskedConfig
from eyesmith.train.masks import hidden_places, masks_for
from eyesmith.train.objective import Objective, StepLoss
from eyesmith.train.precision import autocast, choose_precision
from eyesmith.train.rng import StepDraws, step_seed
from eyesmith.train.sharding import Parallel
from eyesmith.train.targets import TeacherTargets

_PASSES = 2 * 3  # a multiply-add counts two; the backward pass is twice the forward


class Targets(Protocol):
    """What the patches of images shall be predicted as."""

    dim: int

    @property
    def macs(self) -> int | None:
        """Multiply-adds that an image's targets take in each step; None where that is not known."""
        ...

    def __call__(self, pixels: Tensor, indices: Tensor | None) -> Tensor:
        """[b, N, dim], without gradient. pixels: uint8 [b, 3, H, W]; indices: int64 [b], places in the data set."""
        ...


class PixelTargets:
    """The normalised pixels of each patch."""

    macs = 0

    def __init__(self, patch_px: int) -> None:
        self._patch_px = patch_px
        self.dim = 3 * patch_px**2

    def __call__(self, pixels: Tensor, indices: Tensor | None) -> Tensor:
        del indices
        return patch_pixels(normalize(pixels, OPENAI_MEAN, OPENAI_STD), self._patch_px)


class _Hidden(nn.Module):
    """The student, to be wrapped."""

    def __init__(self, student: MaskedEva02) -> None:
        super().__init__()
        self.student = student

    def forward(self, pixels: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        return self.student(pixels, mask, places)


class Masked(Objective[MaskedEva02]):
    """Images alone: hidden patches are told from the others, a mean over all hidden patches of the global batch."""

    def __init__(self, student: MaskedEva02, config: MaskedConfig, targets: Targets) -> None:
        self.model, self.config, self.targets = student, config, targets
        self._flops: float | None = None

    def module(self) -> nn.Module:
        return _Hidden(self.model)

    def blocks(self) -> list[nn.Module]:
        return self.model.image.blocks()

    def rebuild(self) -> MaskedEva02:
        return MaskedEva02(self.model.config, self.model.target_dim, patch_grad_scale=self.model.patch_grad_scale)

    def watched(self) -> dict[str, nn.Module]:
        return {"image": self.model.predict}

    def flops(self, text_len: int | None) -> float | None:
        if self.targets.macs is None:
            return None
        if self._flops is None:  # a teacher goes forward alone
            self._flops = float(_PASSES * encoder_cost(self.model.config).tower.macs + 2 * self.targets.macs)
        return self._flops

    def fixed(self) -> dict[str, nn.Module]:
        return {"teacher": self.targets.teacher} if isinstance(self.targets, TeacherTargets) else {}

    def row_outputs(self) -> list[nn.Module]:
        # neither is called as a whole, and the student's head sees hidden patches alone
        encoders = [self.model.image, *(cast(Encoder, one) for one in self.fixed().values())]
        return [encoder.blocks()[-1] for encoder in encoders]

    def token_losses(self, predicted: Tensor, target: Tensor) -> Tensor:
        """The loss of each hidden patch, [M] fp32; both [M, dim]."""
        return masked_l1(predicted, target) if self.config.target.kind == "pixels" else masked_cosine(predicted, target)

    def backward(self, parallel: Parallel, batch: Batch, step: int) -> StepLoss:
        config, device = self.config, self.device
        precision = choose_precision(config.precision, device)
        pixels = batch.pixels.to(device)
        grid = self.model.image.config.grid
        masks = masks_for(batch.rows, grid, config.mask, seed=config.seed, step=step)  # [b, N]
        mask = masks.to(device)
        world = parallel.world
        count = world.total(mask.sum()).float()

        def share(rows: slice) -> Tensor:
            draws.give(batch.rows[rows])
            part, places = pixels[rows], hidden_places(masks[rows]).to(device)
            indices = None if batch.indices is None else batch.indices[rows]
            with autocast(precision, device):
                target = self.targets(part, indices).flatten(0, 1)[places]
                predicted = parallel(part, mask[rows], places)
            # processes average their gradients, and the mean is over all their patches
            return self.token_losses(predicted, target).sum() * (world.size / count)

        parts = [partial(share, rows) for rows in cut(len(pixels), config.accumulate)]
        with StepDraws(self.model, seed=step_seed(config.seed, step), device=device) as draws:
            loss = add_up(parallel, parts)
        return StepLoss(world.total(loss) / world.size)
