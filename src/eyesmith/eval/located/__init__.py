"""Where things are, scored: average precision, panoptic quality, mIoU, with intervals over pictures."""

from eyesmith.eval.located.found import Found as Found
from eyesmith.eval.located.found import found as found
from eyesmith.eval.located.found import without_void as without_void
from eyesmith.eval.located.intervals import picture_intervals as picture_intervals
from eyesmith.eval.located.matching import Matches as Matches
from eyesmith.eval.located.matching import match as match
from eyesmith.eval.located.outcomes import Outcome as Outcome
from eyesmith.eval.located.outcomes import best_floor as best_floor
from eyesmith.eval.located.outcomes import outcomes as outcomes
from eyesmith.eval.located.outcomes import worst_classes as worst_classes
from eyesmith.eval.located.panoptic import PanopticQuality as PanopticQuality
from eyesmith.eval.located.panoptic import Quality as Quality
from eyesmith.eval.located.pixels import PixelScores as PixelScores
from eyesmith.eval.located.precision import Precision as Precision
from eyesmith.eval.located.precision import average_precision as average_precision
from eyesmith.eval.located.results_json import read_found as read_found
from eyesmith.eval.located.results_json import write_found as write_found
from eyesmith.eval.located.rows import SETTINGS as SETTINGS
from eyesmith.eval.located.rows import detect_rows as detect_rows
from eyesmith.eval.located.rows import segment_rows as segment_rows
