"""What a weight file that cannot be loaded is, in words: by the names of its tensors, or by how the file begins."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath

# the first that any name matches is said: what it is, and what to do
_BY_NAME: tuple[tuple[str, str], ...] = (
    (
        r"\blora_(A|B|down|up|embedding)|\.hada_w|^base_model\.model\.|\bia3_",
        "adapters (LoRA or the like), without the model that they change; merge them into it where they were trained, "
        "and load the whole",
    ),
    (
        r"\.(SCB|qweight|qzeros|absmax|quant_map|_packed_params)(\.|$)|\.quant_state\.",
        "quantised weights (bitsandbytes, GPTQ or torch's own), whose scales are not known here; get the file in fp32, "
        "fp16 or bf16",
    ),
    (
        r"diffusion_model\.|^(down_blocks|mid_block|up_blocks)\.",
        "a diffusion model; its CLIP lies in a folder beside it",
    ),
    (
        r"^(text_decoder|multimodal)\.|^qformer\.",
        "a model that writes captions (CoCa, BLIP); only plain pairs are read",
    ),
    (r"^visual\.(layer1|attnpool)\.", "a CLIP on a ResNet; load it as open_clip:RN50 and the like"),
    (r"^visual\.trunk\.stages\.", "a CLIP on timm's ConvNeXt or another backbone of stages; load it as open_clip:NAME"),
    (r"^visual\.trunk\.", "a CLIP on one of timm's backbones; load it as open_clip:NAME"),
    (
        r"^(text_model\.|text\.)?(encoder\.layers\.0\.self_attn|transformer\.resblocks\.0\.|embeddings\.token_embedding|"
        r"token_embedding\.)",
        "a text tower alone; an image tower is needed",
    ),
    (
        r"^(vit\.|dinov2\.|model\.)?(encoder\.layer\.0\.|layer\.0\.attention\.)",
        "an image tower of Hugging Face's ViT or DINO; load it as hf:OWNER/NAME",
    ),
    (
        r"^(blocks\.0\.|patch_embed\.|stages\.0\.|layer1\.0\.|features\.0\.)",
        "an image classifier or backbone of timm or torchvision; load it as timm:NAME",
    ),
    (r"(^|\.)layers\.0\.(self_attn|mlp)\.|^lm_head\.|^transformer\.h\.0\.", "a language model"),
    (r"^(exp_avg|momentum_buffer|state\.)", "the state of an optimiser, not a model's weights"),
)
_NUM_ANYWHERE = 2  # of them, that also come inside a model that is known
_BY_START: tuple[tuple[bytes, str], ...] = (
    (b"GGUF", "this is a GGUF file of a language model or its projector"),
    (b"\x89HDF", "this is an HDF5 file of Keras or TensorFlow; get the one for PyTorch"),
    (b"PAR1", "this is a Parquet table, not weights"),
    (b"\x1f\x8b", "this is packed with gzip; unpack it first"),
    (b"\xfd7zXZ", "this is packed with xz; unpack it first"),
    (b"Rar!", "this is a RAR archive; unpack it first"),
    (b"7z\xbc\xaf", "this is a 7z archive; unpack it first"),
    (b"\x93NUMPY", "this is an array of NumPy's; weights are read from PyTorch's files"),
)
_BY_SUFFIX = {
    ".onnx": "this is an ONNX graph, whose weights are no longer a model's; get the file that it was exported from",
    ".msgpack": "this is a file of Flax; get the one for PyTorch",
    ".tflite": "this is a TensorFlow Lite graph; get the one for PyTorch",
    ".distcp": "this is one part of a sharded training checkpoint (torch.distributed.checkpoint); join the parts with "
    "torch.distributed.checkpoint.format_utils.dcp_to_torch_save",
}


def of_names(names: Iterable[str], *, is_known: bool = False) -> str | None:
    """What tensors of these names are; None where that is not known.

    is_known: of a model that could be loaded, were it not for what lies beside or in the place of its own tensors.
    """
    found = list(names)
    for pattern, words in _BY_NAME[: _NUM_ANYWHERE if is_known else None]:
        search = re.compile(pattern).search
        if any(search(name) for name in found):
            return words
    return None


def of_content(content: Mapping[object, object]) -> str | None:
    """What a pickled dict without tensors by name is; None where that is not known."""
    if {"state", "param_groups"} <= content.keys():
        return "the state of an optimiser, not a model's weights"
    return None


def of_file(head: bytes, path: PurePath) -> str | None:
    """What a file is by how it begins or by its name; None where that is not known."""
    found = next((words for start, words in _BY_START if head.startswith(start)), None)
    return found or _BY_SUFFIX.get(path.suffix.lower())
