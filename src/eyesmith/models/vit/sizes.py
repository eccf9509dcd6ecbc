"""Every `ViT-*` of OpenCLIP by its name: image tower, text tower, and how pictures are prepared.

What OpenCLIP's names leave to the weights (which pixels a LAION, DataComp or DFN model was trained on) is read from the
folder that the weights lie in; without one it is what is said here.
"""

from dataclasses import replace

from eyesmith.images import PreprocessConfig
from eyesmith.models.activation import Activation
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vit.model import VitConfig

HALF = (0.5, 0.5, 0.5)  # mean and deviation of SigLIP's pixels
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # CLIPA's

Pair = tuple[VitConfig, ClipTextConfig, PreprocessConfig]

# width, depth, heads, hidden channels
_WIDTHS = {
    "S": (384, 12, 6, 1536),
    "M": (512, 12, 8, 2048),
    "B": (768, 12, 12, 3072),
    "B-plus": (896, 12, 14, 3584),
    "L": (1024, 24, 16, 4096),
    "H": (1280, 32, 16, 5120),
    "g": (1408, 40, 16, 6144),
    "bigG": (1664, 48, 16, 8192),
    "e": (1792, 56, 16, 15360),
    "SO400M": (1152, 27, 16, 4304),
    "gopt": (1536, 40, 16, 6144),
}
_TIMM = {"S": "small", "M": "medium", "B": "base", "L": "large", "H": "huge", "g": "giant", "bigG": "gigantic"}
_TIMM |= {"SO400M": "so400m", "gopt": "giantopt"}
_TEXTS = {  # width, depth, heads
    "alt": (256, 10, 4),
    "S": (384, 12, 6),
    "B": (512, 12, 8),
    "B-plus": (640, 12, 10),
    "L": (768, 12, 12),
    "H": (1024, 24, 16),
    "bigG": (1280, 32, 20),
    "e": (1280, 36, 20),
}

# name: size, patch, pixels, projected width, text tower
_CLIP = {
    "ViT-S-32": ("S", 32, 224, 384, "S"),
    "ViT-S-32-alt": ("S", 32, 224, 256, "alt"),
    "ViT-S-16": ("S", 16, 224, 384, "S"),
    "ViT-S-16-alt": ("S", 16, 224, 256, "alt"),
    "ViT-M-32": ("M", 32, 224, 512, "B"),
    "ViT-M-32-alt": ("M", 32, 224, 384, "S"),
    "ViT-M-16": ("M", 16, 224, 512, "B"),
    "ViT-M-16-alt": ("M", 16, 224, 384, "S"),
    "ViT-B-32": ("B", 32, 224, 512, "B"),
    "ViT-B-32-256": ("B", 32, 256, 512, "B"),
    "ViT-B-32-plus-256": ("B-plus", 32, 256, 640, "B-plus"),
    "ViT-B-16": ("B", 16, 224, 512, "B"),
    "ViT-B-16-plus": ("B-plus", 16, 224, 640, "B-plus"),
    "ViT-B-16-plus-240": ("B-plus", 16, 240, 640, "B-plus"),
    "ViT-L-16": ("L", 16, 224, 768, "L"),
    "ViT-L-16-320": ("L", 16, 320, 768, "L"),
    "ViT-L-14": ("L", 14, 224, 768, "L"),
    "ViT-L-14-280": ("L", 14, 280, 768, "L"),
    "ViT-L-14-336": ("L", 14, 336, 768, "L"),
    "ViT-H-16": ("H", 16, 224, 1024, "H"),
    "ViT-H-14": ("H", 14, 224, 1024, "H"),
    "ViT-H-14-378": ("H", 14, 378, 1024, "H"),
    "ViT-g-14": ("g", 14, 224, 1024, "H"),
    "ViT-bigG-14": ("bigG", 14, 224, 1280, "bigG"),
    "ViT-e-14": ("e", 14, 224, 1280, "e"),
}
_QUICK = ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-H-14-378", "ViT-bigG-14")

