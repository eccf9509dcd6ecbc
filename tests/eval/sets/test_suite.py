"""The averages that the papers print come out of the per-task numbers they print."""

import pytest

from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.published import published_table
from eyesmith.eval.sets import SUITES, TASKS, aggregate, find_suite, missing_tasks

# open_clip's published table: ViT-L-14, datacomp_xl_s13b_b90k, in DataComp's order without its last two
GOLDEN = (
    "0.9465 0.9824 0.8736 0.3555 0.2443 0.3157 0.6649 0.7124 0.4750 0.9452 0.5853 0.7921 0.6795 0.7205 0.6959 0.3255 "
    "0.9083 0.2785 0.8661 0.7425 0.8262 0.9506 0.8247 0.5118 0.6101 0.6941 0.9305 0.9925 0.7427 0.6769 0.8119 0.5451 "
    "0.4666 0.1614 0.5089 0.2403 0.6624 0.9152"
)


def golden() -> dict[str, float | None]:
    return dict(zip(SUITES["datacomp"].keys[:38], map(float, GOLDEN.split()), strict=True))


def test_the_golden_vector_gives_the_printed_averages() -> None:
    got = aggregate("datacomp", golden())
    printed = {"imagenet": 0.7921, "shift": 0.6787, "vtab": 0.6522, "retrieval": 0.6079, "average": 0.6627}
    for name, value in printed.items():
        assert got[name] == pytest.approx(value, abs=5.1e-5), name
    # and of the ViTamin paper's Table 3, whose row for the model prints one decimal
    row = next(row for row in published_table("vitamin-3") if row.model == "ViT-L/14 OpenCLIP")
    for name, value in row.printed.items():
        assert got[name] == pytest.approx(value, abs=5.1e-4), name


def test_averages_by_shown_name_and_by_key_are_the_same() -> None:
    by_name = {TASKS[key].name: value for key, value in golden().items()}
    assert aggregate("datacomp", by_name) == aggregate("datacomp", golden())


def test_members_of_the_averages_are_those_of_the_reference() -> None:
    members = {one.name: [TASKS[key].name for key in one.keys] for one in SUITES["datacomp"].aggregates}
    assert len(SUITES["datacomp"].keys) == 40
    assert len(members["average"]) == 38
    assert {"FairFace", "UTKFace"}.isdisjoint(members["average"])
    assert sorted(members["shift"]) == [
        "ImageNet Sketch",
        "ImageNet v2",
        "ImageNet-A",
        "ImageNet-O",
        "ImageNet-R",
        "ObjectNet",
    ]
    assert sorted(members["vtab"]) == sorted(
        [
            "Caltech-101",
            "CIFAR-100",
            "CLEVR Counts",
            "CLEVR Distance",
            "Describable Textures",
            "EuroSAT",
            "KITTI Vehicle Distance",
            "Oxford Flowers-102",
            "Oxford-IIIT Pet",
            "PatchCamelyon",
            "RESISC45",
            "SVHN",
            "SUN397",
        ]
    )
    assert members["retrieval"] == ["Flickr", "MSCOCO", "WinoGAViL"]
    assert len(members["classification"]) == 35
    assert len(members["average_without_fmow"]) == 37


def test_a_missing_task_is_named_and_never_averaged_over() -> None:
    values = golden()
    del values["cifar10"]
    values["wilds/fmow"] = None
    assert missing_tasks(SUITES["datacomp"], values) == ("CIFAR-10", "FMoW")
    with pytest.raises(DataError, match=r"2 tasks are missing: CIFAR-10, FMoW"):
        aggregate("datacomp", values)
    rest = aggregate("datacomp", values, allow_missing=True)
    assert set(rest) == {"imagenet", "shift", "vtab", "retrieval"}


def test_the_tasks_without_a_main_metric_are_not_needed() -> None:
    values = golden() | {"fairness/fairface": None, "UTKFace": None, "my own cats": 0.5}
    assert aggregate("datacomp", values) == aggregate("datacomp", golden())


@pytest.mark.parametrize("wrong", [94.65, -0.1, float("nan"), "0.9"])
def test_what_is_no_fraction_is_refused(wrong: float) -> None:
    with pytest.raises(DataError, match="fraction from 0 to 1"):
        aggregate("datacomp", golden() | {"cifar10": wrong})


def test_two_values_for_one_task_are_refused() -> None:
    with pytest.raises(DataError, match=r"CIFAR-10: two values"):
        aggregate("datacomp", golden() | {"CIFAR-10": 0.5})


def test_four_images_of_fmow_move_the_average_by_two_thirds_of_a_point() -> None:
    worse = golden() | {"wilds/fmow": 0.2403 - 0.25 + 0.25}
    better = golden() | {"wilds/fmow": 0.2403 + 0.25}
    gap = aggregate("datacomp", better)["average"] - aggregate("datacomp", worse)["average"]
    assert gap == pytest.approx(0.25 / 38)
    assert aggregate("datacomp", better)["average_without_fmow"] == aggregate("datacomp", worse)["average_without_fmow"]


def test_eva02s_27_sets_take_top1_everywhere_and_give_the_five_printed_averages() -> None:
    suite = SUITES["eva02"]
    assert len(suite.keys) == 27
    assert {suite.main_metric(task) for task in suite.tasks} == {"acc1"}
    assert [key for key in suite.keys if key not in SUITES["datacomp"].keys] == ["birdsnap", "fer2013"]
    rows = published_table("eva02-9")
    got = [round(100 * aggregate(suite, row.values)["average"], 1) for row in rows]
    assert got == [61.2, 65.6, 70.3, 72.3, 73.5]
    assert got == [round(100 * row.printed["average"], 1) for row in rows]


def test_table_6_averages_leave_objectnet_out_and_the_gap_is_to_imagenet() -> None:
    rows = {row.model: row for row in published_table("eva02-6")}
    large = aggregate("imagenet-variants", rows["EVA-02-L"].values)
    assert round(100 * large["average"], 1) == 85.2
    assert round(100 * large["delta"], 1) == 4.8
    base = aggregate("imagenet-variants", rows["EVA-02-B"].values)
    assert (round(100 * base["average"], 1), round(100 * base["delta"], 1)) == (78.6, 10.0)
    for row in rows.values():  # an average of printed numbers may differ by the rounding of the printed ones
        got = aggregate("imagenet-variants", row.values)
        assert got["average"] == pytest.approx(row.printed["average"], abs=1.01e-3), row.model
        assert got["delta"] == pytest.approx(row.printed["delta"], abs=1.01e-3), row.model


def test_video_averages() -> None:
    for row in published_table("eva02-11"):
        got = aggregate("video", row.values)["average"]
        assert got == pytest.approx(row.printed["average"], abs=5.1e-4), row.model
    # EVA-01's components: the mean of top-1 and top-5
    for top1, top5, printed in ((51.63, 74.49, 63.06), (52.25, 74.92, 63.58), (44.64, 67.54, 56.09)):
        assert (top1 + top5) / 2 == pytest.approx(printed, abs=6e-3)
    assert [SUITES["video"].main_metric(task) for task in SUITES["video"].tasks] == ["acc1"] + ["mean_acc1_acc5"] * 3


def test_an_unknown_suite_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="did you mean datacomp"):
        find_suite("datacmp")
