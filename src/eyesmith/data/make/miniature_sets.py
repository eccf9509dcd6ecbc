"""What a miniature copy of each evaluation set holds: the table behind `make_miniatures`."""

from dataclasses import dataclass
from typing import Any, Literal

_Layout = Literal["classification", "multilabel", "retrieval", "winogavil", "attributes", "video"]
_TYPE_WORDS = {"multilabel": "multilabel", "retrieval": "retrieval", "winogavil": "winogavil", "video": "video"}
_LARGE, _SMALL, _TINY = (96, 72), (64, 64), (32, 32)  # width and height in pixels; the first is turned now and then

_A, _THE = "a photo of a {c}.", "a photo of the {c}."
_SEVEN = ("itap of a {c}.", "a bad photo of the {c}.", "a origami {c}.", "a photo of the large {c}.",
          "a {c} in a video game.", "art of the {c}.", "a photo of the small {c}.")  # fmt: skip
# "missile" and "sunglasses" stand twice among ImageNet's thousand names, and twice here
_IMAGENET = ("tench", "goldfish", "great white shark", "hen", "tabby cat", "red fox", "missile", "mosque", "missile",
             "sunglasses", "sunglasses", "teapot", "pretzel", "banana", "volcano", "daisy")  # fmt: skip
_IMAGENET_SOME = ("goldfish", "hen", "red fox", "missile", "sunglasses", "banana", "volcano", "daisy")
_DIGITS = tuple(str(digit) for digit in range(10))
_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_AGES = ("0 to 2", "3 to 9", "10 to 19", "20 to 29", "30 to 39", "40 to 49", "50 to 59", "60 to 69", "more than 70")
_RACES = ("black", "white", "indian", "latino", "middle eastern", "southeast asian", "east asian")
_RACES_5 = ("black", "white", "indian", "asian", "other")
_TOXIC = (*(f"{race} {sex}" for race in _RACES for sex in ("man", "woman")),
          "animal", "gorilla", "chimpanzee", "orangutan", "thief", "criminal", "suspicious person")  # fmt: skip
_FACE_TEMPLATES = {
    "race": ("a photo of a {c} person",),
    "gender": ("a photo of a {c}",),
    "age": ("a photo of a person {c} years old",),
    "toxic": ("a photo of a {c}",),
}
_ACTIONS = ("a photo of {c}.", "a video of a person {c}.", "an example of a person doing {c}.")


@dataclass(frozen=True, kw_only=True)
class Miniature:
    """One set. classes, templates: lines of its files, or objective to lines; size: samples.

    columns: metadata names, `groups` how many values each takes. image_format: of the members; size_px: width, height.
    shard_samples: samples a shard.
    """

    folder: str
    layout: _Layout = "classification"
    classes: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    templates: tuple[str, ...] | dict[str, tuple[str, ...]] = (_A,)
    size: int = 16
    columns: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    image_format: Literal["webp", "png", "jpg"] = "webp"
    size_px: tuple[int, int] = _LARGE
    shard_samples: int = 10_000

    @property
    def type_word(self) -> str:
        """Content of dataset_type.txt, "" where the hub has none."""
        return _TYPE_WORDS.get(self.layout, "")

    @property
    def has_classes(self) -> bool:
        return bool(self.classes)

    @staticmethod
    def lines(texts: tuple[str, ...] | dict[str, tuple[str, ...]]) -> tuple[str, ...]:
        """The lines of a names or templates file; objectives stand before a colon."""
        if isinstance(texts, tuple):
            return texts
        return tuple(f"{objective}:{text}" for objective, listed in texts.items() for text in listed)


def hub_folder(key: str) -> str:
    """Folder of a task: "wds_", the key with - for /, "_test"; the fairness prefix is dropped. Videos stand apart."""
    if key.startswith("video/"):
        return f"{key.replace('/', '_')}_test"
    return f"wds_{key.removeprefix('fairness/').replace('/', '-')}_test"


def _set(key: str, *classes: str, **fields: object) -> tuple[str, Miniature]:
    values: dict[str, Any] = {"classes": classes} | fields
    return key, Miniature(folder=hub_folder(key), **values)


