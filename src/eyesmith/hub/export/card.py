"""What someone who has only the exported files needs to know, as one JSON object."""

from typing import Any

from torch.export import ExportedProgram

from eyesmith.hub.export.graph import IDS, IMAGE_FEATURES, PIXELS, TEXT_FEATURES
from eyesmith.hub.export.target import ExportTarget
from eyesmith.hub.export.tokenizer import CLEANING
from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import Clip
from eyesmith.models.encoder import Encoder
from eyesmith.models.text.model import ClipText
from eyesmith.tokenizer import ClipTokenizer

CARD_FILE = "card.json"
_RESIZE = {
    "shortest": "resize so that the picture just covers the size (a square size: the shorter side exactly, the longer "
    "truncated to whole pixels), then cut the middle",
    "squash": "resize both sides to the size, without keeping their ratio",
}
_PRECISION = {
    "onnx": "fp32",
    "torch_export": "fp32",
    "onnx_int8": "int8 weights and dynamically rounded uint8 activations in products with weights, fp32 elsewhere",
}


def image_card(encoder: Encoder, preprocess: PreprocessConfig, target: ExportTarget) -> dict[str, Any]:
    """Input, output and preparation of the image tower's file."""
    height, width = encoder.image_size
    is_bytes = target.pixels == "uint8"
    free = f": a multiple of {encoder.stride}, at least {2 * encoder.stride}"
    return {
        "input": {
            "name": PIXELS,
            "dtype": target.pixels,
            "shape": ["batch", 3, f"height{free}", f"width{free}"]
            if target.is_dynamic_size
            else ["batch", 3, height, width],
            "layout": "RGB, batch x channels x height x width",
            "values": "bytes 0..255" if is_bytes else "(byte / 255 - mean) / std",
        },
        "output": _output(IMAGE_FEATURES, ["batch", encoder.embed_dim], target),
        "preprocess": {
            "image_size": [height, width],
            "resize": preprocess.resize,
            "how": _RESIZE[preprocess.resize],
            "interpolation": f"{preprocess.interpolation}, antialiased, in bytes (Pillow's)",
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "is_normalized_inside": is_bytes,
        },
    }


def text_card(clip: Clip, target: ExportTarget, tokenizer_file: str) -> dict[str, Any]:
    """Input, output and tokenizer of the text tower's file."""
    text = clip.text
    ids: dict[str, Any] = {"name": IDS, "dtype": "int64", "shape": ["texts", f"tokens: at most {text.context_len}"]}
    tokens: dict[str, Any] = {"file": tokenizer_file, "longest": text.context_len}
    tokenizer = text.tokenizer if isinstance(text, ClipText) else None
    if isinstance(tokenizer, ClipTokenizer):
        vocabulary = tokenizer.vocabulary
        tokens |= {"pad_id": 0, "start_id": vocabulary.start_id, "end_id": vocabulary.end_id, "cleaning": CLEANING}
    else:
        tokens |= {"pad_id": int(text.tokenize(["a", "a b"])[0, -1])}
    return {"input": ids, "output": _output(TEXT_FEATURES, ["texts", text.out_dim], target), "tokenizer": tokens}


def clip_card(clip: Clip) -> dict[str, Any]:
    """How features of both towers become probabilities."""
    numbers = {"scale": float(clip.logit_scale.detach().float().exp())}
    how = "softmax over classes of scale * image_features @ class vectors"
    if clip.logit_bias is not None:
        numbers["bias"] = float(clip.logit_bias.detach().float())
        how = "sigmoid, for each class by itself, of scale * image_features @ class vectors + bias"
    return {
        **numbers,
        "probability": "softmax" if clip.logit_bias is None else "sigmoid",
        "prompts": list(clip.prompts),
        "classify": f"{how}; a class vector is the mean of the unit text features of its prompts ({{}} is the name), "
        "made a unit vector again; all features of length 1",
    }


def file_card(program: ExportedProgram, target: ExportTarget) -> dict[str, Any]:
    """What kind of file it is."""
    made: dict[str, Any] = {
        "precision": _PRECISION[target.format],
        "parameters": sum(tensor.numel() for tensor in program.state_dict.values()),
    }
    return made if target.format == "torch_export" else made | {"opset": target.opset}


def file_facts(model: str, part: str, card: dict[str, Any]) -> dict[str, str]:
    """The card's most needed lines for the metadata of a file that gets parted from its card."""
    facts = {
        "eyesmith.model": model,
        "eyesmith.part": part,
        "eyesmith.output": f"{card['output']['name']}, {card['output']['values']}",
    }
    if part == "image":
        pixels = card["input"]
        facts["eyesmith.input"] = f"{pixels['name']} {pixels['dtype']}: {pixels['layout']}, {pixels['values']}"
        facts["eyesmith.mean"] = " ".join(map(str, card["preprocess"]["mean"]))
        facts["eyesmith.std"] = " ".join(map(str, card["preprocess"]["std"]))
    else:
        facts["eyesmith.input"] = f"{card['input']['name']} int64: token ids, at most {card['tokenizer']['longest']}"
    return facts


def _output(name: str, shape: list[str | int], target: ExportTarget) -> dict[str, Any]:
    values = "unit length" if target.is_unit else "before normalisation to unit length"
    return {"name": name, "dtype": "float32", "shape": shape, "values": values}
