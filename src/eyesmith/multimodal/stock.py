"""A chat model as transformers' own LlavaForConditionalGeneration, in a folder that its Auto classes open.

What is ours there is the eye: `register()` tells transformers of its config, its model and its image processor. The
folder runs no code of its own.
"""

import copy
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from eyesmith.config import from_dict, to_dict
from eyesmith.data.conversations import IMAGE_WORD
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.files import atomic_path, write_atomic
from eyesmith.hub.run_folder import ENCODERS, describe_encoder
from eyesmith.hub.weights import own_memory
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.identity import weights_hash
from eyesmith.multimodal.eye import Eye, EyeConfig, picture_pixels
from eyesmith.multimodal.fingerprint import write_chat_fingerprint
from eyesmith.multimodal.language import Language, blank_language, quietly, transformers_module
from eyesmith.multimodal.model import ChatModel
from eyesmith.multimodal.packing import ChatEncoder
from eyesmith.multimodal.template import TEMPLATES, TemplateName

MODEL_FILE, CONFIG_FILE = "model.safetensors", "config.json"
_LONGEST = 2048
EYE_TYPE, PROCESSOR_TYPE = "eyesmith_eye", "EyesmithImageProcessor"


class Classes(NamedTuple):
    """What `register` adds to transformers."""

    config: type
    model: type
    processor: type


@cache
def register() -> Classes:
    """Make transformers know our eyes, in this process; returns the classes."""
    transformers = transformers_module()
    from transformers.image_processing_base import BatchFeature
    from transformers.image_processing_utils import BaseImageProcessor
    from transformers.modeling_outputs import BaseModelOutput

    class EyesmithEyeConfig(transformers.PreTrainedConfig):
        """encoder: kind and fields as config.json of a run has them; eye: see `EyeConfig`."""

        model_type = EYE_TYPE

        def __init__(
            self, encoder: dict[str, Any] | None = None, eye: dict[str, Any] | None = None, **others: Any
        ) -> None:
            self.encoder, self.eye = encoder or {}, eye or {}
            self.hidden_size = others.pop("hidden_size", 0)
            super().__init__(**others)

    class EyesmithEyeModel(transformers.PreTrainedModel):
        """The eye as a vision tower: its one hidden state is what the language model reads, selected and pooled."""

        config_class = EyesmithEyeConfig
        main_input_name = "pixel_values"
        _no_split_modules = ()
        _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True  # asked of the language model beside it

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            eye = from_dict(EyeConfig, config.eye)
            self.eye = Eye(encoder_config(config.encoder).build(), eye)
            self.post_init()

        def _init_weights(self, module: Any) -> None:
            del module  # they come from the file

        def forward(self, pixel_values: Tensor, **_: Any) -> Any:
            tokens = self.eye(pixel_values)
            return BaseModelOutput(last_hidden_state=tokens, hidden_states=(tokens,))

    class EyesmithImageProcessor(BaseImageProcessor):
        """Pictures as the eye saw them in training, exactly: our transform, and the square of LLaVA."""

        model_input_names = ("pixel_values",)

        def __init__(self, transform: dict[str, Any] | None = None, pad: bool = True, **others: Any) -> None:
            super().__init__(**others)
            self.transform, self.pad = transform or {}, pad

        def preprocess(self, images: Any, *_: Any, return_tensors: Any = None, **__: Any) -> Any:
            config = from_dict(PreprocessConfig, self.transform)
            listed = images if isinstance(images, list | tuple) else [images]
            listed = [one for item in listed for one in (item if isinstance(item, list | tuple) else [item])]
            pixels = torch.stack([picture_pixels(one, config, pad=self.pad) for one in listed]).float() / 255
            mean, std = (torch.tensor(value)[:, None, None] for value in (config.mean, config.std))
            return BatchFeature({"pixel_values": (pixels - mean) / std}, tensor_type=return_tensors)

    transformers.AutoConfig.register(EYE_TYPE, EyesmithEyeConfig)
    transformers.AutoModel.register(EyesmithEyeConfig, EyesmithEyeModel)
    transformers.AutoImageProcessor.register(EyesmithEyeConfig, slow_image_processor_class=EyesmithImageProcessor)
    return Classes(EyesmithEyeConfig, EyesmithEyeModel, EyesmithImageProcessor)


def encoder_config(described: Mapping[str, Any]) -> Any:
    """The config of an encoder as `describe_encoder` wrote it. Raises CheckpointError for an unknown kind."""
    fields = dict(described)
    kind = str(fields.pop("kind", ""))
    if kind not in ENCODERS:
        raise CheckpointError(f"vision_config.encoder: expected one of {', '.join(ENCODERS)}, got {kind!r}")
    try:
        return from_dict(ENCODERS[kind], fields)
    except ConfigError as error:
        raise CheckpointError(f"vision_config.encoder: {error}") from None


def stock_config(model: ChatModel, tokenizer: Any) -> Any:
    """LlavaConfig of a chat model: the eye selects and pools by itself, so the tower's one state is taken whole."""
    transformers, ours = transformers_module(), register()
    eye = model.eye
    vision = ours.config(
        encoder=describe_encoder(eye.encoder.config),  # pyright: ignore[reportArgumentType, reportCallIssue]
        eye=to_dict(eye.config),
        hidden_size=eye.width,
    )
    return transformers.LlavaConfig(
        vision_config=vision,
        text_config=copy.deepcopy(model.language.config),  # the other would forget its attention
        image_token_index=model.image_id,
        image_seq_length=eye.num_tokens,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        projector_hidden_act="gelu",
        tie_word_embeddings=bool(model.language.config.tie_word_embeddings),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        architectures=["LlavaForConditionalGeneration"],
    )


