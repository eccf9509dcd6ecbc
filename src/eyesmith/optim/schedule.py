"""Learning rate as a pure function of the step."""

import math


def warmup_cosine(
    step: int, *, peak: float, warmup_steps: int, total_steps: int, floor: float = 0.0, from_zero: bool = False
) -> float:
    """Rate of optimiser step `step` (0-based): linear to `peak` over the warm-up, then half a cosine to `floor`.

    Source: open_clip's cosine schedule, the reference of both papers: warm-up gives peak * (step + 1) / warmup_steps.
    from_zero: BEiT's, as EVA-02 pre-trains: the first step has rate 0, the last of the warm-up `peak`.
    """
    if step < warmup_steps:
        return _warmup(step, peak, warmup_steps, from_zero=from_zero)
    done = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _warmup(step: int, peak: float, warmup_steps: int, *, from_zero: bool) -> float:
    if from_zero:
        return peak * step / max(warmup_steps - 1, 1)
    return peak * (step + 1) / warmup_steps


def warmup_constant(
    step: int,
    *,
    peak: float,
    warmup_steps: int,
    total_steps: int,
    cooldown_steps: int = 0,
    cooldown_power: float = 1.0,
    from_zero: bool = False,
) -> float:
    """Rate of optimiser step `step` (0-based): linear to `peak`, then `peak`, then down to 0 over the cool-down.

    In the last cooldown_steps the rate is peak * (1 - done)**cooldown_power, done = 0 at the first of them. Before
    the cool-down nothing depends on the length of the run, so that one warm-up and peak serve several lengths.
    Source: open_clip's const and const-cooldown schedules with a final rate of 0.
    """
    if step < warmup_steps:
        return _warmup(step, peak, warmup_steps, from_zero=from_zero)
    start = total_steps - cooldown_steps
    if step < start:
        return peak
    return peak * max(0.0, 1 - (step - start) / max(cooldown_steps, 1)) ** cooldown_power if cooldown_steps else peak
