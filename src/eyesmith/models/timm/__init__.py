from eyesmith.models.timm.config import TIMM, TimmConfig

__all__ = ["TIMM", "TimmConfig"]
