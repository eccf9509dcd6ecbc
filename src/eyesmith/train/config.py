"""What a run is: one value that, with the data, determines every weight it ends with."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from eyesmith.config import check_choices, check_least
from eyesmith.data.stream import DEFAULT_CACHE_GIB, DEFAULT_WINDOW, default_lanes
from eyesmith.errors import ConfigError
from eyesmith.hub.initial import InitialConfig
from eyesmith.images.augment import AugmentConfig
from eyesmith.images.transforms import TrainTransformConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.families import EncoderConfig
from eyesmith.models.lora import LoraConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.train.diagnostics import HealthConfig

WantedPrecision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the pairs come from."""

    path: str
    """A made data set, shards, a table or a folder; see docs/data.md."""
    split: str | None = None
    """The split to train on, where the data set has several."""
    image_column: str = "image"
    """Column of a table that names the image file."""
    text_column: str = "caption"
    """Column of a table that holds the caption."""
    decode_px: int = 72
    """Side of the squares that images are decoded to, before augmentation cuts and bends them."""
    memory_mib: int = 1024
    """Decoded images are kept in memory when all of them need no more than this; otherwise decoded at each use, faster
    and a few levels less exactly, so that a run keeps to one of the two."""
    max_skipped_frac: float = 0.01
    """Share of unusable samples above which the run stops."""
    num_workers: int = 2
    """Decoding threads."""
    epoch_samples: int = 0
    """Pairs that count as one epoch, for sets too large to be counted or passed over; 0 counts all there are."""
    more_paths: tuple[str, ...] = ()
    """Further shards, mixed with those of path; only where the run has a `transform`."""
    weights: tuple[float, ...] = ()
    """Shares of the rows from path and each of more_paths; none: every sample once an epoch."""
    lanes: int = 0
    """Parts of a batch that read shards of their own, where the run has a `transform`; a divisor of batch_size, best a
    multiple or a divisor of the number of machines. 0: one; for remote shards as many as machines when the run starts,
    written into its config, so that a resumed run keeps its order on any number of them."""
    window: int = DEFAULT_WINDOW
    """Samples of a lane that are shuffled together, where the run has a `transform`."""
    cache_gib: float = DEFAULT_CACHE_GIB
    """Remote shards kept on each machine's disk, where the run has a `transform`; at least those of two windows."""

    def __post_init__(self) -> None:
        check_least(self, "data.", decode_px=1, memory_mib=0, num_workers=1, epoch_samples=0, lanes=0, window=1)
        if self.cache_gib <= 0:
            raise ConfigError(f"data.cache_gib: expected a positive number, got {self.cache_gib}")
        if not 0 <= self.max_skipped_frac <= 1:
            raise ConfigError(f"data.max_skipped_frac: expected 0..1, got {self.max_skipped_frac}")

    def epoch_steps(self, batch_size: int) -> int:
        """Steps that count as one epoch, at least one; 0 where those of all samples do."""
        return max(1, self.epoch_samples // batch_size) if self.epoch_samples else 0


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How one run uses several processes, and what it gives to fit into memory. Weights differ by rounding only."""

    strategy: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    """ddp: every process holds the whole model; fsdp: every process holds a part of each block, gathered when it runs;
    auto: ddp where there are several processes."""
    shards: int = 0
    """With fsdp: processes that share one copy of the model, as the GPUs of one machine, while copies average their
    gradients; 0 has one copy in all."""
    tf32: bool = False
    """Let NVIDIA's GPUs round fp32 products to TensorFloat-32, 10 bits in place of 23: faster, where fp32 is left."""
    cudnn_benchmark: bool = False
    """Let cuDNN try its convolutions and take the fastest: each start may choose, and round, otherwise."""
    checkpoint_blocks: bool = False
    """Keep only the inputs of blocks for the backward pass and compute them again there: less memory, slower."""
    compile_blocks: bool = False
    """Compile the image tower's blocks: minutes at the start, faster steps on a GPU."""
    async_save: bool = False
    """Write states in the background while training goes on, from a copy in main memory."""

    def __post_init__(self) -> None:
        check_choices(self, "parallel.")
        if self.shards < 0 or (self.shards and self.strategy != "fsdp"):
            raise ConfigError(
                f"parallel.shards: expected 0 or more, and above 0 strategy=fsdp, got {self.shards} with "
                f"{self.strategy}"
            )


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Measuring on other splits of the training data set; the maths of the run does not depend on it."""

    splits: tuple[str, ...] = ()
    """Splits to measure at the end, written to results.jsonl; none measures nothing."""
    curve_splits: tuple[str, ...] = ()
    """Splits that are also measured while training, for the curve in log.jsonl."""
    curve_data: tuple[str, ...] = ()
    """Further data sets to measure while training, each on all its splits but train: what a fine-tuned model keeps."""
    curve_tasks: tuple[Literal["zero_shot", "zero_shot_all", "retrieval", "retrieval_label"], ...] = ("zero_shot",)
    """What is measured while training, where the data allow it."""
    suites: tuple[str, ...] = ()
    """Suites (`retrieval`) or tasks (`vtab/pets,cifar10`) of `eyesmith eval` that are measured while training."""
    suite_data: str = ""
    """The folder that holds their sets."""
    suite_limit: int = 0
    """Only so many images of each of these sets, spread evenly over its classes; 0 for all."""
    every_epochs: float = 10.0
    """Epochs between two such measurements."""
    every_steps: int = 0
    """The same as a number of steps; 0 leaves it to every_epochs."""
    keep_best: str = "first"
    """The value whose best weights are kept in best/, as `unseen_drawing/acc1`; first: the first that is measured;
    none: keep the last weights only."""

    def __post_init__(self) -> None:
        if self.suites and not self.suite_data:
            raise ConfigError(f"eval.suite_data: expected the folder that holds the sets of {', '.join(self.suites)}")
        check_least(self, "eval.", suite_limit=0, every_steps=0)
        if self.every_epochs <= 0:
            raise ConfigError(f"eval.every_epochs: expected a positive number, got {self.every_epochs}")


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """Trackers that hear every line of log.jsonl as it is written."""

    trackers: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    """Those to use; each needs its own package."""
    project: str = "eyesmith"
    """What trackers with projects file the run under; the run's name is that of its folder."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every run has, whatever it learns; each task adds its own fields, and narrows `model`."""

    model: ClipConfig | EncoderConfig
    data: DataConfig
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    transform: TrainTransformConfig | None = None
    """open_clip's views, cut while an image is decoded, in place of `augment`, which works on decoded squares. The
    samples are then streamed from tar shards (docs/data-at-scale.md)."""
    initial: InitialConfig = field(default_factory=InitialConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapters of low rank that train in place of the towers' own weights, and are added to them at the end."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    batch_size: int = 128
    """Samples a step, over all processes."""
    accumulate: int = 1
    """Parts that each process cuts its share of a batch into, one after the other through the model, so that
    activations of one part are alive at a time. The loss, and its exact gradient, are those of the whole batch."""
    epochs: float = 80.0
    """Passes over the data; the last samples of each that fill no batch wait for the next."""
    precision: WantedPrecision = "auto"
    """Of products inside the towers; auto is bf16 where the machine computes in it, else fp32. The rest is fp32. fp16,
    for GPUs without bf16, scales the loss and leaves out steps whose gradient overflows."""
    seed: int = 0
    log_every_steps: int = 10
    save_every_steps: int = 100
    keep_states: int = 2
    """Saved states that are kept, the newest ones; where the newest turns out damaged, an older one serves."""

    @property
    def encoder(self) -> Any:
        """The config of the image encoder."""
        return self.model.image if isinstance(self.model, ClipConfig) else self.model

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the views, pixels."""
        return self.encoder.image_size

    @property
    def model_name(self) -> str:
        """What the run's model is called in tables and results."""
        return self.model.name if isinstance(self.model, ClipConfig) else type(self.model).__name__

    @property
    def reads_texts(self) -> bool:
        """Whether a sample without a caption is of no use."""
        return True

    def with_lanes(self, num_machines: int) -> Self:
        """The config with `data.lanes` settled where it is left open and shards are remote: what a run begins with."""
        if self.transform is None or self.data.lanes:
            return self
        paths = (self.data.path, *self.data.more_paths)
        lanes = default_lanes(paths, num_machines=num_machines, batch_size=self.batch_size)
        return replace(self, data=replace(self.data, lanes=lanes))

    def is_same_run(self, begun: "RunConfig") -> bool:
        """Whether `begun`, the config in a run folder, is what this one became when it was started."""
        if self.data.lanes:
            return self == begun
        return replace(self, data=replace(self.data, lanes=begun.data.lanes)) == begun

    def __post_init__(self) -> None:
        check_choices(self)
        check_least(self, batch_size=1, seed=0, log_every_steps=1, save_every_steps=1, keep_states=1)
        if (self.data.more_paths or self.data.weights) and self.transform is None:
            raise ConfigError("data.more_paths and data.weights: several sources are streamed; set `transform` too")
        streamed = (self.data.lanes, self.data.window, self.data.cache_gib)
        if self.transform is None and streamed != (0, DEFAULT_WINDOW, DEFAULT_CACHE_GIB):
            raise ConfigError("data.lanes, data.window and data.cache_gib: are for streams; set `transform` too")
        if self.data.lanes and self.batch_size % self.data.lanes:
            raise ConfigError(f"data.lanes: expected a divisor of batch_size {self.batch_size}, got {self.data.lanes}")
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ConfigError(f"accumulate: expected a divisor of batch_size {self.batch_size}, got {self.accumulate}")
        if self.transform is not None:
            if tuple(self.transform.image_size) != tuple(self.image_size):
                where = "model.image.image_size" if isinstance(self.model, ClipConfig) else "model.image_size"
                raise ConfigError(
                    f"transform.image_size: {self.transform.image_size} differs from {where} {self.image_size}; "
                    "set both"
                )
            if self.augment != AugmentConfig():
                raise ConfigError("augment: is not used where `transform` is set; leave one of them out")
        if self.epochs <= 0:
            raise ConfigError(f"epochs: expected a positive number, got {self.epochs}")
