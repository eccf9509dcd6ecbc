import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:  # `bench` is a folder of the checkout, not of the installed package
    sys.path.insert(0, ROOT)
