"""Configs of OpenCLIP and Hugging Face that describe a plain ViT with a text tower, read and written.

What is named there and not computed here is refused by its name: a wrong pooling shows in nothing but the accuracy.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter
from typing import Any, Literal

from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.images import OPENAI_MEAN, OPENAI_STD, PreprocessConfig
from eyesmith.models.activation import Activation
from eyesmith.models.keymap import UnknownLayoutError
from eyesmith.models.text.model import ClipTextConfig, Pooling
from eyesmith.models.vit.model import Pooling as ImagePooling
from eyesmith.models.vit.model import VitConfig, same_shape
from eyesmith.models.vit.sizes import ENCODERS, HALF, Pair
from eyesmith.tokenizer import Cleaning, TokenizerName

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
# settings of open_clip that change what is computed and that no model of ours has
_VISION_ODD = ("attentional_pool", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn")
_VISION_ODD += ("scale_fc", "block_type", "timm_drop")
_TEXT_ODD = ("ls_init_value", "embed_cls", "use_pad_mask", "hf_model_name", "final_ln_after_pool", "qk_norm")
_TEXT_ODD += ("scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc", "block_type")
_POOLINGS: dict[str, Pooling] = {"argmax": "largest", "eos": "end", "last": "last"}
_TOKENIZERS: dict[str, TokenizerName] = {  # by what its repository's name holds, the longest first
    "SigLIP2": "siglip2",
    "i18n": "siglip-i18n",
    "SigLIP": "siglip",
    "bert-base-uncased": "bert",
    "mt5-base": "mt5",
    "xlm-v-base": "xlm-v",
}
_REPOS = {"siglip2": "timm/ViT-B-16-SigLIP2", "siglip-i18n": "timm/ViT-B-16-SigLIP-i18n-256"}
_REPOS |= {"siglip": "timm/ViT-B-16-SigLIP", "bert": "bert-base-uncased", "mt5": "google/mt5-base"}
_REPOS |= {"xlm-v": "facebook/xlm-v-base"}
_CLEANING: dict[str, Cleaning] = {"canonicalize": "canonical", "whitespace": "spaces", "lower": "lower"}
_BY_VOCAB: dict[int, TokenizerName] = {256_000: "siglip2", 250_000: "siglip-i18n"}  # of a Hugging Face SigLIP
_RESAMPLE: dict[Any, Literal["bicubic", "bilinear"]] = {3: "bicubic", 2: "bilinear"}

CLIP_TYPES, SIGLIP_TYPES = ("clip", "clip_vision_model"), ("siglip", "siglip2", "siglip_vision_model")
HUGGING_FACE_TYPES = CLIP_TYPES + SIGLIP_TYPES + ("siglip2_vision_model",)


def from_open_clip(content: Mapping[str, Any], where: str) -> Pair | None:
    """Towers and preprocessing of an open_clip_config.json; None for an image tower of another family.

    Raises CheckpointError for one that is nearly ours and is not.
    """
    with _reading(where):
        model = content.get("model_cfg", content)
        vision, text = dict(model.get("vision_cfg") or {}), dict(model.get("text_cfg") or {})
    name = str(vision.get("timm_model_name") or "")
    if name and name not in ENCODERS:
        return None
    if isinstance(vision.get("layers"), list):
        raise UnknownLayoutError(f"{where}: a ResNet of CLIP ('layers' is a list), which is not built here")
    with _reading(where):
        quick: Activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
        embed_dim = int(model["embed_dim"])
        image = _timm_tower(name, vision) if name else _vision(vision, embed_dim, quick)
        tower = _text(text, embed_dim, quick)
        given = dict(content.get("preprocess_cfg") or {})
        size = _pair_of(given.get("size") or vision.get("image_size", 224))
        preprocess = PreprocessConfig(
            image_size=image.image_size,
            mean=_three(given.get("mean"), image.mean),
            std=_three(given.get("std"), image.std),
            interpolation=given.get("interpolation") or "bicubic",
            resize=given.get("resize_mode") or "shortest",
            overhang_px=size[0] - image.image_size[0] if given.get("resize_mode") == "squash" else 0,
        )
    return replace(image, mean=preprocess.mean, std=preprocess.std), tower, preprocess


def _timm_tower(name: str, vision: Mapping[str, Any]) -> VitConfig:
    known = ENCODERS[name]
    pool = "map" if known.pooling == "map" else "token"
    if vision.get("timm_pool", pool) not in (pool, "") or (vision.get("timm_proj") or "none") != "none":
        raise ConfigError(f"{name} with pool {vision.get('timm_pool')!r} and projection {vision.get('timm_proj')!r}")
    return replace(known, image_size=_fitted(vision.get("image_size", known.image_size), known.patch_px))


def _vision(vision: Mapping[str, Any], embed_dim: int, quick: Activation) -> VitConfig:
    _refuse(vision, _VISION_ODD)
    width, patch = int(vision.get("width", 768)), _pair_of(vision.get("patch_size", 16))
    pool, is_after = vision.get("pool_type", "tok"), bool(vision.get("final_ln_after_pool"))
    if pool not in ("tok", "avg"):
        raise ConfigError(f"pool_type {pool!r}: one vector an image is needed, from 'tok' or 'avg'")
    pooling: ImagePooling = "token" if pool == "tok" else "mean" if is_after else "normed_mean"
    if patch[0] != patch[1]:
        raise ConfigError(f"patch_size {list(patch)}: square patches are built here")
    return VitConfig(
        image_size=_fitted(vision.get("image_size", 224), patch[0]),
        patch_px=patch[0],
        width=width,
        depth=int(vision.get("layers", 12)),
        num_heads=width // int(vision.get("head_width", 64)),
        hidden_dim=int(width * vision.get("mlp_ratio", 4.0)),
        embed_dim=embed_dim,
        activation=_act(vision, quick),
        pooling=pooling,
        has_pre_norm=not vision.get("no_ln_pre"),
        layer_scale=float(vision.get("ls_init_value") or 0.0),
        norm_eps=float((vision.get("norm_kwargs") or {}).get("eps", 1e-5)),
    )


def _text(text: Mapping[str, Any], embed_dim: int, quick: Activation) -> ClipTextConfig:
    _refuse(text, _TEXT_ODD)
    repo, options = text.get("hf_tokenizer_name"), dict(text.get("tokenizer_kwargs") or {})
    tokenizer: TokenizerName = "clip"
    if repo:
        found: list[TokenizerName] = [known for part, known in _TOKENIZERS.items() if part in repo]
        if not found:
            raise ConfigError(f"hf_tokenizer_name {repo!r}: a tokenizer that is not known here")
        tokenizer = found[0]
    clean = options.get("clean", "whitespace" if repo else "lower")
    is_none = text.get("proj_type", "linear") == "none"
    return ClipTextConfig(
        width=int(text.get("width", 512)),
        depth=int(text.get("layers", 12)),
        heads=int(text.get("heads", 8)),
        embed_dim=embed_dim,
        context_len=int(text.get("context_length", 77)),
        vocab_size=int(text.get("vocab_size", 49408)),
        mlp_ratio=float(text.get("mlp_ratio", 4.0)),
        activation=_act(text, quick),
        is_causal=not text.get("no_causal_mask"),
        pooling=_POOLINGS[text.get("pool_type", "argmax")],
        end_id=int(text.get("eos_id", 2)) if text.get("pool_type") == "eos" else 0,
        projection="none" if is_none else "biased" if text.get("proj_bias") else "plain",
        norm_eps=float((text.get("norm_kwargs") or {}).get("eps", 1e-5)),
        tokenizer=tokenizer,
        cleaning=_CLEANING[clean],
    )


def to_open_clip(
    image: VitConfig, text: ClipTextConfig, preprocess: PreprocessConfig, logit_bias: float | None
) -> dict[str, Any]:
    """The content of an open_clip_config.json. Raises ConfigError for a model that open_clip cannot build."""
    side = image.image_size[0] + preprocess.overhang_px
    size: int | list[int] = side if image.image_size[0] == image.image_size[1] else list(image.image_size)
    model: dict[str, Any] = {"embed_dim": image.embed_dim or image.width}
    quick = [part.activation == "quick_gelu" for part in (image, text)]
    if image.pooling != "map" and any(quick):
        if not all(quick):
            raise ConfigError("activation: open_clip has one for both towers; this model has quick_gelu in one of them")
        model["quick_gelu"] = True
    if image.pooling == "map":
        same = [name for name, known in ENCODERS.items() if _is_like(known, image) and name.endswith(f"_{side}")]
        if not same:
            raise ConfigError("open_clip builds SigLIP's image towers of timm's sizes and activations only")
        timm = {"timm_model_name": same[0], "timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none"}
        vision = {"image_size": size, **timm}
    else:
        vision = {
            "image_size": size,
            "layers": image.depth,
            "width": image.width,
            "head_width": image.width // image.num_heads,
            "patch_size": image.patch_px,
            **({"mlp_ratio": _ratio(image.width, image.hidden_dim)} if image.hidden_dim != 4 * image.width else {}),
            **({"no_ln_pre": True} if not image.has_pre_norm else {}),
            **({"pool_type": "avg"} if image.pooling != "token" else {}),
            **({"final_ln_after_pool": True} if image.pooling == "mean" else {}),
            **({"ls_init_value": image.layer_scale} if image.layer_scale else {}),
            **({"norm_kwargs": {"eps": image.norm_eps}} if image.norm_eps != 1e-5 else {}),
            **({"act_kwargs": {"approximate": "tanh"}} if image.activation == "gelu_tanh" else {}),
        }
        if image.has_patch_bias or not image.has_class_token:
            raise ConfigError("open_clip's own ViT has a class token and patches without bias")
    model |= {"vision_cfg": vision, "text_cfg": _open_clip_text(text)}
    if image.pooling == "map":
        model["custom_text"] = True
    if logit_bias is not None:
        model["init_logit_bias"] = logit_bias
    pixels = {
        "size": size,
        "mode": "RGB",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": preprocess.interpolation,
        "resize_mode": preprocess.resize,
    }
    return {"model_cfg": model, "preprocess_cfg": pixels}


def _open_clip_text(text: ClipTextConfig) -> dict[str, Any]:
    made: dict[str, Any] = {
        "context_length": text.context_len,
        "vocab_size": text.vocab_size,
        "width": text.width,
        "heads": text.heads,
        "layers": text.depth,
    }
    if text.mlp_ratio != 4.0:
        made["mlp_ratio"] = text.mlp_ratio
    if text.tokenizer != "clip":
        made["hf_tokenizer_name"] = _REPOS[text.tokenizer]
        clean = next((theirs for theirs, own in _CLEANING.items() if own == text.cleaning), None)
        if clean is None:
            raise ConfigError(f"cleaning: open_clip does not clean texts as {text.cleaning!r}; take --to hf")
        made["tokenizer_kwargs"] = {"clean": clean} | ({"strip_sep_token": True} if text.tokenizer == "bert" else {})
    if not text.is_causal:
        made["no_causal_mask"] = True
    if text.pooling != "largest":
        made["pool_type"] = next(theirs for theirs, own in _POOLINGS.items() if own == text.pooling)
    if text.pooling == "end":
        made["eos_id"] = text.end_id
    if text.projection != "plain":
        made |= {"proj_type": "none"} if text.projection == "none" else {"proj_bias": True}
    if text.norm_eps != 1e-5:
        made["norm_kwargs"] = {"eps": text.norm_eps}
    if text.activation == "gelu_tanh":
        made["act_kwargs"] = {"approximate": "tanh"}
    return made


def from_hugging_face(
    content: Mapping[str, Any], pixels: Mapping[str, Any] | None, where: str
) -> tuple[VitConfig, ClipTextConfig | None, PreprocessConfig]:
    """Towers and preprocessing of a config.json of CLIP, SigLIP or SigLIP 2, and a preprocessor_config.json.

    No text tower for the config of an image tower alone. Raises CheckpointError for what is not computed here.
    """
    kind = content["model_type"]
    is_clip = kind in CLIP_TYPES
    is_image = kind.endswith("_vision_model")
    with _reading(where):
        vision = dict(content if is_image else content.get("vision_config") or {})
        text = None if is_image else dict(content.get("text_config") or {})
        width = int(vision.get("hidden_size", 768))
        projected = int(content.get("projection_dim", 512)) if is_clip else width
        patch_px = int(vision.get("patch_size", 32 if is_clip else 16))
        if kind.startswith("siglip2"):
            side = round(int(vision.get("num_patches", 256)) ** 0.5) * patch_px
        else:
            side = int(vision.get("image_size", 224))
        if not is_clip and not vision.get("vision_use_head", True):
            raise ConfigError("vision_use_head false: an image tower without its pooling")
        image = VitConfig(
            image_size=_fitted(side, patch_px),
            patch_px=patch_px,
            width=width,
            depth=int(vision.get("num_hidden_layers", 12)),
            num_heads=int(vision.get("num_attention_heads", 12)),
            hidden_dim=int(vision.get("intermediate_size", 3072)),
            embed_dim=projected,
            activation=_hidden_act(vision, is_clip),
            pooling="token" if is_clip else "map",
            has_class_token=is_clip,
            has_pre_norm=is_clip,
            has_patch_bias=not is_clip,
            norm_eps=float(vision.get("layer_norm_eps", 1e-5 if is_clip else 1e-6)),
            mean=OPENAI_MEAN if is_clip else HALF,
            std=OPENAI_STD if is_clip else HALF,
        )
        preprocess = _pixels(dict(pixels or {}), image, side - image.image_size[0], is_clip)
        tower = None if text is None else _hugging_face_text(text, projected, is_clip)
    return replace(image, mean=preprocess.mean, std=preprocess.std), tower, preprocess


def _hugging_face_text(text: Mapping[str, Any], projected: int, is_clip: bool) -> ClipTextConfig:
    width, hidden = int(text.get("hidden_size", 512 if is_clip else 768)), text.get("intermediate_size")
    vocab_size = int(text.get("vocab_size", 49408 if is_clip else 32_000))
    if is_clip:
        end = int(text.get("eos_token_id", 49407))
        is_largest = end == 2 or end >= vocab_size - 1  # 2: what old files say, and transformers takes the largest then
        rest: dict[str, Any] = {"pooling": "largest"} if is_largest else {"pooling": "end", "end_id": end}
    else:
        tokenizer = _BY_VOCAB.get(vocab_size, "siglip")
        rest = {
            "is_causal": False,
            "pooling": "last",
            "projection": "biased",
            "tokenizer": tokenizer,
            "cleaning": "siglip2" if tokenizer == "siglip2" else "siglip",
        }
    hidden = int(hidden if hidden is not None else 2048 if is_clip else 3072)
    return ClipTextConfig(
        width=width,
        depth=int(text.get("num_hidden_layers", 12)),
        heads=int(text.get("num_attention_heads", 8 if is_clip else 12)),
        embed_dim=projected if is_clip else int(text.get("projection_size", width)),
        context_len=int(text.get("max_position_embeddings", 77 if is_clip else 64)),
        vocab_size=vocab_size,
        mlp_ratio=_ratio(width, hidden),
        activation=_hidden_act(text, is_clip),
        norm_eps=float(text.get("layer_norm_eps", 1e-5 if is_clip else 1e-6)),
        **rest,
    )


def _pixels(given: Mapping[str, Any], image: VitConfig, overhang_px: int, is_clip: bool) -> PreprocessConfig:
    resample = given.get("resample", 3)
    if resample not in _RESAMPLE:
        raise ConfigError(f"resample {resample!r}: pictures are resized bicubic (3) or bilinear (2) here")
    size = given.get("size", {})
    is_squashed = (isinstance(size, Mapping) and "height" in size) or (not is_clip and not isinstance(size, int))
    if is_clip and not is_squashed and given.get("do_center_crop") is False:
        raise ConfigError("do_center_crop false: pictures of any shape, and the model takes one")
    return PreprocessConfig(
        image_size=image.image_size,
        mean=_three(given.get("image_mean"), image.mean),
        std=_three(given.get("image_std"), image.std),
        interpolation=_RESAMPLE[resample],
        resize="squash" if is_squashed else "shortest",
        overhang_px=overhang_px if is_squashed else 0,
    )


def to_hugging_face(
    image: VitConfig, text: ClipTextConfig, preprocess: PreprocessConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of config.json and preprocessor_config.json; ConfigError for what transformers cannot build."""
    is_clip = image.pooling == "token"
    if is_clip:
        ok = image.has_pre_norm and not image.has_patch_bias and text.is_causal and text.projection == "plain"
    else:
        ok = image.pooling == "map" and text.pooling == "last" and text.projection == "biased"
    if not ok or image.layer_scale:
        raise ConfigError(
            "transformers' CLIP has a class token and a causal text tower, its SigLIP a pooling by attention and a "
            "biased projection; this model has neither"
        )
    side = image.image_size[0] + preprocess.overhang_px
    kind = "clip" if is_clip else "siglip"
    vision = {
        "model_type": f"{kind}_vision_model",
        "hidden_size": image.width,
        "intermediate_size": image.hidden_dim,
        "num_hidden_layers": image.depth,
        "num_attention_heads": image.num_heads,
        "image_size": side,
        "patch_size": image.patch_px,
        "hidden_act": _their_act(image.activation),
        "layer_norm_eps": image.norm_eps,
    }
    tower = {
        "model_type": f"{kind}_text_model",
        "vocab_size": text.vocab_size,
        "hidden_size": text.width,
        "intermediate_size": text.hidden_dim,
        "num_hidden_layers": text.depth,
        "num_attention_heads": text.heads,
        "max_position_embeddings": text.context_len,
        "hidden_act": _their_act(text.activation),
        "layer_norm_eps": text.norm_eps,
    }
    if is_clip:
        end = text.end_id if text.pooling == "end" else text.vocab_size - 1
        tower |= {"projection_dim": image.embed_dim, "eos_token_id": end, "bos_token_id": max(0, text.vocab_size - 2)}
        vision["projection_dim"] = image.embed_dim
        whole: dict[str, Any] = {"projection_dim": image.embed_dim, "architectures": ["CLIPModel"]}
    else:
        tower["projection_size"] = text.embed_dim
        tower |= {"eos_token_id": 1, "bos_token_id": None, "pad_token_id": 0 if text.tokenizer == "siglip2" else 1}
        whole = {"architectures": ["SiglipModel"]}
    whole |= {"model_type": kind, "vision_config": vision, "text_config": tower}
    is_squashed = preprocess.resize == "squash"
    pixels: dict[str, Any] = {
        "image_processor_type": f"{'CLIP' if is_clip else 'Siglip'}ImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side} if is_squashed else {"shortest_edge": side},
        "resample": 3 if preprocess.interpolation == "bicubic" else 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
        "do_convert_rgb": True,
    }
    if is_clip:
        pixels |= {"do_center_crop": not is_squashed, "crop_size": {"height": side, "width": side}}
    return whole, pixels


