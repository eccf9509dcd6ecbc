from eyesmith.models.vitamin.model import VITAMIN, ViTamin, ViTaminConfig

__all__ = ["VITAMIN", "ViTamin", "ViTaminConfig"]
