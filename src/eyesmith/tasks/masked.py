"""Training from masked images: the loss of the hidden patches of a batch; it leaves an image encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from eyesmith.data.loader import Batch, Rows, on_device
from eyesmith.data.patch_masks import MaskConfig, alternating_mask, hidden_places, masks_for
from eyesmith.data.sample import Source
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.eval import ResultRow, choose_splits
from eyesmith.eval.features.identity import content_hash, decoders
from eyesmith.hub import load_encoder
from eyesmith.hub.initial import InitialConfig
from eyesmith.hub.stored import read_stored
from eyesmith.images.augment import AugmentConfig
from eyesmith.losses.patch_regression import masked_cosine, masked_l1
from eyesmith.models.classifier import ClassifierConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.cost import encoder_cost
from eyesmith.models.encoder import Encoder
from eyesmith.models.eva02.masked import PATCH_GRAD_SCALE, MaskedEva02
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.tasks.encoder_run import EncoderRun, keep_said
from eyesmith.tasks.task import FP32, PASSES, EncoderRunConfig, FrozenTeacher, RunContext
from eyesmith.train.distributed import World
from eyesmith.train.kept import KeptFeatures
from eyesmith.train.objective import Wrapped
from eyesmith.train.teacher import PixelTargets, TargetConfig, Targets, TeacherTargets

TASK = "masked"


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(EncoderRunConfig):
    """A complete masked-image run: a TrV learns to tell hidden patches from the others. Captions are not read."""

    model: Eva02Config
    mask: MaskConfig = field(default_factory=MaskConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    patch_grad_scale: float = PATCH_GRAD_SCALE
    """Factor on the gradient of the patch embedding; 1 leaves it as it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.patch_grad_scale <= 1:
            raise ConfigError(f"patch_grad_scale: expected 0..1, got {self.patch_grad_scale}")
        if self.target.cache and (self.transform is not None or self.augment != AugmentConfig()):
            raise ConfigError(
                "target.cache: features can be kept only where an image has one view; take away `augment` and "
                "`transform`, or set target.cache=false"
            )


