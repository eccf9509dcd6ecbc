from eyesmith.models.text.config import ClipTextConfig, HuggingFaceTextConfig
from eyesmith.models.text.hugging_face import HuggingFaceText
from eyesmith.models.text.model import ClipText

__all__ = ["ClipText", "ClipTextConfig", "HuggingFaceText", "HuggingFaceTextConfig"]
