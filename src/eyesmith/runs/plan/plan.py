"""What a run would be, without running it: what trains, steps and rates, operations, memory a GPU, GPU-hours."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from eyesmith.errors import ConfigError
from eyesmith.models.clip import ClipConfig
from eyesmith.models.cost import encoder_cost, text_cost
from eyesmith.models.encoder import Encoder
from eyesmith.models.lora import adapt_blocks
from eyesmith.models.registry import EncoderConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.optim import TrainedRow, freeze, parameter_groups, trained_table
from eyesmith.optim.groups import parts_of, text_blocks
from eyesmith.runs.plan.cluster import Cluster
from eyesmith.runs.plan.memory import MemoryPart, memory_parts
from eyesmith.runs.plan.scale import FetchPlan, SavePlan, fetch_plan, save_plan
from eyesmith.runs.plan.teacher import TeacherCost, named_teacher, teacher_cost
from eyesmith.tasks import FrozenTeacher, task_of
from eyesmith.train.config import RunConfig
from eyesmith.train.loop import total_steps

NUM_RATES = 10
_PASSES = 3  # forward, and a backward pass of twice its operations
TEACHER_PART = "teacher"


@dataclass(frozen=True, kw_only=True)
class PlannedPart:
    """A tower, or what is in neither. Numbers of parameters; those trained are decayed or not."""

    part: str
    trained: int
    frozen: int
    decayed: int


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The learning rate at a step, counted from 0, before the factors of towers and layers."""

    step: int
    lr: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run's facts. Operations (FLOP) count a multiply-add as 2, and the three passes of a training step.

    unit: what it calls a sample, "pair" or, without texts, "image".

    image_flops, text_flops: for one pair, a text at full length; a frozen tower counts its forward pass alone. Texts of
    a locked tower are encoded once each, so text_flops stands for all epochs. teacher_flops: of a masked-image run's
    teacher, for one image; with kept targets for all epochs; None without one, or where it is not known. memory: bytes
    of one GPU at the worst moment, by part. fetch: None for a run that reads no shards.
    """

    model: str
    unit: str
    parts: tuple[PlannedPart, ...]
    groups: tuple[TrainedRow, ...]
    samples_per_epoch: int
    epochs: float
    batch_size: int
    gpu_batch: int
    accumulate: int
    steps: int
    samples_seen: int
    rates: tuple[Rate, ...]
    image_flops: float
    text_flops: float | None
    teacher_flops: float | None
    total_flops: float
    strategy: str
    memory: tuple[MemoryPart, ...]
    cluster: Cluster
    gpu_hours: float
    samples_per_s: float
    saving: SavePlan
    fetch: FetchPlan | None
    notes: tuple[str, ...] = field(default=())

    @property
    def memory_bytes(self) -> int:
        """Of one GPU."""
        return sum(part.num_bytes for part in self.memory)

    @property
    def fits(self) -> bool:
        """Whether that is less than the GPU's memory."""
        return self.memory_bytes <= self.cluster.gpu_memory_gib * 2**30

    @property
    def hours(self) -> float:
        """On all GPUs together."""
        return self.gpu_hours / self.cluster.gpus

    @property
    def hours_with_losses(self) -> float:
        """With what saving takes and failures lose."""
        return self.hours * (1 + self.saving.save_frac + self.saving.lost_frac)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with the derived facts."""
        derived = {"memory_bytes": self.memory_bytes, "fits": self.fits, "hours": self.hours}
        return {**asdict(self), **derived, "hours_with_losses": self.hours_with_losses}


def plan(config: RunConfig, cluster: Cluster | None = None, *, teacher: EncoderConfig | None = None) -> Plan:
    """The plan of a run on `cluster`. Nothing is trained, and no weights are read but a Hugging Face text encoder's.

    teacher: the frozen one of the run, where its config is known; None: the model that its name tells of, if it does.

    Where the GPUs cannot share the batch evenly, the plan is that of the nearest batch that they can, and says so.
    Raises ConfigError where a pattern of the config fits no parameter, or where the data set's size is needed
    (data.epoch_samples is 0) and nothing is at data.path.
    """
    cluster = cluster or Cluster()
    clip = shell(config)
    rows = trained_table(clip, _groups(clip, config))
    parts = tuple(_part(name, rows) for name in parts_of(clip))
    trained = {part.part: part.trained > 0 for part in parts}

    per_epoch, notes = _samples_per_epoch(config)
    wanted, config = config.batch_size, shared_batch(config, cluster.gpus)
    if config.batch_size != wanted:
        notes.append(
            f"{cluster.gpus} GPUs cannot share a batch of {wanted:,} evenly: this is the plan of "
            f"{config.batch_size:,}; the run needs batch_size={config.batch_size}, or another number of GPUs"
        )
    steps = total_steps(config, per_epoch // config.batch_size)
    samples = steps * config.batch_size

    image_flops = 2.0 * encoder_cost(config.encoder).tower.macs * (_PASSES if trained["image"] else 1)
    if (seen := task_of(config).image_plan(config, clip)) is not None:
        image_flops = seen.flops
        notes += seen.notes
    text_flops = None
    text = config.model.text if isinstance(config.model, ClipConfig) and config.reads_texts else None
    is_locked = isinstance(config.model, ClipConfig) and config.model.lock_text and text is not None
    if isinstance(text, ClipTextConfig):
        text_flops = 2.0 * text_cost(text).macs * (_PASSES if trained["text"] else 1)
    elif text is not None:
        notes.append("operations of the Hugging Face text encoder are not counted")
    elif (planned := task_of(config).text_plan(config, clip)) is not None:
        text_flops = planned.flops
    asked = task_of(config).frozen_teacher(config)
    taught = None if asked is None else _teacher(asked, config, teacher, cluster, notes)
    teacher_memory: tuple[MemoryPart, ...] = ()
    teacher_flops = None
    num_taught = samples
    if asked is not None and taught is not None:
        parts = (*parts, PlannedPart(part=TEACHER_PART, trained=0, frozen=taught.params, decayed=0))
        teacher_flops = taught.flops
        if asked.is_kept:
            num_taught = min(samples, per_epoch)
            notes.append("the teacher sees each image once, before the training, and is then off the GPU")
        else:
            sizes = {"teacher weights": taught.weight_bytes, "teacher activations": taught.activation_bytes}
            teacher_memory = tuple(MemoryPart(part=name, num_bytes=size) for name, size in sizes.items())
    num_texts = min(samples, per_epoch) if is_locked else samples
    total = samples * image_flops + num_texts * (text_flops or 0.0) + num_taught * (teacher_flops or 0.0)
    gpu_seconds = total / (cluster.mfu * cluster.peak_tflops * 1e12)

    strategy = _strategy(config, cluster)
    extra = task_of(config).extra_names(config)
    saving = save_plan(clip, config, cluster, num_extra=len(extra), step_s=gpu_seconds / cluster.gpus / steps)
    if config.accumulate > 1:
        notes.append("accumulation adds a forward pass, which takes time beside these operations: about a third more")
    if config.parallel.checkpoint_blocks:
        notes.append("recomputed blocks add a forward pass, which takes time beside these operations: a third more")
    notes += task_of(config).plan_notes(config)
    if config.parallel.compile_blocks:
        notes.append("memory is that of eager blocks; compiled ones keep less")
    if is_locked:
        notes.append("each distinct text is encoded once; counted as one text a pair of an epoch, without repeats")
    return Plan(
        model=config.model_name,
        unit="pair" if text is not None else "image",
        parts=parts,
        groups=tuple(rows),
        samples_per_epoch=per_epoch,
        epochs=config.epochs,
        batch_size=config.batch_size,
        gpu_batch=config.batch_size // cluster.gpus,
        accumulate=config.accumulate,
        steps=steps,
        samples_seen=samples,
        rates=tuple(Rate(step=step, lr=config.optim.lr_at(step, steps)) for step in _rate_steps(steps)),
        image_flops=image_flops,
        text_flops=text_flops,
        teacher_flops=teacher_flops,
        total_flops=total,
        strategy=strategy,
        memory=(*memory_parts(clip, config, gpus=cluster.gpus, strategy=strategy), *teacher_memory),
        cluster=cluster,
        gpu_hours=gpu_seconds / 3600,
        samples_per_s=samples / gpu_seconds * cluster.gpus,
        saving=saving,
        fetch=fetch_plan(config, cluster, per_epoch),
        notes=tuple(notes),
    )


def shell(config: RunConfig) -> nn.Module:
    """The model of a run on the meta device, with what does not train frozen: names and shapes, no numbers."""
    model = task_of(config).skeleton(config)
    freeze(model, config.optim.freeze)
    if config.lora.rank and task_of(config).adapts_towers:
        image, text = cast(Encoder, model.image), getattr(model, "text", None)
        locked = {one for one in model.parameters() if not one.requires_grad}
        adapt_blocks(model, [*image.blocks(), *(text_blocks(text) if text else ())], config.lora, locked=locked)
    return model


def _teacher(
    asked: FrozenTeacher, config: RunConfig, teacher: EncoderConfig | None, cluster: Cluster, notes: list[str]
) -> TeacherCost | None:
    """What the teacher of a run costs; None, said in `notes`, where it is not known."""
    teacher = teacher or named_teacher(asked.source)
    if teacher is None:
        notes.append(
            f"the teacher's forward pass and its memory are not counted: {asked.source or 'target.teacher'} "
            "is not here, and its name is no known model's"
        )
        return None
    rows = -(-config.batch_size // (cluster.gpus * config.accumulate))
    return teacher_cost(teacher, grid=asked.grid, rows=rows, is_bf16=config.precision != "fp32")


def _groups(clip: nn.Module, config: RunConfig) -> list[dict[str, Any]]:
    names = task_of(config).extra_names(config)
    extra = {name: torch.nn.Parameter(torch.empty((), device="meta")) for name in names}
    return parameter_groups(clip, config.optim, extra=extra)


def _part(name: str, rows: Sequence[TrainedRow]) -> PlannedPart:
    own = [row for row in rows if row.part == name]
    return PlannedPart(
        part=name,
        trained=sum(row.num_parameters for row in own if row.is_trained),
        frozen=sum(row.num_parameters for row in own if not row.is_trained),
        decayed=sum(row.num_parameters for row in own if row.is_trained and row.weight_decay > 0),
    )


def _samples_per_epoch(config: RunConfig) -> tuple[int, list[str]]:
    if config.data.epoch_samples:
        return config.data.epoch_samples, []
    if not Path(config.data.path).exists() and "{" not in config.data.path and "*" not in config.data.path:
        raise ConfigError(
            f"data.path: {config.data.path} is not there, so the length of the run is not known; set it, or "
            "data.epoch_samples to the number of pairs"
        )
    source = task_of(config).training_source(config)
    return len(source), [f"{source.name} has {len(source):,} usable samples, broken images not yet looked for"]


def _rate_steps(steps: int) -> list[int]:
    """NUM_RATES steps from the first to the last, evenly; fewer where the run has fewer."""
    count = min(NUM_RATES, steps)
    return [round(index * (steps - 1) / max(count - 1, 1)) for index in range(count)]


def _strategy(config: RunConfig, cluster: Cluster) -> Literal["none", "ddp", "fsdp"]:
    if cluster.gpus == 1:
        return "none"
    return "fsdp" if config.parallel.strategy == "fsdp" else "ddp"


def shared_batch(config: RunConfig, gpus: int) -> RunConfig:
    """`config` with the nearest global batch that `gpus` can share evenly, and cut into `accumulate` parts each."""
    if config.batch_size % gpus == 0:
        return config
    unit = gpus * config.accumulate
    return replace(config, batch_size=max(1, round(config.batch_size / unit)) * unit)
