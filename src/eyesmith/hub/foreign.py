"""Other people's models by their own ids: what to fetch, what of it is read, and our config and names for it.

`open_clip:NAME` and `timm:NAME` alone are random weights, equal in every process; with a tag (open_clip:NAME/TAG,
timm:NAME.TAG) they are the published ones, from the hub's cache once they are there. Weights are read by our own
reader, so nothing in a file is run; the packages then give them their names.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from eyesmith.config import closest
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.hub.build import ModelConfig
from eyesmith.hub.folder import find_weights
from eyesmith.hub.hugging_face import fetch, fetch_file
from eyesmith.hub.peers import OPEN_CLIP_FILE
from eyesmith.hub.run_folder import CONFIG_FILE
from eyesmith.hub.weights import read_tensors
from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.foreign.open_clip_image import OpenClipImageConfig
from eyesmith.models.foreign.open_clip_text import OpenClipTextConfig
from eyesmith.models.foreign.packages import BUILD_ERRORS, import_open_clip, import_timm
from eyesmith.models.foreign.timm import TimmConfig
from eyesmith.models.foreign.transformers_image import TransformersImageConfig, feature_dim, native_size
from eyesmith.models.foreign.transformers_model import IMAGES, PAIRS, is_of, make_config, named_tensors, read_settings
from eyesmith.models.foreign.transformers_text import TransformersTextConfig
from eyesmith.models.foreign.transforms import of_open_clip, of_timm, of_transformers

OPEN_CLIP_PREFIX, TIMM_PREFIX = "open_clip:", "timm:"
RANDOM_SEED = 0  # of weights that nobody trained
Found = tuple[ModelConfig, dict[str, Tensor], str]
"""A config, tensors in its names, and where they are from, for messages."""


def is_foreign_id(source: str) -> bool:
    """Whether `source` is the id of a model of another package."""
    return source.startswith((OPEN_CLIP_PREFIX, TIMM_PREFIX))


def foreign_config(source: str) -> ModelConfig:
    """The config of an id; no weights are fetched. Raises ConfigError for an unknown name."""
    if source.startswith(TIMM_PREFIX):
        return _timm_named(source)[0]
    name = source.removeprefix(OPEN_CLIP_PREFIX)
    if Path(name).is_dir():
        return read_foreign_id(source)[0]
    return _open_clip_named(source)[0]


def read_foreign_id(source: str) -> Found:
    """The model of an id. Raises ConfigError for an unknown name, CheckpointError where weights cannot be had."""
    return _open_clip(source) if source.startswith(OPEN_CLIP_PREFIX) else _timm(source)


def read_foreign_folder(folder: Path, source: str) -> Found | None:
    """The model of a folder that open_clip, timm or transformers wrote; None for a folder of none of them.

    source: hf:OWNER/NAME where the hub's cache has the folder, else anything, and the model has the folder's name.
    Raises CheckpointError where it cannot be used.
    """
    source = source if source.startswith("hf:") else folder.resolve().name
    if (folder / OPEN_CLIP_FILE).is_file():
        content = _json(folder / OPEN_CLIP_FILE)
        if isinstance(content.get("model_cfg"), dict):
            return _open_clip_folder(folder, content, source)
    if not (folder / CONFIG_FILE).is_file():
        return None
    content = _json(folder / CONFIG_FILE)
    if isinstance(content.get("architecture"), str):
        return _timm_folder(folder, content, source)
    if content.get("model_type") in (*PAIRS, *IMAGES) or "auto_map" in content:
        return _transformers_folder(folder, content, source)
    return None


def _open_clip(source: str) -> Found:
    folder = Path(source.removeprefix(OPEN_CLIP_PREFIX))
    if folder.is_dir():
        found = read_foreign_folder(folder, source)
        if found is None:
            raise CheckpointError(f"{source}: the folder has no {OPEN_CLIP_FILE}")
        return found
    config, known = _open_clip_named(source)
    if not known:
        return _random(config, source)
    repo, _, file = str(known.get("hf_hub") or "").rpartition("/")
    if not repo:
        raise CheckpointError(f"{source}: these weights are not on the hub; get {known.get('url')} and load the file")
    path = fetch_file(repo, file) if file else find_weights(fetch(repo)[1])
    assert path is not None, "fetch refuses a repository without weights"
    return _open_clip_weights(config, path)


def _open_clip_named(source: str) -> tuple[ClipConfig, Mapping[str, Any]]:
    """The config of open_clip:NAME or open_clip:NAME/TAG, and what open_clip says of the tag's weights."""
    open_clip = import_open_clip(source)
    name, _, tag = source.removeprefix(OPEN_CLIP_PREFIX).partition("/")
    model = open_clip.get_model_config(name)
    if model is None:
        raise ConfigError(f"{source}: open_clip has no model {name!r}{closest(name, open_clip.list_models())}")
    known = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    if tag and not known:
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise ConfigError(f"{source}: open_clip has no weights {tag!r} of {name}{closest(tag, tags)}")
    if tag:
        model["quick_gelu"] = bool(known.get("quick_gelu"))  # as the weights were trained, whatever the name says
    return _open_clip_config(model, known, name, source), known


