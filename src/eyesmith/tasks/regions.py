"""Training an eye for scenes: what stands in a box is told from all other names, in the whole picture and cut out."""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.config import check_least
from eyesmith.data.indexed import IndexedRows, Squares
from eyesmith.data.loader import Batch, Rows
from eyesmith.data.memory import decode_all
from eyesmith.data.order import BatchPlan, step_seed
from eyesmith.data.sample import Source
from eyesmith.data.sources import open_source
from eyesmith.dense.named_boxes import named_boxes, scene_boxes
from eyesmith.dense.regions import CONTEXT, box_means, crop_boxes
from eyesmith.errors import ConfigError, DataError, ImageError
from eyesmith.eval import ResultRow, Settings, choose_splits, evaluate
from eyesmith.hub import save_model
from eyesmith.hub.initial import InitialConfig, load_initial
from eyesmith.hub.stored import read_stored
from eyesmith.images.augment import AugmentConfig, augment_batch
from eyesmith.images.decode import image_size
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.cost import encoder_cost
from eyesmith.tasks.contrastive import PairTask
from eyesmith.tasks.curve import curve_sets
from eyesmith.tasks.task import FP32, PASSES, MeanTask, RunContext
from eyesmith.train.config import RunConfig
from eyesmith.train.data import open_training_source
from eyesmith.train.distributed import World
from eyesmith.train.objective import Wrapped
from eyesmith.train.text_bank import TextBank

CURVE_PICTURES = 100  # that are looked at while training


@dataclass(frozen=True, kw_only=True)
class RegionsConfig(RunConfig):
    """A complete run that teaches an image-text model to name what stands in the boxes of scenes.

    Three kinds of views are told from all names at once: boxes of the dense map of whole pictures, boxes cut out, and
    single drawings on white, so that what the model knew of those is not forgotten. `augment` is of the drawings; of
    scenes only colours and sides change, so that boxes stay where they are.
    """

    model: ClipConfig
    drawings: str = ""
    """A labelled data set of single drawings that are mixed in, split train; empty mixes in none."""
    scene_augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Of scenes: colours, and horizontal_flip_prob. Whatever else moves pixels is refused."""
    scene_px: int = 224
    """Side to which scenes are decoded, pixels; a multiple of the encoder's stride."""
    dense_every: int = 3
    """Every so many-th scene of a batch goes through the encoder whole, which costs as much as 20 boxes cut out."""
    drawings_per_scene: int = 2
    """Single drawings that are mixed in for each scene of a batch."""
    dense_weight: float = 1.0
    """Of a box of the dense map in the loss, relative to the others."""
    crop_weight: float = 1.0
    """Of a box cut out."""
    drawing_weight: float = 1.0
    """Of a single drawing."""
    distill_weight: float = 0.0
    """Of 1 - cosine between a box of the dense map and the same box cut out, which is not pulled (CLIPSelf, arXiv
    2310.01403, with the model itself as the teacher)."""
    crop_jitter: float = 0.1
    """+-, how far the sides of a box are moved before it is cut out, relative to its size."""
    captions: tuple[str, ...] = ("{}", "{} emoji", "a {}", "a drawing of a {}", "an emoji of a {}", "a picture of a {}")
    """What is said of a box, {} for its name; one is drawn a step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model.lock_text:
            raise ConfigError(
                "model.lock_text: names are told apart by a text tower that stays as it is; set it to true"
            )
        if getattr(self.model.image, "drop_path_prob", 0.0):
            raise ConfigError(
                "model.image.drop_path_prob: draws are a sample's, and a scene has many views; set it to 0"
            )
        if self.transform is not None:
            raise ConfigError("transform: scenes are read whole, with their boxes; leave it out")
        moving = replace(self.scene_augment, horizontal_flip_prob=0.0)
        if moving.moves_pixels or self.scene_augment.erase_prob:
            raise ConfigError("scene_augment: only colours and horizontal_flip_prob may change, boxes must still fit")
        check_least(self, scene_px=16, dense_every=1, drawings_per_scene=0)
        weights = (self.dense_weight, self.crop_weight, self.drawing_weight, self.distill_weight)
        if min(weights) < 0 or not any(weights[:3]):
            raise ConfigError(
                f"dense_weight, crop_weight, drawing_weight: expected 0 or more, not all 0, got {weights}"
            )
        if self.crop_jitter < 0 or self.crop_jitter >= 0.5:
            raise ConfigError(f"crop_jitter: expected 0 to below 0.5, got {self.crop_jitter}")
        if not self.captions or any("{}" not in one for one in self.captions):
            raise ConfigError(f"captions: expected sentences with {{}} for the name, got {self.captions}")
        if self.eval.suites:
            raise ConfigError("eval.suites: a run by regions is measured by boxes while it trains; leave it out")
        if self.parallel.strategy == "fsdp":
            raise ConfigError("parallel.strategy: a run by regions looks at one model at two sizes; take ddp or none")


class Seen(NamedTuple):
    """Unit features of the views of some scenes, and the class of each among all names.

    dense [R, D]; crop [N, D]; same: int64 [R], the row of `crop` that shows the same box; drawing [M, D].
    """

    dense: Tensor
    dense_labels: Tensor
    crop: Tensor
    crop_labels: Tensor
    same: Tensor
    drawing: Tensor
    drawing_labels: Tensor
    names: Tensor  # [K, D]
    scale: Tensor


class _Eye(nn.Module):
    """The image tower at two sizes and the temperature, as one forward."""

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.image, self.logit_scale = clip.image, clip.logit_scale

    def forward(self, scenes: Tensor, boxes: Tensor, images: Tensor, small: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit features of boxes [R, 4] in the maps of scenes [S, 3, H, W], and of small pictures [N, 3, h, w].

        images: int64 [R], the scene of each box. Returns [R, D], [N, D] and the scale [].
        """
        # a view shares all weights but the position table, which is resampled from the native one at every step
        whole = small.new_zeros(0)
        if len(scenes):
            view = self.image.at_size(*scenes.shape[2:])
            means = box_means(view.dense(scenes), boxes, images, stride=view.stride)
            whole = F.normalize(self.image.project(means).float(), dim=-1)
        near = small.new_zeros(0, self.image.embed_dim, dtype=torch.float32)
        if len(small):  # encoders need not take a batch of none
            near = F.normalize(self.image(small).float(), dim=-1)
        return whole, near, self.logit_scale.exp()


