"""What a curation does: a list of rules and the settings of each, and the plans that have names.

Every rule keeps a sample or drops it; a plan keeps what all its rules keep. Rules run in the order given, each on what
the one before it has left; only the CLIP score's fraction is of the whole pool, as in DataComp. Near-duplicates and
balancing look at all that is left, so they come last and in this order.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from eyesmith.config import closest
from eyesmith.data.curate.places import Executor
from eyesmith.errors import ConfigError

RULES = (
    "language", "words", "tokens", "size", "clip", "entities", "clusters", "decontaminate", "duplicates", "balance",
)  # fmt: skip
GLOBAL_RULES = ("duplicates", "balance")


@dataclass(frozen=True, kw_only=True)
class LanguageRule:
    """Captions of one language (newlines count as spaces)."""

    keep: str = "en"
    """The language that is kept."""
    column: str = "language"
    """A column of the pool that holds the language; when the pool has none, the detector is asked."""
    detector: Literal["fasttext", "gcld3"] = "fasttext"
    """The detector where there is no such column. DataComp: fastText's lid.176; its laion2b filter: gcld3."""
    model: str = ""
    """File of fastText's language model, lid.176.bin."""


@dataclass(frozen=True, kw_only=True)
class WordsRule:
    """Captions that are long enough: words between blanks, and characters. DataComp's basic filter."""

    min_words: int = 3
    """Fewest words."""
    min_chars: int = 6
    """Fewest characters."""


@dataclass(frozen=True, kw_only=True)
class TokensRule:
    """Captions that are long enough by fastText's tokens, where a newline is one too. DataComp's image-based filter."""

    min_tokens: int = 2
    """Fewest tokens."""
    min_chars: int = 6
    """Fewest characters."""


@dataclass(frozen=True, kw_only=True)
class SizeRule:
    """Pictures that are large enough and not too long, by the original width and height."""

    min_px: int = 200
    """Shorter side, at least."""
    max_aspect: float = 3.0
    """Longer over shorter side, at most."""


@dataclass(frozen=True, kw_only=True)
class ClipRule:
    """Pairs whose image and caption fit by a CLIP model's score."""

    by: Literal["fraction", "threshold"] = "fraction"
    """Keep a fraction of the pool, or what reaches a threshold."""
    arch: Literal["l14", "b32"] = "l14"
    """Whose score: the column clip_<arch>_similarity_score."""
    fraction: float = 0.3
    """Of the whole pool. The threshold is the score at place int(N x fraction) in falling order."""
    threshold: float = 0.28
    """Scores that are not below it stay, when `by` is threshold."""

    @property
    def column(self) -> str:
        """The column of the score."""
        return f"clip_{self.arch}_similarity_score"


@dataclass(frozen=True, kw_only=True)
class EntitiesRule:
    """Captions with a word whose first WordNet meaning is on a list: DataComp's text-based filter with ImageNet-21k."""

    wordnet: str = ""
    """The `dict` folder of WordNet 3.0."""
    synsets: str = ""
    """File of ids such as n02084071, one a line."""


@dataclass(frozen=True, kw_only=True)
class ClustersRule:
    """Images whose nearest centroid is also the nearest of a target image: DataComp's image-based filter."""

    centroids: str = ""
    """File of centroids, .npy [K, D]."""
    targets: str = ""
    """File of the features of the target images, .npy [M, D], of the same encoder."""
    features: str = "l14_img"
    """The array of the .npz files beside the pool."""
    device: str = "cpu"
    """Where the products are computed."""


@dataclass(frozen=True, kw_only=True)
class NearRule:
    """When two pictures are the same: by perceptual hash, or by the features of an encoder."""

    by: Literal["hash", "embedding"] = "embedding"
    """hash needs `marks`; embedding takes `features` of the pool, or the embeddings in `marks` when there are some."""
    marks: str = ""
    """File of `eyesmith curate marks` over the pool's shards."""
    features: str = "l14_img"
    """The array of the .npz files beside the pool."""
    max_bits: int = 4
    """Hashes of 64 bits that differ in at most so many bits are near."""
    min_similarity: float = 0.95
    """Embeddings with at least this cosine are near."""
    device: str = "cpu"
    """Where embeddings are compared."""


@dataclass(frozen=True, kw_only=True)
class DecontaminateRule(NearRule):
    """Drops images that are near one of an evaluation set."""

    against: tuple[str, ...] = ()
    """Files of `eyesmith curate marks` over evaluation folders (or .npy features of the pool's encoder)."""


