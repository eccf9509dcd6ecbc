"""Two models on a user's own images in one go: how often each is right, whether that is chance, and what each costs."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.engine import Settings, evaluate_own
from eyesmith.eval.heads.run import ProbePlan, run_probes
from eyesmith.eval.results.compare import ModelComparison, compare_folders
from eyesmith.eval.results.rows import ResultRow, read_rows
from eyesmith.hub.licence import licence_of
from eyesmith.hub.load import load
from eyesmith.models.classifier import Classifier
from eyesmith.models.clip import Clip, evaluating
from eyesmith.models.cost import encoder_cost
from eyesmith.models.encoder import Encoder
from eyesmith.models.families import EncoderConfig, origin_of
from eyesmith.models.live_memory import peak_bytes

MIB = 1024**2
ROUNDS = 9  # of each model, in turn


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a model is and costs on this machine.

    image_params, text_params: numbers in the towers; image_gmacs: 1e9 multiply-adds of one image, None where they are
    not known. weights_mib: of both towers. memory_mib: the most that tensors beside the weights take while a batch is
    encoded. images_per_s: the image tower alone, median of rounds in turn with the other model's, with their quartiles.
    licence: what the card of the weights states; None where it says nothing.
    """

    model: str
    origin: str
    image_size: tuple[int, int]
    image_params: int
    text_params: int | None
    image_gmacs: float | None
    weights_mib: float
    memory_mib: float
    images_per_s: float
    images_per_s_low: float
    images_per_s_high: float
    licence: str | None


@dataclass(frozen=True, kw_only=True)
class TwoModels:
    """a, b: their facts. rows: metrics of both, with intervals. difference: B minus A, paired, sample by sample."""

    a: ModelFacts
    b: ModelFacts
    rows: tuple[ResultRow, ...]
    difference: ModelComparison


def compare_models(
    a: str,
    b: str,
    data: str,
    *,
    train: str | None = None,
    batch_size: int = 8,
    device: torch.device | None = None,
    note: Callable[[str], None] = lambda message: None,
) -> TwoModels:
    """Measure two models on `data`: zero-shot by their own texts, or by a linear probe on `train`.

    a, b: as `eyesmith.load` takes them. data: labelled images, such as class folders. train: other labelled images of
    the same classes; needed where a model has no text tower. batch_size: of speed and memory. Raises ConfigError for a
    model without texts where there is no `train`, DataError for data on which a number would mean nothing.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: expected 1 or more, got {batch_size}")
    where = device or torch.device("cpu")
    models = [_opened(source, where) for source in (a, b)]
    for source, model in zip((a, b), models, strict=True):
        if train is None and not isinstance(model, Clip):
            raise ConfigError(
                f"{source}: has no text tower, so it cannot name classes by itself; give --train, labelled images of "
                "the same classes that a probe is fitted on"
            )
    rows: list[ResultRow] = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / side for side in ("a", "b")]
        for source, model, folder in zip((a, b), models, folders, strict=True):
            if train is None:
                assert isinstance(model, Clip)
                found = evaluate_own(model, data, folder, model_name=source, settings=Settings(note=note)).rows
                if not any(row.metric == "acc1" for row in found):
                    raise DataError(
                        f"{data}: has no classes, so no name is right or wrong; give labelled images (a folder a "
                        "class), or measure both by `eyesmith eval MODEL DATA --out FOLDER` and `eyesmith compare` them"
                    )
                rows += found
            else:
                run_probes(model, ProbePlan(train=train, test=data), model_name=source, out=folder, note=note)
                rows += read_rows(folder / "results.jsonl")
        difference = compare_folders(*folders, metric="acc1")
    encoders = [model.image if isinstance(model, Clip) else model for model in models]
    pixels = [torch.zeros(batch_size, 3, *one.image_size, dtype=torch.uint8, device=where) for one in encoders]
    speeds = _speeds(encoders, pixels)
    facts = [
        _facts(source, model, batch, speed)
        for source, model, batch, speed in zip((a, b), models, pixels, speeds, strict=True)
    ]
    return TwoModels(a=facts[0], b=facts[1], rows=tuple(rows), difference=difference)


def _opened(source: str, device: torch.device) -> Clip | Encoder:
    model = load(source)
    return (model.image if isinstance(model, Classifier) else model).to(device)


def _speeds(encoders: list[Encoder], pixels: list[torch.Tensor]) -> list[tuple[float, float, float]]:
    """Median and quartiles of images a second, of each; one warm-up each, then in turn."""
    seconds: list[list[float]] = [[] for _ in encoders]
    with torch.inference_mode():
        for turn in range(ROUNDS + 1):
            for place, (encoder, batch) in enumerate(zip(encoders, pixels, strict=True)):
                with evaluating(encoder):
                    begin = time.perf_counter()
                    encoder(batch)
                    if batch.is_cuda:
                        torch.cuda.synchronize()
                    if turn:
                        seconds[place].append(time.perf_counter() - begin)
    found = []
    for one, batch in zip(seconds, pixels, strict=True):
        low, middle, high = statistics.quantiles([len(batch) / each for each in one], n=4)
        found.append((middle, low, high))
    return found


def _facts(source: str, model: Clip | Encoder, batch: torch.Tensor, speed: tuple[float, float, float]) -> ModelFacts:
    image = model.image if isinstance(model, Clip) else model
    config = getattr(image, "config", None)
    is_known = isinstance(config, EncoderConfig)
    tensors = [*model.parameters(), *model.buffers()]
    with evaluating(image):
        peak = peak_bytes(lambda: image(batch))
    return ModelFacts(
        model=source,
        origin=origin_of(config) if is_known else "native",
        image_size=image.image_size,
        image_params=sum(one.numel() for one in image.parameters()),
        text_params=sum(one.numel() for one in model.text.parameters()) if isinstance(model, Clip) else None,
        image_gmacs=encoder_cost(config).tower.macs / 1e9 if is_known else None,
        weights_mib=sum(one.nbytes for one in tensors) / MIB,
        memory_mib=peak / MIB,
        images_per_s=speed[0],
        images_per_s_low=speed[1],
        images_per_s_high=speed[2],
        licence=licence_of(source),
    )