def stock_tensors(model: ChatModel) -> dict[str, Tensor]:
    """The model's state by transformers' names."""
    moved = {"image.": "model.vision_tower.eye.encoder.", "projector.": "model.multi_modal_projector."}
    moved |= {"text.model.": "model.language_model.", "text.lm_head.": "lm_head."}
    tied = bool(model.language.config.tie_word_embeddings)
    found = {}
    for name, value in model.state_dict().items():
        if tied and name == "text.lm_head.weight":
            continue
        old = next((prefix for prefix in moved if name.startswith(prefix)), None)
        assert old is not None, name
        found[moved[old] + name.removeprefix(old)] = value
    return found


def save_chat(
    folder: str | os.PathLike[str],
    model: ChatModel,
    tokenizer: Any,
    *,
    template: TemplateName,
    preprocess: PreprocessConfig,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write the folder that `load_chat`, and transformers after `register`, open; model.safetensors last.

    config: what else config.json shall hold, beside transformers' keys.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    described = stock_config(model, tokenizer).to_dict()
    processor = {
        "image_processor": {"preprocess": to_dict(preprocess), "pad": model.eye.config.pad},
        "num_image_tokens": model.eye.num_tokens,
        "template": template,
        "eye_hash": weights_hash(model.image),
    }
    with quietly():
        _write_tokenizer(root, tokenizer, TEMPLATES[template].jinja)
    ours = {**(config or {}), "eyesmith_chat": processor}
    write_atomic(root / CONFIG_FILE, json.dumps({**described, **ours}, indent=2, default=str))
    _write_processor(root, model, tokenizer, template, preprocess)
    with atomic_path(root / MODEL_FILE) as part:
        save_file(own_memory(stock_tensors(model)), part, metadata={"format": "pt"})
        part.chmod((root / CONFIG_FILE).stat().st_mode)
        encoder = ChatEncoder(
            tokenizer=tokenizer,
            template=TEMPLATES[template],
            num_image_tokens=model.eye.num_tokens,
            max_tokens=_LONGEST,
        )
        write_chat_fingerprint(root, part, model, encoder, preprocess)


def _write_tokenizer(root: Path, tokenizer: Any, jinja: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        before = tokenizer.chat_template
        tokenizer.chat_template = jinja
        try:
            tokenizer.save_pretrained(scratch)
        finally:
            tokenizer.chat_template = before
        for made in sorted(Path(scratch).iterdir()):
            write_atomic(root / made.name, made.read_bytes())


def _write_processor(
    root: Path, model: ChatModel, tokenizer: Any, template: TemplateName, preprocess: PreprocessConfig
) -> None:
    transformers, ours = transformers_module(), register()
    side = max(preprocess.image_size)
    processor = transformers.LlavaProcessor(
        ours.processor(transform=to_dict(preprocess), pad=model.eye.config.pad),
        tokenizer,
        patch_size=side + 1,  # no cell fits, so all tokens are the additional ones: the eye says how many they are
        vision_feature_select_strategy="full",
        image_token=IMAGE_WORD,
        num_additional_image_tokens=model.eye.num_tokens,
        chat_template=TEMPLATES[template].jinja,
    )
    with tempfile.TemporaryDirectory() as scratch:
        processor.save_pretrained(scratch)
        for made in sorted(Path(scratch).iterdir()):
            write_atomic(root / made.name, made.read_bytes())


def open_stock(folder: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """transformers' model and processor of a folder that `save_chat` wrote, on the CPU, in evaluation mode.

    Raises CheckpointError where it holds no chat model, or one whose files do not fit each other.
    """
    root = Path(folder)
    chat_facts(root)
    transformers = transformers_module()
    register()
    try:
        with quietly():
            model = transformers.LlavaForConditionalGeneration.from_pretrained(
                root,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=dtype,
                attn_implementation="sdpa",
            )
            processor = transformers.LlavaProcessor.from_pretrained(
                root, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # damaged files reach every kind of error
        raise CheckpointError(f"{root}: its chat model cannot be read; {error}") from error
    return model.eval(), processor


def chat_facts(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What config.json says of the chat model beside transformers' keys. Raises CheckpointError where it is none."""
    root = Path(folder)
    path = root / CONFIG_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{root}: no chat model: {CONFIG_FILE} cannot be read ({error})") from None
    found = content.get("eyesmith_chat") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not (root / MODEL_FILE).is_file():
        raise CheckpointError(
            f"{root}: expected a language model with an eye, as `eyesmith train chat-scenes` leaves it; this holds "
            + ("a run that is not finished" if isinstance(found, dict) else "another kind of model")
        )
    return found


def start_from(folder: str | os.PathLike[str]) -> Language:
    """Language model, tokenizer and projector of a folder that `save_chat` wrote. Raises CheckpointError."""
    stock, processor = open_stock(folder)
    language = blank_language(stock.config.text_config, processor.tokenizer)
    language.model.get_decoder().load_state_dict(stock.model.language_model.state_dict())
    language.model.get_output_embeddings().load_state_dict(stock.get_output_embeddings().state_dict())
    return replace(language, projector=stock.model.multi_modal_projector.state_dict())