class SceneRows(IndexedRows):
    """Scenes by index, with their boxes and the names of what is in them."""

    def __init__(self, config: RegionsConfig, world: World) -> None:
        """Raises ConfigError when the processes cannot share a batch evenly, DataError for scenes without boxes."""
        data = config.data
        source = open_training_source(data, require_text=False)
        if source.classes is None:
            raise DataError(f"{data.path}: names no classes; expected scenes of `eyesmith data make emoji-scenes`")
        side = (config.scene_px, config.scene_px)
        colours = replace(config.scene_augment, horizontal_flip_prob=0.0)
        squares = Squares(colours, side, decode_px=config.scene_px, batch_size=config.batch_size, seed=config.seed)
        super().__init__(
            source,
            squares,
            config.batch_size,
            own=world.share(config.batch_size),
            seed=config.seed,
            require_text=False,
            num_workers=data.num_workers,
            max_skipped_frac=data.max_skipped_frac,
            epoch_steps=data.epoch_steps(config.batch_size),
        )
        found = [scene_boxes(source, index) for index in range(len(source))]
        most = max(len(one.boxes) for one in found)
        self.boxes = torch.zeros(len(found), most, 4)  # in units of the picture's side
        self.classes = torch.full((len(found), most), -1)
        for row, one in enumerate(found):
            self.boxes[row, : len(one.boxes)] = one.boxes / _sides(source, row)
            self.classes[row, : len(one.labels)] = one.labels
        present = sorted({int(label) for label in self.classes.unique() if label >= 0})
        self.names = [source.classes[label] for label in present]
        place = torch.full((len(source.classes) + 1,), -1)
        place[torch.tensor(present)] = torch.arange(len(present))
        self.classes = place[self.classes]