class Masked(EncoderRun[MaskedEva02]):
    """Images alone: hidden patches are told from the others, a mean over all hidden patches of the global batch.

    Measured by how near predictions come on images that are not trained on.
    """

    config_type = MaskedConfig
    heads_file = "masked.safetensors"  # the mask token and the head
    config: MaskedConfig

    def __init__(
        self, student: MaskedEva02, config: MaskedConfig, targets: Targets, *, kept: KeptFeatures | None = None
    ) -> None:
        """kept: `targets` of all images, which a step then takes in their place; measuring still asks `targets`."""
        super().__init__(student, config)
        self.targets, self._kept = targets, kept

    @classmethod
    def new_model(cls, config: MaskedConfig) -> MaskedEva02:
        return MaskedEva02(config.model, _target_dim(config), patch_grad_scale=config.patch_grad_scale)

    @classmethod
    def build(cls, config: MaskedConfig, rows: Rows, context: RunContext) -> Self:
        _check(config)
        teacher = None
        if config.target.kind == "teacher":
            with context.world.first_on_each_machine():  # one fetches from the hub, the others find it
                found = load_encoder(config.target.teacher)
            teacher = TeacherTargets(found, config.target, grid=config.model.grid).to(context.world.device())
        targets = teacher or PixelTargets(config.model.patch_px)
        torch.manual_seed(config.seed)  # loading a teacher may draw
        make = partial(MaskedEva02, config.model, targets.dim, patch_grad_scale=config.patch_grad_scale)
        student = cls.first_model(config, context, make)
        kept = _keep(config, teacher, rows, context) if teacher and config.target.cache else None
        return cls(student, config, targets, kept=kept)

    @classmethod
    def from_weights(cls, config: MaskedConfig, source: str) -> MaskedConfig:
        """A run of the source's encoder, without its projection. Raises CheckpointError for one that is no TrV."""
        stored = read_stored(source).config
        found = stored.image if isinstance(stored, ClipConfig | ClassifierConfig) else stored
        if not isinstance(found, Eva02Config):
            raise CheckpointError(f"{source}: masked-image training takes a TrV, this holds a {type(found).__name__}")
        encoder = replace(found, embed_dim=0, pooling=config.model.pooling, drop_path_prob=config.model.drop_path_prob)
        transform = config.transform and replace(config.transform, image_size=encoder.image_size)
        return replace(config, model=encoder, transform=transform, initial=InitialConfig(weights=source, part="image"))

    @classmethod
    def loss_bytes(cls, config: MaskedConfig, gpus: int) -> int:
        """Predictions of hidden patches, targets of all, and gradients."""
        rows, grid = -(-config.batch_size // (gpus * config.accumulate)), config.model.grid
        dim = _target_dim(config)
        hidden = config.mask.counts(grid)[0]
        return FP32 * rows * dim * (3 * hidden + grid[0] * grid[1])

    @classmethod
    def frozen_teacher(cls, config: MaskedConfig) -> FrozenTeacher | None:
        target = config.target
        if target.kind != "teacher":
            return None
        grid = config.model.grid if target.match == "image" else None
        return FrozenTeacher(source=target.teacher, grid=grid, is_kept=target.cache)

    def rebuild(self) -> MaskedEva02:
        return MaskedEva02(self.model.config, self.model.target_dim, patch_grad_scale=self.model.patch_grad_scale)

    def watched(self) -> dict[str, nn.Module]:
        return {"image": self.model.predict}

    def flops(self, text_len: int | None) -> float | None:
        asked = self.targets.macs if self._kept is None else 0
        if asked is None:
            return None
        return float(PASSES * encoder_cost(self.model.config).tower.macs + 2 * asked)  # forward alone

    def fixed(self) -> dict[str, nn.Module]:
        asked = self.targets if self._kept is None else None
        return {"teacher": asked.teacher} if isinstance(asked, TeacherTargets) else {}

    def teachers(self) -> Mapping[str, nn.Module]:
        return {"target.teacher": self.targets.teacher} if isinstance(self.targets, TeacherTargets) else {}

    def row_outputs(self) -> list[nn.Module]:
        # neither is called as a whole, and the student's head sees hidden patches alone
        encoders = [self.model.image, *(cast(Encoder, one) for one in self.fixed().values())]
        return [encoder.blocks()[-1] for encoder in encoders]

    def prepare(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """mask: bool [b, N], the hidden patches; target: fp16 [b, N, dim] of all, where they are kept on disk."""
        grid = self.model.image.config.grid
        made = {"mask": masks_for(batch.rows, grid, self.config.mask, seed=self.config.seed, step=step)}
        if self._kept is not None:
            assert batch.indices is not None, "the config has no streams beside kept targets"
            made["target"] = self._kept.read(batch.indices)
        return made

    def num_terms(self, batch: Batch) -> Tensor:
        return batch.extra["mask"].sum().float()

    def outputs(self, model: Wrapped, part: Batch) -> tuple[Tensor, Tensor]:
        """Predictions and targets of the hidden patches, [M, dim] both."""
        # found on the host, as on a GPU one would wait for their number
        places = on_device(hidden_places(part.host["mask"]), self.device)
        stored = part.extra.get("target")
        targets = self.targets(part.pixels) if stored is None else stored.float()
        target = targets.flatten(0, 1)[places]
        return model(part.pixels, part.extra["mask"], places), target

    def terms(self, outputs: tuple[Tensor, Tensor], part: Batch) -> Tensor:
        return masked_l1(*outputs) if self.config.target.kind == "pixels" else masked_cosine(*outputs)

    def rows(self, model: nn.Module, splits: Sequence[str], context: RunContext) -> list[ResultRow]:
        student = cast(MaskedEva02, model)
        metric = "explained" if self.config.target.kind == "pixels" else "cosine"
        facts: dict[str, Any] = {"model": self.config.name, "task": TASK, "metric": metric}
        facts |= dict.fromkeys(("low", "high", "chance"))
        teacher = self.targets.hash() if isinstance(self.targets, TeacherTargets) else "pixels"
        run = self.run_facts(student) | {"target": teacher, "decoders": decoders()}
        rows: list[ResultRow] = []
        for split in splits:
            source = self.source_of(split)
            value, count = self.value_on(student, source, context.world)
            of_data = run | {"data": content_hash(source)}
            rows.append(ResultRow(split=split, value=value, n=count, run=of_data, **facts))
        return rows

    def value_on(self, student: MaskedEva02, source: Source, world: World) -> tuple[float, int]:
        """How near predictions come on pictures, every even patch hidden, and how many there are.

        The mean cosine with the teacher's tokens; for pixels the share of their absolute deviation from mean grey that
        is explained. world: processes that share the pictures, and all call this.
        """
        config, device = self.config, next(student.parameters()).device
        is_pixels = config.target.kind == "pixels"
        targets = self.targets.to(device) if isinstance(self.targets, TeacherTargets) else self.targets

        def sums(pixels: Tensor) -> Tensor:
            """[b, 2] fp64 of the hidden patches of each image: their losses, and what these are a share of."""
            mask = alternating_mask(len(pixels), config.model.grid).to(device)
            predicted, target = student(pixels, mask), targets(pixels)[mask]  # [M, dim]
            losses = masked_l1(predicted, target) if is_pixels else masked_cosine(predicted, target)
            wholes = target.abs().mean(dim=-1) if is_pixels else torch.ones_like(losses)
            return torch.stack([losses, wholes], dim=-1).double().view(len(pixels), -1, 2).sum(1)

        found = self.of_pictures(student, source, sums, world)
        if config.target.cache and isinstance(targets, TeacherTargets):
            targets.to(torch.device("cpu"))
        loss, whole = found.sum(0).tolist()
        return (1 - loss / whole if is_pixels else -loss / whole), len(found)


def _target_dim(config: MaskedConfig) -> int:
    """Width of a target; where the teacher's is not in the config, as if it were the student's."""
    pixels = 3 * config.model.patch_px**2
    return pixels if config.target.kind == "pixels" else config.target.dim or config.model.width


def _check(config: MaskedConfig) -> None:
    if config.target.kind == "teacher" and not config.target.teacher:
        raise ConfigError(
            "target.teacher: expected a model to learn from: a run folder, a weight file or hf:owner/name; "
            "or set target.kind=pixels"
        )
    if config.eval.curve_data:
        raise ConfigError("eval.curve_data: a masked-image run is measured on splits of its own data; leave it out")
    if wanted := (*config.eval.splits, *config.eval.curve_splits):
        choose_splits(config.data.path, wanted)


def _keep(config: MaskedConfig, teacher: TeacherTargets, rows: Rows, context: RunContext) -> KeptFeatures:
    """The targets of all images; the teacher then waits on the CPU to measure."""
    kept = keep_said(
        teacher,
        rows,
        config,
        context,
        facts=lambda views: [teacher.hash(), views, config.target.match],
        field="target.cache",
    )
    teacher.to(torch.device("cpu"))
    return kept
