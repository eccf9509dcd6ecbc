"""How far a model's probabilities can be trusted on a set: beside its metrics, at its own temperature."""

import torch
from torch import Tensor

from eyesmith.errors import DataError
from eyesmith.eval.statistics.calibration import calibration, fit_temperature
from eyesmith.eval.statistics.metrics import similarity

TEMPERATURE = "temperature"
LOWER_IS_BETTER = frozenset({"ece", "ece_fitted"})
_MOST_SCORES = 5_000_000  # of images times classes that are looked at
_FEWEST = 50  # images, below which 15 bins say nothing


def calibration_values(
    features: Tensor, weights: Tensor, targets: Tensor, *, scale: float, device: torch.device | None = None
) -> dict[str, tuple[float, int]]:
    """Values and image counts by name; {} for fewer than 50 images. scale: 1/temperature of the model.

    features: [N, D], weights: [K, D] unit rows; targets: [N]; device: see `similarity`. `ece`:
    expected calibration error in 15 equal-width bins.
    temperature: what to divide the model's logits by, fitted to every second image; `ece_fitted`: the error that is
    left then, on the others. Of a large set evenly spaced images count. No fitted values where none is best.
    """
    most = max(_FEWEST, _MOST_SCORES // len(weights))
    step = -(-len(targets) // most)
    features, targets = features[::step], targets[::step]
    if len(targets) < _FEWEST:
        return {}
    logits = scale * similarity(features, weights, device=device)  # [N, K]
    found = {"ece": (calibration(logits, targets).error, len(targets))}
    fitted, rest = slice(0, None, 2), slice(1, None, 2)
    try:
        temperature = fit_temperature(logits[fitted], targets[fitted])
    except DataError:
        return found
    left = calibration(logits[rest], targets[rest], temperature=temperature).error
    return found | {TEMPERATURE: (temperature, len(targets[fitted])), "ece_fitted": (left, len(targets[rest]))}
