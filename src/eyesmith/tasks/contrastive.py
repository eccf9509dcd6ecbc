"""Training with text: both towers' features, the contrastive loss of all pairs, and what a teacher adds."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from eyesmith.config import to_dict
from eyesmith.data.buckets import Bucket, BucketConfig, buckets_of
from eyesmith.data.indexed import IndexedRows
from eyesmith.data.loader import Batch, Rows, on_device
from eyesmith.data.order import step_seed
from eyesmith.data.patch_masks import kept_patches
from eyesmith.errors import ConfigError
from eyesmith.eval import ResultRow, Settings, choose_splits, evaluate
from eyesmith.eval.features.precision import TowerPrecision
from eyesmith.hub import save_model
from eyesmith.hub.initial import InitialConfig, load_initial
from eyesmith.hub.load import load_clip
from eyesmith.hub.stored import read_stored
from eyesmith.losses.all_pairs import WHOLE_BELOW, tile_shape
from eyesmith.losses.config import LossConfig
from eyesmith.losses.positives import Same, same_from
from eyesmith.losses.sigmoid import sigmoid_loss
from eyesmith.losses.softmax import softmax_loss
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.eva02.model import Eva02, Eva02Config
from eyesmith.models.text.hugging_face import HuggingFaceTextConfig
from eyesmith.models.vit.model import Vit, VitConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.optim.groups import text_blocks
from eyesmith.tasks.curve import Curve
from eyesmith.tasks.task import BEFORE, FP32, Evaluator, RunContext, Task
from eyesmith.train.accumulate import Features, backward, cut
from eyesmith.train.clip_teacher import Teacher, distill
from eyesmith.train.config import RunConfig
from eyesmith.train.data import open_buckets
from eyesmith.train.distributed import World
from eyesmith.train.objective import StepLoss, Wrapped
from eyesmith.train.precision import HALF, autocast, choose_precision
from eyesmith.train.rng import StepDraws
from eyesmith.train.text_bank import ClassTexts, PassingTexts, TextBank, Texts
from eyesmith.train.utilisation import StepCost

MAX_LOG_SCALE = math.log(100)  # the temperature's bound of CLIP and of both reference repositories
NEIGHBOUR_SCALE = 10.0  # of the cosines of captions


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """A complete contrastive run."""

    model: ClipConfig
    loss: LossConfig = field(default_factory=LossConfig)
    buckets: BucketConfig = field(default_factory=BucketConfig)
    """Train on pictures near their own shape, at several sizes; it is measured at the model's own."""
    patch_drop_prob: float = 0.0
    """Share of an image's patches that a step leaves out, so that it costs less (FLIP, arXiv 2212.00794): of a plain
    ViT or a TrV only."""

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigError(f"batch_size: a contrastive loss needs at least 2 pairs, got {self.batch_size}")
        if not 0 <= self.patch_drop_prob < 1:
            raise ConfigError(f"patch_drop_prob: expected 0 <= p < 1, got {self.patch_drop_prob}")
        if self.loss.kind == "names" and (not self.model.lock_text or self.transform or self.data.epoch_samples):
            raise ConfigError(
                "loss.kind: names keeps the captions of all classes; it takes model.lock_text=true, and neither "
                "`transform` nor data.epoch_samples"
            )
        if self.buckets.cells:
            self._check_buckets()
        if self.patch_drop_prob and not isinstance(self.model.image, Eva02Config | VitConfig):
            raise ConfigError("patch_drop_prob: patches are dropped by a plain ViT or a TrV only; set it to 0")
        super().__post_init__()

    def _check_buckets(self) -> None:
        if self.transform is not None or self.data.epoch_samples:
            raise ConfigError("buckets: of data by index; leave out `transform` and data.epoch_samples")
        if self.loss.kind == "names" or self.loss.distill.teacher or self.patch_drop_prob:
            raise ConfigError("buckets: neither with loss.kind=names nor with a teacher or dropped patches")
        if not isinstance(self.model.image, ViTaminConfig | VitConfig):
            raise ConfigError("buckets: pictures of other sizes are seen by a plain ViT or a ViTamin only")
        if self.parallel.strategy == "fsdp":
            raise ConfigError("buckets: position tables are resampled whole; take parallel.strategy=ddp or none")
        self.bucket_sizes()

    def bucket_sizes(self) -> list[list[Bucket]]:
        """For each of buckets.ratios what a batch may be. Raises ConfigError where the budget has no room for one."""
        assert isinstance(self.model.image, ViTaminConfig | VitConfig)
        height, width = self.model.image.grid
        return buckets_of(self.buckets, batch_size=self.batch_size, native_cells=height * width)