@dataclass(frozen=True, kw_only=True)
class DuplicatesRule(NearRule):
    """Keeps one sample of each group of near images (a chain of near pairs is one group)."""

    prefer: str = "clip_l14_similarity_score"
    """Column whose highest value is kept; the smaller uid among equal ones, and where there is no such column."""
    max_exact: int = 100_000
    """Embeddings of up to so many samples are compared all with all, of more within clusters; hashes always exactly."""


@dataclass(frozen=True, kw_only=True)
class BalanceRule:
    """Thins out captions of frequent entries: MetaCLIP."""

    entries: str = ""
    """JSON file with the list of entries, such as the released metadata.json."""
    threshold: float = 20_000
    """t: entries with more matches are thinned out to about so many. inf keeps all texts that match."""
    tail_share: float = -1.0
    """When 0 to 1: t is chosen so that rarer entries hold this share of all matches, instead of `threshold`."""
    draw: Literal["text", "image"] = "text"
    """Decide for every text (an image with two texts kept stands twice), or for one random text of an image."""
    boundaries: Literal["spaces", "scripts"] = "spaces"
    """Entries stand between spaces; "scripts": not beside characters of scripts that have none (MetaCLIP 2)."""
    seed: int = 0
    """Chooses the draws."""


@dataclass(frozen=True, kw_only=True)
class CurationPlan:
    """Rules in order, and their settings."""

    name: str = "no-filter"
    """The plan's name, kept with every sample."""
    rules: tuple[str, ...] = ()
    """Which rules, in order, each once."""
    uid: str = "uid"
    """Column of the sample's id, 32 hexadecimal characters."""
    text: str = "text"
    """Column of the caption, or of a list of captions."""
    language: LanguageRule = field(default_factory=LanguageRule)
    words: WordsRule = field(default_factory=WordsRule)
    tokens: TokensRule = field(default_factory=TokensRule)
    size: SizeRule = field(default_factory=SizeRule)
    clip: ClipRule = field(default_factory=ClipRule)
    entities: EntitiesRule = field(default_factory=EntitiesRule)
    clusters: ClustersRule = field(default_factory=ClustersRule)
    decontaminate: DecontaminateRule = field(default_factory=DecontaminateRule)
    duplicates: DuplicatesRule = field(default_factory=DuplicatesRule)
    balance: BalanceRule = field(default_factory=BalanceRule)

    def __post_init__(self) -> None:
        for rule in self.rules:
            if rule not in RULES:
                raise ConfigError(f"rules: unknown rule {rule!r}{closest(rule, RULES)}")
            if self.rules.count(rule) > 1:
                raise ConfigError(f"rules: {rule!r} stands twice")
        last = [rule for rule in self.rules if rule in GLOBAL_RULES]
        if list(self.rules[len(self.rules) - len(last) :]) != sorted(last, key=GLOBAL_RULES.index):
            raise ConfigError(
                f"rules: duplicates and balance look at what is left: last, in this order; got {self.rules}"
            )
        if self.clip.by == "fraction" and not 0 <= self.clip.fraction < 1:
            raise ConfigError(f"clip.fraction: expected 0 or more and less than 1, got {self.clip.fraction}")
        if not self.balance.threshold > 0 or math.isnan(self.balance.tail_share) or self.balance.tail_share > 1:
            raise ConfigError("balance: expected threshold above 0 and tail_share of 0 to 1 (or -1 for none)")
        for near in (self.decontaminate, self.duplicates):
            if not 0 <= near.max_bits < 64:
                raise ConfigError(f"max_bits: expected 0 to 63, got {near.max_bits}")
        if self.duplicates.max_exact < 0:
            raise ConfigError(f"duplicates.max_exact: expected 0 or more, got {self.duplicates.max_exact}")

    def check_files(self) -> None:
        """Raise ConfigError when a rule of the plan lacks a file that it cannot do without."""
        for rule, fields in _NEEDED.items():
            for name in fields:
                if rule in self.rules and not getattr(getattr(self, rule), name):
                    raise _missing_file(rule, name)
        for rule in ("decontaminate", "duplicates"):
            near = getattr(self, rule)
            if rule in self.rules and near.by == "hash" and not near.marks:
                raise _missing_file(rule, "marks")

    @property
    def reads_features(self) -> bool:
        """Whether a rule may read the features beside the pool."""
        near = (("decontaminate", self.decontaminate), ("duplicates", self.duplicates))
        return "clusters" in self.rules or any(name in self.rules and rule.by == "embedding" for name, rule in near)

    def files(self) -> list[str]:
        """Files that the plan's rules read beside the pool; a folder of WordNet is named by its noun index."""
        near = [(self.decontaminate.marks, *self.decontaminate.against), (self.duplicates.marks,)]
        by_rule = {
            "language": (self.language.model,),
            "entities": (self.entities.synsets, self.entities.wordnet and f"{self.entities.wordnet}/index.noun"),
            "clusters": (self.clusters.centroids, self.clusters.targets),
            "decontaminate": near[0],
            "duplicates": near[1],
            "balance": (self.balance.entries,),
        }
        return [file for rule, files in by_rule.items() if rule in self.rules for file in files if file]


