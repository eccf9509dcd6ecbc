"""The image towers of open_clip's models as encoders: its ViT, its ResNet, and timm's backbones with its heads."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eyesmith.errors import ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.models.encoder import Encoder, Tap
from eyesmith.models.foreign.packages import BUILD_ERRORS, first_line, import_open_clip, package_version
from eyesmith.models.foreign.sequence import SequenceEncoder
from eyesmith.models.foreign.timm_maps import TimmMaps
from eyesmith.models.position import resize_position_table

DISTRIBUTION = "open_clip_torch"


@dataclass(frozen=True, kw_only=True)
class OpenClipImageConfig:
    """The image tower of a model that open_clip builds."""

    model_name: str
    """open_clip's name of the model, or of the folder it came from; for messages."""
    settings: str
    """open_clip's own config of the tower as JSON: `vision_cfg`, and `quick_gelu`."""
    image_size: tuple[int, int]
    """Height and width of the input, pixels; multiples of the stride."""
    embed_dim: int
    """Width of the projected feature; 0 leaves out the projection (the feature is then the tower's)."""
    preprocess: PreprocessConfig
    """How pictures are prepared for these weights, at any size."""

    def __post_init__(self) -> None:
        if min(self.image_size) < 1:
            raise ConfigError(f"image_size: expected positive sides, got {self.image_size}")
        if not isinstance(read_settings(self.settings, self.model_name).get("vision_cfg"), dict):
            raise ConfigError(f"settings: {self.model_name} has no vision_cfg of open_clip")

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean of the pixels per channel, in 0..1."""
        return self.preprocess.mean

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation of the pixels per channel, in 0..1."""
        return self.preprocess.std

    def build(self) -> Encoder:
        """A new encoder with open_clip's random weights. Raises MissingDependencyError without open_clip."""
        settings = read_settings(self.settings, self.model_name)
        vision = settings["vision_cfg"] | {"image_size": list(self.image_size), "timm_model_pretrained": False}
        if self.image_size[0] == self.image_size[1]:
            vision["image_size"] = self.image_size[0]
        import_open_clip(self.model_name)
        from open_clip.model import _build_vision_tower

        try:
            tower: Any = _build_vision_tower(self.embed_dim or 1, vision, bool(settings.get("quick_gelu")))
        except BUILD_ERRORS as error:
            raise ConfigError(
                f"{self.model_name}: open_clip cannot build its image tower: {first_line(error)}"
            ) from error
        for kind, encoder in (("trunk", OpenClipTimm), ("attnpool", OpenClipResNet), ("transformer", OpenClipViT)):
            if hasattr(tower, kind):
                return encoder(self, tower)
        raise ConfigError(f"{self.model_name}: an image tower of a kind that is not known: {type(tower).__name__}")


def read_settings(settings: str, name: str) -> dict[str, Any]:
    """Settings of a tower out of JSON. Raises ConfigError for other text, and for settings that would run code."""
    try:
        found = json.loads(settings)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"settings: {name} has settings that are no JSON ({error})") from None
    if not isinstance(found, dict):
        raise ConfigError(f"settings: {name} has settings that are no JSON object")
    if "trust_remote_code" in settings:
        raise ConfigError(f"settings: {name} asks for Python files of its own (trust_remote_code), which are never run")
    return found


