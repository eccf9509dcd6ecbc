"""A perceptual hash: 64 bits that hardly change when a picture is saved again, scaled or made a little lighter."""

import numpy as np
from PIL import Image

_SIDE, _LOW = 32, 8  # of the thumbnail, and of the corner of low frequencies that is kept
_COSINES = np.cos(np.pi * np.outer(np.arange(_LOW), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE))  # DCT-II, [8, 32]
_ORDER = np.uint64(1) << np.arange(_LOW * _LOW - 1, -1, -1, dtype=np.uint64)


def perceptual_hash(image: Image.Image) -> int:
    """64 bits: which of the 8 x 8 lowest frequencies of a grey 32 x 32 thumbnail lie above their median.

    Source: the pHash of the ImageHash package, bit for bit.
    """
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    low = _COSINES @ grey @ _COSINES.T
    return int(_ORDER[(low > np.median(low)).ravel()].sum())
