"""The rules of health: each looks at the course of a run and says one sentence and a hint, or nothing.

`RULES` maps the name that health.ignore takes to the rule. Rules about the loss begin after the warm-up.
"""

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Said = tuple[str, str]  # what is seen, and what may help

MAX_SCALE = 100.0  # the temperature's bound
AT_CHANCE = (0.95, 1.05)  # loss over the loss of guessing, inside which nothing is learned
MIN_RANK = 2.0  # directions; features on a line have 1
MIN_BATCH = 8  # rows below which a rank says nothing
PACE_LINES = 5  # lines that a rate of the machine is the median of, at least
FIRST_LINES = 20  # lines that say how fast a run was at first
FEW_CHECKS = 3
FEW_SECONDS = 30.0  # that nobody minds


@dataclass(frozen=True, kw_only=True)
class RunShape:
    """What the rules need to know of a run beside its log.

    trained: parameters that train in each tower ("image", "text"); locked: towers that are not meant to.
    """

    steps: int
    warmup_steps: int
    batch_size: int
    init_scale: float
    log_every_steps: int
    trained: dict[str, int]
    locked: tuple[str, ...] = ()
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One symptom: the step, the rule that saw it, a sentence, and what may help."""

    step: int
    rule: str
    message: str
    hint: str


@dataclass
class Course:
    """The recent lines of a run, and what must be kept of the older ones.

    window: lines of the last `patience` steps; learned: those of them after the warm-up, empty until they span
    `patience` steps. Numbers that are null in the log are missing here.
    """

    shape: RunShape
    patience: int
    max_wait_frac: float
    window: deque[dict[str, Any]] = field(default_factory=deque)
    learned: deque[dict[str, Any]] = field(default_factory=deque)
    lowest: tuple[float, int] = (math.inf, 0)
    """The lowest median loss of any window, and the step that it ended with."""
    widest: float = 0.0
    """The highest median effective rank of image features."""
    first_rates: list[float] = field(default_factory=list)
    checks: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    check_s: float = 0.0
    train_s: float = 0.0

    def add(self, line: dict[str, Any]) -> bool:
        """Take a line of the log; False when it is neither a step nor a check."""
        if "event" in line or "step" not in line:
            return False
        self.train_s = line.get("time_s") or self.train_s
        if "eval" in line:
            self.check_s += line.get("check_s") or 0.0
            for name, value in line["eval"].items():
                if value is not None:
                    self.checks.setdefault(name, []).append((line["step"], value))
            return True
        if "loss" not in line:
            return False
        self.window.append(line)
        if line["step"] > self.shape.warmup_steps:
            self.learned.append(line)
        for lines in (self.window, self.learned):
            while lines and lines[0]["step"] <= line["step"] - self.patience:
                lines.popleft()
        rate = line.get("images_per_s")
        if rate is not None and len(self.first_rates) < FIRST_LINES:
            self.first_rates.append(rate)
        loss = self.usual("loss")
        if loss is not None and loss < self.lowest[0]:
            self.lowest = (loss, line["step"])
        self.widest = max(self.widest, self.usual("image_rank") or 0.0)
        return True

    def has_learned(self) -> bool:
        """Whether a whole window of steps lies behind the warm-up."""
        return bool(self.window) and self.window[-1]["step"] >= self.shape.warmup_steps + self.patience

    def usual(self, name: str) -> float | None:
        """Median of a field since the warm-up; None before a whole window of steps, and where no line has it."""
        return median(self.learned, name) if self.has_learned() else None

    def span(self) -> str:
        """The window's length in words."""
        return f"{self.patience:,} steps"


def median(lines: Iterable[dict[str, Any]], name: str) -> float | None:
    """Median of a field over the lines that have it; None when none has."""
    values = [line[name] for line in lines if line.get(name) is not None]
    return statistics.median(values) if values else None


def stuck(course: Course) -> Said | None:
    """The loss stays at that of guessing."""
    frac = course.usual("loss_frac")
    if frac is None or not AT_CHANCE[0] < frac <= AT_CHANCE[1] or _falls(course):
        return None
    rank, chance = median(course.learned, "image_rank"), median(course.learned, "chance_loss") or 0.0
    is_log = abs(chance - math.log(course.shape.batch_size)) < 0.01 * chance
    dead = _without_gradient(course)
    if dead:
        hint = f"the {dead} tower gets no gradient, look at what is frozen"
    elif rank is not None and rank < MIN_RANK and course.shape.batch_size >= MIN_BATCH:
        hint = "all images have nearly equal features: lower optim.peak_lr or lengthen the warm-up"
    else:
        hint = (
            "look whether each caption belongs to its image (`eyesmith data check`, or a few pairs by eye); then try "
            "another optim.peak_lr, three times lower and three times higher"
        )
    level = f"log(batch) = {chance:.2f}" if is_log else f"{chance:.2f}"
    return f"the loss has stayed at {level}, that of guessing, for {course.span()}", hint


