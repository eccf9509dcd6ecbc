"""`eyesmith convert`: weights into the layout of another program, and the proof that both compute the same."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import Model, ModelName
from eyesmith.cli.output import AsJson, answer, print_json, print_table

Layout = Literal["eyesmith", "open_clip", "open_clip_root", "timm", "hugging_face", "hugging_face_timm"]
Out = Annotated[
    Positional[Path], tyro.conf.arg(metavar="OUT", help="The file (.safetensors, .bin, .pt, .pth) or folder to write.")
]


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(convert, argv, prog=prog)


def convert(
    source: Model,
    out: Out,
    /,
    *,
    to: Layout,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    name: ModelName = None,
    weights: Literal["model", "ema"] = "model",
    image_size: tuple[int, ...] = (),
    pooling: Literal["token", "mean", "normed_mean"] | None = None,
    overwrite: bool = False,
    skip_parity: bool = False,
    as_json: AsJson = False,
) -> int:
    """Write weights in another program's layout, and compare its features with ours on real pictures and texts.

    Exit status 1 when the features differ by more than rounding.

    Args:
        to: One file of named tensors: eyesmith (or a run folder), open_clip (text.* names), open_clip_root (text at
            the root), timm (image tower). A folder that the program opens: hugging_face (open_clip's),
            hugging_face_timm.
        dtype: Of the written tensors; as stored when not given.
        weights: Of a training checkpoint: the model, or its average (ema).
        image_size: Pixels, one number or height and width, to resample the position table to.
        pooling: Of an EVA-02 file of timm that does not tell how it pools.
        overwrite: Replace OUT when it is there.
        skip_parity: Do not compare features.
    """
    from eyesmith.hub.convert import convert as write

    done = write(
        source,
        out,
        to=to,
        dtype=dtype,
        name=name,
        weights=weights,
        pooling=pooling,
        image_size=image_size,
        overwrite=overwrite,
        parity=not skip_parity,
    )
    if as_json:
        print_json(done.as_dict())
    else:
        if done.rows:
            columns = ("compared with", "part", "inputs", "largest difference", "allowed", "ok")
            print_table(columns, [row.cells() for row in done.rows], right=columns[2:5])
        for line in done.lines():
            answer(line)
    return 0 if done.ok else 1
