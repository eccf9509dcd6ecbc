"""The two towers of one model as an evaluation asks them: in the number formats that its sets need, shared by them."""

import os
from collections.abc import Callable
from pathlib import Path

from eyesmith.data.sample import Source
from eyesmith.eval.features.identity import WHY
from eyesmith.eval.features.images import ImageFeatures
from eyesmith.eval.features.precision import Precision, TowerPrecision, tower_precision
from eyesmith.eval.features.store import FeatureStore, Stored
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.models.clip import Clip
from eyesmith.train.distributed import World

_SHOWN = 4  # sets named in a note


class Towers:
    """cache: a folder whose images/ and texts/ keep features, None: nothing is kept. The rest as in `Settings`."""

    def __init__(
        self,
        clip: Clip,
        *,
        precision: Precision,
        cache: str | os.PathLike[str] | None,
        stored: Stored,
        batch_size: int,
        num_workers: int,
        max_broken_frac: float,
        fresh: bool,
        world: World,
    ) -> None:
        self._clip, self._fresh, self._world = clip, fresh, world
        self._precision: Precision = precision
        self._stored: Stored = stored
        self._cache, self._max_broken_frac = None if cache is None else Path(cache), max_broken_frac
        self._batch_size, self._num_workers = batch_size, num_workers
        self._stores: dict[str, FeatureStore] = {}
        self._texts: dict[str, TextFeatures] = {}

    def image_precision(self, *, half_images: bool) -> TowerPrecision:
        """What the image tower computes in; half_images: for a kind whose images the reference encodes in half."""
        return tower_precision(self._precision, "image", self._clip.logit_scale.device, half_images=half_images)

    @property
    def text_precision(self) -> TowerPrecision:
        """What the text tower computes in."""
        return tower_precision(self._precision, "text", self._clip.logit_scale.device)

    def images(
        self, source: Source, *, half_images: bool, advance: Callable[[int], None] | None = None
    ) -> ImageFeatures:
        """Features of every readable image of a source."""
        precision = self.image_precision(half_images=half_images)
        if precision.name not in self._stores:
            self._stores[precision.name] = FeatureStore(
                self._clip,
                None if self._cache is None else self._cache / "images",
                stored=self._stored,
                precision=precision,
                batch_size=self._batch_size,
                num_workers=self._num_workers,
                max_broken_frac=self._max_broken_frac,
                fresh=self._fresh,
                world=self._world,
            )
        return self._stores[precision.name](source, advance=advance)

    def texts(self) -> TextFeatures:
        """Features of any text."""
        precision = self.text_precision
        if precision.name not in self._texts:
            folder = None if self._cache is None else self._cache / "texts"
            self._texts[precision.name] = TextFeatures(
                self._clip, precision=precision, folder=folder, fresh=self._fresh, world=self._world
            )
        return self._texts[precision.name]

    def reused(self) -> str:
        """A line for a user: what was taken from the cache, and why; "" for nothing."""
        names = list(dict.fromkeys(name for store in self._stores.values() for name in store.reused))
        texts = sum(one.num_reused for one in self._texts.values())
        more = " and others" if len(names) > _SHOWN else ""
        what = [f"image features of {', '.join(names[:_SHOWN])}{more}"] if names else []
        what += [f"text features ({texts})"] if texts else []
        return f"reused because {WHY}: {'; '.join(what)}; --fresh computes them anew" if what else ""
