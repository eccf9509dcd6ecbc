"""Which pictures with which objects a number was measured on, wherever they lie and whatever the set is called."""

import hashlib
import json

import numpy as np

from eyesmith.data.annotations.masks import Polygons, Runs, Shape
from eyesmith.data.annotations.types import Annotations
from eyesmith.errors import DataError


def truth_hash(truth: Annotations) -> str:
    """Hexadecimal digest of classes, pictures, their files' bytes, and the objects with their masks.

    Not of which classes are novel, which a detector may say of itself, nor of names of folders and files. Every picture
    is read; one that cannot be counts as empty.
    """
    classes = [[one.name, list(one.synonyms), one.is_thing, one.frequency] for one in truth.categories]
    digest = hashlib.sha256(json.dumps([truth.kind, classes]).encode())
    for index, (picture, objects) in enumerate(zip(truth.pictures, truth, strict=True)):
        absent = None if picture.absent is None else sorted(picture.absent)
        facts = [picture.width, picture.height, sorted(picture.not_exhaustive), absent, len(objects)]
        digest.update(json.dumps(facts).encode())
        digest.update(hashlib.sha256(_content(truth, picture.file)).digest())
        for column in (objects.xywh, objects.labels, objects.crowd, objects.area):
            digest.update(np.ascontiguousarray(column).tobytes())
        maps = set[int]()  # a map of segments is shared by all objects of a picture
        for shape in objects.shapes:
            digest.update(_shape_bytes(shape, maps))
        void = truth.void(index)
        if void is not None:
            digest.update(np.packbits(void).tobytes())
    return digest.hexdigest()[:32]


def _content(truth: Annotations, file: str) -> bytes:
    try:
        return truth.images.content(file)
    except DataError:
        return b""


def _shape_bytes(shape: Shape | None, maps: set[int]) -> bytes:
    if shape is None:
        return b"box"
    if isinstance(shape, Polygons):
        return b"outlines" + b"|".join(np.ascontiguousarray(part).tobytes() for part in shape.parts)
    if isinstance(shape, Runs):
        counts = shape.counts if isinstance(shape.counts, bytes) else json.dumps(shape.counts).encode()
        return b"runs" + counts
    values = b"" if id(shape.values) in maps else np.ascontiguousarray(shape.values).tobytes()
    maps.add(id(shape.values))
    return b"segment%d" % shape.value + values