def _open_clip_folder(folder: Path, content: Mapping[str, Any], source: str) -> Found:
    model = dict(content["model_cfg"])
    config = _open_clip_config(model, content.get("preprocess_cfg") or {}, folder.name, source)
    path = find_weights(folder)
    if path is None:
        return _random(config, f"{source} (random weights: the folder has none)")
    return _open_clip_weights(config, path)


def _open_clip_config(model: Mapping[str, Any], preprocess: Mapping[str, Any], name: str, source: str) -> ClipConfig:
    vision, text = model.get("vision_cfg"), model.get("text_cfg")
    if not isinstance(vision, dict) or not isinstance(text, dict) or not isinstance(model.get("embed_dim"), int):
        raise CheckpointError(f"{source}: expected open_clip's embed_dim, vision_cfg and text_cfg")
    size = vision.get("image_size", 224)
    # open_clip takes the tower's size, whatever the preprocessing says
    pixels = of_open_clip({**preprocess, "size": size}, source)
    gelu = {"quick_gelu": bool(model.get("quick_gelu"))}
    dim = int(model["embed_dim"])
    return ClipConfig(
        name=source,
        image=OpenClipImageConfig(
            model_name=name,
            settings=json.dumps({"vision_cfg": vision} | gelu, sort_keys=True),
            image_size=pixels.image_size,
            embed_dim=dim,
            preprocess=pixels,
        ),
        text=OpenClipTextConfig(
            model_name=name, settings=json.dumps({"text_cfg": text} | gelu, sort_keys=True), embed_dim=dim
        ),
        preprocess=pixels,
        init_scale=math.exp(float(model.get("init_logit_scale", math.log(1 / 0.07)))),
    )


def _open_clip_weights(config: ClipConfig, path: Path) -> Found:
    """open_clip's own conversions of files, whatever program wrote them, on tensors that our reader read."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    with torch.device("meta"):
        clip = config.build()
    like = SimpleNamespace(visual=clip.image.tower, text=clip.text.tower)  # all that the conversions look at
    state = read_tensors(path)
    try:
        state = convert_state_dict(like, state)  # pyright: ignore[reportArgumentType]
        state = convert_to_custom_text_state_dict(state)
        resize_pos_embed(state, like)
        resize_text_pos_embed(state, like)
    except BUILD_ERRORS as error:
        raise CheckpointError(
            f"{path}: open_clip's conversions do not take it ({type(error).__name__}: {error})"
        ) from None
    names = {"visual.": "image.tower.", "text.": "text.tower."}
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        prefix = next((prefix for prefix in names if name.startswith(prefix)), None)
        if prefix is not None:
            tensors[names[prefix] + name.removeprefix(prefix)] = value
        elif name in ("logit_scale", "logit_bias"):
            tensors[name] = value.reshape(())
        elif not name.startswith("text_decoder."):  # CoCa's captions are no part of the pair
            raise CheckpointError(f"{path}: {name!r} has no place in open_clip's {config.image.model_name}")  # pyright: ignore[reportAttributeAccessIssue]
    for ids in [name for name in tensors if name.endswith("embeddings.position_ids")]:
        del tensors[ids]
    return config, tensors, f"{path} (as {config.name})"


def _timm(source: str) -> Found:
    config, known = _timm_named(source)
    if "." not in config.model_name:
        return _random(config, source)
    if not known.hf_hub_id:
        raise CheckpointError(f"{source}: these weights are not on the hub; get {known.url} and load the file")
    path = fetch_file(known.hf_hub_id, known.hf_hub_filename) if known.hf_hub_filename else None
    path = path or find_weights(fetch(known.hf_hub_id)[1])
    assert path is not None, "fetch refuses a repository without weights"
    return _timm_weights(config, {}, path)


def _timm_named(source: str) -> tuple[TimmConfig, Any]:
    """The config of timm:NAME or timm:NAME.TAG, and what timm says of the tag's weights."""
    timm = import_timm(source)
    name, _, tag = source.removeprefix(TIMM_PREFIX).partition(".")
    if not timm.is_model(name):
        raise ConfigError(f"{source}: timm has no model {name!r}{closest(name, timm.list_models())}")
    try:
        known = timm.get_pretrained_cfg(f"{name}.{tag}" if tag else name)
    except RuntimeError:
        known = None
    if known is None:
        tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{name}.*")]
        raise ConfigError(f"{source}: timm has no weights {tag!r} of {name}{closest(tag, tags)}")
    return _timm_config(f"{name}.{tag}" if tag else name, known.to_dict(), source), known


