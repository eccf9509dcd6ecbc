"""One encoder out of several: a student learns at once what many frozen teachers say of a picture and of its cells.

Agglomerative distillation as in AM-RADIO (arXiv 2312.06709): a summary head and a dense head for each teacher, and
targets brought to one size first, as PHI-S does (arXiv 2410.01680), so that no teacher outweighs another by the length
of its features.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from eyesmith.config import check_choices, check_least
from eyesmith.data.indexed import IndexedRows
from eyesmith.data.loader import Batch, Rows
from eyesmith.data.sample import Source
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval import ResultRow, choose_splits
from eyesmith.eval.features.identity import content_hash, decoders
from eyesmith.hub import load_encoder
from eyesmith.images.augment import AugmentConfig
from eyesmith.models.cost import encoder_cost
from eyesmith.models.encoder import Encoder
from eyesmith.models.families import EncoderConfig
from eyesmith.models.identity import module_hash
from eyesmith.tasks.encoder_run import BATCH, EncoderRun, keep_said
from eyesmith.tasks.task import PASSES, EncoderRunConfig, RunContext
from eyesmith.train.distributed import World
from eyesmith.train.kept import KeptFeatures
from eyesmith.train.objective import Wrapped
from eyesmith.train.teacher import PART_ROWS, on_grid, shown_to

TASK = "distill"
SUMMARY, DENSE = "summary", "dense"
_STATISTICS_ROWS = 4096  # samples at most that tell how large targets are
_DEAD = 1e-3  # a channel that varies less than this share of the others is not blown up


@dataclass(frozen=True, kw_only=True)
class DistillTaskConfig(EncoderRunConfig):
    """A complete run that makes one encoder out of several. Captions are not read."""

    model: EncoderConfig
    teachers: tuple[str, ...] = ()
    """Models to learn from, as `eyesmith.load` takes them: run folders, weight files, hf:owner/name, timm:name; their
    image towers are used, each at its own image size."""
    weights: tuple[float, ...] = ()
    """Of each teacher's part of the loss; none: 1 each."""
    summary_weight: float = 1.0
    """Of what teachers say of the whole picture; 0 leaves it out."""
    dense_weight: float = 1.0
    """Of what they say of its cells."""
    balance: Literal["scale", "channel", "none"] = "scale"
    """How targets are brought to one size: less their mean, divided by one number so that channels vary by 1 on average
    (scale: PHI-S without its rotation, to which a squared error is blind), by each channel's own (channel), or not."""
    hidden: int = 0
    """Width inside a head; 0 has that of the student's features."""
    cache: bool = True
    """Ask the teachers once for each picture and keep on disk what they say, in half precision; needs views that do not
    change."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        if self.weights and (len(self.weights) != len(self.teachers) or min(self.weights) <= 0):
            raise ConfigError(
                f"weights: expected a positive number for each of {len(self.teachers)} teachers, got {self.weights}"
            )
        if len(set(self.teachers)) != len(self.teachers):
            raise ConfigError(f"teachers: expected each once, got {', '.join(self.teachers)}")
        if min(self.summary_weight, self.dense_weight) < 0 or not self.summary_weight + self.dense_weight:
            raise ConfigError(
                "summary_weight and dense_weight: expected 0 or more, and one of them above, "
                f"got {self.summary_weight} and {self.dense_weight}"
            )
        check_least(self, hidden=0)
        if self.eval.curve_data:
            raise ConfigError("eval.curve_data: a student is measured on splits of its own data; leave it out")
        if self.cache and (self.transform is not None or self.augment != AugmentConfig()):
            raise ConfigError(
                "cache: what teachers say can be kept only where a picture has one view; take away `augment` and "
                "`transform`, or set cache=false"
            )

    @property
    def parts(self) -> dict[str, float]:
        """What is learned of a teacher, with its weight."""
        both = {SUMMARY: self.summary_weight, DENSE: self.dense_weight}
        return {name: weight for name, weight in both.items() if weight}


class TeacherHeads(nn.Module):
    """What a student's features say in a teacher's words, less the teacher's mean and in its unit.

    Buffers `mean` and `unit` of each part, [D]: head(x) * unit + mean is the teacher's own feature.
    """

    def __init__(self, width: int, hidden: int, dims: Mapping[str, int]) -> None:
        super().__init__()
        self.dims = dict(dims)
        self.heads = nn.ModuleDict({name: _head(width, hidden, dim) for name, dim in dims.items()})
        for name, dim in dims.items():
            self.register_buffer(f"{name}_mean", torch.zeros(dim))
            self.register_buffer(f"{name}_unit", torch.ones(dim))

    def balanced(self, name: str, target: Tensor) -> Tensor:
        """A teacher's features [..., D] in its unit, fp32."""
        return (target.float() - self.get_buffer(f"{name}_mean")) / self.get_buffer(f"{name}_unit")

    def give(self, name: str, mean: Tensor, unit: Tensor) -> None:
        """Take what balances a part."""
        self.get_buffer(f"{name}_mean").copy_(mean)
        self.get_buffer(f"{name}_unit").copy_(unit)


