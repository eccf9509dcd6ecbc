from eyesmith.models.foreign.timm import TIMM, TimmConfig, TimmEncoder
from eyesmith.models.foreign.torchvision import ensure_torchvision

__all__ = ["TIMM", "TimmConfig", "TimmEncoder", "ensure_torchvision"]
