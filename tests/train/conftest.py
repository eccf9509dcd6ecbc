"""The program of one process stands beside the tests that start it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