class Student(nn.Module):
    """An encoder with heads for each of its teachers. dims: widths of what each says, by part."""

    def __init__(self, image: Encoder, dims: Sequence[Mapping[str, int]], *, hidden: int = 0) -> None:
        super().__init__()
        self.image = image
        width = list(image.taps.values())[-1].channels
        self.teachers = nn.ModuleList(TeacherHeads(width, hidden or width, some) for some in dims)

    def forward(self, pixels: Tensor) -> list[dict[str, Tensor]]:
        """Of each teacher: summary [b, D], dense [b, N, C], whichever its heads have."""
        heads = [cast(TeacherHeads, one) for one in self.teachers]
        image = self.image
        cells = image.dense(pixels).flatten(2).mT  # [b, N, C]
        if image.is_mean_pooled:
            summary = image.project(cells.mean(1))
        else:  # another pass, where the feature of the whole is no mean of cells
            summary = image(pixels) if any(SUMMARY in one.dims for one in heads) else cells.mean(1)
        found = {SUMMARY: summary, DENSE: image.project(cells)}
        return [{name: head(found[name]) for name, head in one.heads.items()} for one in heads]


class Said(NamedTuple):
    """What a teacher says of pictures: summary [b, S], dense [b, N, D], N cells of the student's grid."""

    summary: Tensor
    dense: Tensor


class DistillTeacher:
    """A frozen encoder, asked at its own image size for the student's cells."""

    def __init__(self, encoder: Encoder, *, source: str, grid: tuple[int, int]) -> None:
        self.encoder, self.source, self._grid = encoder.requires_grad_(False).eval(), source, grid
        with torch.no_grad():
            found = self._of(torch.zeros(1, 3, *encoder.image_size, dtype=torch.uint8))
        self.dims = {SUMMARY: found.summary.shape[1], DENSE: found.dense.shape[2]}

    @property
    def name(self) -> str:
        """What it is called in results."""
        return Path(self.source).name or self.source

    def to(self, device: torch.device) -> None:
        """Move the teacher."""
        self.encoder.to(device)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Said:
        """fp32; pixels: uint8 [b, 3, H, W] at the student's size."""
        found = [self._of(part) for part in pixels.split(PART_ROWS)]
        return Said(*(torch.cat([one[place] for one in found]).float() for place in (0, 1)))

    def hash(self) -> str:
        """Of the teacher, and of how it is asked."""
        return f"{module_hash(self.encoder)} {list(self.encoder.image_size)} {list(self._grid)}"

    def _of(self, pixels: Tensor) -> Said:
        encoder = self.encoder
        pixels = shown_to(encoder, pixels)
        cells = encoder.dense(pixels)  # [b, C, h, w]
        pooled = encoder.project(cells.flatten(2).mT.mean(1)) if encoder.is_mean_pooled else encoder(pixels)
        return Said(pooled, on_grid(cells, self._grid).flatten(2).mT)


def pack_said(said: Said) -> Tensor:
    """[b, 1 + N, max(S, D)] of both, filled with zeros."""
    width = max(said.summary.shape[-1], said.dense.shape[-1])
    parts = (said.summary[:, None], said.dense)
    return torch.cat([nn.functional.pad(part, (0, width - part.shape[-1])) for part in parts], dim=1)


