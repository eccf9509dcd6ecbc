"""`eyesmith models`: the named models and what each of them costs."""

from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import call
from eyesmith.cli.output import AsJson, print_json, print_table

_IDS_HELP = "Models of other packages, such as open_clip:ViT-B-16 or timm:resnet18; nothing is fetched."
_ENCODERS_HELP = "Image encoders without a text tower."


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(models, argv, prog=prog)


def models(
    ids: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="[ID ...]", help=_IDS_HELP)] = (),
    /,
    *,
    encoders: Annotated[bool, tyro.conf.arg(help=_ENCODERS_HELP)] = False,
    as_json: AsJson = False,
) -> int:
    """Every named model: whose code it runs, input size, parameters and multiply-adds (MACs) of both towers.

    With ids of other packages' models, these.

    MACs are those of one image and one text of full length, in two conventions: all products, attention's included,
    and the ViTamin paper's, which leaves attention's two products out and counts LayerNorms.
    """
    from eyesmith.errors import ConfigError
    from eyesmith.hub.foreign import foreign_config, is_foreign_id
    from eyesmith.models.cost import encoder_rows, model_rows
    from eyesmith.models.registry import config

    if ids and encoders:
        raise ConfigError("models: ids and --encoders are two lists; leave one out")
    found: Any = {one: foreign_config(one) if is_foreign_id(one) else config(one) for one in ids}
    rows = encoder_rows() if encoders else model_rows(found)
    if as_json:
        print_json(rows)
        return 0
    columns = ["name", "origin", "image px", "tokens", "embed dim"]
    towers = ("image",) if encoders else ("image", "text")
    for tower in towers:
        columns += [f"{tower} params", f"{tower} GMACs", "paper's"]
    print_table(columns, [_cells(row, towers) for row in rows], right=columns[2:])
    return 0


def _cells(row: dict[str, Any], towers: tuple[str, ...]) -> list[str]:
    cells = [
        row["name"],
        row["origin"],
        "x".join(map(str, dict.fromkeys(row["image_size"]))),
        row["tokens"] or "-",
        row["embed_dim"],
    ]
    for tower in towers:
        if row[f"{tower}_params"] is None:
            cells += ["-", "-", "-"]
        else:
            gmacs = [f"{row[f'{tower}_gmacs{convention}']:.2f}" for convention in ("", "_paper")]
            cells += [f"{row[f'{tower}_params'] / 1e6:.2f} M", *gmacs]
    return cells
