"""What a budget buys: images seen, for a number of images, of operations, or of seconds on this machine."""

import json
import statistics
from dataclasses import replace
from pathlib import Path

import torch

from eyesmith.config import to_dict
from eyesmith.errors import ConfigError
from eyesmith.files import load_json, write_json
from eyesmith.lab.cells import SamplesOf, samples_as_stated
from eyesmith.lab.plan import LabPlan
from eyesmith.models.cost import encoder_cost, text_cost
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.runs.equal_time import Trial
from eyesmith.tasks import run_to_dict
from eyesmith.tasks.contrastive import TrainConfig

RATES_FILE = "rates.json"  # seconds a step, measured once, so that a plan that goes on buys the same
WARM_UP_STEPS, TIMED_STEPS = 2, 5
PASSES = 3  # of a tower that is trained: one forward, two for the gradients of inputs and weights


def samples_of(plan: LabPlan, folder: Path, *, threads: int) -> SamplesOf:
    """The rule of the plan's unit. folder: of the plan, where measured rates are kept; threads: of a cell."""
    if plan.budget_unit == "tflop":
        return lambda config, budget: max(round(budget * 1e12 / train_flops(config)), 1)
    if plan.budget_unit == "seconds":
        rates = _Rates(folder / RATES_FILE, threads)
        return lambda config, budget: max(round(budget / rates.step_s(config) * config.batch_size), 1)
    return samples_as_stated


def train_flops(config: TrainConfig) -> float:
    """Operations of training on one pair, a multiply-add as 2; a text tower that is locked costs nothing a step.

    Raises ConfigError for what is not counted: a decoder beside the towers, another package's text tower that trains.
    """
    macs = encoder_cost(config.model.image).tower.macs
    is_counted = config.model.lock_text or isinstance(config.model.text, ClipTextConfig)
    if type(config) is not TrainConfig or not is_counted:
        what = type(config.model.text).__name__ if not is_counted else type(config).__name__
        raise ConfigError(f"budget_unit: the operations of a step of {what} are not counted; take samples or seconds")
    if not config.model.lock_text and isinstance(config.model.text, ClipTextConfig):
        macs += text_cost(config.model.text).macs
    return 2.0 * PASSES * macs


class _Rates:
    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self._known: dict[str, float] = load_json(path.read_text()) if path.is_file() else {}

    def step_s(self, config: TrainConfig) -> float:
        """Median seconds of batch_size images with the cell's threads, from the file where it was measured before.

        A file of a version before says the model alone: what it knows stays, so that a plan that goes on buys the same.
        """
        data = replace(config.data, path="", split=None)  # sets that are compared must not differ by a measurement
        asked = run_to_dict(replace(config, data=data, seed=0, epochs=1.0))
        key = json.dumps([asked, self._threads], sort_keys=True)
        of_before = json.dumps(to_dict(config.model), sort_keys=True)
        if key not in self._known and of_before in self._known:
            return self._known[of_before]
        if key not in self._known:
            before = torch.get_num_threads()
            torch.set_num_threads(self._threads)
            try:
                trial = Trial(config, steps=WARM_UP_STEPS + TIMED_STEPS)
                times = [trial.step_s() for _ in range(WARM_UP_STEPS + TIMED_STEPS)][WARM_UP_STEPS:]
            finally:
                torch.set_num_threads(before)
            # steps of buckets have fewer samples than a batch, and budgets are of images
            self._known[key] = statistics.median(times) * config.batch_size / trial.samples_per_step
            write_json(self._path, self._known)
        return self._known[key]
