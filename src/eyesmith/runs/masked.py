"""A run that trains from masked images; it leaves an image encoder."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from eyesmith.data import open_source
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval import ResultRow, choose_splits
from eyesmith.files import atomic_path
from eyesmith.hub import load_encoder, save_model
from eyesmith.hub.run_folder import describe_encoder, is_run_folder, read_model_config
from eyesmith.hub.stored import read_stored
from eyesmith.images.transforms import PreprocessConfig, evaluation_pixels
from eyesmith.losses.patch_regression import masked_cosine, masked_l1
from eyesmith.models.classifier import ClassifierConfig
from eyesmith.models.clip import ClipConfig, evaluating
from eyesmith.models.eva02.masked import MaskedEva02
from eyesmith.models.registry import EncoderConfig
from eyesmith.runs.checks import CurveChecks, Evaluator
from eyesmith.runs.initial import load_image
from eyesmith.runs.kind import Kind, Note, Place
from eyesmith.train.batches import Batches, BatchReader
from eyesmith.train.config import RunConfig
from eyesmith.train.masked import Masked, PixelTargets, Targets
from eyesmith.train.masked_config import MaskedConfig
from eyesmith.train.masks import alternating_mask
from eyesmith.train.precision import choose_precision
from eyesmith.train.targets import TeacherTargets, keep_targets

HEAD_FILE = "masked.safetensors"  # the mask token and the head: what the run trained beside the encoder
TASK = "masked"
_BATCH = 64


def teacher_config(config: RunConfig) -> EncoderConfig | None:
    """The image tower of a masked-image run's teacher where it lies on this machine; None elsewhere, and for others.

    Of a run folder config.json alone is read, of a weight file its tensors. Raises as `eyesmith.load` does.
    """
    if not isinstance(config, MaskedConfig) or not config.target.teacher or not Path(config.target.teacher).exists():
        return None
    folder = Path(config.target.teacher)
    found = read_model_config(folder) if is_run_folder(folder) else read_stored(folder).config
    return found.image if isinstance(found, ClipConfig | ClassifierConfig) else found


class MaskedRun(Kind[Masked]):
    """A TrV that tells hidden patches from the others, measured by how near it comes on images it has not seen."""

    def __init__(self, config: MaskedConfig, batches: BatchReader, place: Place) -> None:
        self._config, self._place = config, place
        self._check(config)
        device = place.world.device()
        self._targets, dim = self._plain_targets()
        torch.manual_seed(config.seed)  # loading a teacher may draw
        student = MaskedEva02(config.model, dim, patch_grad_scale=config.patch_grad_scale)
        if config.initial.weights:
            load_image(student.image, config.initial.weights, note=lambda text: place.console.print(text, markup=False))
        student.to(device)
        self.objective = Masked(student, config, self._kept(batches) or self._targets)

    @property
    def folder(self) -> Path:
        """The run's."""
        return self._place.folder

    @property
    def keep_best(self) -> str:
        """The value whose best weights are kept."""
        return self._config.eval.keep_best

    def description(self) -> dict[str, Any]:
        return describe_encoder(self._config.model)

    def measured(self, model: nn.Module, note: Note) -> list[ResultRow]:
        del note
        return [row for split in self._config.eval.splits for row in self._rows(cast(MaskedEva02, model), split)]

    def save(self, folder: Path, model: nn.Module, *, config: dict[str, Any]) -> None:
        student = cast(MaskedEva02, model)
        head = {name: value.contiguous() for name, value in student.state_dict().items() if name[:6] != "image."}
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / HEAD_FILE) as part:
            save_file(head, part, metadata={"format": "pt"})
        save_model(folder, student.image, config=config)

    def checks(
        self,
        *,
        steps_per_epoch: int,
        description: dict[str, Any],
        write: Callable[[dict[str, Any]], None],
        evaluators: Sequence[Evaluator],
    ) -> CurveChecks | None:
        if evaluators:
            raise ConfigError("evaluators: they measure image-text models, and a masked-image run has none")
        if not self._config.eval.curve_splits:
            return None
        every = self._config.eval.every_steps or max(1, round(self._config.eval.every_epochs * steps_per_epoch))
        return CurveChecks(self, every, description, write)

    def _rows(self, student: MaskedEva02, split: str) -> Iterator[ResultRow]:
        value, count = self.value_on(student, split)
        metric = "explained" if self._config.target.kind == "pixels" else "cosine"
        yield ResultRow(
            model=self._config.name,
            task=TASK,
            split=split,
            metric=metric,
            value=value,
            low=None,
            high=None,
            n=count,
            chance=None,
        )

    def measured_on_curve(self, model: MaskedEva02) -> dict[str, float]:
        """Value by SPLIT/METRIC on the splits that are measured while training."""
        splits = self._config.eval.curve_splits
        return {f"{row.split}/{row.metric}": row.value for split in splits for row in self._rows(model, split)}

    def value_on(self, student: MaskedEva02, split: str) -> tuple[float, int]:
        """How near predictions come on a split, every even patch hidden, and its number of images.

        The mean cosine with the teacher's tokens; for pixels the share of their absolute deviation from mean grey that
        is explained.
        """
        config, device = self._config, next(student.parameters()).device
        found = torch.zeros(2, dtype=torch.float64)
        count = 0
        targets = self._targets.to(device) if isinstance(self._targets, TeacherTargets) else self._targets
        with evaluating(student), torch.no_grad():
            for pixels in self._pixels(split):
                pixels, mask = pixels.to(device), alternating_mask(len(pixels), config.model.grid).to(device)
                predicted = student(pixels, mask)
                target = targets(pixels, None)[mask]
                if config.target.kind == "pixels":
                    losses = masked_l1(predicted, target)
                    found += torch.stack([losses.sum(), target.abs().mean(dim=-1).sum()]).double().cpu()
                else:
                    losses = masked_cosine(predicted, target)
                    found += torch.stack([losses.sum(), torch.tensor(float(len(losses)), device=device)]).double().cpu()
                count += len(pixels)
        if config.target.cache and isinstance(targets, TeacherTargets):
            targets.to(torch.device("cpu"))
        ratio = (found[0] / found[1]).item()
        return (1 - ratio if config.target.kind == "pixels" else -ratio), count

    def _pixels(self, split: str) -> Iterator[Tensor]:
        """The usable images of a split as evaluation sees them, in batches."""
        data = self._config.data
        source = open_source(
            data.path,
            split=split,
            image_column=data.image_column,
            text_column=data.text_column,
            require_text=False,
        )
        preprocess = PreprocessConfig(image_size=self._config.model.image_size)

        def read(index: int) -> Tensor | None:
            try:
                return evaluation_pixels(source.image_bytes(index), preprocess)
            except DataError:
                return None

        with ThreadPoolExecutor(data.num_workers) as pool:
            for start in range(0, len(source), _BATCH):
                places = range(start, min(start + _BATCH, len(source)))
                good = [one for one in pool.map(read, places) if one is not None]
                if good:
                    yield torch.stack(good)

    def _check(self, config: MaskedConfig) -> None:
        if config.target.kind == "teacher" and not config.target.teacher:
            raise ConfigError(
                "target.teacher: expected a model to learn from: a run folder, a weight file or hf:owner/name; "
                "or set target.kind=pixels"
            )
        if config.eval.curve_data:
            raise ConfigError("eval.curve_data: a masked-image run is measured on splits of its own data; leave it out")
        if wanted := (*config.eval.splits, *config.eval.curve_splits):
            choose_splits(config.data.path, wanted)

    def _plain_targets(self) -> tuple[Targets, int]:
        config = self._config
        if config.target.kind == "pixels":
            targets: Targets = PixelTargets(config.model.patch_px)
        else:
            with self._place.world.first_on_each_machine():  # one fetches from the hub, the others find it
                teacher = load_encoder(config.target.teacher)
            targets = TeacherTargets(teacher, config.target, grid=config.model.grid).to(self._place.world.device())
        return targets, targets.dim

    def _kept(self, batches: BatchReader) -> Targets | None:
        config = self._config
        if not config.target.cache:
            return None
        assert isinstance(self._targets, TeacherTargets)
        assert isinstance(batches, Batches)
        device = self._place.world.device()
        views = f"{batches.fingerprint()} {config.data.decode_px} {config.model.image_size}"
        with self._place.world.first_on_each_machine():  # one computes, the others find the file
            kept = keep_targets(
                self._targets,
                lambda: batches.fixed_views(_BATCH),
                num_samples=len(batches.source),
                data_fingerprint=views,
                config=config.target,
                precision=choose_precision(config.precision, device),
                device=device,
            )
        self._targets.to(torch.device("cpu"))  # it comes back to measure
        return kept
