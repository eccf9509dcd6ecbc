"""Learning rate as a pure function of the step."""

import math


def warmup_cosine(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Rate of optimiser step `step` (0-based): linear to `peak` over the warm-up, then half a cosine to 0.

    Source: open_clip's cosine schedule, the reference of both papers: warm-up gives peak * (step + 1) / warmup_steps.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
