from eyesmith.losses.config import DistillConfig, LossConfig
from eyesmith.losses.positives import Same, same_from
from eyesmith.losses.sigmoid import sigmoid_loss
from eyesmith.losses.softmax import softmax_loss

__all__ = [
    "DistillConfig",
    "LossConfig",
    "Same",
    "same_from",
    "sigmoid_loss",
    "softmax_loss",
]
