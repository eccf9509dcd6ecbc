"""Runs by name: each a function that returns one complete config; `eyesmith train NAME field=value` changes fields."""

from collections.abc import Callable
from functools import partial

from eyesmith.config import closest
from eyesmith.errors import ConfigError
from eyesmith.recipes.abilities import (
    caption,
    caption_only,
    distill,
    finetune_lora,
    lab_buckets,
    lab_caption,
    lab_cooldown,
    lab_joint_muon,
    lab_muon,
    pairs_buckets,
)
from eyesmith.recipes.baselines import BASELINES, baseline, baseline_model
from eyesmith.recipes.chat import (
    chat_scenes,
    llava_1_5_stage1,
    llava_1_5_stage2,
    scenes_eye,
    smollm2_stage1,
    smollm2_stage2,
)
from eyesmith.recipes.detect import detect, detect_emoji, detect_scenes, f_vit_coco, f_vit_lvis
from eyesmith.recipes.eva02 import CLIP, MASKED, clip, masked, mim_nano, quickstart_trv, simmim
from eyesmith.recipes.eva02_finetune import COLUMNS, classify, fine_tuned
from eyesmith.recipes.finetune import finetune
from eyesmith.recipes.laptop import (
    debug,
    dense_eye,
    lab_joint,
    lab_ltt,
    lab_names,
    pairs,
    quickstart,
    quickstart_small,
    quickstart_small_vit,
    quickstart_vit,
)
from eyesmith.recipes.segment import fc_clip_coco, segment, segment_emoji, segment_scenes
from eyesmith.recipes.vitamin import (
    FINE_TUNES,
    LENGTHS,
    datacomp_medium,
    larger_images,
    locked_text,
    short,
    vitamin_long,
    vitamin_short,
)
from eyesmith.train.config import RunConfig

Recipe = Callable[[], RunConfig]

FAMILIES: dict[str, dict[str, Recipe]] = {
    "on a laptop": {
        "debug": debug,
        "pairs": pairs,
        "pairs-buckets": pairs_buckets,
        "quickstart": quickstart,
        "quickstart-vit": quickstart_vit,
        "quickstart-small": quickstart_small,
        "quickstart-trv": quickstart_trv,
        "lab-ltt": lab_ltt,
        "lab-names": lab_names,
        "lab-joint": lab_joint,
        "lab-muon": lab_muon,
        "lab-cooldown": lab_cooldown,
        "lab-buckets": lab_buckets,
        "lab-joint-muon": lab_joint_muon,
        "lab-caption": lab_caption,
        "mim-nano": mim_nano,
        "scenes-eye": scenes_eye,
        "dense-eye": dense_eye,
        "chat-scenes": chat_scenes,
        "smollm2-stage1": smollm2_stage1,
        "smollm2-stage2": smollm2_stage2,
        "detect-emoji": detect_emoji,
        "detect-scenes": detect_scenes,
        "segment-emoji": segment_emoji,
        "segment-scenes": segment_scenes,
    },
    "a language model with an eye (LLaVA-1.5)": {
        "llava-1.5-stage1": llava_1_5_stage1,
        "llava-1.5-stage2": llava_1_5_stage2,
    },
    "a detector of whatever can be named, on a frozen eye (F-ViT)": {
        "f-vit-coco": f_vit_coco,
        "f-vit-lvis": f_vit_lvis,
    },
    "a detector for boxes of your own, on any eye": {"detect": detect},
    "a segmenter of whatever can be named, on a frozen eye (FC-CLIP)": {
        "segment": segment,
        "fc-clip-coco": fc_clip_coco,
    },
    "from trained weights, on pairs of your own": {"finetune": finetune, "finetune-lora": finetune_lora},
    "one encoder out of several models": {"distill": distill},
    "captions told word by word, beside the pairs or alone": {"caption": caption, "caption-only": caption_only},
    "a classifier for class folders of your own, from any encoder": {"classify": classify},
    "ViTamin by the short schedule, 128 M to 1.28 B pairs": {
        f"vitamin-{size.lower()}-{length}": partial(vitamin_short, size, length)
        for size in ("S", "B", "L")
        for length in LENGTHS
    },
    "the same against ViTamin-L's frozen text tower (Locked-Text Tuning)": {
        f"vitamin-{size.lower()}-ltt-{length}": partial(locked_text, size, length)
        for size in ("S", "B")
        for length in LENGTHS
    },
    "ViTamin by the long schedule, 12.8 B and 40 B pairs": {
        "vitamin-l-12.8b": partial(vitamin_long, "L"),
        "vitamin-l2-12.8b": partial(vitamin_long, "L2"),
        "vitamin-xl-12.8b": partial(vitamin_long, "XL"),
        "vitamin-xl-40b": partial(vitamin_long, "XL", epochs=30),
    },
    "trained ViTamins at larger images": {name.lower(): partial(larger_images, name) for name in FINE_TUNES},
    "on 12.8 M pairs of DataComp's medium track": {"datacomp-medium": datacomp_medium},
    "EVA-02 from masked images (table 22), and with SimMIM's target": {
        **{f"eva02-mim-{name}": partial(masked, name) for name in MASKED},
        **{f"eva02-simmim-{name}": partial(simmim, name) for name in MASKED},
    },
    "EVA-02-CLIP (table 26), and with the released betas and epsilon": {
        **{f"eva02-clip-{name}": partial(clip, name) for name in CLIP},
        **{f"eva02-clip-{name}-released": partial(clip, name, as_released=True) for name in CLIP},
    },
    "EVA-02 fine-tuned on ImageNet-21K and -1K (tables 23 to 25), and as released": {
        f"eva02-{name}": partial(fine_tuned, name) for name in COLUMNS
    },
    "other backbones by the short schedule": {
        f"{name.lower()}-{length}": partial(baseline, name, length) for name in BASELINES for length in LENGTHS
    },
}
"""Recipes by what they are for."""

RECIPES: dict[str, Recipe] = {name: make for family in FAMILIES.values() for name, make in family.items()}


def recipe(name: str) -> RunConfig:
    """The config of a named recipe. Raises ConfigError for an unknown name."""
    if name not in RECIPES:
        raise ConfigError(f"no recipe is called {name!r}{closest(name, RECIPES)}")
    return RECIPES[name]()


__all__ = [
    "BASELINES",
    "FAMILIES",
    "LENGTHS",
    "RECIPES",
    "baseline",
    "baseline_model",
    "classify",
    "clip",
    "datacomp_medium",
    "debug",
    "dense_eye",
    "fine_tuned",
    "finetune",
    "larger_images",
    "locked_text",
    "masked",
    "mim_nano",
    "pairs",
    "quickstart",
    "quickstart_small",
    "quickstart_small_vit",
    "quickstart_trv",
    "quickstart_vit",
    "recipe",
    "short",
    "simmim",
    "vitamin_long",
    "vitamin_short",
]
