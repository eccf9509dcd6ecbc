"""The families of image encoders, in one table; a new one is a folder, a line here, and one in `published`.

The `model.py` of a family has its config and modules, and three tables: `PAIRS` (image-text models by name: the config
of the image tower and the size of the text tower), `ENCODERS` (image encoders by name) and `ALIASES` (other names). Its
config builds its encoder; where all blocks are alike it has `num_blocks` and `with_blocks`.
"""

from eyesmith.models.eva02 import model as eva02
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.foreign import timm
from eyesmith.models.foreign.open_clip_image import OpenClipImageConfig
from eyesmith.models.foreign.timm import TimmConfig
from eyesmith.models.foreign.transformers_image import TransformersImageConfig
from eyesmith.models.own import OwnEncoderConfig
from eyesmith.models.vitamin import model as vitamin
from eyesmith.models.vitamin.model import ViTaminConfig

ForeignConfig = TimmConfig | OpenClipImageConfig | TransformersImageConfig
"""The config of an image encoder that another package builds."""

EncoderConfig = (
    ViTaminConfig | Eva02Config | TimmConfig | OpenClipImageConfig | TransformersImageConfig | OwnEncoderConfig
)
"""The config of any image encoder, whichever family it is of."""

FAMILIES = (vitamin, eva02, timm)


def origin_of(config: EncoderConfig) -> str:
    """Whose code an image encoder runs: native (ours, or a user's file), open_clip, timm or hf."""
    kinds = {TimmConfig: "timm", OpenClipImageConfig: "open_clip", TransformersImageConfig: "hf"}
    return kinds.get(type(config), "native")
