"""How a run's weights are updated: an optimiser, what it changes by how much, and a rate that follows the step."""

import math
from dataclasses import dataclass
from typing import Literal

from eyesmith.config import check_choices
from eyesmith.errors import ConfigError

OptimizerName = Literal["adamw", "lamb", "sgd", "lion", "muon"]
LayerRule = Literal["eva", "timm", "open_clip"]  # whose count of layers, and whose exceptions from decay


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """An optimiser, and a rate that is a function of the step."""

    name: OptimizerName = "adamw"
    """lamb: AdamW's step scaled for each tensor by its length over the step's, between 0.01 and 10; sgd: Nesterov's
    momentum, the first of betas; lion: steps by the sign of a mean of gradients, at three to ten times lower rates;
    muon: orthogonal steps for the towers' matrices and kernels, where no tower trains for those of what does, as a
    detector's head; AdamW's for the rest, by AdamW's rate and decay."""
    peak_lr: float = 1e-3
    """Of the temperature, and of both towers unless their own factor says otherwise."""
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    muon_momentum: float = 0.95
    """Of muon's matrices; betas are for the rest."""
    weight_decay: float = 0.2
    """Of matrices and tables; biases, norms and the temperature are never decayed."""
    no_decay: tuple[str, ...] = ()
    """Patterns of further parameter names that are not decayed, as `image.position`; one that fits none is an error."""
    schedule: Literal["cosine", "constant", "constant_cooldown", "steps"] = "cosine"
    """After the warm-up: half a cosine to zero; the peak to the end; the peak, then down to zero over cooldown_frac;
    the peak, divided by ten at each of step_fracs."""
    warmup_frac: float = 0.05
    """Share of all steps in which the rate rises linearly."""
    warmup_steps: int = 0
    """The same as a number of steps; 0 leaves it to warmup_frac."""
    warmup_start: Literal["first", "zero"] = "first"
    """Where it begins: `first`, the first of n steps has 1/n of the peak (open_clip); `zero`, it has 0, and the n-th
    the peak (BEiT, EVA-02)."""
    min_lr: float = 0.0
    """Where the cosine ends."""
    cooldown_frac: float = 0.2
    """Share of all steps, at the end, in which constant_cooldown falls."""
    cooldown_steps: int = 0
    """The same as a number of steps; 0 leaves it to cooldown_frac."""
    cooldown_shape: Literal["power", "sqrt"] = "power"
    """How it falls after a share t of the cool-down: power, (1 - t) ** cooldown_power; sqrt, 1 - t ** 0.5."""
    cooldown_power: float = 1.0
    """1 falls linearly."""
    step_fracs: tuple[float, ...] = ()
    """Shares of all steps after which the rate of `steps` is divided by ten, ascending."""
    image_lr_scale: float = 1.0
    """Factor on the rate of the image tower."""
    text_lr_scale: float = 1.0
    """Factor on the rate of the text tower."""
    layer_decay: float = 1.0
    """Factor on the image tower's rate for each block further from the end; 1 has the same rate everywhere."""
    text_layer_decay: float = 1.0
    """The same for the text tower."""
    layer_decay_by: LayerRule = "eva"
    """What counts as a block: `eva`, the papers', every residual unit; `timm` and `open_clip`, the transformer's alone,
    a convolutional stem and its stages being one; these leave position tables (timm) and class tokens undecayed."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameter names that do not train, as `image.stem.*` or `text.*`; one that fits none is an error."""
    clip_norm: float = 0.0
    """Gradient norm above which gradients are scaled down; 0 never does."""
    clip_by: Literal["all", "part"] = "all"
    """Whether that is the norm of all gradients, or of each part by itself: image, text, and the rest."""
    ema_decay: float = 0.0
    """Decay a step of the average of the weights that the run ends with; 0 ends with the weights themselves."""
    ema_warmup: bool = True
    """Let the average move faster at first, so that a short run's start is forgotten; False: one decay throughout."""

    def __post_init__(self) -> None:
        check_choices(self, "optim.")
        if self.peak_lr <= 0 or self.eps <= 0 or self.weight_decay < 0 or self.clip_norm < 0:
            raise ConfigError(
                f"optim: peak_lr and eps must be positive, weight_decay and clip_norm not negative: {self}"
            )
        if not all(0 <= beta < 1 for beta in (*self.betas, self.muon_momentum, self.ema_decay)):
            raise ConfigError(
                "optim: betas, muon_momentum and ema_decay must lie in 0..1, "
                f"got {self.betas}, {self.muon_momentum} and {self.ema_decay}"
            )
        if self.name == "sgd" and not self.betas[0]:
            raise ConfigError(f"optim.betas: sgd's momentum is the first of them, expected above 0, got {self.betas}")
        if not 0 <= self.min_lr <= self.peak_lr:
            raise ConfigError(f"optim.min_lr: expected 0 to peak_lr {self.peak_lr}, got {self.min_lr}")
        if not 0 <= self.warmup_frac < 1 or self.warmup_steps < 0:
            raise ConfigError(
                "optim: expected warmup_frac in 0..1 and warmup_steps of 0 or more, "
                f"got {self.warmup_frac} and {self.warmup_steps}"
            )
        if not 0 < self.cooldown_frac <= 1 or self.cooldown_power <= 0 or self.cooldown_steps < 0:
            raise ConfigError(
                "optim: expected cooldown_frac in 0..1, a positive cooldown_power and cooldown_steps of 0 or more, "
                f"got {self.cooldown_frac}, {self.cooldown_power} and {self.cooldown_steps}"
            )
        if (self.schedule == "steps") != bool(self.step_fracs):
            raise ConfigError(f"optim.step_fracs: goes with schedule=steps, got {self.step_fracs} and {self.schedule}")
        if list(self.step_fracs) != sorted(self.step_fracs) or not all(0 < frac < 1 for frac in self.step_fracs):
            raise ConfigError(f"optim.step_fracs: expected ascending shares in 0..1, got {self.step_fracs}")
        if min(self.image_lr_scale, self.text_lr_scale) < 0:
            raise ConfigError(
                "optim: image_lr_scale and text_lr_scale must not be negative, "
                f"got {self.image_lr_scale} and {self.text_lr_scale}"
            )
        if not all(0 < decay <= 1 for decay in (self.layer_decay, self.text_layer_decay)):
            raise ConfigError(
                "optim: layer_decay and text_layer_decay: expected above 0 and up to 1, "
                f"got {self.layer_decay} and {self.text_layer_decay}"
            )

    def lr_at(self, step: int, total_steps: int) -> float:
        """The rate before the towers' and layers' factors, at a 0-based step of a run of `total_steps`.

        Before a cool-down a constant rate does not depend on the length of the run, so that one warm-up and peak serve
        several lengths. Source: open_clip's cosine, const and const-cooldown schedules, the reference of both papers;
        the cool-down by a root: arXiv 2405.18392.
        """
        warmup_steps = self.num_warmup(total_steps)
        if step < warmup_steps:
            if self.warmup_start == "zero":
                return self.peak_lr * step / max(warmup_steps - 1, 1)
            return self.peak_lr * (step + 1) / warmup_steps
        if self.schedule == "cosine":
            done = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
            return self.min_lr + (self.peak_lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        if self.schedule == "steps":
            return self.peak_lr * 0.1 ** sum(step >= round(frac * total_steps) for frac in self.step_fracs)
        start = self.cooldown_start(total_steps)
        if step < start or start == total_steps:
            return self.peak_lr
        done = min(1.0, (step - start) / (total_steps - start))
        left = 1 - done**0.5 if self.cooldown_shape == "sqrt" else (1 - done) ** self.cooldown_power
        return self.peak_lr * left

    def num_warmup(self, total_steps: int) -> int:
        """Steps of a run in which the rate rises."""
        return self.warmup_steps or round(self.warmup_frac * total_steps)

    def cooldown_start(self, total_steps: int) -> int:
        """The step at which the cool-down begins; that after the last one where there is none."""
        if self.schedule != "constant_cooldown":
            return total_steps
        return max(0, total_steps - (self.cooldown_steps or round(self.cooldown_frac * total_steps)))
