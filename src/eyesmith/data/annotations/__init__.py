"""Boxes and masks of pictures: read from the usual formats, written back, converted, split, checked."""

from eyesmith.data.annotations.check import check_annotations as check_annotations
from eyesmith.data.annotations.coco import write_coco as write_coco
from eyesmith.data.annotations.convert import TARGETS as TARGETS
from eyesmith.data.annotations.convert import convert_annotations as convert_annotations
from eyesmith.data.annotations.identity import truth_hash as truth_hash
from eyesmith.data.annotations.open import FORMS as FORMS
from eyesmith.data.annotations.open import holds_annotations as holds_annotations
from eyesmith.data.annotations.open import open_annotations as open_annotations
from eyesmith.data.annotations.splits import ov_coco as ov_coco
from eyesmith.data.annotations.splits import ov_lvis as ov_lvis
from eyesmith.data.annotations.types import VOID as VOID
from eyesmith.data.annotations.types import Annotations as Annotations
from eyesmith.data.annotations.types import Category as Category
from eyesmith.data.annotations.types import Objects as Objects
from eyesmith.data.annotations.types import Picture as Picture
