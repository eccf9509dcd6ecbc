"""What trains of a segmenter: a mask decoder over a frozen eye's maps, and a classifier in text space."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from eyesmith.dense.segment.classes import TextSpaceClassifier
from eyesmith.dense.segment.fcclip import FcClipConfig
from eyesmith.dense.segment.losses import MaskLossConfig, Prediction
from eyesmith.dense.segment.pmt import PmtConfig
from eyesmith.dense.vocabulary import Vocabulary
from eyesmith.errors import ConfigError
from eyesmith.models.encoder import Tap


@dataclass(frozen=True, kw_only=True)
class SegmentHeadConfig:
    """A segmenter's head and its loss."""

    decoder: PmtConfig | FcClipConfig = field(default_factory=PmtConfig)
    """How masks are found: a plain decoder, or Mask2Former's as in FC-CLIP."""
    loss: MaskLossConfig = field(default_factory=MaskLossConfig)

    def build(self, taps: Mapping[str, Tap], embed_dim: int) -> "SegmentHead":
        """For an encoder with these taps, in a text space of `embed_dim`."""
        return SegmentHead(self, taps, embed_dim)


class SegmentHead(nn.Module):
    """Maps of the eye to predictions for the words in use. It holds neither the eye nor the words' encoder."""

    def __init__(self, config: SegmentHeadConfig, taps: Mapping[str, Tap], embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.decoder = config.decoder.build(taps)
        self.classes = TextSpaceClassifier(self.decoder.width, embed_dim)
        self.vocabulary: Vocabulary | None = None

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of the maps that it reads."""
        return tuple(self.decoder.taps)

    def use(self, vocabulary: Vocabulary) -> None:
        """Name masks by these words from now on; they are on the head's device afterwards."""
        if vocabulary.embed_dim != self.classes.void.shape[1]:
            raise ConfigError(
                f"vocabulary: its vectors have {vocabulary.embed_dim} numbers, this head names in a space of "
                f"{self.classes.void.shape[1]}; encode it with the text tower of the head's own eye"
            )
        self.vocabulary = vocabulary.to(self.classes.void.device)

    def forward(self, maps: Mapping[str, Tensor]) -> list[Prediction]:
        """What each layer predicts, the answer last. maps: [B, channels, h, w] by tap name."""
        if self.vocabulary is None:
            raise ConfigError("vocabulary: a segmenter needs words to name masks by; give some to use()")
        return self.classes.predictions(self.decoder(maps), self.vocabulary)

    def answer(self, maps: Mapping[str, Tensor], known: Vocabulary | None = None) -> Prediction:
        """What the last layer predicts, the only one that is used.

        known: the words of training, by which void is told from anything else whatever words are in use: where things
        were learnt without their names, a sum over other or fewer words says nothing of void.
        """
        if self.vocabulary is None:
            raise ConfigError("vocabulary: a segmenter needs words to name masks by; give some to use()")
        found = self.decoder(maps)
        masks = found.masks[-1]
        vectors = self.classes.vectors(found.queries[-1], masks, found.features[-1])
        logits = self.classes(vectors, self.vocabulary)
        if known is not None:
            trained = self.classes(vectors, known)
            something = logits[..., :-1].logsumexp(-1) - trained[..., :-1].logsumexp(-1)
            logits = torch.cat([logits[..., :-1], (logits[..., -1] + something)[..., None]], -1)
        return Prediction(logits, masks)
