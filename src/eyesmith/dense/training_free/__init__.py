"""Seeing where without training: any image-text model, names, and a method by name."""

from eyesmith.dense.training_free.crops import CROPS as CROPS
from eyesmith.dense.training_free.crops import Crop as Crop
from eyesmith.dense.training_free.crops import classify_crops as classify_crops
from eyesmith.dense.training_free.crops import crop_features as crop_features
from eyesmith.dense.training_free.objects import BoxFinder as BoxFinder
from eyesmith.dense.training_free.objects import RegionFinder as RegionFinder
from eyesmith.dense.training_free.paths import LastBlockEncoder as LastBlockEncoder
from eyesmith.dense.training_free.paths import PatchSpaceWarning as PatchSpaceWarning
from eyesmith.dense.training_free.paths import dense_encoder as dense_encoder
from eyesmith.dense.training_free.paths import unit_map as unit_map
from eyesmith.dense.training_free.segment import CellScores as CellScores
from eyesmith.dense.training_free.segment import SegmentConfig as SegmentConfig
from eyesmith.dense.training_free.segment import TrainingFreeSegmenter as TrainingFreeSegmenter