class OpenClipViT(SequenceEncoder):
    """open_clip's own VisionTransformer, whatever it pools by."""

    num_prefix = 1  # it always has a class token

    def __init__(self, config: OpenClipImageConfig, tower: Any) -> None:
        super().__init__()
        self.config, self.package = config, package_version(DISTRIBUTION)
        self.tower: Any = tower
        if tower.patch_size[0] != tower.patch_size[1]:
            raise ConfigError(f"{config.model_name}: patches that are not square, {tower.patch_size}, have no stride")
        self.stride, self.image_size = tower.patch_size[0], config.image_size
        if not config.embed_dim:
            if tower.attn_pool is not None:
                raise ConfigError(f"embed_dim: the attention pooling of {config.model_name} is its projection, got 0")
            tower.proj = None
        self.embed_dim = config.embed_dim or tower.conv1.out_channels
        self.mean, self.std, self.pictures = config.mean, config.std, config.preprocess
        self.is_mean_pooled = tower.attn_pool is None and tower.pool_type == "avg" and tower.final_ln_after_pool
        self.describe(width=tower.conv1.out_channels)

    def run(self, pixels: Tensor) -> Tensor:
        return _first(self.tower(pixels))

    def project(self, vectors: Tensor) -> Tensor:
        cells = vectors.reshape(-1, 1, vectors.shape[-1]).expand(-1, 2, -1)  # as class token, and as the only patch
        pooled, _ = self.tower._pool(cells)
        projected = pooled if self.tower.proj is None else pooled @ self.tower.proj
        return projected.view(*vectors.shape[:-1], -1)

    def blocks(self) -> list[nn.Module]:
        return list(self.tower.transformer.resblocks)

    @torch.no_grad()
    def set_image_size(self, height: int, width: int) -> None:
        """The position table is resampled: bicubic, antialiased, as open_clip does when it loads weights."""
        self.check_size(height, width)
        if (height, width) == tuple(self.image_size):
            return
        tower, grid = self.tower, (height // self.stride, width // self.stride)
        old = tower.positional_embedding
        table = resize_position_table(old[None], tower.grid_size, grid, num_prefix=self.num_prefix)
        tower.positional_embedding = nn.Parameter(table[0], requires_grad=old.requires_grad)
        tower.image_size = self.image_size = (height, width)
        tower.grid_size = grid


class OpenClipTimm(TimmMaps):
    """A timm backbone behind open_clip's adapter."""

    def __init__(self, config: OpenClipImageConfig, tower: Any) -> None:
        super().__init__()
        self.config = config
        self.package = f"{package_version(DISTRIBUTION)}, {package_version('timm')}"
        self.tower: Any = tower
        self.mean, self.std, self.pictures = config.mean, config.std, config.preprocess
        if not config.embed_dim:  # the projection is in the adapter, or it is the backbone's own layer of classes
            tower.head = nn.Sequential()
            tower.trunk.reset_classifier(0)
        self.embed_dim = config.embed_dim or int(tower.trunk.head_hidden_size)
        if hasattr(tower.head, "pool"):
            raise ConfigError(
                f"{config.model_name}: the attention pooling of its head takes one size of map; it is no encoder here"
            )
        self.describe(config.image_size, config.model_name)

    def timm(self) -> Any:
        return self.tower.trunk

    def forward(self, pixels: Tensor) -> Tensor:
        return self.tower(self.prepare(pixels))

    def pooled(self, features: Tensor) -> Tensor:
        return self.tower.head(self.tower.trunk.forward_head(features))


class OpenClipResNet(Encoder):
    """OpenAI's ResNet with three convolutions before it and an attention pooling behind it.

    `project` is the pooling's path of the values: what a cell adds to the feature where all attention lies on it.
    """

    is_mean_pooled = False

    def __init__(self, config: OpenClipImageConfig, tower: Any) -> None:
        super().__init__()
        self.config, self.package = config, package_version(DISTRIBUTION)
        self.tower: Any = tower
        if not config.embed_dim:
            raise ConfigError(f"embed_dim: the attention pooling of {config.model_name} is its projection, got 0")
        self.stride, self.image_size, self.embed_dim = 32, config.image_size, config.embed_dim
        self.mean, self.std, self.pictures = config.mean, config.std, config.preprocess
        self.check_size(*config.image_size)
        self._stages = ("layer1", "layer2", "layer3", "layer4")
        widths = (getattr(tower, name)[-1].conv3.out_channels for name in self._stages)
        self.taps = {
            name: Tap(4 * 2**k, width) for k, (name, width) in enumerate(zip(self._stages, widths, strict=True))
        }

    def forward(self, pixels: Tensor) -> Tensor:
        return self.tower(self.prepare(pixels))

    def pyramid(self, pixels: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        names = self.check_taps(taps)
        maps: dict[str, Tensor] = {}
        x = self.tower.stem(self.prepare(pixels))
        for name in self._stages:
            x = maps[name] = getattr(self.tower, name)(x)
        return {name: maps[name] for name in names}

    def dense(self, pixels: Tensor) -> Tensor:
        return self.pyramid(pixels, ["layer4"])["layer4"]

    def project(self, vectors: Tensor) -> Tensor:
        pool = self.tower.attnpool
        return pool.c_proj(pool.v_proj(vectors))

    def tokens(self, pixels: Tensor, layer: int = -2) -> Tensor:
        blocks = list(self.tower.layer4)
        place = self.check_layer(layer, len(blocks))
        x = self.pyramid(pixels, ["layer3"])["layer3"]
        for block in blocks[: place + 1]:
            x = block(x)
        return x.flatten(2).mT  # [B, N, C]

    def blocks(self) -> list[nn.Module]:
        return [block for name in self._stages for block in getattr(self.tower, name)]

    @torch.no_grad()
    def set_image_size(self, height: int, width: int) -> None:
        """The pooling's position table is resampled: bicubic, antialiased."""
        self.check_size(height, width)
        if (height, width) == tuple(self.image_size):
            return
        pool, grid = self.tower.attnpool, (height // self.stride, width // self.stride)
        old, (rows, columns) = pool.positional_embedding, (side // self.stride for side in self.image_size)
        table = resize_position_table(old[None], (rows, columns), grid, num_prefix=1)
        pool.positional_embedding = nn.Parameter(table[0], requires_grad=old.requires_grad)
        self.image_size = (height, width)


def _first(result: Any) -> Tensor:
    """The pooled feature of a tower that may give its tokens beside it (CoCa's)."""
    return result[0] if isinstance(result, tuple) else result
