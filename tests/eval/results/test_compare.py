import numpy as np
import pytest
from sklearn.metrics import f1_score

from eyesmith.errors import DataError
from eyesmith.eval.results import compare_folders, read_predictions, write_records
from eyesmith.eval.statistics import bootstrap_interval, group_mean

RNG = np.random.default_rng(0)
TARGETS = RNG.integers(0, 6, 300)


def write(folder, task, *, share, seed, targets=TARGETS, keys=None):
    rng = np.random.default_rng(seed)
    guesses = np.where(rng.random(len(targets)) < share, targets, (targets + 1) % 6)
    top = (guesses[:, None] + np.arange(5)) % 6
    ranks = np.where(guesses == targets, 0, 5)
    keys = keys or [f"s{index}" for index in range(len(targets))]
    records = {"targets": targets, "ranks": ranks, "top": top, "top_score": top * 0.0}
    write_records(folder, task, {"keys": np.array(keys)} | records)
    return guesses


def add(folder, task, **arrays):
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    path = folder / "predictions" / f"{task}.npz"
    with np.load(path) as stored:
        old = dict(stored)
    np.savez(path, **old, **arrays)


def test_each_task_by_its_own_metric(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    guesses = {}
    for side, share in ((a, 0.5), (b, 0.7)):
        for task in ("imagenet1k", "vtab/pets", "wilds/iwildcam", "wilds/fmow", "own"):
            guesses[side.name, task] = write(side, task, share=share, seed=len(task) + len(guesses))
    found = {one.task: one for one in compare_folders(a, b).tasks}
    assert {name: one.metric for name, one in found.items()} == {
        "imagenet1k": "acc1",
        "own": "acc1",
        "vtab/pets": "mean_per_class_recall",
        "wilds/fmow": "acc1",
        "wilds/iwildcam": "f1_macro",
    }
    assert "no groups" in found["wilds/fmow"].note
    for name, one in found.items():
        assert one.result.difference.low <= one.result.difference.value <= one.result.difference.high, name
        assert one.p_holm >= one.result.p
    expected = f1_score(TARGETS, guesses["b", "wilds/iwildcam"], average="macro")
    assert found["wilds/iwildcam"].result.right == pytest.approx(expected)
    recall = bootstrap_interval((guesses["a", "vtab/pets"] == TARGETS) * 1.0, metric=group_mean, groups=TARGETS)
    assert found["vtab/pets"].result.left == pytest.approx(recall.value)
    assert found["imagenet1k"].result.test == "mcnemar"


def test_images_of_several_labels_are_compared_by_their_hits(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    guesses = [write(side, "imagenet-real", share=share, seed=1) for side, share in ((a, 0.5), (b, 0.9))]
    (one,) = compare_folders(a, b).tasks
    assert (one.metric, one.result.test) == ("acc1", "mcnemar")
    assert (one.result.left, one.result.right) == pytest.approx([np.mean(guess == TARGETS) for guess in guesses])
    assert compare_folders(a, b, metric="acc5").tasks[0].result.left >= one.result.left
    with pytest.raises(DataError, match="there is no f1_macro"):
        compare_folders(a, b, metric="f1_macro")


def test_groups_give_the_worst_region(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    regions = RNG.integers(0, 3, 300).astype(np.int32)
    guesses = [write(side, "wilds/fmow", share=share, seed=1) for side, share in ((a, 0.5), (b, 0.9))]
    for side in (a, b):
        add(side, "wilds-fmow", groups=regions)
    (one,) = compare_folders(a, b, over="classes").tasks
    worst = [min(np.mean((guess == TARGETS)[regions == k]) for k in range(3)) for guess in guesses]
    assert (one.metric, one.note) == ("worst_group_acc1", "")
    assert (one.result.left, one.result.right) == pytest.approx(tuple(worst))


def test_retrieval_and_associations(tmp_path):
    owner = np.repeat(np.arange(40), 3)[:-1].astype(np.int32)
    for side, bad in (("a", 0.5), ("b", 0.2)):
        rng = np.random.default_rng(3)
        folder = tmp_path / side / "predictions"
        folder.mkdir(parents=True)
        arrays = {
            "image_retrieval_ranks": (rng.random(119) < bad) * 3,
            "text_retrieval_ranks": (rng.random(40) < bad) * 1,
            "image_of_text": owner,
        }
        np.savez(folder / "flickr.npz", keys=np.array([f"i{k}" for k in range(40)]), **arrays)
        sizes = np.repeat([5, 10, 12], 10)
        np.savez(folder / "wino.npz", cues=np.array(["x"] * 30), jaccard=rng.random(30), num_candidates=sizes)
        np.savez(folder / "map.npz", average_precision=np.r_[rng.random(6), np.nan])
        np.savez(folder / "faces.npz", keys=np.array(["f"]), predicted_race=np.array([1]))
    found = compare_folders(tmp_path / "a", tmp_path / "b")
    tasks = {one.task: one for one in found.tasks}
    assert found.without == ("faces",)
    flickr = tasks["flickr"]
    with np.load(tmp_path / "b" / "predictions" / "flickr.npz") as stored:
        both = [np.mean(stored[f"{way}_retrieval_ranks"] < 1) for way in ("image", "text")]
    assert flickr.result.right == pytest.approx(sum(both) / 2)
    assert (flickr.metric, flickr.result.n, flickr.result.test) == ("mean_recall@1", 40, "permutation")
    assert (tasks["wino"].metric, tasks["wino"].result.n) == ("jaccard_score_10-12", 20)
    assert (tasks["map"].metric, tasks["map"].result.n) == ("mean_average_precision", 6)
    with pytest.raises(DataError, match="acc5 is a metric of classification"):
        compare_folders(tmp_path / "a", tmp_path / "b", metric="acc5")
    with pytest.raises(DataError, match="no main metric"):
        compare_folders(tmp_path / "a", tmp_path / "b", tasks=["faces"])


def test_samples_are_matched_by_key(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    first = write(a, "own", share=0.6, seed=0)
    order = RNG.permutation(300)[:290]
    second = write(b, "own", share=0.6, seed=1, targets=TARGETS[order], keys=[f"s{index}" for index in order])
    (one,) = compare_folders(a, b).tasks
    assert (one.left_out, one.result.n) == (10, 290)
    assert one.result.right == pytest.approx(np.mean(second == TARGETS[order]))
    assert one.result.left == pytest.approx(np.mean((first == TARGETS)[order]))


def test_the_average_is_over_tasks_and_missing_ones_are_told(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for number, task in enumerate(("one", "two", "three")):
        write(a, task, share=0.5, seed=number)
        write(b, task, share=0.5 + 0.1 * number, seed=number)
    write(b, "four", share=0.5, seed=9)
    found = compare_folders(a, b)
    assert found.missing == (("four", "right"),)
    gaps = [one.result.difference.value for one in found.tasks]
    assert found.average.value == pytest.approx(sum(gaps) / 3)
    widest = max(one.result.difference.high - one.result.difference.low for one in found.tasks)
    assert found.average.high - found.average.low < widest
    assert compare_folders(a, b, tasks=["two"]).missing == ()


def test_different_data_are_refused(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, "own", share=0.5, seed=0)
    write(b, "own", share=0.5, seed=0, targets=(TARGETS + 1) % 6)
    with pytest.raises(DataError, match="'s0' has different right classes"):
        compare_folders(a, b)
    write(b, "own", share=0.5, seed=0, keys=[f"other{index}" for index in range(300)])
    with pytest.raises(DataError, match="no sample in common"):
        compare_folders(a, b)
    with pytest.raises(DataError, match="no predictions for 'won'.*own"):
        compare_folders(a, b, tasks=["won"])
    with pytest.raises(DataError, match="no such folder"):
        compare_folders(a, tmp_path / "c")
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="no prediction files .*; `eyesmith eval --out` writes them"):
        compare_folders(a, tmp_path / "c")
    (tmp_path / "c" / "results.jsonl").touch()  # what `eval --out` writes of a made set
    with pytest.raises(DataError, match="of a made set none are kept: `eyesmith compare-models A B"):
        compare_folders(a, tmp_path / "c")
    write(tmp_path / "c" / "eval", "own", share=0.5, seed=0)  # a run that was measured on a suite
    with pytest.raises(DataError, match="those of its suites are in .*c/eval"):
        compare_folders(a, tmp_path / "c")
    write(tmp_path / "c", "else", share=0.5, seed=0)
    with pytest.raises(DataError, match="no task in common; the first has own, the second else"):
        compare_folders(a, tmp_path / "c")


def test_damaged_files_are_named(tmp_path):
    write(tmp_path, "own", share=0.5, seed=0)
    path = tmp_path / "predictions" / "own.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(path)
    first = whole.index(b"PK\x01\x02")  # the directory, whose bytes 10 and 11 name the method of packing
    path.write_bytes(whole[: first + 10] + b"\x63\x00" + whole[first + 12 :])
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(path)
    np.savez(path, keys=np.array(["a"]))
    with pytest.raises(DataError, match="is no prediction file; it has the arrays keys"):
        read_predictions(path)
    path.write_bytes(whole)
    add(tmp_path, "own", groups=np.zeros(3))
    with pytest.raises(DataError, match="'groups' has 3 rows for 300 keys"):
        read_predictions(path)
    with pytest.raises(DataError, match="no such prediction file"):
        read_predictions(tmp_path / "no.npz")


def test_samples_called_alike_of_other_sets_are_told(tmp_path):
    for side, share in (("a", 0.5), ("b", 0.7)):
        write(tmp_path / side, "own:test", share=share, seed=1)
    (one,) = compare_folders(tmp_path / "a", tmp_path / "b").tasks
    assert one.note == "", "files of before do not say"
    for side, data in (("a", "birds"), ("b", "birds"), ("c", "pets")):
        rows = read_predictions(tmp_path / ("a" if side == "c" else side) / "predictions" / "own:test.npz").records
        write_records(tmp_path / side, "own:test", rows, data=data)
    (one,) = compare_folders(tmp_path / "a", tmp_path / "b").tasks
    assert one.note == ""
    (one,) = compare_folders(tmp_path / "a", tmp_path / "c").tasks
    assert "not the same set" in one.note
