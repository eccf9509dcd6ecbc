"""Training by what is drawn where: each cell tells of the thing in it, all cells together of the whole picture.

A picture's things say where they are and what they are like (shape, colour, pattern, size), as made scenes do. Captions
are not read. It leaves an image encoder, measured by what a small network reads out of its tokens (`multimodal.probe`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.data import open_source
from eyesmith.data.indexed import IndexedRows
from eyesmith.data.loader import Batch, Rows
from eyesmith.data.sample import Source
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval import ResultRow, choose_splits
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.encoder import Encoder
from eyesmith.models.families import EncoderConfig
from eyesmith.multimodal.eye import Eye, EyeConfig
from eyesmith.multimodal.probe import cell_of, probe_scenes, thing_box, things_of
from eyesmith.tasks.encoder_run import EncoderRun
from eyesmith.tasks.task import EncoderRunConfig, RunContext
from eyesmith.train.objective import Wrapped

COUNT = "count"
_NOBODY = -1


@dataclass(frozen=True, kw_only=True)
class ThingsConfig(EncoderRunConfig):
    """A complete run that teaches an encoder what is where. Every image is seen whole: nothing moves its pixels."""

    model: EncoderConfig
    asked: tuple[str, ...] = ("shape", "color", "pattern", "size")
    """What the data say of each thing, and cells shall tell."""
    read: EyeConfig = field(default_factory=EyeConfig)
    """What is measured of the encoder at the end: the tokens that a language model would read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment.moves_pixels or self.augment.erase_prob or self.transform is not None:
            raise ConfigError("augment and transform: things must stay where the data say; change colours only")
        if not self.asked or COUNT in self.asked or len({*self.asked}) != len(self.asked):
            raise ConfigError(f"asked: expected names of what things are like, each once, none {COUNT}: {self.asked}")
        if self.eval.curve_splits or self.eval.curve_data:
            raise ConfigError("eval.curve_splits and eval.curve_data: this run is measured at its end; leave them out")