def unpack_said(packed: Tensor, dims: Mapping[str, int]) -> Said:
    """What `pack_said` was given."""
    return Said(packed[:, 0, : dims[SUMMARY]], packed[:, 1:, : dims[DENSE]])


def balance_of(
    rows: Iterable[Tensor], balance: str, *, total: Callable[[Tensor], Tensor] = lambda value: value
) -> tuple[Tensor, Tensor]:
    """Mean [D] and unit [D] fp32 of features [n, D] that come in blocks, as `balance` has it.

    total: adds up over processes that hold blocks of their own.
    """
    sums = torch.zeros(())
    for block in rows:
        block = block.double()
        sums = sums + torch.stack([torch.ones_like(block[0]) * len(block), block.sum(0), block.square().sum(0)])
    if not sums.ndim:
        raise DataError("balance: there is not one picture to tell how large the teachers' features are")
    count, added, squares = total(sums).cpu()
    mean = added / count
    variance = (squares / count - mean.square()).clamp(min=0)
    unit = variance.mean().sqrt().expand_as(variance)
    if balance == "channel":
        unit = variance.sqrt().clamp(min=_DEAD * float(unit[0]))
    if balance == "none":
        mean, unit = torch.zeros_like(mean), torch.ones_like(unit)
    return mean.float(), unit.clamp(min=1e-12).float()


