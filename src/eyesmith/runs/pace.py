"""How many epochs of a config fit into a time on this machine, by trying some steps."""

import time
from dataclasses import replace

from eyesmith.runs.machine import choose_device
from eyesmith.runs.train import open_training_source
from eyesmith.train import Batches, StepFacts, TextBank, TrainConfig, TrainState, new_state, train

WARM_UP_STEPS = 5
TIMED_STEPS = 20


def epochs_within(config: TrainConfig, seconds: float) -> float:
    """Epochs that take about `seconds` of training steps: whole steps, at least one epoch."""
    clip = config.model.build().to(choose_device())
    batches = Batches(open_training_source(config.data), config, image_size=config.model.image.image_size)
    # a run of its own that is long enough to be timed; its schedule does not matter
    trial = replace(config, epochs=max(config.epochs, (WARM_UP_STEPS + TIMED_STEPS) / batches.plan.steps_per_epoch))
    bank = TextBank(clip, batches.captions()) if config.model.lock_text else None
    ends: list[float] = []

    def note(state: TrainState, facts: StepFacts) -> None:
        ends.append(time.perf_counter())

    train(
        new_state(clip, trial),
        clip,
        batches,
        trial,
        bank=bank,
        hooks=[note],
        should_stop=lambda: len(ends) == WARM_UP_STEPS + TIMED_STEPS,
    )
    timed = ends[WARM_UP_STEPS - 1 :]
    step_s = (timed[-1] - timed[0]) / (len(timed) - 1)
    return round(max(seconds / step_s / batches.plan.steps_per_epoch, 1.0), 2)
