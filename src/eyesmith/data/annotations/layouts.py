"""The layouts of published sets of maps: Pascal VOC and Context, ADE20K, Cityscapes, Mapillary Vistas."""

import json
from collections.abc import Mapping
from pathlib import Path

from eyesmith.data.annotations.entries import as_entries
from eyesmith.data.annotations.maps import named_values, open_maps, paired, split_folder
from eyesmith.data.annotations.types import Annotations
from eyesmith.data.text import read_lines
from eyesmith.errors import ConfigError, DataError

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CITYSCAPES_CLASSES = {  # by the number in labelIds, in the order of the train ids
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
_CITYSCAPES_THINGS = 24  # from this number on


def read_voc_masks(folder: Path, split: str | None = None) -> Annotations:
    """Open VOC's SegmentationClass/: 0 background, 1 to 20, 255 void.

    `split` names a list in ImageSets/Segmentation.
    """
    classes = folder / "classes.txt"
    named = named_values(classes) if classes.exists() else dict(enumerate(VOC_CLASSES))
    return _listed_maps(folder, split, "voc", named, folder / "SegmentationClass", "Segmentation")


def read_context(folder: Path, split: str | None = None) -> Annotations:
    """Open Pascal Context as maps in SegmentationClassContext/ with its list of classes in labels.txt ("1: aeroplane").

    Values that the list does not name are void (0 in the form of 59 classes). `split`: as of `read_voc_masks`, in
    ImageSets/SegmentationContext.
    """
    names = ("labels.txt", "59_labels.txt", "classes.txt")
    classes = next((folder / one for one in names if (folder / one).exists()), None)
    if classes is None:
        raise DataError(f"{folder}: no labels.txt; it names the class of each value, such as '1: aeroplane'")
    maps = folder / "SegmentationClassContext"
    return _listed_maps(folder, split, "context", named_values(classes), maps, "SegmentationContext")


def read_ade20k(folder: Path, split: str | None = None) -> Annotations:
    """Open ADE20K's images/SPLIT and annotations/SPLIT with objectInfo150.txt; value 0 is void, 1 the first class."""
    table = folder / "objectInfo150.txt"
    if not table.exists():
        raise DataError(f"{table}: no such file; it names the classes")
    named: dict[int, str] = {}
    for number, line in enumerate(read_lines(table), 1):
        cells = line.split("\t")
        if number == 1 or not line:
            continue
        if len(cells) < 5 or not cells[0].strip().isdecimal():
            raise DataError(
                f"{table}: line {number}: expected index, ratio, train, val and name, by tabs: {line[:50]!r}"
            )
        named[int(cells[0])] = cells[-1].strip()
    pictures, maps = split_folder(folder / "images", split), split_folder(folder / "annotations", split)
    return open_maps(folder, split, "ade20k", named, pictures, paired(pictures, maps), with_synonyms=True)


def read_cityscapes(folder: Path, split: str | None = None, *, instances: bool = True) -> Annotations:
    """Open Cityscapes' leftImg8bit/SPLIT and gtFine/SPLIT: its 19 classes, all other numbers void.

    instances: segments from *_instanceIds.png, where these are there (a group that is not cut into things is a crowd);
    else maps of classes from *_labelIds.png, or from *_labelTrainIds.png.
    """
    maps, pictures = split_folder(folder / "gtFine", split), split_folder(folder / "leftImg8bit", split)
    by_number = dict(CITYSCAPES_CLASSES)
    kinds = ("instanceIds", "labelIds", "labelTrainIds") if instances else ("labelIds", "labelTrainIds")
    found = {kind: sorted(maps.rglob(f"*_gtFine_{kind}.png")) for kind in kinds}
    kind = next((kind for kind in kinds if found[kind]), None)
    if kind is None:
        raise DataError(f"{maps}: no *_gtFine_labelIds.png")
    files = found[kind]
    named = dict(enumerate(by_number.values())) if kind == "labelTrainIds" else by_number
    things = frozenset(label for label, number in enumerate(by_number) if number >= _CITYSCAPES_THINGS)
    pairs = [(pictures / one.parent.name / one.name.replace(f"_gtFine_{kind}", "_leftImg8bit"), one) for one in files]
    per_class = 1000 if kind == "instanceIds" else 0
    return open_maps(folder, split, "cityscapes", named, pictures, pairs, things=things, per_class=per_class, bare=True)


def read_mapillary(folder: Path, split: str | None = None, *, instances: bool = True) -> Annotations:
    """Open Mapillary Vistas' SPLIT/images, SPLIT/labels and SPLIT/instances with config.json.

    Classes that it does not evaluate (Unlabeled) are void. instances: segments from SPLIT/instances, where it is there.
    """
    file = folder / "config.json"
    try:
        facts = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: expected the list of classes: {error}") from None
    named: dict[int, str] = {}
    things: set[int] = set()
    for number, entry in enumerate(
        as_entries(str(file), "labels", facts.get("labels") if isinstance(facts, dict) else None)
    ):
        if entry.optional("evaluate", True, bool):
            if entry.optional("instances", False, bool):
                things.add(len(named))
            named[number] = entry.get("readable", str)
    root = split_folder(folder, split, wanted="images")
    inner = "instances" if instances and (root / "instances").is_dir() else "labels"
    per_class = 256 if inner == "instances" else 0
    pairs = paired(root / "images", root / inner)
    return open_maps(
        folder, split, "mapillary", named, root / "images", pairs, things=frozenset(things), per_class=per_class
    )


def _listed_maps(
    folder: Path, split: str | None, form: str, named: Mapping[int, str], maps: Path, lists: str
) -> Annotations:
    """VOC's layout: JPEGImages/ and a folder of maps, splits as lists of names."""
    if not maps.is_dir():
        raise DataError(f"{maps}: no such folder of maps")
    if split is None:
        names = sorted(file.stem for file in maps.glob("*.png"))
    else:
        file = folder / "ImageSets" / lists / f"{split}.txt"
        if not file.exists():
            known = ", ".join(sorted(one.stem for one in file.parent.glob("*.txt"))) or "none"
            raise ConfigError(f"{file}: no such list; there are {known}")
        names = [line.split()[0] for line in read_lines(file) if line]
    pictures = folder / "JPEGImages"
    pairs = [(pictures / f"{name}.jpg", maps / f"{name}.png") for name in names]
    return open_maps(folder, split, form, named, pictures, pairs)