_NEEDED = {
    "entities": ("wordnet", "synsets"),
    "clusters": ("centroids", "targets"),
    "decontaminate": ("against",),
    "balance": ("entries",),
}
_ENGLISH_TEXT = ("language", "entities")
_CLUSTERED = ("language", "tokens", "clusters")
_NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "no-filter": ("the whole pool", {}),
    "basic": ("English, more than two words, large enough pictures", {"rules": ("language", "words", "size")}),
    "clip-l14-30": ("the best 30 % by the score of CLIP L/14", {"rules": ("clip",)}),
    "clip-b32-30": ("the best 30 % by the score of CLIP B/32", {"rules": ("clip",), "clip": ClipRule(arch="b32")}),
    "laion2b": (
        "B/32 score of at least 0.28 and English by gcld3",
        {
            "rules": ("clip", "language"),
            "clip": ClipRule(by="threshold", arch="b32", threshold=0.28),
            "language": LanguageRule(detector="gcld3"),
        },
    ),
    "text": ("English with a word of ImageNet-21k", {"rules": _ENGLISH_TEXT}),
    "image": ("English, picture near one of ImageNet", {"rules": _CLUSTERED}),
    "image-and-clip": ("image and clip-l14-30: DataComp's best baseline", {"rules": ("clip", *_CLUSTERED)}),
    "text-and-clip": ("text and clip-l14-30", {"rules": ("clip", *_ENGLISH_TEXT)}),
    "image-and-text": ("image and text", {"rules": (*_CLUSTERED, "entities")}),
    "basic-and-clip": ("basic and clip-l14-30", {"rules": ("clip", "language", "words", "size")}),
    "metaclip": ("captions balanced by the entries they match", {"rules": ("balance",)}),
    "metaclip2": (
        "balanced with one caption an image, scripts without spaces too",
        {"rules": ("balance",), "balance": BalanceRule(draw="image", boundaries="scripts")},
    ),
    "duplicates": ("one of each group of near-duplicates", {"rules": ("duplicates",)}),
    "decontaminate": ("without pictures of evaluation sets", {"rules": ("decontaminate",)}),
}
PLAN_NAMES = tuple(_NAMED)
PLAN_SUMMARIES = {name: summary for name, (summary, _) in _NAMED.items()}


def named_plan(name: str, **fields: Any) -> CurationPlan:
    """A plan by name, some fields replaced. Raises ConfigError for an unknown name."""
    return CurationPlan(**{"name": name, **_fields_of(name), **fields})


@dataclass(frozen=True, kw_only=True)
class CurationRun(CurationPlan):
    """A plan with the places it works on, as the command line has it."""

    pool: str = ""
    """The pool: a folder of parquet files, each with its .npz beside it where a rule reads features."""
    out: str = ""
    """The folder for what the curation leaves."""
    workers: int = 1
    """Processes, or CPUs of a Ray cluster that is started."""
    executor: Executor = "local"
    """Processes of this machine, or Ray Data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers < 1:
            raise ConfigError(f"workers: expected at least 1, got {self.workers}")

    @property
    def plan(self) -> CurationPlan:
        """The plan alone."""
        names = [entry.name for entry in dataclasses.fields(CurationPlan)]
        return CurationPlan(**{name: getattr(self, name) for name in names})


def named_run(name: str) -> CurationRun:
    """A run of a named plan, with its places still to be filled in. Raises ConfigError for an unknown name."""
    return CurationRun(**{"name": name, **_fields_of(name)})


def _fields_of(name: str) -> dict[str, Any]:
    if name not in _NAMED:
        raise ConfigError(f"unknown plan {name!r}{closest(name, _NAMED)}")
    return _NAMED[name][1]


def _missing_file(rule: str, name: str) -> ConfigError:
    return ConfigError(f"{rule}.{name}: the rule {rule!r} needs it; give {rule}.{name}=..., see docs/curate.md")
