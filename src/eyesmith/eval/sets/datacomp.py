"""The 40 tasks of DataComp's evaluation, in its order.

Sizes, metrics and chance levels are those of its task list; the list itself gives FairFace and UTKFace no main metric,
so 38 tasks are averaged. Folder and repository follow its naming: the key with "-" for "/", without `fairness/`.
"""

from dataclasses import dataclass

from eyesmith.eval.sets.task import Layout, Task

RECALL = "mean_per_class_recall"
OWNER = "djghosh"
IWILDCAM = ("location", "sequence", "year", "month", "day", "hour", "minute", "second", "y")
PERSON = ("age", "gender", "race", "race_binary")

# Where the list's score for guessing is not one over the classes: classes are of unequal size there, or a part of the
# model's classes is asked for. It gives none for retrieval, Dollar Street and GeoDE.
_GUESSING = {
    "vtab/clevr_count_all": 0.125061,
    "vtab/clevr_closest_object_distance": 0.190520,
    "vtab/eurosat": 0.101483,
    "gtsrb": 0.037604,
    "imagenet-a": 0.008056,
    "imagenet-o": 0.006047,
    "imagenet-r": 0.006163,
    "vtab/kitti_closest_vehicle_distance": 0.295289,
    "mnist": 0.100350,
    "objectnet": 0.009481,
    "voc2007": 0.154038,
    "renderedsst2": 0.500001,
    "vtab/resisc45": 0.022342,
    "cars": 0.005160,
    "sun397": 0.004645,
    "vtab/svhn": 0.117897,
    "misc/winogavil": 0.205,
    "wilds/iwildcam": 0.143056,
    "wilds/camelyon17": 0.5,
    "wilds/fmow": 0.027193,
}


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What an entry may say beside key, name, size and classes; the rest follows from the key."""

    metric: str | None = "acc1"
    groups: tuple[str, ...] = ()
    layout: Layout = "classification"
    metadata: tuple[str, ...] = ()
    group_by: str | None = None
    prompts: str | None = None
    class_list: str = ""


def _task(key: str, name: str, size: int, num_classes: int | None, given: _Given | None = None) -> Task:
    given = given or _Given()
    folder = f"wds_{key.removeprefix('fairness/').replace('/', '-')}_test"
    return Task(
        key=key,
        name=name,
        size=size,
        num_classes=num_classes,
        metric=given.metric,
        groups=given.groups,
        layout=given.layout,
        folder=folder,
        metadata=given.metadata,
        group_by=given.group_by,
        hub=f"{OWNER}/{folder}",
        prompts=key.rpartition("/")[2] if given.prompts is None else given.prompts,
        class_list=given.class_list,
        random=_GUESSING.get(key),
    )


def _retrieval(key: str, name: str, size: int, hub: str, metric: str) -> Task:
    return Task(
        key=key,
        name=name,
        size=size,
        metric=metric,
        groups=("retrieval",),
        layout="winogavil" if metric.startswith("jaccard") else "retrieval",
        folder=f"wds_{key.replace('/', '-')}_test",
        hub=hub,
        random=_GUESSING.get(key),
    )


def _vtab(*, metric: str = "acc1", class_list: str = "") -> _Given:
    return _Given(metric=metric, groups=("vtab",), class_list=class_list)


def _imagenet(group: str, *, class_list: str = "") -> _Given:
    return _Given(groups=(group,), prompts="imagenet1k", class_list=class_list)


def _named(class_list: str) -> _Given:
    return _Given(class_list=class_list)


def _wilds(metric: str, metadata: tuple[str, ...], group_by: str | None) -> _Given:
    return _Given(groups=("wilds",), metric=metric, metadata=metadata, group_by=group_by, prompts="")


def _fairness(
    metric: str | None, metadata: tuple[str, ...], group_by: str, layout: Layout = "classification"
) -> _Given:
    return _Given(groups=("fairness",), metric=metric, metadata=metadata, group_by=group_by, prompts="", layout=layout)


DATACOMP: tuple[Task, ...] = (
    _task("vtab/caltech101", "Caltech-101", 6085, 102, _vtab(metric=RECALL, class_list="caltech101_vtab")),
    _task("cifar10", "CIFAR-10", 10000, 10),
    _task("vtab/cifar100", "CIFAR-100", 10000, 100, _vtab()),
    _task("vtab/clevr_count_all", "CLEVR Counts", 15000, 8, _vtab(class_list="clevr_count_all")),
    _task(
        "vtab/clevr_closest_object_distance",
        "CLEVR Distance",
        15000,
        6,
        _vtab(class_list="clevr_closest_object_distance"),
    ),
    _task("country211", "Country211", 21100, 211, _named("country211")),
    _task("vtab/dtd", "Describable Textures", 1880, 47, _vtab()),
    _task("vtab/eurosat", "EuroSAT", 5400, 10, _vtab(class_list="eurosat")),
    _task("fgvc_aircraft", "FGVC Aircraft", 3333, 100, _Given(metric=RECALL)),
    _task("food101", "Food-101", 25250, 101),
    _task("gtsrb", "GTSRB", 12630, 43, _named("gtsrb")),
    _task("imagenet1k", "ImageNet 1k", 50000, 1000, _imagenet("imagenet", class_list="imagenet1k")),
    _task("imagenet_sketch", "ImageNet Sketch", 50889, 1000, _imagenet("shift", class_list="imagenet1k")),
    _task("imagenetv2", "ImageNet v2", 10000, 1000, _imagenet("shift", class_list="imagenet1k")),
    _task("imagenet-a", "ImageNet-A", 7500, 200, _imagenet("shift")),
    _task("imagenet-o", "ImageNet-O", 2000, 200, _imagenet("shift")),
    _task("imagenet-r", "ImageNet-R", 30000, 200, _imagenet("shift")),
    _task(
        "vtab/kitti_closest_vehicle_distance",
        "KITTI Vehicle Distance",
        711,
        4,
        _vtab(class_list="kitti_closest_vehicle_distance"),
    ),
    _task("mnist", "MNIST", 10000, 10, _named("mnist")),
    _task("objectnet", "ObjectNet", 18574, 113, _imagenet("shift")),
    _task("vtab/flowers", "Oxford Flowers-102", 6149, 102, _vtab(metric=RECALL, class_list="flowers")),
    _task("vtab/pets", "Oxford-IIIT Pet", 3669, 37, _vtab(metric=RECALL, class_list="pets")),
    _task("voc2007", "Pascal VOC 2007", 14976, 20),
    _task("vtab/pcam", "PatchCamelyon", 32768, 2, _vtab(class_list="pcam")),
    _task("renderedsst2", "Rendered SST2", 1821, 2),
    _task("vtab/resisc45", "RESISC45", 6300, 45, _vtab()),
    _task("cars", "Stanford Cars", 8041, 196),
    _task("stl10", "STL-10", 8000, 10),
    _task("sun397", "SUN397", 108754, 397, _vtab()),
    _task("vtab/svhn", "SVHN", 26032, 10, _vtab(class_list="svhn")),
    _retrieval(
        "retrieval/flickr_1k_test_image_text_retrieval",
        "Flickr",
        1000,
        "nlphuji/flickr_1k_test_image_text_retrieval",
        "mean_recall@1",
    ),
    _retrieval(
        "retrieval/mscoco_2014_5k_test_image_text_retrieval",
        "MSCOCO",
        5000,
        "nlphuji/mscoco_2014_5k_test_image_text_retrieval",
        "mean_recall@1",
    ),
    _retrieval("misc/winogavil", "WinoGAViL", 3563, "nlphuji/winogavil", "jaccard_score_10-12"),
    _task("wilds/iwildcam", "iWildCam", 42791, 182, _wilds("F1-macro_all", IWILDCAM, None)),
    _task("wilds/camelyon17", "Camelyon17", 85054, 2, _wilds("acc1", ("hospital", "slide", "y"), "slide")),
    _task("wilds/fmow", "FMoW", 22108, 62, _wilds("acc_worst_region", ("region", "year", "y"), "region")),
    _task(
        "fairness/dollar_street",
        "Dollar Street",
        3503,
        58,
        _fairness("acc_top5_wg", ("income_ds", "income_meta", "region"), "income_ds"),
    ),
    _task("fairness/geode", "GeoDE", 12488, 40, _fairness("acc_wg", ("region", "country"), "region")),
    _task("fairness/fairface", "FairFace", 10954, None, _fairness(None, PERSON, "race", "attributes")),
    _task("fairness/utkface", "UTKFace", 23703, None, _fairness(None, PERSON, "race", "attributes")),
)
