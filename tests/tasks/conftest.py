"""The program of one process stands beside the tests that start it; how it is started, beside those of training."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "train")]
