"""A language model with an eye: frozen encoder, projector, causal language model of transformers."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eyesmith.multimodal.eye import Eye
from eyesmith.multimodal.packing import may_see
from eyesmith.multimodal.projector import Projector


class Read(NamedTuple):
    """Rows of `packing.padded` that are read, int64 [b, L] each, and what their pictures show.

    seen: [b, N, width] tokens of the eye; rows without a picture may hold anything.
    """

    ids: Tensor
    segments: Tensor
    positions: Tensor
    seen: Tensor


class ChatModel(nn.Module):
    """`image` is the eye's encoder, `text` the language model: rates, freezing and the log go by these names."""

    def __init__(self, eye: Eye, language: nn.Module, *, image_id: int, is_blind: bool = False) -> None:
        """image_id: of the picture's word. is_blind: a control that is shown no picture, with equal parts and cost."""
        super().__init__()
        self.image = eye.encoder
        self.text = language
        self.projector = Projector(eye.width, self.embeddings.weight.shape[1])
        self.image_id, self.is_blind = image_id, is_blind
        self._eye = (eye,)  # in a tuple, so that its weights are not there twice

    @property
    def eye(self) -> Eye:
        """Tokens out of pixels; the same encoder as `image`."""
        return self._eye[0]

    @property
    def embeddings(self) -> Any:
        """The language model's table of words."""
        return self.language.get_input_embeddings()

    @property
    def language(self) -> Any:
        """`text` as transformers knows it."""
        return self.text

    def train(self, mode: bool = True) -> "ChatModel":
        super().train(mode)
        self.image.train(False)
        return self

    def forward(self, read: Read, places: Tensor) -> Tensor:
        """Logits of the next id, [M, vocabulary]. places: int64 [M] in the flattened rows."""
        states = self.states(read)
        return self.language.get_output_embeddings()(states.flatten(0, 1)[places])

    def states(self, read: Read) -> Tensor:
        """The language model's last hidden states, [b, L, C]."""
        found = self.language.get_decoder()(
            inputs_embeds=self.embed(read.ids, read.seen),
            attention_mask=may_see(read.segments),
            position_ids=read.positions,
            use_cache=False,
        )
        return found.last_hidden_state

    def embed(self, ids: Tensor, seen: Tensor) -> Tensor:
        """Words and projected tokens in one sequence, [b, L, C]. Nothing waits for a device."""
        words = self.embeddings(ids)
        is_image = ids == self.image_id
        shown = self.projector(seen.to(self.projector.linear_1.weight.dtype))  # [b, N, C]
        if self.is_blind:
            shown = shown * 0
        which = (is_image.cumsum(1) - 1).clamp(0, shown.shape[1] - 1)  # of a row's tokens, at each place
        spread = shown.gather(1, which[..., None].expand(-1, -1, shown.shape[2]))
        return torch.where(is_image[..., None], spread.to(words.dtype), words)

    @torch.no_grad()
    def fit_projector(self, seen: Tensor) -> None:
        """Start the projector at the scale of the language model's own embeddings; see `Projector.fit`."""
        table = self.embeddings.weight.float()
        self.projector.fit(seen, float(table.square().mean().sqrt()))
