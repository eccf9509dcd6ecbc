"""`eyesmith classify`: probabilities of some names for each of a user's images."""

from pathlib import Path

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import (
    BatchSize,
    Device,
    Images,
    Model,
    ModelName,
    broken_as_json,
    encode,
    load_clip_or_classifier,
    own_classes,
    read_lines,
)
from eyesmith.cli.output import AsJson, print_json, print_table, say
from eyesmith.errors import ConfigError, InputError
from eyesmith.eval.features.index import check_class_names, class_probabilities, open_images
from eyesmith.hub.device import find_device
from eyesmith.models.classifier import Classifier
from eyesmith.models.clip import check_prompts


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    try:
        return call(classify, argv, prog=prog)
    except InputError as error:
        if "--name" not in argv or {"--names", "--names-file"} & set(argv):
            raise
        raise ConfigError(
            f"{error} (--name says which model a weight file is of; the names to choose from are --names)"
        ) from None


def classify(
    model: Model,
    images: Images,
    /,
    *,
    names: tuple[str, ...] = (),
    names_file: Path | None = None,
    prompts: tuple[str, ...] = (),
    top: int = 5,
    name: ModelName = None,
    batch_size: BatchSize = 64,
    device: Device = None,
    as_json: AsJson = False,
) -> int:
    """Which of some names fits each image, with the probabilities at the model's own temperature.

    A classifier (a run that trained by classes) chooses among its own classes and needs no names. Images that cannot
    be read are named and skipped.

    Args:
        names: The names to choose from.
        names_file: A text file with one name a line, instead of --names.
        prompts: Templates with {} for the name, instead of the model's own.
        top: How many names to show for an image.
    """
    if names and names_file is not None:
        raise ConfigError("expected --names or --names-file, not both")
    choices = list(names) if names_file is None else read_lines(names_file)
    if choices:
        check_class_names(choices)
    if prompts:
        check_prompts(prompts)
    where = find_device(device)
    source = open_images(images)
    found = load_clip_or_classifier(model, name, where)
    if isinstance(found, Classifier):
        if choices or prompts:
            raise ConfigError(f"{model}: is a classifier with classes of its own; leave out names and prompts")
        choices = list(found.classes)
        index, probabilities = own_classes(found, source, batch_size=batch_size)
    else:
        if not choices:
            raise ConfigError("expected the names to choose from: --names cat dog ..., or --names-file FILE")
        index = encode(found, source, batch_size=batch_size)
        probabilities = class_probabilities(found, index, choices, prompts or None)
    if as_json:
        found = [
            {"image": key, "probabilities": dict(zip(choices, row, strict=True))}
            for key, row in zip(index.keys, probabilities.tolist(), strict=True)
        ]
        print_json({"images": found, "skipped": broken_as_json(index)})
        return 0
    values, best = probabilities.sort(dim=1, descending=True, stable=True)
    rows = [
        (key, "   ".join(f"{choices[i]} {100 * value:.1f} %" for i, value in zip(order[:top], row[:top], strict=True)))
        for key, order, row in zip(index.keys, best.tolist(), values.tolist(), strict=True)
    ]
    print_table(("image", "names, the likeliest first"), rows)
    if len(choices) == 1 and bool((probabilities == 1).all()):
        say("one name alone always gets 100 %, whatever the pictures show: give others that it is told apart from")
    return 0