def _falls(course: Course) -> bool:
    """Whether the second half of the window has a lower loss than the first, by a hundredth of that of guessing."""
    lines = list(course.learned)
    before, after = (median(half, "loss_frac") for half in (lines[: len(lines) // 2], lines[len(lines) // 2 :]))
    return before is not None and after is not None and after < before - 0.01


def above_chance(course: Course) -> Said | None:
    """The loss stays above that of guessing: the model is sure, and wrong."""
    frac = course.usual("loss_frac")
    if frac is None or frac <= AT_CHANCE[1] or _falls(course):
        return None
    return (
        f"the loss has been {frac:.2f} times that of guessing for {course.span()}",
        "steps are too long: lower optim.peak_lr (ten times, to begin with), or set optim.clip_norm=1",
    )


def diverging(course: Course) -> Said | None:
    """The loss has risen for good."""
    loss = course.usual("loss")
    low, at = course.lowest
    if loss is None:
        return None
    # a cosine's loss is negative and has no level of guessing; it lies between -1 and 1
    level = course.learned[-1]["chance_loss"] if low >= 0 else 1.0
    if loss < low + max(0.3 * abs(low), 0.25 * level):
        return None
    return (
        f"the loss has risen from {low:.2f} (around step {at:,}) to {loss:.2f}",
        "lower optim.peak_lr, or set optim.clip_norm=1, and go on from a state before it rose",
    )


def spikes(course: Course) -> Said | None:
    """Single gradients far above the others."""
    usual = course.usual("grad_norm")
    high = [line["grad_norm"] for line in course.learned if usual and (line.get("grad_norm") or 0) > 10 * usual]
    if len(high) < FEW_CHECKS:
        return None
    return (
        f"the gradient's norm jumped to {max(high) / (usual or 1):.0f} times its median, in {len(high)} of the logged "
        f"steps of {course.span()}",
        "set optim.clip_norm=1, or lower the second of optim.betas to 0.95",
    )


def collapse(course: Course) -> Said | None:
    """Image features spread over few directions, or far fewer than before, and pairs are hardly told apart."""
    rank = course.usual("image_rank")
    frac = median(course.learned, "loss_frac") or 0.0
    if rank is None or course.shape.batch_size < MIN_BATCH or frac < 0.9:
        return None
    hint = "lower optim.peak_lr or lengthen the warm-up; make sure that the images of a batch differ"
    if rank < MIN_RANK:
        return f"image features lie in {rank:.1f} directions: images have nearly equal features", hint
    if rank < course.widest / 4:
        return f"the effective rank of image features has fallen from {course.widest:.0f} to {rank:.0f}", hint
    return None


def scale_bound(course: Course) -> Said | None:
    """The temperature is at its bound early in the run."""
    lines = course.learned
    if not course.has_learned() or lines[-1]["step"] > course.shape.steps / 2:
        return None
    if any(line.get("scale", 0.0) < 0.995 * MAX_SCALE for line in lines):
        return None
    return (
        f"the temperature has been at its bound (scale {MAX_SCALE:.0f}) for {course.span()}, early in the run",
        "the pairs of a batch are told apart without effort: a larger batch, stronger augmentation, or fewer epochs; "
        "or equal images stand in training data under several captions (`eyesmith data check`)",
    )


def scale_low(course: Course) -> Said | None:
    """The temperature has drifted towards flat scores."""
    scale = course.usual("scale")
    if scale is None or scale > 0.5 * course.shape.init_scale:
        return None
    return (
        f"the temperature's scale has drifted from {course.shape.init_scale:.1f} to {scale:.1f}: scores grow flatter",
        "so it goes when captions contradict each other or do not belong to their images; look at some pairs",
    )


def no_gradient(course: Course) -> Said | None:
    """A tower that should train does not."""
    name = _without_gradient(course)
    if name is None:
        return None
    trained = course.shape.trained.get(name, 0)
    what = "none of its parameters trains" if not trained else f"though {trained:,} of its parameters should train"
    return (
        f"the {name} tower gets no gradient: {what}",
        "look at optim.freeze and model.lock_text; if it is meant, health.ignore=no_gradient says so",
    )


def _without_gradient(course: Course) -> str | None:
    """A tower, not meant to be locked, that had no gradient in any of the last three logged steps."""
    recent = list(course.window)[-FEW_CHECKS:]
    if len(recent) < FEW_CHECKS:
        return None
    for name in course.shape.trained:
        other = "text" if name == "image" else "image"
        has_none = all(not line.get(f"{name}_grad_norm") and f"{other}_grad_norm" in line for line in recent)
        if name not in course.shape.locked and has_none:
            return name
    return None


def weak_gradient(course: Course) -> Said | None:
    """One tower's gradient is nothing beside the other's."""
    image, text = course.usual("image_grad_norm"), course.usual("text_grad_norm")
    if not image or not text or max(image, text) < 1e4 * min(image, text):
        return None
    weak = "image" if image < text else "text"
    return (
        f"the {weak} tower's gradient is {max(image, text) / min(image, text):,.0f} times smaller than the other's",
        f"raise optim.{weak}_lr_scale, or look for what cuts its gradient off",
    )


def waiting(course: Course) -> Said | None:
    """Steps wait for data."""
    recent = list(course.window)[-max(PACE_LINES, len(course.window) // 2) :]
    frac = median(recent, "wait_frac") if len(recent) >= PACE_LINES else None
    if frac is None or frac <= course.max_wait_frac:
        return None
    return (
        f"{frac:.0%} of the time in steps goes by waiting for data",
        "`eyesmith data probe` says which part is slow; raise data.num_workers, or make shards of smaller images",
    )


def slower(course: Course) -> Said | None:
    """The run has lost half its pace."""
    recent = course.window
    has_two = course.has_learned() and len(course.first_rates) == FIRST_LINES and len(recent) > PACE_LINES
    rate = median(recent, "images_per_s") if has_two else None
    first = statistics.median(course.first_rates) if course.first_rates else 0.0
    if rate is None or rate > 0.5 * first:
        return None
    wait = median(recent, "wait_frac") or 0.0
    return (
        f"the run makes {rate:,.0f} images a second, at first it made {first:,.0f}",
        f"waiting for data takes {wait:.0%} of the time; else look for another program, heat, or swapping",
    )


def memory(course: Course) -> Said | None:
    """Memory grows with the steps."""
    values = [line["peak_mib"] for line in course.learned if line.get("peak_mib") is not None]
    if not course.has_learned() or len(values) < 3 or values[-1] < 1.25 * values[0]:
        return None
    rises = sum(after > before for before, after in pairwise(values))
    if rises < len(values) / 2:
        return None
    return (
        f"memory has grown from {values[0]:,.0f} to {values[-1]:,.0f} MiB in {course.span()}",
        "something is kept from step to step; of your own code, look at hooks and evaluators that hold tensors",
    )


def low_use(course: Course) -> Said | None:
    """A GPU computes a small part of what it could, and not for want of data."""
    mfu = course.usual("mfu") if course.shape.device == "cuda" else None
    if mfu is None or mfu > 0.05 or waiting(course):
        return None
    return (
        f"the GPU does {mfu:.1%} of the model operations that it could do",
        "a larger batch_size (with accumulate=1), precision=bf16 and parallel.compile_blocks=true use it better",
    )


def check_cost(course: Course) -> Said | None:
    """Checks while training take a large part of the time."""
    spent = course.check_s / max(course.train_s + course.check_s, 1e-9)
    if len(next(iter(course.checks.values()), [])) < FEW_CHECKS or spent < 0.25 or course.check_s < FEW_SECONDS:
        return None
    return (
        f"checks while training take {spent:.0%} of the time",
        "measure less often (eval.every_epochs or eval.every_steps) or on fewer splits",
    )


def overfit(course: Course) -> Said | None:
    """A check has fallen well below its best, several times in a row."""
    for name, values in course.checks.items():
        at, best = max(values, key=lambda pair: pair[1])
        recent = [value for step, value in values if step > at]
        if len(recent) >= FEW_CHECKS and max(recent[-FEW_CHECKS:]) < 0.9 * best:
            return (
                f"{name} was {best:.1%} at step {at:,} and has been below {max(recent[-FEW_CHECKS:]):.1%} since",
                "the model forgets or learns the training pairs by heart: fewer epochs, a lower rate, more "
                "augmentation; best/ holds the weights of the best check where eval.keep_best names it",
            )
    return None


RULES: dict[str, Callable[[Course], Said | None]] = {
    rule.__name__: rule
    for rule in (
        no_gradient,
        stuck,
        above_chance,
        diverging,
        spikes,
        collapse,
        scale_bound,
        scale_low,
        weak_gradient,
        waiting,
        slower,
        memory,
        low_use,
        check_cost,
        overfit,
    )
}
