"""How long another config may train to take the time of a first one, from their steps taken in turn."""

import statistics
import time
from dataclasses import replace

from eyesmith.data.loader import Loader
from eyesmith.runs.machine import choose_device, keep_freed_memory
from eyesmith.tasks.contrastive import Contrastive, TrainConfig, class_texts_of
from eyesmith.train.data import open_rows
from eyesmith.train.loop import new_state, train
from eyesmith.train.text_bank import TextBank

WARM_UP_STEPS = 3
TIMED_STEPS = 15


def epochs_at_equal_time(config: TrainConfig, reference: TrainConfig) -> float:
    """Epochs of `config` that take as long as the whole of `reference`, both alone on this machine; at least one.

    Both are stepped in turn and the median ratio of neighbours is taken: whatever else the machine does meanwhile slows
    both alike, where a time measured once and spent later would favour one of them.
    """
    keep_freed_memory()
    ours, theirs = Trial(config), Trial(reference)
    ratios = [theirs.step_s() / ours.step_s() for _ in range(WARM_UP_STEPS + TIMED_STEPS)][WARM_UP_STEPS:]
    steps = reference.epochs * theirs.steps_per_epoch * statistics.median(ratios)
    return round(max(steps / ours.steps_per_epoch, 1.0), 2)


class Trial:
    """A run of up to `steps` steps that is stepped and thrown away; its schedule does not matter."""

    def __init__(self, config: TrainConfig, *, steps: int = WARM_UP_STEPS + TIMED_STEPS) -> None:
        clip = config.model.build().to(choose_device())
        rows = open_rows(config)
        bank = TextBank(clip, rows.captions()) if config.model.lock_text else None
        self.steps_per_epoch = rows.steps_per_epoch
        self._config = replace(config, epochs=(steps + 1) / self.steps_per_epoch)
        texts = class_texts_of(config, bank, rows)
        self._objective = Contrastive(clip, self._config, bank=bank, class_texts=texts)
        self._batches = Loader(rows, prepare=self._objective.prepare, ahead=0)  # two trials take turns
        self._state = new_state(self._objective, self._config)

    def step_s(self) -> float:
        """Seconds of one more step."""
        start, until = time.perf_counter(), self._state.step + 1
        train(
            self._state,
            self._objective,
            self._batches,
            self._config,
            should_stop=lambda: self._state.step == until,
        )
        return time.perf_counter() - start
