from eyesmith.models.vitamin.config import VITAMIN, ViTaminConfig

__all__ = ["VITAMIN", "ViTaminConfig"]
