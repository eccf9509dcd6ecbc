"""What the loss of a run is."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from eyesmith.config import check_choices
from eyesmith.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """What is learned from a teacher beside the pairs; weights of the terms added to the contrastive loss."""

    teacher: str = ""
    """A model as `eyesmith.load` takes it: run folder, weight file or hf:owner/name; empty for no teacher."""
    feature: float = 0.0
    """Squared distance of unit features, image and text."""
    logit: float = 0.0
    """Divergence of the student's softmax over the batch from the teacher's, both directions."""
    affinity: float = 0.0
    """Squared difference of all cosines between images and texts of the batch."""
    temperature: float = 1.0
    """Divides both sides' logits in the logit term."""

    def __post_init__(self) -> None:
        weights = (self.feature, self.logit, self.affinity)
        if min(weights) < 0 or self.temperature <= 0:
            raise ConfigError(
                f"loss.distill: weights must not be negative and temperature must be positive, got {self}"
            )
        if bool(self.teacher) != any(weights):
            raise ConfigError(
                f"loss.distill: a teacher needs a weight above 0 and a weight needs a teacher, got teacher "
                f"{self.teacher!r} with feature, logit, affinity = {weights}"
            )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The contrastive loss of a run."""

    kind: Literal["softmax", "sigmoid", "names"] = "softmax"
    """softmax: CLIP's, over the batch in both directions; sigmoid: SigLIP's, each pair by itself, with a bias; names:
    each image against a caption of every class, drawn anew each step, so that negatives do not depend on the batch's
    size; for labelled data and a locked text tower."""
    neighbours: float = 0.0
    """Share of an image's target that goes to all names by how near their captions lie to its own's; of names only."""
    tile_rows: int = 0
    """Rows of a tile of logits, which has 2 tile_rows^2 of them at most; 0 takes the measured default."""
    init_bias: float = -10.0
    """Where the sigmoid loss's bias starts."""
    mask: Literal["same", "none"] = "same"
    """same: two samples of one class, or with equal captions, are no negatives of each other; none: all others are."""
    distill: DistillConfig = field(default_factory=DistillConfig)

    FORMER_FIELDS: ClassVar = {"form": ("auto", "dense", "tiled", "ring")}
    """Read and dropped in older files: ways to compute the same loss, of which there is one now."""

    def __post_init__(self) -> None:
        check_choices(self, "loss.")
        if not 0 <= self.neighbours < 1:
            raise ConfigError(f"loss.neighbours: expected 0 <= share < 1, got {self.neighbours}")
        if self.neighbours and self.kind != "names":
            raise ConfigError(f"loss.neighbours: is of loss.kind=names, got {self.kind}; leave it out")
        if self.tile_rows < 0:
            raise ConfigError(f"loss.tile_rows: expected 1 or more, or 0 for the default, got {self.tile_rows}")
