from eyesmith.models.eva02.config import EVA02, Eva02Config

__all__ = ["EVA02", "Eva02Config"]
