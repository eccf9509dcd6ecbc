"""Towers against open_clip's: the same weights, the same inputs, one thread count."""

import torch

from bench.captions import prompts_and_names
from bench.pairs import Row, speed
from eyesmith.models.text import ClipText, ClipTextConfig
from eyesmith.models.timm.torchvision import ensure_torchvision

NUM_TEXTS = 32


def rows() -> list[Row]:
    """Encoding short prompts with the text tower of ViTamin-S."""
    return [_encode_text_short()]


def _encode_text_short() -> Row:
    ensure_torchvision()
    import open_clip
    from open_clip.transformer import TextTransformer

    torch.manual_seed(0)
    ours = ClipText(ClipTextConfig(width=384, depth=12, heads=6, embed_dim=384)).eval()
    theirs = TextTransformer(width=384, heads=6, layers=12, output_dim=384).eval()
    theirs.load_state_dict(ours.state_dict())
    prompts, names = prompts_and_names()

    def ids(i: int) -> torch.Tensor:
        texts = [prompts[i % len(prompts)].format(names[(i * NUM_TEXTS + k) % len(names)]) for k in range(NUM_TEXTS)]
        return ours.tokenizer(texts)  # [T, 77] for both: cutting it is our forward's work

    def close(a: torch.Tensor, b: torch.Tensor) -> bool:
        return torch.allclose(a, b, rtol=0, atol=1e-5)

    with torch.inference_mode():
        return speed(
            "encode_text_short",
            ids,
            ours,
            theirs,
            equal=close,
            count=NUM_TEXTS,
            unit="texts/s",
            peer=f"open_clip {open_clip.__version__} TextTransformer",
            note=f"{NUM_TEXTS} prompts of one template a batch, text tower of ViTamin-S, fp32; equal within 1e-5",
        )
