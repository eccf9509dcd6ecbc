"""Where things are, scored: average precision, panoptic quality, mIoU, with intervals over pictures."""

from eyesmith.eval.located.found import Found as Found
from eyesmith.eval.located.found import found as found
from eyesmith.eval.located.precision import Precision as Precision
from eyesmith.eval.located.precision import average_precision as average_precision