class Towers(nn.Module):
    """Both towers and what scales their products, as one forward.

    `bias` is the sigmoid loss's, None for others.
    """

    def __init__(self, clip: Clip, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.clip = clip
        self.bias = bias

    def forward(
        self, pixels: Tensor, ids: Tensor | None, kept: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """pixels: [b, 3, H, W]; ids: [b, L], None where text features are known already.

        kept: int64 [b, K] patches that the image tower sees, None for all. Returns unit features [b, D] of both, the
        scale [] and the bias []; None for what is not there.
        """
        text = None if ids is None else self.clip.text_features(ids)
        size = (pixels.shape[2], pixels.shape[3])
        other = nullcontext() if size == self.clip.image.seen_size else self.clip.image.seeing(*size)
        with other:
            image = self.clip.image_features(pixels) if kept is None else self._of_kept(pixels, kept)
        # a view, as DDP wants outputs that are no parameters
        return image, text, self.clip.logit_scale.exp(), None if self.bias is None else self.bias.view(())

    def _of_kept(self, pixels: Tensor, kept: Tensor) -> Tensor:
        image = self.clip.image
        assert isinstance(image, Eva02 | Vit)
        features = image.pool(image.encode(image.patches(pixels), kept=kept))
        return nn.functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


class PairTask(Task[Clip]):
    """A task that trains an image-text model, which it leaves."""

    @classmethod
    def new_model(cls, config: Any) -> Clip:
        return config.model.build()

    def rebuild(self) -> Clip:
        return self.model.config.build()

    def after_update(self) -> None:
        if self.model.logit_scale.requires_grad:  # a SigLIP's is above the bound, and may be kept
            self.model.logit_scale.clamp_(0, MAX_LOG_SCALE)

    def description(self) -> dict[str, Any]:
        return to_dict(self.config)["model"]

    def measured_before(self, model: nn.Module, context: RunContext) -> list[ResultRow]:
        """Of initial weights that are all trained ones, where there is what to measure them on."""
        initial, settings = self.config.initial, self.config.eval
        if not initial.weights or initial.part != "all" or not (settings.splits or settings.curve_data):
            return []
        return [replace(row, model=row.model + BEFORE) for row in self.measured(model, context)]


class Contrastive(PairTask):
    """Pairs of images and texts: each image's feature near its own text's, far from the others'.

    Measured by zero-shot classification and retrieval.
    """

    config_type = TrainConfig
    config: TrainConfig

    def __init__(
        self,
        clip: Clip,
        config: TrainConfig,
        *,
        bank: Texts | None = None,
        class_texts: ClassTexts | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        """bank: features of all captions, for a locked text tower; class_texts: of classes, for the loss by names.

        teacher: a model to distil from.
        """
        super().__init__(clip, config)
        self.bank, self.class_texts, self.teacher = bank, class_texts, teacher
        self._bias: nn.Parameter | None = None
        if config.loss.kind == "sigmoid":
            self._bias = nn.Parameter(torch.tensor(config.loss.init_bias, device=clip.logit_scale.device))

    @classmethod
    def open_rows(cls, config: TrainConfig, world: World) -> Rows:
        if not config.buckets.cells:
            return super().open_rows(config, world)
        return open_buckets(config, config.buckets, config.bucket_sizes(), world)

    @classmethod
    def load(cls, model: Clip, config: TrainConfig, context: RunContext) -> None:
        load_initial(model, config.initial, note=context.say)

    @classmethod
    def build(cls, config: TrainConfig, rows: Rows, context: RunContext) -> Self:
        device = context.world.device()
        if config.model.lock_text or isinstance(config.model.text, HuggingFaceTextConfig):
            clip = cls.new_model(config)  # whole everywhere: its texts are encoded before it is spread
            cls.load(clip, config, context)
            clip.load_state_dict(dict(context.kept), strict=False)  # before texts are encoded
            clip.to(device)
        else:
            clip = cls.first_model(config, context)
        if wanted := (*config.eval.splits, *config.eval.curve_splits):
            choose_splits(config.data.path, wanted)  # a wrong name is better known before the training than after
        with context.world.first_on_each_machine():  # the others find the features on disk
            bank = _encoded_texts(clip, config, rows) if config.model.lock_text else None
        class_texts = class_texts_of(config, bank, rows)
        teacher = None
        if config.loss.distill.teacher:
            with context.world.first_on_each_machine():  # one fetches from the hub, the others find it
                found = load_clip(config.loss.distill.teacher)
            size, precision = config.model.image.image_size, choose_precision(config.precision, device)
            teacher = Teacher(found.to(device), image_size=size, precision=precision)
        return cls(clip, config, bank=bank, class_texts=class_texts, teacher=teacher)

    @classmethod
    def skeleton(cls, config: TrainConfig) -> nn.Module:
        if isinstance(config.model.text, HuggingFaceTextConfig):  # made from files
            with torch.random.fork_rng(devices=[]):
                return cls.new_model(config).to("meta")
        return super().skeleton(config)

    @classmethod
    def from_weights(cls, config: TrainConfig, source: str) -> TrainConfig:
        """A run of the source's model, with a locked text tower if it was trained against one.

        Of a source without a text tower, such as a masked-image run, its own image tower starts.
        """
        found = read_stored(source).config
        if not isinstance(found, ClipConfig):
            return replace(config, initial=InitialConfig(weights=source, part="image"))
        transform = config.transform and replace(config.transform, image_size=found.image.image_size)
        return replace(config, model=found, transform=transform, initial=InitialConfig(weights=source))

    @classmethod
    def plan_notes(cls, config: TrainConfig) -> tuple[str, ...]:
        size = "counted as pictures of the model's own size: larger ones of buckets come fewer a step, in more steps"
        patches = f"counted as pictures with all patches, though a step leaves out {config.patch_drop_prob:.0%} of them"
        teacher = "the forward pass of loss.distill.teacher, and its memory, are not counted"
        held = ((config.buckets.cells, size), (config.patch_drop_prob, patches), (config.loss.distill.teacher, teacher))
        return tuple(note for is_held, note in held if is_held)

    @classmethod
    def loss_bytes(cls, config: TrainConfig, gpus: int) -> int:
        """Features of this GPU's rows and their gradients, everyone's texts and theirs, and logits: a tile, or all.

        Few rows of one GPU keep four B x B matrices.
        """
        rows, width = config.batch_size // gpus, config.model.image.embed_dim
        features = 4 * FP32 * rows * width
        if gpus == 1 and rows < WHOLE_BELOW and not config.loss.tile_rows:
            return features + 4 * FP32 * rows * rows
        height, num_texts = tile_shape(rows, config.batch_size, config.loss.tile_rows or None)
        gathered = 2 * FP32 * config.batch_size * width if gpus > 1 else 0
        return features + 2 * FP32 * height * num_texts + gathered

    @classmethod
    def extra_names(cls, config: TrainConfig) -> tuple[str, ...]:
        return ("logit_bias",) if config.loss.kind == "sigmoid" else ()

    def module(self) -> Towers:
        return Towers(self.model, self._bias)

    def blocks(self) -> list[nn.Module]:
        return [*self.model.image.blocks(), *text_blocks(self.model.text)]

    def extra(self) -> dict[str, nn.Parameter]:
        return {} if self._bias is None else {"logit_bias": self._bias}

    def locked(self) -> Set[nn.Parameter]:
        return set(self.model.text.parameters()) if self.model.config.lock_text else set()

    def teachers(self) -> Mapping[str, nn.Module]:
        return {} if self.teacher is None else {"loss.distill.teacher": self.teacher.clip}

    def watched(self) -> dict[str, nn.Module]:
        return {"image": self.model.image, "text": self.model.text}

    def flops(self, text_len: int | None) -> float | None:
        if self.config.buckets.cells or self.config.patch_drop_prob:
            return None  # it varies from step to step, or is less than that of all patches
        return StepCost(self.model).flops(text_len)

    def prepare(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """ids: [b, L] of the captions, or known: [b, D], their features where all are kept; teacher_ids: as the teacher
        reads them; kept: [b, K] patches that are seen; image_codes, text_codes: [b] of `Same`; name: [b] of
        `class_texts`.
        """
        made: dict[str, Tensor] = {}
        if self.bank is None:
            made["ids"] = self.model.text.tokenize(batch.texts)
        elif isinstance(self.bank, TextBank):
            made["known"] = self.bank(batch.texts)
        if self.teacher is not None:
            made["teacher_ids"] = self.teacher.tokenize(batch.texts)
        if self.class_texts is not None:
            assert batch.labels is not None
            made["name"] = self.class_texts.places[batch.labels]
        elif self.config.loss.mask == "same":
            same = same_from(batch.texts, batch.labels)
            made["image_codes"], made["text_codes"] = same.image_codes, same.text_codes
        if self.config.patch_drop_prob:
            assert isinstance(self.model.image, Eva02 | Vit)
            grid = self.model.image.config.grid
            made["kept"] = kept_patches(batch.rows, grid, self.config.patch_drop_prob, seed=self.config.seed, step=step)
        return made

    def backward(self, parallel: Wrapped, batch: Batch, step: int) -> StepLoss:
        clip, config, device = self.model, self.config, self.model.logit_scale.device
        precision = choose_precision(config.precision, device)
        max_rows = config.batch_size // parallel.world.size  # a picture that cannot be read leaves a process one less
        batch = batch.to(device)
        chance, same = self._chance(batch, parallel.world), self._same(batch, parallel.world)
        if self.bank is not None and "known" not in batch.extra:
            batch = replace(batch, extra={**batch.extra, "known": self.bank(batch.texts)})  # [b, D]
        names = None if self.class_texts is None else on_device(self.class_texts(step), device)  # [K, D]
        target = None if self.teacher is None else self.teacher(batch.pixels, batch.extra["teacher_ids"])

        def features_of(part: Batch) -> Features:
            draws.give(part.rows)
            some = (part.extra["kept"],) if "kept" in part.extra else ()
            with autocast(precision, device):
                image, text, scale, bias = parallel(part.pixels, part.extra.get("ids"), *some)
            text = part.extra["known"] if text is None else text
            return Features(image, text, scale, bias)

        def loss_of(found: Features) -> Tensor:
            if names is not None:
                loss = _by_names(config, found, names, batch.extra["name"], parallel.world)
            else:
                loss = contrast(config.loss, found, same, max_rows=max_rows)
            return loss if target is None else loss + distill(config.loss, found, target, max_rows=max_rows)

        parts = [partial(features_of, part) for part in cut(batch, config)]
        with StepDraws(clip, seed=step_seed(config.seed, step), device=device) as draws:
            loss, features = backward(parallel, parts, loss_of)
        if names is not None:
            loss = parallel.world.total(loss) / parallel.world.size
        return StepLoss(loss, features.scale, chance)

    def _same(self, batch: Batch, world: World) -> Same | None:
        """Which rows are no negatives of each other, those of one class or with equal captions; None: all are."""
        extra = batch.extra
        if "text_codes" not in extra:
            return None
        images = extra["image_codes"]
        if world.size > 1 and batch.indices is None:
            images = images.clone()  # where some shards have labels, processes without one must tell two codes as well
        return Same(images, extra["text_codes"])

    def _chance(self, batch: Batch, world: World) -> float:
        """The loss of guessing; classes are read on the host, where `prepare` left them as codes."""
        count = len(batch) * world.size if self.config.buckets.cells else self.config.batch_size
        if self.class_texts is not None:
            return 0.0 if self.teacher is not None else math.log(len(self.class_texts))
        labels = None if batch.labels is None else batch.host.get("image_codes")
        return chance_loss(self.config.loss, batch.texts, labels, count)

    def facts(self) -> dict[str, Any]:
        return {"texts_encoded": self.bank.num_encoded if self.bank else None}

    def rows(self, model: nn.Module, splits: Sequence[str], context: RunContext) -> list[ResultRow]:
        return self._evaluated(model, self.config.data.path, splits, context) if splits else []

    def measured(self, model: nn.Module, context: RunContext) -> list[ResultRow]:
        """On eval.splits and, for a run from trained weights, on every set of eval.curve_data as SET:SPLIT."""
        config, rows = self.config, self.rows(model, self.config.eval.splits, context)
        if config.initial.weights and config.initial.part == "all":
            for path in config.eval.curve_data:
                found = self._evaluated(model, path, None, context)
                rows += [replace(row, split=f"{Path(path).name}:{row.split}") for row in found]
        return rows

    def curve(
        self, context: RunContext, evaluators: Sequence[Evaluator]
    ) -> Callable[[nn.Module], dict[str, float]] | None:
        curve = Curve(
            self.config.data.path,
            self.config.eval,
            preprocess=self.config.model.preprocess,
            evaluators=evaluators,
            precision=TowerPrecision(half=HALF.get(choose_precision(self.config.precision, self.device))),
            world=context.world,
        )
        return (lambda model: curve.measure(cast(Clip, model))) if curve else None

    def save(self, folder: Path, model: nn.Module, *, config: dict[str, Any]) -> None:
        save_model(folder, cast(Clip, model), config=config, logit_bias=self._bias)

    def _evaluated(
        self, model: nn.Module, path: str, splits: Sequence[str] | None, context: RunContext
    ) -> list[ResultRow]:
        settings, name = Settings(note=context.say, world=context.world), self.model.config.name
        return evaluate(cast(Clip, model), path, splits, model_name=name, settings=settings)


def _encoded_texts(clip: Clip, config: TrainConfig, rows: Rows) -> Texts:
    if config.data.epoch_samples:  # too many to count, so too many to keep
        return PassingTexts(clip, config.precision)
    return TextBank(clip, rows.captions(), config.precision)


def class_texts_of(config: TrainConfig, bank: Texts | None, rows: Rows) -> ClassTexts | None:
    """The captions of each class of labelled rows, where the loss is by names. Raises ConfigError for other rows."""
    if config.loss.kind != "names":
        return None
    assert isinstance(rows, IndexedRows)
    assert isinstance(bank, TextBank)
    source = rows.source
    if source.classes is None or source.labels is None:
        raise ConfigError(f"loss.kind: names takes a labelled data set; {config.data.path} has no classes")
    captions: dict[int, list[str]] = {}
    for index in rows.indices:
        captions.setdefault(source.labels[index], []).extend(source.texts(index))
    return ClassTexts(bank, captions, num_classes=len(source.classes), seed=config.seed)


def _by_names(config: TrainConfig, found: Features, names: Tensor, place: Tensor, world: World) -> Tensor:
    """This process's part of the mean over the global batch, [], times the number of processes, which average.

    names: unit features [K, D]; place: int64 [b], the right one of each row. A process may have a row less, where a
    picture cannot be read.
    """
    logits = found.scale * found.image @ names.mT  # [b, K]
    loss = nn.functional.cross_entropy(logits, place, reduction="sum")
    if share := config.loss.neighbours:
        near = (NEIGHBOUR_SCALE * names[place] @ names.mT).softmax(dim=1)  # [b, K]
        loss = torch.lerp(loss, nn.functional.cross_entropy(logits, near, reduction="sum"), share)
    return loss * (world.size / world.total(torch.full((), float(len(place)), device=loss.device)))


def chance_loss(config: LossConfig, texts: Sequence[str], labels: Tensor | None, batch_size: int) -> float:
    """The loss, nats a sample, of a model that cannot tell one pair from another; log(batch_size) without repeats.

    texts: captions of this process's rows; labels: [b] int64 classes of the same rows, or None. Rows that mean the same
    are no negatives of each other where the config masks them; their share among all batch_size rows is taken to be
    that among these. Equal rows are those of equal class, or without classes those of equal caption. For the sigmoid
    loss it is the best that a constant can do. 0 with a teacher, whose terms have no such level.
    """
    if config.distill.teacher:
        return 0.0
    groups: list[Any] = list(range(len(texts)))
    if config.mask == "same":
        groups = list(texts) if labels is None else labels.tolist()
    counts = Counter(groups)
    rows = len(groups)
    others = [batch_size * (1 - counts[group] / rows) if counts[group] > 1 else batch_size - 1.0 for group in groups]
    if config.kind == "softmax":
        return math.fsum(math.log1p(other) for other in others) / rows
    # one positive among n = 1 + other pairs a row: n times the entropy of a coin that falls so once in n
    return math.fsum(math.log1p(other) + other * math.log1p(1 / other) if other else 0.0 for other in others) / rows


def contrast(config: LossConfig, found: Features, same: Same | None, *, max_rows: int) -> Tensor:
    """The contrastive loss of the global batch, [], equal in every process.

    found: of this process's rows, at most max_rows; a bias for the sigmoid loss only.
    """
    image, text, scale, bias = found
    tile_rows = config.tile_rows or None
    if config.kind == "softmax":
        return softmax_loss(image, text, scale, same, tile_rows=tile_rows, max_rows=max_rows)
    if bias is None:
        raise ConfigError("loss.kind: the sigmoid loss needs a bias, and this state was made without one")
    return sigmoid_loss(image, text, scale, bias, same, tile_rows=tile_rows, max_rows=max_rows)