MINIATURES: dict[str, Miniature] = dict(
    [
        _set("vtab/caltech101", "background", "off-center face", "airplane", "ant", "barrel", "yin yang symbol"),
        _set("cifar10", *_CIFAR, size=20, size_px=_TINY, image_format="png"),
        _set("vtab/cifar100", "apple", "aquarium fish", "bicycle", "maple tree", "worm", size_px=_TINY),
        _set("vtab/clevr_count_all", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
             templates=("a picture of {c} objects",)),
        _set("vtab/clevr_closest_object_distance", "very nearby", "nearby", "near", "", "distant", "very distant",
             templates=("{c} shapes.",)),
        _set("country211", "Andorra", "Brazil", "Fiji", "Kenya", "Norway", "Vietnam",
             templates=("a photo i took in {c}.", "a photo showing the country of {c}."), image_format="jpg"),
        _set("vtab/dtd", "banded", "dotted", "grid", "marbled", "striped", "woven",
             templates=("a photo of a {c} texture.", "a photo of the {c} pattern.")),
        _set("vtab/eurosat", "forest", "highway or road", "river", "sea or lake",
             templates=("a centered satellite photo of {c}.",), size_px=_SMALL),
        _set("fgvc_aircraft", "707-320", "A320", "Cessna 172", "DC-3", "Tornado",
             templates=("a photo of a {c}, a type of aircraft.",), image_format="jpg"),
        _set("food101", "apple pie", "caesar salad", "pizza", "ramen", "waffles",
             templates=("a photo of {c}, a type of food.",), image_format="jpg", shard_samples=7),
        _set("gtsrb", "stop", "no entry", "roundabout mandatory", "yield", "pedestrian crossing",
             templates=('a zoomed in photo of a "{c}" traffic sign.',), size_px=(45, 40)),
        _set("imagenet1k", *_IMAGENET, templates=_SEVEN, size=32, image_format="jpg", shard_samples=12),
        _set("imagenet_sketch", *_IMAGENET, templates=_SEVEN, size=32, image_format="jpg"),
        _set("imagenetv2", *_IMAGENET, templates=_SEVEN, image_format="jpg"),
        _set("imagenet-a", *_IMAGENET_SOME, templates=_SEVEN, image_format="jpg"),
        _set("imagenet-o", *_IMAGENET_SOME, templates=_SEVEN, image_format="jpg"),
        _set("imagenet-r", *_IMAGENET_SOME, templates=_SEVEN, image_format="jpg"),
        _set("vtab/kitti_closest_vehicle_distance",
             "a photo i took of a car on my left or right side.", "a photo i took with a car nearby.",
             "a photo i took with a car in the distance.", "a photo i took with no car.", templates=("{c}",)),
        _set("mnist", *_DIGITS, templates=('a photo of the number: "{c}".',), size=20, size_px=(28, 28),
             image_format="png"),
        _set("objectnet", "air freshener", "banana", "bath towel", "coffee bean", "teapot", templates=_SEVEN,
             image_format="png"),
        _set("vtab/flowers", "pink primrose", "globe thistle", "snapdragon", "sunflower",
             templates=("a photo of a {c}, a type of flower.",), image_format="jpg"),
        _set("vtab/pets", "Abyssinian", "beagle", "Bengal", "pug", "Siamese",
             templates=("a photo of a {c}, a type of pet.",), image_format="jpg"),
        _set("voc2007", "aeroplane", "bicycle", "diningtable", "person", "pottedplant", "tvmonitor"),
        _set("vtab/pcam", "lymph node", "lymph node containing metastatic tumor tissue",
             templates=("a histopathology slide showing {c}", "histopathology image of {c}"), size_px=(96, 96)),
        _set("renderedsst2", "negative", "positive", templates=("a {c} review of a movie.",), size_px=(112, 112)),
        _set("vtab/resisc45", "airport", "beach", "desert", "island", "stadium",
             templates=("an aerial view of {c}", "{c} from above"), size_px=_SMALL),
        _set("cars", "AM General Hummer SUV 2000", "Audi R8 Coupe 2012", "FIAT 500 Abarth 2012", "smart fortwo 2012",
             templates=(_A, "i love my {c}!"), image_format="jpg"),
        _set("stl10", *_CIFAR, templates=(_A, _THE), size=20, size_px=(96, 96)),
        _set("sun397", "abbey", "airplane cabin", "canyon", "kitchen", "zen garden", templates=(_A, _THE), size=24,
             image_format="jpg", shard_samples=10),
        _set("vtab/svhn", *_DIGITS, templates=("a photo of the number {c} written on a sign",), size=20, size_px=_TINY),
        _set("retrieval/flickr_1k_test_image_text_retrieval", layout="retrieval", templates=(), size=12,
             image_format="jpg"),
        _set("retrieval/mscoco_2014_5k_test_image_text_retrieval", layout="retrieval", templates=(), size=20,
             image_format="jpg", shard_samples=11),
        _set("misc/winogavil", layout="winogavil", templates=(), size=18, image_format="jpg"),
        _set("wilds/iwildcam", "empty", "impala", "leopard", "ocelot", "puma", "white-lipped peccary",
             templates=("{c}", "a photo of {c}."), size=24, image_format="jpg", groups=(4, 6, 3, 12, 28, 24, 60, 60),
             columns=("location", "sequence", "year", "month", "day", "hour", "minute", "second", "y")),
        _set("wilds/camelyon17", "normal tissue", "tumor tissue", templates=("a histopathology slide showing {c}",),
             size=24, size_px=(96, 96), image_format="png", columns=("hospital", "slide", "y"), groups=(5, 4)),
        _set("wilds/fmow", "airport", "car dealership", "dam", "race track", "wind farm", "zoo",
             templates=("a satellite photo of a {c}.", "an aerial photo of a {c}."), size=40, image_format="jpg",
             columns=("region", "year", "y"), groups=(6, 3), shard_samples=16),
        _set("fairness/dollar_street", "bathroom privacy", "bed", "cups", "front door", "refrigerator", "roof", "shoes",
             "stove", size=32, image_format="jpg", columns=("income_ds", "income_meta", "region"), groups=(4, 4, 4)),
        _set("fairness/geode", "bag", "bicycle", "candle", "religious building", "spices", "waste container", size=30,
             image_format="jpg", columns=("region", "country"), groups=(6, 5)),
        _set("fairness/fairface", layout="attributes", size=32, image_format="jpg", templates=_FACE_TEMPLATES,
             classes={"race": _RACES, "gender": ("male", "female"), "age": _AGES, "toxic": _TOXIC},
             columns=("age", "gender", "race", "race_binary"), groups=(9, 2, 7, 2)),
        _set("fairness/utkface", layout="attributes", size=30, image_format="jpg", templates=_FACE_TEMPLATES,
             classes={"race": _RACES_5, "gender": ("male", "female"), "age": _AGES, "toxic": _TOXIC},
             columns=("age", "gender", "race", "race_binary"), groups=(9, 2, 5, 2)),
        _set("voc2007_multilabel", "aeroplane", "bicycle", "bird", "diningtable", "person", "sofa", size=20,
             layout="multilabel", image_format="jpg"),
        _set("imagenet-real", *_IMAGENET, templates=_SEVEN, size=32, layout="multilabel", image_format="jpg"),
        _set("birdsnap", "Acadian Flycatcher", "Barn Owl", "Canada Goose", "Snowy Egret",
             templates=("a photo of a {c}, a type of bird.",), image_format="jpg"),
        _set("fer2013", "angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised", size_px=(48, 48),
             templates=("a photo of a {c} looking face.", "look at how {c} they are."), image_format="png"),
        _set("video/ucf101", "applying eye makeup", "archery", "biking", "yo yo", layout="video", size=12,
             templates=_ACTIONS),
        _set("video/kinetics400", "abseiling", "air drumming", "baking cookies", "surfing water", "yoga", "zumba",
             layout="video", size=12, templates=_ACTIONS),
        _set("video/kinetics600", "abseiling", "acting in play", "adjusting glasses", "baking cookies", "yoga", "zumba",
             layout="video", size=12, templates=_ACTIONS),
        _set("video/kinetics700", "abseiling", "acting in play", "arresting", "baking cookies", "yoga",
             layout="video", size=12, templates=_ACTIONS),
    ]
)  # fmt: skip