def _hidden_act(part: Mapping[str, Any], is_clip: bool) -> Activation:
    name = part.get("hidden_act", "quick_gelu" if is_clip else "gelu_pytorch_tanh")
    if name not in _ACTIVATIONS:
        raise ConfigError(f"hidden_act {name!r}: expected one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _their_act(activation: Activation) -> str:
    return next(theirs for theirs, own in _ACTIVATIONS.items() if own == activation)


def _act(part: Mapping[str, Any], quick: Activation) -> Activation:
    options = part.get("act_kwargs") or {}
    if quick == "quick_gelu" or not options:
        return quick
    if options != {"approximate": "tanh"}:
        raise ConfigError(f"act_kwargs {options}: expected none, or approximate 'tanh'")
    return "gelu_tanh"


def _is_like(known: VitConfig, image: VitConfig) -> bool:
    told = attrgetter("image_size", "activation", "pooling", "num_heads", "norm_eps")
    return told(known) == told(image) and same_shape(known, image)


def _ratio(width: int, hidden: int) -> float:
    known = (4.0, 3.7362, 4.3637, 4.9231, 8.5715)
    return next((ratio for ratio in known if int(width * ratio) == hidden), hidden / width)


def _fitted(size: Any, patch_px: int) -> tuple[int, int]:
    """The pixels that whole patches cover."""
    height, width = _pair_of(size)
    return height // patch_px * patch_px, width // patch_px * patch_px


def _pair_of(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _three(given: Any, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if not given:
        return default
    first, second, third = map(float, given)
    return first, second, third


def _refuse(part: Mapping[str, Any], names: tuple[str, ...]) -> None:
    if odd := [name for name in names if part.get(name)]:
        raise ConfigError(f"{odd[0]} is {part[odd[0]]!r}, which is not built here")


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turns what is wrong with a config into one error that names its file."""
    try:
        yield
    except ConfigError as error:
        raise UnknownLayoutError(f"{where}: asks for a model that is not known here: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        said = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{where}: asks for a model that is not known here: {said}") from None