# MetaCLIP 2's: name: the model it is like, its tokenizer, tokens of that, the end token's id
_WORLDWIDE = {
    "ViT-L-14-worldwide": ("ViT-L-14", "mt5", 250_100, 1),
    "ViT-L-14-worldwide-quickgelu": ("ViT-L-14-quickgelu", "mt5", 250_100, 1),
    "ViT-H-14-worldwide": ("ViT-H-14", "xlm-v", 901_629, 2),
    "ViT-H-14-worldwide-quickgelu": ("ViT-H-14-quickgelu", "xlm-v", 901_629, 2),
    "ViT-H-14-worldwide-378": ("ViT-H-14-378", "xlm-v", 901_629, 2),
    "ViT-bigG-14-worldwide": ("ViT-bigG-14", "xlm-v", 901_629, 2),
    "ViT-bigG-14-worldwide-378": ("ViT-bigG-14", "xlm-v", 901_629, 2),
}
_CLIPA = {
    f"ViT-{size}-14-CLIPA{suffix}": (size, px, width, text)
    for size, width, text in (("L", 768, "L"), ("H", 1024, "H"), ("bigG", 1280, "bigG"))
    for suffix, px in (("", 224), ("-336", 336))
}

# size, patch, pixels by what stands behind SigLIP's or SigLIP 2's name
_SIGLIP = {
    "ViT-B-16-SigLIP": ("B", 16, 224),
    "ViT-B-16-SigLIP-256": ("B", 16, 256),
    "ViT-B-16-SigLIP-384": ("B", 16, 384),
    "ViT-B-16-SigLIP-512": ("B", 16, 512),
    "ViT-B-16-SigLIP-i18n-256": ("B", 16, 256),
    "ViT-L-16-SigLIP-256": ("L", 16, 256),
    "ViT-L-16-SigLIP-384": ("L", 16, 384),
    "ViT-SO400M-14-SigLIP": ("SO400M", 14, 224),
    "ViT-SO400M-14-SigLIP-378": ("SO400M", 14, 378),
    "ViT-SO400M-14-SigLIP-384": ("SO400M", 14, 378),
    "ViT-SO400M-16-SigLIP-i18n-256": ("SO400M", 16, 256),
    "ViT-B-32-SigLIP2-256": ("B", 32, 256),
    "ViT-B-16-SigLIP2": ("B", 16, 224),
    "ViT-B-16-SigLIP2-256": ("B", 16, 256),
    "ViT-B-16-SigLIP2-384": ("B", 16, 384),
    "ViT-B-16-SigLIP2-512": ("B", 16, 512),
    "ViT-L-16-SigLIP2-256": ("L", 16, 256),
    "ViT-L-16-SigLIP2-384": ("L", 16, 384),
    "ViT-L-16-SigLIP2-512": ("L", 16, 512),
    "ViT-SO400M-14-SigLIP2": ("SO400M", 14, 224),
    "ViT-SO400M-14-SigLIP2-378": ("SO400M", 14, 378),
    "ViT-SO400M-16-SigLIP2-256": ("SO400M", 16, 256),
    "ViT-SO400M-16-SigLIP2-384": ("SO400M", 16, 384),
    "ViT-SO400M-16-SigLIP2-512": ("SO400M", 16, 512),
    "ViT-gopt-16-SigLIP2-256": ("gopt", 16, 256),
    "ViT-gopt-16-SigLIP2-384": ("gopt", 16, 384),
}
# a patch of 14 leaves the last 6 rows and columns of 384 pixels out
_OVERHANG_PX = {"ViT-SO400M-14-SigLIP-384": 6}
# the image towers of which timm computes GELU by tanh: a matter of 1e-4, and of OpenCLIP's numbers
_TANH = ("vit_base_patch32_siglip_256", "vit_large_patch16_siglip_512", "vit_so400m_patch14_siglip_378")
_TANH += tuple(f"vit_so400m_patch16_siglip_{px}" for px in (256, 384, 512))
_TANH += tuple(f"vit_giantopt_patch16_siglip_{px}" for px in (256, 384))


def _vit(size: str, patch_px: int, px: int, embed_dim: int, activation: Activation = "gelu") -> VitConfig:
    width, depth, heads, hidden = _WIDTHS[size]
    return VitConfig(
        image_size=(px, px),
        patch_px=patch_px,
        width=width,
        depth=depth,
        num_heads=heads,
        hidden_dim=hidden,
        embed_dim=embed_dim,
        activation=activation,
    )


def _text(size: str, embed_dim: int, activation: Activation = "gelu") -> ClipTextConfig:
    width, depth, heads = _TEXTS[size]
    return ClipTextConfig(width=width, depth=depth, heads=heads, embed_dim=embed_dim, activation=activation)


def _clip(name: str, activation: Activation = "gelu") -> Pair:
    size, patch_px, px, embed_dim, text = _CLIP[name]
    image = _vit(size, patch_px, px, embed_dim, activation)
    if name == "ViT-M-16-alt":
        image = replace(image, layer_scale=1e-4)
    return image, _text(text, embed_dim, activation), PreprocessConfig(image_size=(px, px))


