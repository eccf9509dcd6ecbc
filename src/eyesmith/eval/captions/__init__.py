from eyesmith.eval.captions.answers import negative_answers, pair_answers
from eyesmith.eval.captions.reading import NegativeItem, PairItem, caption_test_kind, read_negatives, read_pairs
from eyesmith.eval.captions.run import evaluate_captions

__all__ = [
    "NegativeItem",
    "PairItem",
    "caption_test_kind",
    "evaluate_captions",
    "negative_answers",
    "pair_answers",
    "read_negatives",
    "read_pairs",
]
