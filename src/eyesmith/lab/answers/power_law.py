"""Error against training samples as a power law, with or without a floor, for a whole block of draws at once."""

from dataclasses import dataclass

import numpy as np

from eyesmith.lab.answers.spread import Floats, Spread

FLOOR_BUDGETS = 4  # with fewer, three unknowns fit anything
NUM_FLOORS = 200


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """error = floor + scale * samples ** -exponent. residual: root mean square of log error about it.

    floor: None where it was not fitted.
    """

    exponent: Spread
    scale: float
    floor: Spread | None
    residual: float
    laws: Floats
    """[1 + R, 3] exponent, log of the scale and floor, of the errors and of each draw."""

    def error(self, samples: Floats) -> Floats:
        """The fitted error at numbers of samples."""
        floor = 0.0 if self.floor is None else self.floor.value
        return floor + self.scale * samples**-self.exponent.value

    def foretell(self, samples: float) -> Spread:
        """The error at a number of samples, with what the draws make of it."""
        exponents, logs, floors = self.laws.T
        return _spread(floors + np.exp(logs - exponents * np.log(samples)))


def fit_power_law(samples: Floats, errors: Floats, draws: Floats) -> PowerLaw:
    """Least squares in log error. samples, errors: [P]; draws: [R, P] random draws of the errors, all above 0.

    With `FLOOR_BUDGETS` different numbers of samples or more a floor below the least error is fitted too: for each of
    `NUM_FLOORS` candidates a line through log(error - floor), weighted so that its residuals are those of log error to
    first order, then the candidate with the least squares. Needs two different numbers of samples.
    """
    with_floor = len(np.unique(samples)) >= FLOOR_BUDGETS
    block = np.concatenate([errors[None], draws])
    logs = np.log(samples)
    slope, intercept, floor, squares = _line(logs, block, np.zeros(len(block)))
    if with_floor:
        for share in _candidates():
            tried = _line(logs, block, share * block.min(1))
            better = tried[3] < squares
            slope, intercept, floor, squares = (
                np.where(better, new, old) for new, old in zip(tried, (slope, intercept, floor, squares), strict=True)
            )
    return PowerLaw(
        exponent=_spread(-slope),
        scale=float(np.exp(intercept[0])),
        floor=_spread(floor) if with_floor else None,
        residual=float(np.sqrt(squares[0] / len(samples))),
        laws=np.stack([-slope, intercept, floor], axis=1),
    )


def _spread(values: Floats) -> Spread:
    """The first as the value, the others as its draws."""
    return Spread(value=float(values[0]), by_training=values[1:] - values[0], by_test=np.zeros(len(values) - 1))


def _candidates() -> Floats:
    """Shares of the least error, denser towards it: a floor just below it bends the line most."""
    return 1 - np.geomspace(1.0, 1e-3, NUM_FLOORS)


def _line(logs: Floats, errors: Floats, floor: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Slope, intercept, floor and sum of squares in log error, [R] each. errors: [R, P]; floor: [R]."""
    above = errors - floor[:, None]
    weights = (above / errors) ** 2
    ys = np.log(above)
    total = weights.sum(1)
    mean_x = (weights * logs).sum(1) / total
    mean_y = (weights * ys).sum(1) / total
    xs = logs - mean_x[:, None]
    slope = (weights * xs * (ys - mean_y[:, None])).sum(1) / (weights * xs**2).sum(1)
    intercept = mean_y - slope * mean_x
    fitted = floor[:, None] + np.exp(intercept[:, None] + slope[:, None] * logs)
    return slope, intercept, floor, ((np.log(errors) - np.log(fitted)) ** 2).sum(1)
