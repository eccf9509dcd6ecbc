from eyesmith.models.text.hugging_face import HuggingFaceText, HuggingFaceTextConfig
from eyesmith.models.text.model import ClipText, ClipTextConfig

__all__ = ["ClipText", "ClipTextConfig", "HuggingFaceText", "HuggingFaceTextConfig"]
