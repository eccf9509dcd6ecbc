"""What a report says, as plain data: gathered by `gather`, rendered by `render`, and built by hand in tests."""

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["ours", "baseline"]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A fraction in 0..1 with its 95 % interval; low and high are None where none is known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """One measured quantity: both models and chance on one split. All values are fractions in 0..1."""

    task: str
    split: str
    metric: str
    ours: Interval | None
    baseline: Interval | None = None
    chance: float | None = None
    num_samples: int | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The log of one run. Points are (seconds since the start of training, value), in order of time."""

    role: Role
    name: str
    loss: tuple[tuple[float, float], ...] = ()
    evaluations: dict[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)  # "split/metric" -> points


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What one run was: None where the run folder does not say."""

    role: Role
    name: str
    folder: str
    is_finished: bool
    is_loaded: bool = False
    image_params: int | None = None
    text_params: int | None = None
    trained_params: int | None = None  # parameters that training may change: a locked text tower has none
    text_tower: str | None = None
    image_size_px: tuple[int, int] | None = None  # height, width
    train_time_s: float | None = None
    steps: int | None = None
    planned_steps: int | None = None
    samples: int | None = None
    epochs: float | None = None
    images_per_s: float | None = None  # median of the logged rates
    resumes: int = 0
    health: tuple[tuple[int, str], ...] = ()  # step, and what a health rule said there
    versions: tuple[tuple[str, str], ...] = ()
    machine: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()  # dotted field and value of the whole training config


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    name: str
    num_samples: int | None
    num_classes: int | None


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    name: str
    version: str
    licence: str
    author: str = ""
    url: str = ""
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    name: str = ""
    folder: str = ""
    maker: str = ""
    maker_version: str = ""
    size_px: int | None = None
    num_classes: int | None = None
    split_rule: str = ""
    splits: tuple[SplitFacts, ...] = ()
    sources: tuple[SourceFacts, ...] = ()
    templates: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A thumbnail: encoded bytes, their media type, and the size in pixels."""

    data: bytes
    media_type: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Guess:
    name: str
    probability: float
    is_true: bool


@dataclass(frozen=True, kw_only=True)
class Example:
    """One held-out picture with the model's best names, best first."""

    picture: Picture
    truth: str
    style: str
    guesses: tuple[Guess, ...]


@dataclass(frozen=True, kw_only=True)
class ExampleGroup:
    """Examples that went the same way ("first", "top5" or "missed"), and how many such there are in the split."""

    outcome: Literal["first", "top5", "missed"]
    total: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    split: str
    num_classes: int
    groups: tuple[ExampleGroup, ...]


@dataclass(frozen=True, kw_only=True)
class StyleScore:
    """Top-1 accuracy over the samples of one style."""

    style: str
    num_samples: int
    ours: Interval
    baseline: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Hit:
    picture: Picture
    name: str
    cosine: float


@dataclass(frozen=True, kw_only=True)
class Search:
    query: str
    is_class_name: bool
    hits: tuple[Hit, ...]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """`truth` taken for `guess`: `count` times in the split; the probabilities are of the most confident case."""

    truth: str
    guess: str
    count: int
    guess_probability: float
    truth_probability: float
    picture: Picture
    guess_picture: Picture | None


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything on the page. A part that could not be gathered is empty, and `notices` says why."""

    ours: RunFacts
    baseline: RunFacts | None = None
    data: DataFacts = DataFacts()
    scores: tuple[Score, ...] = ()
    curves: tuple[Curve, ...] = ()
    gallery: Gallery | None = None
    style_split: str = ""
    styles: tuple[StyleScore, ...] = ()
    search_pool: str = ""  # what was searched, in words
    search_pool_size: int = 0
    searches: tuple[Search, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    num_confusions: int = 0  # all wrong pairs, of which `confusions` shows the worst
    notices: tuple[str, ...] = ()