def _timm_folder(folder: Path, content: Mapping[str, Any], source: str) -> Found:
    name = content["architecture"]
    known = {**_timm_named(f"{TIMM_PREFIX}{name}")[1].to_dict(), **content, **(content.get("pretrained_cfg") or {})}
    config = _timm_config(name, known, source)
    path = find_weights(folder)
    if path is None:
        return _random(config, f"{source} (random weights: the folder has none)")
    return _timm_weights(config, dict(content.get("model_args") or {}), path)


def _timm_config(name: str, known: Mapping[str, Any], source: str) -> TimmConfig:
    pixels = of_timm(known, source)
    return TimmConfig(
        model_name=name, image_size=pixels.image_size, embed_dim=0, mean=pixels.mean, std=pixels.std, preprocess=pixels
    )


def _timm_weights(config: TimmConfig, options: Mapping[str, Any], path: Path) -> Found:
    """timm's own renaming of published files, on tensors that our reader read; the classes' layer is left out."""
    timm = import_timm(config.model_name)
    if options.keys() - {"img_size"}:
        raise CheckpointError(f"{path}: timm built it with {dict(options)}, which is not known here")
    overlay = {"state_dict": read_tensors(path), "source": None, "custom_load": False}
    try:
        with torch.random.fork_rng(devices=[]):
            backbone = timm.create_model(
                config.model_name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **options
            )
    except BUILD_ERRORS as error:
        raise CheckpointError(f"{path}: these are no weights of timm's {config.model_name}: {_line(error)}") from None
    tensors = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    return config, tensors, f"{path} (as {TIMM_PREFIX}{config.model_name})"


def _transformers_folder(folder: Path, content: Mapping[str, Any], source: str) -> Found:
    where = str(folder / CONFIG_FILE)
    settings = read_settings(content, where)
    kind, size, dim = content["model_type"], native_size(settings, source), feature_dim(settings, source)
    pixels = _processor(folder, size)
    image = TransformersImageConfig(
        model_name=source,
        settings=settings,
        image_size=pixels.image_size,
        embed_dim=0 if kind in IMAGES else dim,
        preprocess=pixels,
    )
    path = find_weights(folder)
    if path is None:
        raise CheckpointError(f"{folder}: expected weights in model.safetensors or pytorch_model.bin, there are none")
    state = named_tensors(settings, source, read_tensors(path), str(path))
    if kind in IMAGES:
        return image, {f"tower.{name}": value for name, value in state.items()}, str(path)
    text = TransformersTextConfig(
        model_name=source,
        settings=settings,
        embed_dim=dim,
        context_len=_context_len(folder, settings, source),
        source=source if source.startswith("hf:") else str(folder.resolve()),
    )
    config = ClipConfig(name=source, image=image, text=text, preprocess=pixels)
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if is_of(name, "image"):
            tensors[f"image.tower.{name}"] = value
        elif is_of(name, "text"):
            tensors[f"text.tower.{name}"] = value
        elif name in ("logit_scale", "logit_bias"):
            tensors[name] = value.reshape(())
        else:
            raise CheckpointError(f"{path}: {name!r} has no place in transformers' {kind}")
    return config, tensors, f"{path} (as {source})"


def _processor(folder: Path, image_size: tuple[int, int]) -> PreprocessConfig:
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            content = _json(folder / name)
            content = content.get("image_processor", content)
            return of_transformers(content, image_size, str(folder / name))
    raise CheckpointError(f"{folder}: expected a preprocessor_config.json, which says how pictures are prepared")


def _context_len(folder: Path, settings: str, source: str) -> int:
    longest = int(make_config(settings, source).text_config.max_position_embeddings)
    if (folder / "tokenizer_config.json").is_file():
        said = _json(folder / "tokenizer_config.json").get("model_max_length")
        if isinstance(said, int) and 2 <= said < longest:
            return said
    return longest


def _random(config: ModelConfig, source: str) -> Found:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        tensors = dict(config.build().state_dict())
    return config, tensors, f"{source} (random weights)"


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