class Drawings:
    """Single drawings that are mixed in, kept decoded; a step's are a function of it."""

    def __init__(self, config: RegionsConfig, names: Mapping[str, int]) -> None:
        """names: place of each name. Raises DataError for a data set without labels."""
        source = open_source(config.drawings, split="train")
        classes, labels = source.classes, source.labels
        if classes is None or labels is None:
            raise DataError(f"{config.drawings}: drawings that are mixed in need labels")
        data = config.data
        kept = decode_all(
            source,
            data.decode_px,
            max_skipped_frac=data.max_skipped_frac,
            num_workers=data.num_workers,
            require_text=False,
        )
        self._pixels = kept.pixels.contiguous(memory_format=torch.channels_last)
        self._labels = torch.tensor([names[classes[labels[index]]] for index in kept.indices])
        self._config, self._count = config, config.batch_size * config.drawings_per_scene
        if len(self._labels) < self._count:
            raise DataError(f"{config.drawings}: has {len(self._labels)} drawings, a step takes {self._count}")
        self._order = BatchPlan(len(self._labels), self._count, seed=config.seed)

    def of_step(self, step: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [b, n, 3, h, w] for the rows [b] of a step's global batch, and their classes [b, n]."""
        config = self._config
        per = config.drawings_per_scene
        places = (rows[:, None] * per + torch.arange(per)).flatten()  # [b*n], of the step's drawings
        chosen = torch.from_numpy(self._order.batch(step))[places]
        draws = torch.Generator().manual_seed(step_seed(config.seed, step) + 1)
        size = config.image_size
        views = augment_batch(self._pixels[chosen], config.augment, size, draws, rows=places, num_rows=self._count)
        return views.unflatten(0, (len(rows), per)), self._labels[chosen].view(len(rows), per)


class Regions(PairTask, MeanTask[Clip]):
    """Scenes with boxes: the name of what stands in a box, a mean over all views of the global batch.

    Measured by naming given boxes, and by what is kept on `eval.curve_data`.
    """

    config_type = RegionsConfig
    config: RegionsConfig

    def __init__(self, clip: Clip, config: RegionsConfig, rows: SceneRows, drawings: Drawings | None, names: Tensor):
        """names: [K, P, D] unit features of every name in every caption."""
        super().__init__(clip, config)
        self._rows, self._drawings, self._names = rows, drawings, names

    @classmethod
    def open_rows(cls, config: RegionsConfig, world: World) -> SceneRows:
        return SceneRows(config, world)

    @classmethod
    def load(cls, model: Clip, config: RegionsConfig, context: RunContext) -> None:
        with context.world.first_on_each_machine():  # one fetches from the hub, the others find it
            load_initial(model, config.initial, note=context.say)

    @classmethod
    def build(cls, config: RegionsConfig, rows: Rows, context: RunContext) -> Self:
        assert isinstance(rows, SceneRows)
        if wanted := (*config.eval.splits, *config.eval.curve_splits):
            choose_splits(config.data.path, wanted)  # a wrong name is better known before the training than after
        curve_sets(config.eval)  # and a wrong set too; measuring opens it again
        clip = cls.first_model(config, context)
        clip.load_state_dict(dict(context.kept), strict=False)  # before texts are encoded
        if not clip.image.is_mean_pooled and config.dense_weight:
            raise ConfigError(
                f"dense_weight: {config.model.name} pools by a token of its own, so its map is in no space of texts; "
                "set dense_weight=0, or take an encoder that pools by a mean"
            )
        names = list(rows.names)
        if config.drawings:
            drawn = open_source(config.drawings, split="train")
            further = [(drawn.classes or ())[label] for label in sorted(set(drawn.labels or ()))]  # what it has at all
            names = list(dict.fromkeys([*names, *further]))
        place = {name: row for row, name in enumerate(names)}
        drawings = Drawings(config, place) if config.drawings and config.drawings_per_scene else None
        texts = [caption.replace("{}", name) for name in names for caption in config.captions]
        with context.world.first_on_each_machine():  # the others find the features on disk
            bank = TextBank(clip, texts, config.precision)
        features = bank(texts).view(len(names), len(config.captions), -1)  # [K, P, D]
        return cls(clip, config, rows, drawings, features.to(context.world.device()))

    @classmethod
    def skeleton(cls, config: RegionsConfig) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            return cls.new_model(config).to("meta")

    @classmethod
    def from_weights(cls, config: RegionsConfig, source: str) -> RegionsConfig:
        """A run of the source's model. Raises CheckpointError for one without a text tower."""
        found = read_stored(source).config
        if not isinstance(found, ClipConfig):
            return replace(config, initial=InitialConfig(weights=source, part="image"))
        has_paths = hasattr(found.image, "drop_path_prob")
        image: Any = replace(cast(Any, found.image), drop_path_prob=0.0) if has_paths else found.image
        model = replace(found, image=image, lock_text=True)
        return replace(config, model=model, initial=InitialConfig(weights=source))

    @classmethod
    def loss_bytes(cls, config: RegionsConfig, gpus: int) -> int:
        """Logits of some 300 names and their gradients, for about 5 boxes a scene and each drawing."""
        views = config.batch_size // gpus * (10 + config.drawings_per_scene)
        return 3 * FP32 * views * 300

    def module(self) -> nn.Module:
        return _Eye(self.model)

    def locked(self) -> Set[nn.Parameter]:
        return set(self.model.text.parameters())

    def row_outputs(self) -> list[nn.Module]:
        return [self.model.image]

    def flops(self, text_len: int | None) -> float | None:
        """Of a scene: its boxes and drawings at the native size, and every so many-th time the scene itself."""
        config = self.config
        native = encoder_cost(config.encoder).tower.macs
        area = config.scene_px**2 / (config.image_size[0] * config.image_size[1])
        boxes = float((self._rows.classes >= 0).sum()) / len(self._rows.classes)
        whole = native * area / config.dense_every if config.dense_weight else 0.0
        return PASSES * (native * (boxes + config.drawings_per_scene) + whole)

    def chance_loss(self) -> float:
        return 0.0 if self.config.distill_weight else math.log(len(self._names))

    def prepare(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Of each scene: boxes [b, M, 4] in pixels, classes [b, M] (-1: none), flips [b], whole [b], cuts [b, M, 4],
        the caption of the step [b]; drawings [b, n, 3, h, w] and their classes [b, n].
        """
        config = self.config
        assert batch.indices is not None
        rng = np.random.default_rng([config.seed, step, 7])
        most = self._rows.boxes.shape[1]
        draws = torch.from_numpy(rng.random((config.batch_size, most * 4 + 1), dtype=np.float32))[batch.rows]
        caption = int(rng.integers(len(config.captions)))
        boxes = self._rows.boxes[batch.indices] * config.scene_px
        flips = draws[:, -1] < config.scene_augment.horizontal_flip_prob
        turned = torch.stack(
            [config.scene_px - boxes[..., 2], boxes[..., 1], config.scene_px - boxes[..., 0], boxes[..., 3]], dim=-1
        )
        boxes = torch.where(flips[:, None, None], turned, boxes)
        sides = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
        moves = (2 * draws[:, :-1].view(len(boxes), most, 4) - 1) * config.crop_jitter
        made = {
            "boxes": boxes,
            "classes": self._rows.classes[batch.indices],
            "flips": flips,
            "whole": batch.rows % config.dense_every == 0,
            "cuts": boxes + moves * sides,
            "caption": torch.full((len(batch),), caption),
        }
        if self._drawings is not None:
            made["drawings"], made["drawing_classes"] = self._drawings.of_step(step, batch.rows)
        return made

    def num_terms(self, batch: Batch) -> Tensor:
        """The weights of all views, of this process."""
        config, host = self.config, batch.host
        counts = (host["classes"] >= 0).sum(dim=1)
        total = config.crop_weight * counts.sum() if self._cuts else torch.zeros(())
        if config.dense_weight:
            total = total + config.dense_weight * counts[host["whole"]].sum()
        if self._drawings is not None:
            total = total + config.drawing_weight * host["drawing_classes"].numel()
        return total.float().to(self.device)

    @property
    def _cuts(self) -> bool:
        return bool(self.config.crop_weight or self.config.distill_weight)

    def outputs(self, model: Wrapped, part: Batch) -> Seen:
        extra, config = part.extra, self.config
        pixels = torch.where(extra["flips"][:, None, None, None], part.pixels.flip(3), part.pixels)
        is_there = extra["classes"] >= 0  # [b, M]
        images = is_there.nonzero()[:, 0]
        labels = extra["classes"][is_there]
        small = pixels.new_zeros(0, 3, *config.image_size)
        if self._cuts:
            small = crop_boxes(pixels, extra["cuts"][is_there], images, config.image_size, context=CONTEXT)
        num_cuts = len(small)
        drawing_labels = labels[:0]
        if "drawings" in extra:
            small = torch.cat([small, extra["drawings"].flatten(0, 1)])
            drawing_labels = extra["drawing_classes"].flatten()
        whole = extra["whole"] if config.dense_weight else torch.zeros_like(extra["whole"])
        if not len(small) and not whole.any():  # a part in whose loss nothing has a share: the weights need a gradient
            small = pixels.new_zeros(1, 3, *config.image_size)
        chosen = whole[images]  # of the boxes
        scene = whole.long().cumsum(0) - 1  # place among the scenes that are seen whole
        dense, near, scale = model(pixels[whole], extra["boxes"][is_there][chosen], scene[images[chosen]], small)
        return Seen(
            dense=dense.view(-1, near.shape[1]),
            dense_labels=labels[chosen],
            crop=near[:num_cuts],
            crop_labels=labels[:num_cuts],
            same=chosen.nonzero()[:, 0],
            drawing=near[num_cuts:],
            drawing_labels=drawing_labels,
            names=self._names[:, int(part.host["caption"][0])],
            scale=scale,
        )

    def terms(self, outputs: Seen, part: Batch) -> Tensor:
        config, found = self.config, list[Tensor]()
        for weight, features, labels in (
            (config.dense_weight, outputs.dense, outputs.dense_labels),
            (config.crop_weight, outputs.crop, outputs.crop_labels),
            (config.drawing_weight, outputs.drawing, outputs.drawing_labels),
        ):
            if weight and len(labels):
                logits = outputs.scale * features @ outputs.names.mT  # [n, K]
                found.append(weight * F.cross_entropy(logits, labels, reduction="none"))
        if config.distill_weight and len(outputs.dense):
            near = outputs.crop[outputs.same].detach()
            found.append(config.distill_weight * (1 - (outputs.dense * near).sum(dim=1)))
        return torch.cat(found or [0 * outputs.dense.sum(1), 0 * outputs.drawing.sum(1)])

    def facts(self) -> dict[str, Any]:
        boxes = int((self._rows.classes >= 0).sum())
        return {"names": len(self._names), "boxes": boxes}

    def save(self, folder: Path, model: nn.Module, *, config: dict[str, Any]) -> None:
        save_model(folder, cast(Clip, model), config=config)

    def rows(self, model: nn.Module, splits: Sequence[str], context: RunContext) -> list[ResultRow]:
        return self._boxes(model, splits, context)

    def measured(self, model: nn.Module, context: RunContext) -> list[ResultRow]:
        """Boxes of eval.splits, and drawings of every set of eval.curve_data as SET:SPLIT."""
        config, rows = self.config, self.rows(model, self.config.eval.splits, context)
        settings = Settings(note=context.say, world=context.world)
        for path in config.eval.curve_data:
            found = evaluate(
                cast(Clip, model), path, tasks=("zero_shot",), model_name=config.model.name, settings=settings
            )
            rows += [replace(row, split=f"{Path(path).name}:{row.split}") for row in found]
        return rows

    def curve_values(self, model: nn.Module, context: RunContext) -> dict[str, float]:
        """Of the first CURVE_PICTURES scenes of each split: SPLIT/dense_acc1, SPLIT/crop_acc1 and so on."""
        rows = self._boxes(model, self.config.eval.curve_splits, context, limit=CURVE_PICTURES)
        return {f"{one.split}/{one.model.split()[-1]}_{one.metric}": one.value for one in rows}

    def _boxes(
        self, model: nn.Module, splits: Sequence[str], context: RunContext, *, limit: int | None = None
    ) -> list[ResultRow]:
        config, clip = self.config, cast(Clip, model)

        def all_splits() -> list[ResultRow]:
            return [
                row
                for split in splits
                for row in named_boxes(
                    clip,
                    config.data.path,
                    split,
                    model_name=config.model.name,
                    limit=limit,
                    num_workers=config.data.num_workers,
                )
            ]

        return context.world.once(all_splits)


def _sides(source: Source, index: int) -> Tensor:
    """Width, height, width, height of a scene; ones where it cannot be read, and so is never shown."""
    try:
        height, width = image_size(source.image_bytes(index), where=source.keys[index])
    except (DataError, ImageError):
        height = width = 1
    return torch.tensor([width, height, width, height], dtype=torch.float32)
