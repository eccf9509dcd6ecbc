"""`eyesmith models`: the named models and what each of them costs."""

from typing import Annotated, Any

import tyro

from eyesmith.cli.dispatch import call
from eyesmith.cli.output import AsJson, print_json, print_table

_ENCODERS_HELP = "Image encoders without a text tower."


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(models, argv, prog=prog)


def models(
    *,
    encoders: Annotated[bool, tyro.conf.arg(help=_ENCODERS_HELP)] = False,
    as_json: AsJson = False,
) -> int:
    """Every named model: input size, parameters and multiply-adds (MACs) of its image and text tower.

    MACs are those of one image and one text of full length, in two conventions: all products, attention's included,
    and the ViTamin paper's, which leaves attention's two products out and counts LayerNorms.
    """
    from eyesmith.models.cost import encoder_rows, model_rows

    rows = encoder_rows() if encoders else model_rows()
    if as_json:
        print_json(rows)
        return 0
    columns = ["name", "image px", "tokens", "embed dim"]
    towers = ("image",) if encoders else ("image", "text")
    for tower in towers:
        columns += [f"{tower} params", f"{tower} GMACs", "paper's"]
    print_table(columns, [_cells(row, towers) for row in rows], right=columns[1:])
    return 0


def _cells(row: dict[str, Any], towers: tuple[str, ...]) -> list[str]:
    cells = [row["name"], "x".join(map(str, dict.fromkeys(row["image_size"]))), row["tokens"] or "-", row["embed_dim"]]
    for tower in towers:
        if row[f"{tower}_params"] is None:
            cells += ["-", "-", "-"]
        else:
            gmacs = [f"{row[f'{tower}_gmacs{convention}']:.2f}" for convention in ("", "_paper")]
            cells += [f"{row[f'{tower}_params'] / 1e6:.2f} M", *gmacs]
    return cells
