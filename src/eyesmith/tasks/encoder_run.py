"""What runs share that train an encoder with heads beside it, and leave the encoder; no task by itself."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from eyesmith.data.indexed import IndexedRows
from eyesmith.data.loader import Rows
from eyesmith.data.sample import Source
from eyesmith.eval.features.batches import pixel_batches
from eyesmith.eval.features.identity import content_hash, decoders, facts_hash, model_facts
from eyesmith.eval.features.images import answers, own_rows
from eyesmith.files import atomic_path
from eyesmith.hub import save_model
from eyesmith.hub.run_folder import describe_encoder
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.clip import evaluating
from eyesmith.models.identity import tensors_hash
from eyesmith.tasks.task import EncoderRunConfig, MeanTask, RunContext
from eyesmith.train.data import open_training_source
from eyesmith.train.distributed import World
from eyesmith.train.kept import KeptFeatures, keep_features
from eyesmith.train.objective import Model
from eyesmith.train.precision import choose_precision

BATCH = 64  # pictures that are asked about at a time


class EncoderRun(MeanTask[Model]):
    """An encoder `image` in training; all that the model has beside it is kept in a file of the run folder."""

    heads_file: ClassVar[str]

    def description(self) -> dict[str, Any]:
        return describe_encoder(self.config.model)

    def save(self, folder: Path, model: nn.Module, *, config: dict[str, Any]) -> None:
        save_beside(folder / self.heads_file, _heads(model))
        save_model(folder, model.image, config=config)  # pyright: ignore[reportArgumentType]

    def source_of(self, split: str) -> Source:
        """Another split of the run's data."""
        return open_training_source(replace(self.config.data, split=split), require_text=False)

    def run_facts(self, model: nn.Module) -> dict[str, Any]:
        """What a number depends on: the encoder that the run leaves, and its heads."""
        facts = model_facts(model.image, PreprocessConfig(image_size=self.config.image_size))  # pyright: ignore
        return facts | {"head": tensors_hash(_heads(model))[:24]}

    def of_pictures(self, model: nn.Module, source: Source, ask: Callable[[Tensor], Tensor], world: World) -> Tensor:
        """What `ask` gives for the pixels of every picture that can be read, a row each, with `model` in evaluation.

        Every process of `world` calls this, and shares the pictures.
        """
        device, preprocess = next(model.parameters()).device, PreprocessConfig(image_size=self.config.image_size)
        own, workers = own_rows(len(source), BATCH, world), self.config.data.num_workers
        batches = pixel_batches(source, preprocess, own, batch_size=BATCH, num_workers=workers)
        with evaluating(model), torch.no_grad():
            return answers(source, batches, lambda one: ask(one.to(device)), world=world, max_broken_frac=1.0).rows


def keep_said(
    ask: Callable[[Tensor], Tensor],
    rows: Rows,
    config: EncoderRunConfig,
    context: RunContext,
    *,
    facts: Callable[[str], list[object]],
    field: str,
) -> KeptFeatures:
    """What a frozen model says of all pictures, asked now or found on disk; see `keep_features`.

    facts: what it depends on, given a digest of the pictures as they are shown.
    """
    assert isinstance(rows, IndexedRows), "the config has no streams beside kept targets"
    device = context.world.device()
    shown = [rows.decoding, decoders(), config.data.decode_px, config.image_size]
    views = facts_hash([content_hash(rows.source), *shown])
    with context.world.first_on_each_machine():  # one computes, the others find the file
        return keep_features(
            ask,
            lambda: rows.fixed_views(BATCH),
            num_samples=len(rows.source),
            facts=facts(views),
            field=field,
            precision=choose_precision(config.precision, device),
            device=device,
        )


def save_beside(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write what a run trained beside the model that it leaves."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as part:
        save_file({name: value.contiguous() for name, value in tensors.items()}, part, metadata={"format": "pt"})


def _heads(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith("image.")}
