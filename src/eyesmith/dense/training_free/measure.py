"""How well pictures of a set are segmented without training: mean IoU, base and novel classes apart."""

from collections.abc import Callable, Sequence

import numpy as np

from eyesmith.config import to_dict
from eyesmith.data.annotations.types import Annotations
from eyesmith.dense.measuring import data_facts
from eyesmith.dense.prompts import Prompts
from eyesmith.dense.training_free.segment import SegmentConfig, TrainingFreeSegmenter
from eyesmith.dense.vocabulary import encode_vocabulary
from eyesmith.errors import DataError
from eyesmith.eval.features.identity import decoders, model_facts
from eyesmith.eval.located import PixelScores, segment_rows
from eyesmith.eval.results import ResultRow
from eyesmith.models.clip import Clip


def measure_segmentation(
    clip: Clip,
    truth: Annotations,
    config: SegmentConfig | None = None,
    *,
    prompts: Prompts | str | None = None,
    background: Sequence[str] = (),
    advance: Callable[[int], None] | None = None,
) -> list[ResultRow]:
    """Lines of task `segment`, metric miou, of a set whose objects have masks; `model` says model and path.

    The classes are the set's, with their synonyms. background: words whose pixels belong to no class, for sets in which
    not every pixel has one. advance: called with the number of pictures that are done.
    Raises DataError for a set without pictures, or whose objects have boxes only.
    """
    if not len(truth):
        raise DataError(f"{truth.path}: there are no pictures to segment")
    config = config or SegmentConfig()
    classes = [(one.name, *one.synonyms) for one in truth.categories]
    vocabulary = encode_vocabulary(clip, [*classes, *((word,) for word in background)], prompts=prompts)
    segmenter = TrainingFreeSegmenter(clip, vocabulary, config)
    pixels = PixelScores(len(classes))
    for index in range(len(truth)):
        shown = np.asarray(truth.image(index))  # pixels alone: turned as its EXIF says it would not fit its masks
        found = segmenter(shown).class_map().only(len(classes))
        pixels.add_picture(truth, index, found.labels.numpy())
        if advance is not None:
            advance(index + 1)
    facts = model_facts(clip, clip.preprocess) | {"decoders": decoders(), "precision": "fp32"}
    facts |= data_facts(truth)
    facts |= {"segment": to_dict(config), "prompts": str(prompts), "background": list(background)}
    return segment_rows(truth, model=f"{clip.config.name} {config.path}", pixels=pixels, run=facts)
