"""The families whose published weights are read and written, by the config of their encoders.

Each module has the same names: `recognises` (its tensors in others' names), `read` (config and our tensors out of
those), `own_config` (the config of tensors in our names), `write` (our tensors in others' names), `resize_state`,
`wanted_size`. A new family is one line here.
"""

from typing import Any

from eyesmith.models.eva02 import weights as eva02
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.vit import weights as vit
from eyesmith.models.vit.model import VitConfig
from eyesmith.models.vitamin import weights as vitamin
from eyesmith.models.vitamin.model import ViTaminConfig

WEIGHTS: dict[type, Any] = {Eva02Config: eva02, ViTaminConfig: vitamin, VitConfig: vit}
