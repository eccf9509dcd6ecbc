"""Makes torchvision importable where only its compiled part is missing, so that timm and open_clip can be imported."""

import sys
from functools import cache
from importlib import import_module

import torch

from eyesmith.errors import MissingDependencyError


def ensure_torchvision() -> None:
    """Import torchvision; where its compiled operators do not load, declare the two schemas its import asks for.

    The wheel of torchvision 0.28.0 from PyPI is built for CUDA, so on PyPI's CPU build of torch 2.13.0 it stops at
    "operator torchvision::nms does not exist". With `nms` and `qnms` declared (not implemented: calling them still
    raises), the rest of torchvision, timm and open_clip work. Call this before importing one of them. Raises
    MissingDependencyError when torchvision is absent or fails in another way.
    """
    try:
        import_module("torchvision")
        return
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "torchvision is not installed, and timm and open_clip need it: pip install 'eyesmith[demo]'"
        ) from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise _broken(error) from error
    # a failed import leaves its sub-modules behind, bound to the missing operators
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _declare_operators()
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise _broken(error) from error


@cache  # the schemas live as long as the library object does
def _declare_operators() -> torch.library.Library:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _broken(error: Exception) -> MissingDependencyError:
    return MissingDependencyError(
        f"torchvision is installed but cannot be imported with torch {torch.__version__}: {error}; "
        "install the torchvision release that belongs to this torch"
    )
