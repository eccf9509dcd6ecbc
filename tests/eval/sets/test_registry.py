"""The table of tasks agrees with the reference's, and a task of one's own is ten lines."""

import pytest

from eyesmith.errors import ConfigError
from eyesmith.eval.sets import SUITES, TASKS, Task, find_task, register_task


def test_the_table_has_the_published_counts() -> None:
    tasks = SUITES["datacomp"].tasks
    assert len(tasks) == 40
    assert sum(task.size or 0 for task in tasks) == 732_026  # images of all 40 by the reference's list
    assert sum(task.size or 0 for task in tasks if task.metric is not None) == 697_369
    assert [task.key for task in tasks if task.metric is None] == ["fairness/fairface", "fairness/utkface"]
    assert [task.name for task in tasks if task.metric == "mean_per_class_recall"] == [
        "Caltech-101",
        "FGVC Aircraft",
        "Oxford Flowers-102",
        "Oxford-IIIT Pet",
    ]
    others = {task.key: task.metric for task in tasks if task.metric not in (None, "acc1", "mean_per_class_recall")}
    assert others == {
        "retrieval/flickr_1k_test_image_text_retrieval": "mean_recall@1",
        "retrieval/mscoco_2014_5k_test_image_text_retrieval": "mean_recall@1",
        "misc/winogavil": "jaccard_score_10-12",
        "wilds/iwildcam": "F1-macro_all",
        "wilds/fmow": "acc_worst_region",
        "fairness/dollar_street": "acc_top5_wg",
        "fairness/geode": "acc_wg",
    }


def test_folders_follow_the_hub() -> None:
    assert TASKS["vtab/dtd"].folder == "wds_vtab-dtd_test"
    assert TASKS["vtab/dtd"].hub == "djghosh/wds_vtab-dtd_test"
    assert TASKS["wilds/fmow"].folder == "wds_wilds-fmow_test"
    assert TASKS["fairness/dollar_street"].folder == "wds_dollar_street_test"  # without its prefix
    assert TASKS["misc/winogavil"].hub == "nlphuji/winogavil"


def test_the_official_fmow_leaves_the_region_of_four_images_out_under_another_key() -> None:
    quirk, official = TASKS["wilds/fmow"], TASKS["wilds/fmow-official"]
    assert quirk.left_out == ()
    assert official.left_out == (5,)
    assert official.folder == quirk.folder
    assert official.key not in SUITES["datacomp"].keys


def test_names_are_unique_and_tasks_are_found_by_what_people_call_them() -> None:
    assert len({task.name for task in TASKS.values()}) == len(TASKS)
    for key, task in TASKS.items():
        assert find_task(key) is task
        assert find_task(task.name) is task
    assert find_task("dtd").key == "vtab/dtd"
    assert find_task("food-101").key == "food101"
    assert find_task("wds_wilds-fmow_test").key == "wilds/fmow"
    with pytest.raises(ConfigError, match="did you mean .*objectnet"):
        find_task("objctnet")


@pytest.mark.parametrize(
    ("key", "chance"),
    [
        ("cifar10", 0.1),
        ("imagenet1k", 0.001),
        ("fairness/dollar_street", 5 / 58),
        ("vtab/kitti_closest_vehicle_distance", 0.295289),
        ("video/kinetics400", 3 / 400),
        ("retrieval/flickr_1k_test_image_text_retrieval", 0.001),
        ("fairness/fairface", None),
        ("voc2007_multilabel", None),
    ],
)
def test_chance(key: str, chance: float | None) -> None:
    assert TASKS[key].chance == (None if chance is None else pytest.approx(chance))


def test_chance_levels_are_those_of_datacomps_task_list() -> None:
    """Its `random_score` of every task that has one, in its order and with its six digits."""
    listed = [
        0.009804,
        0.100000,
        0.010000,
        0.125061,
        0.190520,
        0.004739,
        0.021277,
        0.101483,
        0.010000,
        0.009901,
        0.037604,
        0.001000,
        0.001000,
        0.001000,
        0.008056,
        0.006047,
        0.006163,
        0.295289,
        0.100350,
        0.009481,
        0.009804,
        0.027027,
        0.154038,
        0.500000,
        0.500001,
        0.022342,
        0.005160,
        0.100000,
        0.004645,
        0.117897,
        0.205000,
        0.143056,
        0.500000,
        0.027193,
    ]
    tasks = [task for task in SUITES["datacomp"].tasks if task.layout != "retrieval" and "fairness" not in task.groups]
    assert [round(task.chance or 0, 6) for task in tasks] == listed


def test_a_task_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyesmith.eval.sets.registry.TASKS", dict(TASKS))
    task = Task(key="birds", name="My birds", size=None, num_classes=3, folder="birds")
    register_task(task)
    assert find_task("my birds") is task
    with pytest.raises(ConfigError, match="already"):
        register_task(task)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"layout": "table"}, "layout must be one of"),
        ({"size": 0}, "size must be at least 1"),
        ({"num_classes": 1}, "at least 2 classes"),
        ({"group_by": "year"}, "its columns are"),
        ({"folder": ""}, "must not be empty"),
        ({"left_out": (5,)}, "needs group_by"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(field: dict, message: str) -> None:
    entry = {"key": "birds", "name": "My birds", "size": None, "num_classes": 3, "folder": "birds"} | field
    with pytest.raises(ConfigError, match=message):
        Task(**entry)
