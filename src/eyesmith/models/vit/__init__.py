from eyesmith.models.vit.model import Vit, VitConfig

__all__ = ["Vit", "VitConfig"]
