import json
from pathlib import Path
from typing import Any

import pytest

from eyesmith.data.shards import ShardWriter, finish_dataset, split_facts
from eyesmith.errors import DataError
from eyesmith.eval import choose_splits, evaluate, split_tasks


def make_dataset(folder: Path, splits: dict[str, list[tuple[str, bytes]]], classes: list[str]) -> None:
    facts = {}
    for split, samples in splits.items():
        with ShardWriter(folder / split) as writer:
            for number, (name, image) in enumerate(samples):
                members = {"png": image, "txt": f"a {name} wall".encode(), "cls": str(classes.index(name)).encode()}
                writer.write(f"{number}_{name}", members)
        facts[split] = split_facts(writer, sorted({name for name, _ in samples}, key=classes.index))
    finish_dataset(
        folder,
        {"name": "walls", "maker": "test", "maker_version": 1, "parameters": {}, "classes": classes,
         "templates": ["a {} wall", "{}"], "splits": facts},
    )  # fmt: skip


@pytest.fixture
def walls(tmp_path: Path, make_png: Any, colours: Any) -> Path:
    images = {name: make_png(colour) for name, colour in colours.items()}
    known = ["red", "green", "blue", "pink"]
    splits = {
        "train": [(name, images[name]) for name in known],
        "unseen_drawing": [(name, images[name]) for name in known for _ in range(2)],
        "unseen_concept": [(name, images[name]) for name in ("cyan", "grey")],
    }
    make_dataset(tmp_path / "walls", splits, list(colours))
    return tmp_path / "walls"


def test_a_made_data_set_gives_all_splits_but_train_with_their_own_candidates(walls: Path, make_clip: Any) -> None:
    rows = {(row.split, row.task, row.metric): row for row in evaluate(make_clip(), walls, model_name="m")}
    assert {split for split, _, _ in rows} == {"unseen_drawing", "unseen_concept"}
    drawing = rows["unseen_drawing", "zero_shot", "acc1"]
    assert (drawing.value, drawing.chance, drawing.n, drawing.model) == (1.0, 1 / 4, 8, "m")
    concept = rows["unseen_concept", "zero_shot", "acc1"]
    assert (concept.value, concept.chance, concept.n) == (1.0, 1 / 2, 2)
    assert rows["unseen_concept", "zero_shot_all", "acc5"].chance == 5 / 6
    assert rows["unseen_drawing", "retrieval", "image_retrieval_recall@1"].value == 0.5  # every drawing is there twice
    assert rows["unseen_drawing", "retrieval_label", "image_retrieval_recall@1"].value == 1.0
    assert ("unseen_concept", "retrieval_label", "image_retrieval_recall@1") not in rows  # no class comes twice


def test_templates_of_the_data_set_come_before_the_models_own(walls: Path, make_clip: Any) -> None:
    clip = make_clip()
    evaluate(clip, walls, ["unseen_concept"])
    assert {"a cyan wall", "cyan"} <= set(clip.encoded_texts)
    assert not any("photo" in text for text in clip.encoded_texts)
    assert len(clip.encoded_texts) == len(set(clip.encoded_texts))


def test_splits_can_be_chosen_and_unknown_ones_are_named(walls: Path, make_clip: Any) -> None:
    rows = evaluate(make_clip(), walls, ["train"])
    assert {row.split for row in rows} == {"train"}
    assert {row.model for row in rows} == {"Colour"}
    with pytest.raises(DataError, match="no split 'unseen_drawin'; did you mean unseen_drawing"):
        evaluate(make_clip(), walls, ["unseen_drawin"])


def test_train_is_never_taken_for_a_test_unasked(tmp_path: Path, make_png: Any, colours: Any) -> None:
    make_dataset(tmp_path / "d", {"train": [("red", make_png(colours["red"]))]}, ["red", "blue"])
    with pytest.raises(DataError, match="only split is 'train'"):
        choose_splits(tmp_path / "d")


def test_class_folders_are_a_zero_shot_task(tmp_path: Path, make_clip: Any, make_png: Any, colours: Any) -> None:
    for name in ("red", "blue"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "photos" / name / f"{number}.png").write_bytes(make_png(colours[name]))
    rows = evaluate(make_clip(), tmp_path / "photos")
    assert [(row.split, row.task, row.metric, row.value, row.n) for row in rows] == [
        ("all", "zero_shot", "acc1", 1.0, 6)
    ]


def test_a_table_of_pairs_is_a_retrieval_task(tmp_path: Path, make_clip: Any, make_png: Any, colours: Any) -> None:
    for name in ("red", "blue", "green"):
        (tmp_path / f"{name}.png").write_bytes(make_png(colours[name]))
    (tmp_path / "pairs.csv").write_text("image,caption\nred.png,a red one\nblue.png,the blue one\ngreen.png,green\n")
    rows = evaluate(make_clip(), tmp_path / "pairs.csv")
    assert [(row.split, row.task, row.metric, row.value) for row in rows] == [
        ("all", "retrieval", "image_retrieval_recall@1", 1.0),
        ("all", "retrieval", "text_retrieval_recall@1", 1.0),
    ]


def test_a_broken_image_is_counted_aloud(tmp_path: Path, make_clip: Any, make_png: Any, colours: Any) -> None:
    image = make_png(colours["red"])
    samples = [("red", image), ("blue", image[:30]), ("green", make_png(colours["green"]))]
    make_dataset(tmp_path / "d", {"val": samples}, ["red", "green", "blue"])
    notes: list[str] = []
    rows = evaluate(make_clip(), tmp_path / "d", note=notes.append)
    assert rows[0].n == 2
    assert len(notes) == 1
    assert "left out 1 unusable samples; first: 1_blue" in notes[0]
    with pytest.warns(UserWarning, match="left out 1"):
        evaluate(make_clip(), tmp_path / "d")


def test_a_data_set_with_a_missing_or_cut_shard_gives_no_number(walls: Path, make_clip: Any) -> None:
    tar = walls / "unseen_drawing" / "0.tar"
    content = tar.read_bytes()
    tar.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="mislead"):
        evaluate(make_clip(), walls, ["unseen_drawing"])


def test_fewer_samples_than_the_data_set_says_give_no_number(walls: Path) -> None:
    dataset = json.loads((walls / "dataset.json").read_text())
    dataset["splits"]["unseen_drawing"]["samples"] = 20
    (walls / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(DataError, match="12 of 20 samples are missing"):
        split_tasks(walls, "unseen_drawing")


def test_data_with_nothing_to_measure_are_refused(tmp_path: Path, make_clip: Any, make_png: Any) -> None:
    with ShardWriter(tmp_path / "tars") as writer:
        writer.write("a", {"png": make_png((1, 2, 3))})
    with pytest.raises(DataError, match="neither labels nor captions"):
        evaluate(make_clip(), tmp_path / "tars")
