"""Open-vocabulary detection on any frozen encoder."""

from eyesmith.dense.detect.detections import Detections as Detections
from eyesmith.dense.detect.object_detector import ObjectDetector as ObjectDetector
from eyesmith.dense.detect.run_folder import is_detector as is_detector
from eyesmith.dense.detect.run_folder import load_detector as load_detector
