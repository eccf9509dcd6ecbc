"""From ViT to TrV, step by step: the rows of table 2 of EVA-02 (arXiv 2303.11331) as encoders."""

from dataclasses import dataclass

from eyesmith.models.eva02.config import Eva02Config, Ffn, Initial, Norm, Relation


@dataclass(frozen=True, slots=True)
class Rung:
    """One row. top1: printed accuracy on IN-1K after fine-tuning, percent; None where pre-training did not hold."""

    config: Eva02Config
    top1: float | None


def _rung(norm: Norm, initial: Initial, ffn: Ffn, relation: Relation, top1: float | None) -> Rung:
    config = Eva02Config(
        image_size=(196, 196),  # 196 tokens of 14 px
        width=768,
        depth=12,
        num_heads=12,
        hidden_dim=int(768 * (4 * 2 / 3)) if ffn == "swiglu" else 4 * 768,
        embed_dim=0,
        norm=norm,
        ffn=ffn,
        relation=relation,
        is_packed=ffn == "mlp" or norm != "sub",
        initial=initial,
    )
    return Rung(config, top1)


LADDER: tuple[Rung, ...] = (
    _rung("pre", "beit", "mlp", "none", 84.0),
    _rung("pre", "jax", "mlp", "none", 84.0),
    _rung("pre", "beit", "swiglu", "none", 83.9),
    _rung("pre", "jax", "swiglu", "none", 85.0),
    _rung("sub", "jax", "swiglu", "none", 85.2),
    _rung("sub", "jax", "swiglu", "rope", 85.6),  # TrV
    _rung("sub", "jax", "swiglu", "bias", None),
    _rung("post", "jax", "swiglu", "rope", None),
)
"""In the order of the table; all are as large as ViT-B. Each keeps its learned position table, as TrV's code does, so
that a relation is an addition. Not told by the paper, and chosen here: post-LN is that of EVA-02-CLIP-E (the shortcut
around the norm), the relative bias is BEiT's, of each block its own, and no row has BEiT's LayerScale."""
