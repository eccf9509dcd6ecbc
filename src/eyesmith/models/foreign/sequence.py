"""An encoder around a package's tower whose blocks hand on one sequence: some tokens of its own, then the patches."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import Tensor, nn

from eyesmith.models.encoder import Encoder, Tap, spread_taps


class SequenceEncoder(Encoder):
    """Maps and tokens are caught behind the blocks while the package's own forward runs, so that nothing of it is
    written a second time here. `dense` is what the last block gives, before the final norm; `project` is all that comes
    after it, for one token as if it stood alone.
    """

    num_prefix: int  # tokens before the patches: class token, registers

    @abstractmethod
    def run(self, pixels: Tensor) -> Tensor:
        """The package's pooled feature [B, D] of prepared pixels."""

    def describe(self, *, width: int) -> None:
        """Set the facts that the blocks decide; image_size, stride and the blocks are there. width: their channels."""
        count = len(self.blocks())
        depths = {*spread_taps(count).values(), *([count // 2] if count > 1 else [])}
        self._tap_places = {f"block{depth}": depth - 1 for depth in sorted(depths)}
        self.taps = dict.fromkeys(self._tap_places, Tap(self.stride, width))
        self.half_tap = f"block{count // 2}" if count > 1 else None
        self.check_size(*self.image_size)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.run(self.prepare(pixels))

    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        names = self.check_taps(taps)
        found = self._caught(pixels, {self._tap_places[name] for name in names})
        return {name: self._map(found[self._tap_places[name]]) for name in names}

    def dense(self, pixels: Tensor) -> Tensor:
        last = len(self.blocks()) - 1
        return self._map(self._caught(pixels, {last})[last])

    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        place = self.check_layer(layer, len(self.blocks()))
        return self._caught(pixels, {place})[place]

    def _caught(self, pixels: Tensor, places: Iterable[int]) -> dict[int, Tensor]:
        """Patches [B, N, C] behind the blocks of these places."""
        caught: dict[int, Tensor] = {}

        def keep(place: int, _module: nn.Module, _args: Any, result: Any) -> None:
            states = result[0] if isinstance(result, tuple) else result
            caught[place] = states[:, self.num_prefix :]

        blocks = self.blocks()
        pixels = self.prepare(pixels)
        with ExitStack() as hooks:
            for place in places:
                hooks.callback(blocks[place].register_forward_hook(partial(keep, place)).remove)
            self.run(pixels)
        return caught

    def _map(self, cells: Tensor) -> Tensor:
        height, width = (side // self.stride for side in self.image_size)
        return cells.mT.reshape(len(cells), cells.shape[-1], height, width)  # [B, C, h, w]
