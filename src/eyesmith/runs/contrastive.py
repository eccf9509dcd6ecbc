"""A run that trains with text."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from torch import nn

from eyesmith.config import to_dict
from eyesmith.eval import ResultRow, choose_splits
from eyesmith.hub import save_model
from eyesmith.hub.load import load_clip
from eyesmith.models.clip import Clip
from eyesmith.runs.checks import Checks, Evaluator
from eyesmith.runs.initial import load_initial, measured, measures_before
from eyesmith.runs.kind import Kind, Note, Place
from eyesmith.train.batches import BatchReader
from eyesmith.train.config import TrainConfig
from eyesmith.train.contrastive import Contrastive, Teacher
from eyesmith.train.text_bank import PassingTexts, TextBank, Texts


class ContrastiveRun(Kind[Contrastive]):
    """Two towers, measured by zero-shot classification and retrieval."""

    def __init__(self, config: TrainConfig, batches: BatchReader, place: Place) -> None:
        self._config, self._place = config, place
        clip = config.model.build()
        load_initial(clip, config.initial, note=lambda text: place.console.print(text, markup=False))
        clip.to(place.world.device())
        if wanted := (*config.eval.splits, *config.eval.curve_splits):
            choose_splits(config.data.path, wanted)  # a wrong name is better known before the training than after
        with place.world.first_on_each_machine():  # the others find the features on disk
            bank = self._encoded_texts(clip, batches) if config.model.lock_text else None
        self.objective = Contrastive(clip, config, bank=bank, teacher=self._teacher())

    def description(self) -> dict[str, Any]:
        return to_dict(self._config)["model"]

    def measured(self, model: nn.Module, note: Note) -> list[ResultRow]:
        return measured(cast(Clip, model), self._config, note=note)

    def measured_before(self, model: nn.Module, note: Note) -> list[ResultRow]:
        if not measures_before(self._config):
            return []
        return measured(cast(Clip, model), self._config, before=True, note=note)

    def save(self, folder: Path, model: nn.Module, *, config: dict[str, Any]) -> None:
        save_model(folder, cast(Clip, model), config=config, logit_bias=self.objective.extra().get("logit_bias"))

    def checks(
        self,
        *,
        steps_per_epoch: int,
        description: dict[str, Any],
        write: Callable[[dict[str, Any]], None],
        evaluators: Sequence[Evaluator],
    ) -> Checks | None:
        checks = Checks(
            self._config,
            self._place.folder,
            steps_per_epoch=steps_per_epoch,
            description=description,
            write=write,
            evaluators=evaluators,
            world=self._place.world,
        )
        return checks if checks else None

    def facts(self) -> dict[str, Any]:
        bank = self.objective.bank
        return {"texts_encoded": bank.num_encoded if bank else None}

    def _teacher(self) -> Teacher | None:
        """The model to distil from, on this process's device; None where the run has none."""
        source = self._config.loss.distill.teacher
        if not source:
            return None
        with self._place.world.first_on_each_machine():  # one fetches from the hub, the others find it
            clip = load_clip(source)
        return Teacher(clip.to(self._place.world.device()), image_size=self._config.model.image.image_size)

    def _encoded_texts(self, clip: Clip, batches: BatchReader) -> Texts:
        if self._config.data.epoch_samples:  # too many to count, so too many to keep
            return PassingTexts(clip, self._config.precision)
        return TextBank(clip, batches.captions())