def _worldwide(name: str) -> Pair:
    like, tokenizer, vocab_size, end = _WORLDWIDE[name]
    image, text, preprocess = _clip(like.removesuffix("-quickgelu"), "quick_gelu" if "quickgelu" in like else "gelu")
    if name.endswith("-378"):
        image, preprocess = replace(image, image_size=(378, 378)), replace(preprocess, image_size=(378, 378))
    text = replace(
        text,
        vocab_size=vocab_size,
        pooling="end",
        end_id=end,
        tokenizer=tokenizer,
        cleaning="canonical" if tokenizer == "mt5" else "spaces",
    )
    return image, text, preprocess


def _clipa(size: str, px: int, embed_dim: int, text: str) -> Pair:
    image = replace(
        _vit(size, 14, px, embed_dim), pooling="mean", has_pre_norm=False, mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    tower = replace(
        _text(text, embed_dim),
        context_len=32,
        vocab_size=32_000,
        is_causal=False,
        pooling="last",
        tokenizer="bert",
        cleaning="spaces",
    )
    preprocess = PreprocessConfig(
        image_size=(px, px), mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bilinear", resize="squash"
    )
    return image, tower, preprocess


def _siglip(name: str) -> Pair:
    size, patch_px, px = _SIGLIP[name]
    is_second, is_i18n = "SigLIP2" in name, "i18n" in name
    width = _WIDTHS[size][0]
    image = replace(
        _vit(size, patch_px, px, width, "gelu_tanh" if _siglip_timm(name) in _TANH else "gelu"),
        pooling="map",
        has_class_token=False,
        has_pre_norm=False,
        has_patch_bias=True,
        norm_eps=1e-6,
        mean=HALF,
        std=HALF,
    )
    text_width, depth, heads, hidden = _WIDTHS["SO400M" if size == "gopt" else size]
    text = ClipTextConfig(
        width=text_width,
        depth=depth,
        heads=heads,
        embed_dim=width,
        context_len=16 if name == "ViT-SO400M-14-SigLIP" else 64,
        vocab_size=256_000 if is_second else 250_000 if is_i18n else 32_000,
        mlp_ratio=3.7362 if hidden == 4304 else 4.0,
        activation="gelu_tanh" if is_second else "gelu",
        is_causal=False,
        pooling="last",
        projection="none" if name == "ViT-SO400M-16-SigLIP-i18n-256" else "biased",
        norm_eps=1e-6,
        tokenizer="siglip2" if is_second else "siglip-i18n" if is_i18n else "siglip",
        cleaning="canonical",
    )
    preprocess = PreprocessConfig(
        image_size=(px, px), mean=HALF, std=HALF, resize="squash", overhang_px=_OVERHANG_PX.get(name, 0)
    )
    return image, text, preprocess


def _siglip_timm(name: str) -> str:
    size, patch_px, px = _SIGLIP[name]
    return f"vit_{_TIMM[size]}_patch{patch_px}_siglip_{px + _OVERHANG_PX.get(name, 0)}"


PAIRS: dict[str, Pair] = {
    **{name: _clip(name) for name in _CLIP},
    **{f"{name}-quickgelu": _clip(name, "quick_gelu") for name in _QUICK},
    **{name: _worldwide(name) for name in _WORLDWIDE},
    **{name: _clipa(*row) for name, row in _CLIPA.items()},
    **{name: _siglip(name) for name in _SIGLIP},
}
"""Image-text models by OpenCLIP's name."""

_NAMED = {"ViT-M-32", "ViT-M-16", "ViT-B-32", "ViT-B-32-256", "ViT-B-16", "ViT-L-14"}
_NAMED |= {"ViT-L-14-336", "ViT-H-14", "ViT-H-14-378", "ViT-g-14", "ViT-bigG-14"}

ENCODERS: dict[str, VitConfig] = {
    f"vit_{_TIMM[size]}_patch{patch}_clip_{quick}{px}": PAIRS[name + ("-quickgelu" if quick else "")][0]
    for name, (size, patch, px, _, _) in _CLIP.items()
    if name in _NAMED
    for quick in (("", "quickgelu_") if name in _QUICK else ("",))
} | {_siglip_timm(name): PAIRS[name][0] for name in _SIGLIP}
"""Image encoders by timm's name: CLIP's with the projection of their model, SigLIP's, which have none."""

ALIASES: dict[str, str] = {}
