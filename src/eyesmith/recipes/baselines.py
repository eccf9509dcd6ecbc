"""The backbones that ViTamin is compared with (figure 2), each by the same short schedule as ViTamin of its size."""

from dataclasses import dataclass, replace

from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.foreign.timm import TimmConfig
from eyesmith.models.registry import config as model
from eyesmith.recipes.vitamin import LENGTHS, short
from eyesmith.tasks.contrastive import TrainConfig


@dataclass(frozen=True, slots=True)
class Baseline:
    """timm_name: the architecture; size: S, B or L, whose text tower and width it takes; batch_size of the run.

    patch_px: of a ViT, which is open_clip's own: a norm before the blocks, patches without bias, its initial weights,
    no stochastic depth; 0 for a backbone that open_clip too takes from timm, with a drop-path of 0.1.
    """

    timm_name: str
    size: str
    batch_size: int = 8192
    side_px: int = 224
    patch_px: int = 0


BASELINES: dict[str, Baseline] = {
    "ViT-S-32": Baseline("vit_base_patch16_clip_224", "S", patch_px=32),
    "ViT-S-16": Baseline("vit_base_patch16_clip_224", "S", patch_px=16),
    "ConvNeXt-T": Baseline("convnext_tiny", "S"),
    "CoAtNet-0": Baseline("coatnet_0_224", "S"),
    "ViT-B-32": Baseline("vit_base_patch16_clip_224", "B", patch_px=32),
    "ViT-B-16": Baseline("vit_base_patch16_clip_224", "B", patch_px=16),
    "ConvNeXt-B": Baseline("convnext_base", "B"),
    "CoAtNet-2": Baseline("coatnet_2_224", "B"),
    "ViT-L-32": Baseline("vit_large_patch14_clip_224", "L", 16384, patch_px=32),
    "ViT-L-16": Baseline("vit_large_patch14_clip_224", "L", 16384, patch_px=16),
    "ViT-L-14": Baseline("vit_large_patch14_clip_224", "L", 16384, patch_px=14),
    # its multiply-adds in figure 2, and its model file, are those of 256 px; the released runs force 224
    "ConvNeXt-XL": Baseline("convnext_xlarge", "L", 16384, 256),
    "CoAtNet-4": Baseline("coatnet_4_224", "L"),
}
"""By the names of figure 2. The largest CoAtNet did not fit a batch of 16384 on the authors' machines."""


def baseline_model(name: str) -> ClipConfig:
    """A key of BASELINES beside ViTamin's text tower of its size, as one model.

    As the released model files say: those of ConvNeXt and CoAtNet name a drop-path of 0.1, a ViT is open_clip's own.
    Image heads are as wide as the text tower's feature, as in these files; in figure 2 those of ConvNeXt-T and -XL are
    wider (1024).
    """
    baseline = BASELINES[name]
    size = (baseline.side_px, baseline.side_px)
    pair = model(f"ViTamin-{baseline.size}")
    image = TimmConfig(
        model_name=baseline.timm_name, image_size=size, embed_dim=pair.image.embed_dim, drop_path_prob=0.1
    )
    if baseline.patch_px:
        image = replace(image, drop_path_prob=0.0, patch_px=baseline.patch_px, initial="open_clip")
        if baseline.size == "S":  # timm has no such ViT of this width
            image = replace(image, widths=(384,), num_heads=6)
    return replace(
        pair,
        name=name,
        image=image,
        preprocess=PreprocessConfig(image_size=size),
    )


def baseline(name: str, length: str) -> TrainConfig:
    """A key of BASELINES by the short schedule. length: a key of LENGTHS.

    ViT-L/32 takes a batch of 8192 for 128 M and 512 M pairs, as the released files say.
    """
    batch_size = 8192 if name == "ViT-L-32" and length != "1280m" else BASELINES[name].batch_size
    return short(baseline_model(name), LENGTHS[length], batch_size=batch_size)