class ThingsModel(nn.Module):
    """An encoder with linear heads: of every cell, and of the mean of all cells.

    answers: what is possible for each of what is asked, in order, for things; count: numbers of things.
    """

    def __init__(self, image: Encoder, answers: Mapping[str, Sequence[str]], counts: Sequence[str]) -> None:
        super().__init__()
        self.image = image
        self.answers = {name: tuple(some) for name, some in answers.items()}
        self.counts = tuple(counts)
        self.sizes = [len(some) for some in self.answers.values()]
        width = list(image.taps.values())[-1].channels
        self.cells = nn.Linear(width, 1 + sum(self.sizes))  # first: is there a thing
        self.whole = nn.Linear(width, len(self.counts) + sum(self.sizes))  # of the main thing, behind the count

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of cells [b, N, 1 + answers] and of the whole [b, counts + answers]."""
        cells = self.image.dense(pixels).flatten(2).mT  # [b, N, C]
        return self.cells(self.image.project(cells)), self.whole(self.image.project(cells.mean(1)))


class Things(EncoderRun[ThingsModel]):
    """Scenes: is a thing in this cell, what is it like; how many are there, what is the main one like. A term a scene.

    Measured by the probe of tokens, in rows `probe` with splits shape, colour, count and pattern.
    """

    config_type = ThingsConfig
    heads_file = "things.safetensors"
    config: ThingsConfig

    def __init__(self, model: ThingsModel, config: ThingsConfig, targets: Mapping[str, Tensor]) -> None:
        """targets: what `targets_of` gives for the samples that `Batch.indices` point to."""
        super().__init__(model, config)
        self._targets = targets

    @classmethod
    def new_model(cls, config: ThingsConfig) -> ThingsModel:
        source = cls.training_source(config)
        answers, counts = answers_of(source, config.asked)
        return ThingsModel(config.model.build(), answers, counts)

    @classmethod
    def build(cls, config: ThingsConfig, rows: Rows, context: RunContext) -> Self:
        assert isinstance(rows, IndexedRows)
        answers, counts = answers_of(rows.source, config.asked)
        choose_splits(config.data.path, config.eval.splits)  # a wrong name is better known before the training
        model = cls.first_model(config, context, lambda: ThingsModel(config.model.build(), answers, counts))
        height, width = config.image_size
        grid = (height // model.image.stride, width // model.image.stride)
        return cls(model, config, targets_of(rows.source, answers, counts, grid))

    def rebuild(self) -> ThingsModel:
        return ThingsModel(self.config.model.build(), self.model.answers, self.model.counts)

    def watched(self) -> dict[str, nn.Module]:
        return {"image": self.model.image}

    def row_outputs(self) -> list[nn.Module]:
        return [self.model.whole]

    def prepare(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """things: int64 [b, N, asked], -1 where a cell has none; whole: int64 [b, 1 + asked], the count first."""
        assert batch.indices is not None
        return {name: some[batch.indices].long() for name, some in self._targets.items()}

    def outputs(self, model: Wrapped, part: Batch) -> tuple[Tensor, Tensor]:
        """See `ThingsModel.forward`."""
        return model(part.pixels)

    def terms(self, outputs: tuple[Tensor, Tensor], part: Batch) -> Tensor:
        """Cross-entropies added up: of the whole; of whether a cell has a thing, the mean over cells; and of what the
        things are like, the mean over a scene's things.
        """
        cells, whole = (some.float() for some in outputs)
        things, wanted = part.extra["things"], part.extra["whole"]
        has = (things[..., 0] != _NOBODY).float()  # [b, N]
        loss = F.binary_cross_entropy_with_logits(cells[..., 0], has, reduction="none").mean(1)
        like = cells[..., 1:].split(self.model.sizes, dim=-1)
        for place, logits in enumerate(like):
            told = F.cross_entropy(logits.mT, things[..., place], ignore_index=_NOBODY, reduction="none")  # [b, N]
            loss = loss + told.sum(1) / has.sum(1)
        for place, logits in enumerate(whole.split([len(self.model.counts), *self.model.sizes], dim=-1)):
            loss = loss + F.cross_entropy(logits, wanted[:, place], reduction="none")
        return loss

    def facts(self) -> dict[str, Any]:
        return {"answers": self.model.answers, "counts": self.model.counts}

    def measured(self, model: nn.Module, context: RunContext) -> list[ResultRow]:
        return context.world.once(lambda: self._probed(model, context))

    def _probed(self, model: nn.Module, context: RunContext) -> list[ResultRow]:
        config = self.config
        rows: list[ResultRow] = []
        for place, split in enumerate(config.eval.splits):
            rows += probe_scenes(
                Eye(cast(ThingsModel, model).image, config.read),
                PreprocessConfig(image_size=config.image_size),
                self.training_source(config),
                open_source(config.data.path, split=split),
                model=config.name,
                prefix=f"{split}:" if place else "",
            )
        if rows:
            context.say("probe: " + ", ".join(f"{row.split} {100 * row.value:.1f} %" for row in rows))
        return rows


def answers_of(source: Source, asked: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """What things are like, by what is asked, and how many there are in a picture; sorted.

    Raises DataError where the data do not say it.
    """
    found: dict[str, set[str]] = {name: set() for name in asked}
    counts = set[int]()
    for index in range(len(source)):
        things = things_of(source, index)
        counts.add(len(things))
        for name in asked:
            for thing in things:
                if name not in thing:
                    raise DataError(f"{source.where(index)}: does not say the {name} of its things; see `asked`")
                found[name].add(str(thing[name]))
    return {name: sorted(some) for name, some in found.items()}, [str(count) for count in sorted(counts)]


def targets_of(
    source: Source, answers: Mapping[str, Sequence[str]], counts: Sequence[str], grid: tuple[int, int]
) -> dict[str, Tensor]:
    """Places among the answers, int16: things [n, N, asked], by the cell that holds a thing's middle, -1 elsewhere; and
    whole [n, 1 + asked], the count and what the first thing is like. Of two things in a cell the first counts.
    """
    codes = [{answer: place for place, answer in enumerate(some)} for some in answers.values()]
    things = torch.full((len(source), grid[0] * grid[1], len(answers)), _NOBODY, dtype=torch.int16)
    whole = torch.zeros(len(source), 1 + len(answers), dtype=torch.int16)
    for index in range(len(source)):
        found = things_of(source, index)
        for thing in reversed(found):
            x, y, width, height = thing_box(thing, source, index)
            like = [code[str(thing[name])] for name, code in zip(answers, codes, strict=True)]
            things[index, cell_of(x + width / 2, y + height / 2, grid)] = torch.tensor(like, dtype=torch.int16)
            whole[index, 1:] = torch.tensor(like, dtype=torch.int16)
        whole[index, 0] = counts.index(str(len(found)))
    return {"things": things, "whole": whole}
