from eyesmith.models.eva02.model import EVA02, Eva02, Eva02Config

__all__ = ["EVA02", "Eva02", "Eva02Config"]