class Distill(EncoderRun[Student]):
    """Pictures alone: a student's heads give what each teacher says; squared error in the teachers' own units.

    A term a picture: over teachers the weighted sum of the mean over channels, for cells of the mean over them. To say
    nothing but a teacher's mean costs 1 for each part. Measured by the share of what varies in the teachers' features
    that the student explains, on images that are not trained on.
    """

    config_type = DistillTaskConfig
    heads_file = "distill.safetensors"  # with the sizes of the targets
    config: DistillTaskConfig

    def __init__(
        self,
        student: Student,
        config: DistillTaskConfig,
        teachers: Sequence[DistillTeacher],
        *,
        kept: Sequence[KeptFeatures] | None = None,
        spreads: Sequence[Mapping[str, float]] | None = None,
    ) -> None:
        """kept: what each teacher says of all pictures, which a step then takes in its place. spreads: of each
        teacher's parts, how much a channel varies in the mean, in the loss's unit squared; None: 1 each.

        `names`: what the teachers are called in results, two of one name by where they are.
        """
        super().__init__(student, config)
        self.asked, self._kept = tuple(teachers), kept
        self._spreads = spreads or [dict.fromkeys(config.parts, 1.0) for _ in teachers]
        names = [one.name for one in teachers]
        self.names = tuple(one.name if names.count(one.name) == 1 else one.source for one in teachers)

    @classmethod
    def new_model(cls, config: DistillTaskConfig) -> Student:
        """Where a teacher's widths are not known, as if they were the student's."""
        image = config.model.build()
        width = list(image.taps.values())[-1].channels
        return Student(image, [dict.fromkeys(config.parts, width) for _ in config.teachers], hidden=config.hidden)

    @classmethod
    def build(cls, config: DistillTaskConfig, rows: Rows, context: RunContext) -> Self:
        if not config.teachers:
            raise ConfigError(
                "teachers: expected one or more models to learn from: run folders, weight files, hf:owner/name or "
                "timm:name"
            )
        if wanted := (*config.eval.splits, *config.eval.curve_splits):
            choose_splits(config.data.path, wanted)
        device = context.world.device()
        with torch.device("meta"):
            stride = config.model.build().stride
        grid = (config.image_size[0] // stride, config.image_size[1] // stride)
        with context.world.first_on_each_machine():  # one fetches from the hub, the others find it
            teachers = [DistillTeacher(load_encoder(one), source=one, grid=grid) for one in config.teachers]
        for teacher in teachers:
            teacher.to(device)
        kept = [_keep(config, teacher, rows, context) for teacher in teachers] if config.cache else None
        balances, spreads = _balances(config, teachers, kept, rows, context.world)
        dims = [{name: teacher.dims[name] for name in config.parts} for teacher in teachers]
        torch.manual_seed(config.seed)  # loading a teacher may draw

        def make() -> Student:
            student = Student(config.model.build(), dims, hidden=config.hidden)
            for heads, found in zip(student.teachers, balances, strict=True):
                for name, (mean, unit) in found.items():
                    cast(TeacherHeads, heads).give(name, mean, unit)
            return student

        return cls(cls.first_model(config, context, make), config, teachers, kept=kept, spreads=spreads)

    @classmethod
    def plan_notes(cls, config: DistillTaskConfig) -> tuple[str, ...]:
        return ("the teachers' forward passes, and their memory, are not counted",)

    def rebuild(self) -> Student:
        dims = [cast(TeacherHeads, one).dims for one in self.model.teachers]
        return Student(self.config.model.build(), dims, hidden=self.config.hidden)

    def teachers(self) -> Mapping[str, nn.Module]:
        return {f"teachers.{place}": one.encoder for place, one in enumerate(self.asked)}

    def fixed(self) -> dict[str, nn.Module]:
        if self._kept is not None:
            return {}
        return {f"teacher {name}": one.encoder for name, one in zip(self.names, self.asked, strict=True)}

    def watched(self) -> dict[str, nn.Module]:
        return {"image": cast(TeacherHeads, self.model.teachers[0]).heads[next(iter(self.config.parts))]}

    def row_outputs(self) -> list[nn.Module]:
        encoders = [self.model.image, *(one.encoder for one in self.asked if self._kept is None)]
        return [encoder.blocks()[-1] for encoder in encoders]

    def flops(self, text_len: int | None) -> float | None:
        asked = 0
        for teacher in self.asked if self._kept is None else ():
            config = getattr(teacher.encoder, "config", None)
            if not isinstance(config, EncoderConfig):
                return None
            asked += encoder_cost(config).tower.macs
        return float(PASSES * encoder_cost(self.config.model).tower.macs + 2 * asked)

    def chance_loss(self) -> float:
        weights = self.config.weights or (1.0,) * len(self.asked)
        return sum(weights) * sum(self.config.parts.values()) if self.config.balance != "none" else 0.0

    def prepare(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """said0, said1, ...: fp16 [b, 1 + N, D] of each teacher, where it is kept on disk."""
        if self._kept is None:
            return {}
        assert batch.indices is not None, "the config has no streams beside kept targets"
        return {f"said{place}": one.read(batch.indices) for place, one in enumerate(self._kept)}

    def outputs(self, model: Wrapped, part: Batch) -> tuple[list[dict[str, Tensor]], list[Said]]:
        """What the student says in each teacher's words, and what the teachers say."""
        if self._kept is None:
            said = [teacher(part.pixels) for teacher in self.asked]
        else:
            said = [unpack_said(part.extra[f"said{i}"].float(), one.dims) for i, one in enumerate(self.asked)]
        return model(part.pixels), said

    def terms(self, outputs: tuple[list[dict[str, Tensor]], list[Said]], part: Batch) -> Tensor:
        total = torch.zeros(len(part), device=self.device)
        for weight, name, errors in self._errors(self.model, *outputs):
            total = total + weight * self.config.parts[name] * errors
        return total

    def _errors(
        self, student: Student, found: Sequence[Mapping[str, Tensor]], said: Sequence[Said]
    ) -> Iterator[tuple[float, str, Tensor]]:
        """Of each teacher and part its weight, name and mean squared error [b]."""
        weights = self.config.weights or (1.0,) * len(self.asked)
        for heads, weight, ours, theirs in zip(student.teachers, weights, found, said, strict=True):
            for name, predicted in ours.items():
                target = cast(TeacherHeads, heads).balanced(name, getattr(theirs, name))
                yield weight, name, (predicted.float() - target).square().flatten(1).mean(1)

    def rows(self, model: nn.Module, splits: Sequence[str], context: RunContext) -> list[ResultRow]:
        student = cast(Student, model)
        run = self.run_facts(student) | {"decoders": decoders()}
        facts: dict[str, Any] = {"model": self.config.name, "task": TASK, "metric": "explained"}
        facts |= dict.fromkeys(("low", "high", "chance"))
        found: list[ResultRow] = []
        for split in splits:
            source = self.source_of(split)
            values, count = self.explained(student, source, context.world)
            of_data = run | {"data": content_hash(source)}
            for (teacher, part), value in values.items():
                where = f"{split}:{teacher}:{part}"
                found.append(ResultRow(split=where, value=value, n=count, run=of_data, **facts))
        return found

    def explained(self, student: Student, source: Source, world: World) -> tuple[dict[tuple[str, str], float], int]:
        """By teacher and part the share of what varies that the student says, 1 less the mean squared error over the
        spread; and the number of pictures. Every process of `world` calls this, and shares them.
        """
        for teacher in self.asked:
            teacher.to(next(student.parameters()).device)
        places = [(teacher, name) for teacher in self.names for name in self.config.parts]

        def errors(pixels: Tensor) -> Tensor:
            """[b, parts of all teachers] fp64."""
            said = [teacher(pixels) for teacher in self.asked]
            found = self._errors(student, student(pixels), said)
            return torch.stack([error for _, _, error in found], dim=1).double()

        found = self.of_pictures(student, source, errors, world)
        self._rest()
        spreads = torch.tensor([some[name] for some in self._spreads for name in self.config.parts]).double()
        values = (1 - found.mean(0).cpu() / spreads).tolist()
        return dict(zip(places, values, strict=True)), len(found)

    def _rest(self) -> None:
        """Kept teachers wait on the CPU."""
        for teacher in self.asked if self._kept is not None else ():
            teacher.to(torch.device("cpu"))


def _head(width: int, hidden: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, dim))


def _keep(config: DistillTaskConfig, teacher: DistillTeacher, rows: Rows, context: RunContext) -> KeptFeatures:
    """What a teacher says of all pictures; it then waits on the CPU to measure."""
    kept = keep_said(
        lambda pixels: pack_said(teacher(pixels)),
        rows,
        config,
        context,
        facts=lambda views: [TASK, teacher.hash(), views],
        field="cache",
    )
    teacher.to(torch.device("cpu"))
    return kept


def _balances(
    config: DistillTaskConfig,
    teachers: Sequence[DistillTeacher],
    kept: Sequence[KeptFeatures] | None,
    rows: Rows,
    world: World,
) -> tuple[list[dict[str, tuple[Tensor, Tensor]]], list[dict[str, float]]]:
    """Mean and unit of each teacher's parts, and their spread in that unit squared: of the first samples kept, or as
    the first steps show them.
    """
    found: list[dict[str, tuple[Tensor, Tensor]]] = []
    spreads: list[dict[str, float]] = []
    for place, teacher in enumerate(teachers):
        if kept is None:
            blocks = _first_steps(config, teacher, rows, world.device())
        else:
            assert isinstance(rows, IndexedRows)
            blocks = _first_kept(teacher, kept[place], rows.indices)
        said = list(blocks)
        parts = {SUMMARY: [one.summary for one in said], DENSE: [one.dense.flatten(0, 1) for one in said]}
        total = world.total if kept is None else lambda value: value  # every process reads all that is kept
        found.append({name: balance_of(parts[name], config.balance, total=total) for name in config.parts})
        spreads.append(dict.fromkeys(config.parts, 1.0))
        if config.balance == "none":  # targets are as large as they come
            units = {name: balance_of(parts[name], "scale", total=total)[1] for name in config.parts}
            spreads[-1] = {name: float(unit[0]) ** 2 for name, unit in units.items()}
    return found, spreads


def _first_steps(
    config: DistillTaskConfig, teacher: DistillTeacher, rows: Rows, device: torch.device
) -> Iterator[Said]:
    for step in range(min(-(-_STATISTICS_ROWS // config.batch_size), rows.steps_per_epoch)):
        if (batch := rows.begin(step)().batch) is not None:
            yield teacher(batch.pixels.to(device))


def _first_kept(teacher: DistillTeacher, kept: KeptFeatures, indices: Sequence[int]) -> Iterator[Said]:
    lacking = set(kept.lacking())
    chosen = [index for index in indices if index not in lacking][:_STATISTICS_ROWS]
    for start in range(0, len(chosen), BATCH):
        packed = kept.read(torch.tensor(chosen[start : start + BATCH]))
        yield unpack_said(packed.float(), teacher.dims)
