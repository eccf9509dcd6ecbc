"""Open-vocabulary segmentation on any frozen encoder."""

from eyesmith.dense.segment.picture_segmenter import PictureSegmenter as PictureSegmenter
from eyesmith.dense.segment.picture_segmenter import Segmented as Segmented
from eyesmith.dense.segment.run_folder import is_segmenter as is_segmenter
from eyesmith.dense.segment.run_folder import load_segmenter as load_segmenter
