"""What detect and segment share: names to look for, pictures one by one, and a folder of results."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import tyro
from PIL import Image

from eyesmith.cli.images import read_lines
from eyesmith.cli.numbers import OutFolder
from eyesmith.cli.output import messages, say
from eyesmith.dense.vocabulary import Vocabulary, encode_vocabulary, named, split_synonyms
from eyesmith.dense.write import FoundIn, write_coco
from eyesmith.errors import ConfigError, EyesmithError, ImageError, MissingDependencyError
from eyesmith.images import collect_images, open_image
from eyesmith.images.decode import Exif
from eyesmith.models.clip import Clip

Classes = Annotated[
    str,
    tyro.conf.arg(metavar="NAME,NAME,...", help="What to look for, by commas; synonyms by slashes: cat/kitten,dog."),
]
ClassesFile = Annotated[
    Path | None,
    tyro.conf.arg(metavar="FILE", help="A text file with a class a line, its synonyms by commas, instead."),
]
Out = Annotated[OutFolder, tyro.conf.arg(metavar="DIR", help="Folder for the results.")]
Look = Annotated[
    Literal["auto", "projection", "value", "neighbour"],
    tyro.conf.arg(
        help="Way through the encoder's last block to a map in text space; docs/dense.md says which does what."
    ),
]
PromptsName = Annotated[
    str | None,
    tyro.conf.arg(metavar="NAME", help="Sentences around the names: name, photo, fc-clip, f-vit; the model's own."),
]


def classes_of(classes: str, classes_file: Path | None) -> list[tuple[str, ...]]:
    """The synonyms of each class that is asked for. Raises ConfigError unless they are given once."""
    if bool(classes) == (classes_file is not None):
        raise ConfigError("expected what to look for: --classes cat,dog or --classes-file FILE")
    return named(classes) if classes_file is None else [split_synonyms(line) for line in read_lines(classes_file)]


def vocabulary_of(clip: Clip, classes: list[tuple[str, ...]], prompts: str | None) -> Vocabulary:
    """The classes in the model's text space. Raises ConfigError for one alone, of which softmax is always sure."""
    if len(classes) < 2 and clip.logit_bias is None:
        raise ConfigError(
            f"expected two classes or more, got {len(classes)}: the model says which of them is likeliest, so one "
            f"alone is everywhere; add what else is there: --classes {classes[0][0] if classes else 'cat'},background"
        )
    return encode_vocabulary(clip, classes, prompts=prompts)


def each_picture(images: tuple[str, ...], *, exif: Exif) -> Iterator[tuple[Path, Image.Image]]:
    """The pictures that a user means, with progress; those that cannot be read are named and left out.

    Raises InputError as `collect_images` does, EyesmithError where none can be read.
    """
    from eyesmith.train.callbacks.progress import progress

    files, broken = collect_images(images), 0
    with progress(messages(), "pictures", len(files), unit="image") as advance:
        for done, file in enumerate(files, 1):
            try:
                picture = open_image(file, exif=exif)
            except ImageError as error:
                say(f"skipped: {error}")
                broken += 1
            else:
                yield file, picture
            advance(done)
    if broken == len(files):
        raise EyesmithError(f"not one of {len(files)} pictures can be read")


def write_json_of(out: Path, results: list[FoundIn]) -> None:
    """found.json in COCO's form; without the package that packs masks, all but that is written, and it is said."""
    try:
        write_coco(out / "found.json", results)
    except MissingDependencyError as error:
        say(f"found.json is left out: {error}")
