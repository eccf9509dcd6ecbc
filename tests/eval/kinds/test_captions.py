import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from eyesmith.data.evaluation.captions import caption_test_kind, open_caption_test
from eyesmith.errors import DataError, ShapeError
from eyesmith.eval import evaluate_own
from eyesmith.eval.kinds.choice import right_is_best
from eyesmith.eval.kinds.pairs import CHANCE, pair_answers
from eyesmith.eval.results.compare import compare_folders
from eyesmith.images.transforms import PreprocessConfig

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}


class Words(nn.Module):
    """Sees the colour of an image; of a caption it knows the words, not their order."""

    def __init__(self):
        super().__init__()
        self.preprocess = PreprocessConfig(image_size=(4, 4))
        self.config = SimpleNamespace(name="Words", lock_text=False)
        self.logit_scale = nn.Parameter(torch.tensor(3.0))
        self.text = nn.Linear(1, 1).requires_grad_(False)
        self.image = nn.Identity()
        self.image.embed_dim = 3

    def encode_image(self, images, *, batch_size=64):
        return nn.functional.normalize(images.float().mean((2, 3)), dim=-1)

    def encode_text(self, texts, *, batch_size=256):
        sums = [
            sum((torch.tensor(COLOURS[w]).float() for w in t.split() if w in COLOURS), torch.ones(3)) for t in texts
        ]
        return nn.functional.normalize(torch.stack(sums), dim=-1)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (6, 5), colour).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


def test_pairs_by_hand():
    scores = torch.tensor(
        [
            [[2.0, 1.0], [1.0, 2.0]],  # all right
            [[2.0, 1.0], [1.5, 1.2]],  # texts right (2 > 1.5, 1.2 > 1), images wrong (1.2 < 1.5)
            [[2.0, 1.5], [1.0, 1.2]],  # image right (2 > 1.5, 1.2 > 1), text wrong (1.2 < 1.5)
            [[1.0, 1.0], [1.0, 1.0]],  # equal scores are no answer
        ]
    )
    found = pair_answers(scores)
    assert {name: right.tolist() for name, right in found.items()} == {
        "text_score": [True, True, False, False],
        "image_score": [True, False, True, False],
        "group_score": [True, False, False, False],
    }
    with pytest.raises(ShapeError, match=r"\[N, 2, 2\]"):
        pair_answers(torch.zeros(3, 2))


def test_chance_of_pairs_is_that_of_random_scores():
    generator = torch.Generator().manual_seed(0)
    found = pair_answers(torch.rand(200_000, 2, 2, generator=generator))
    shares = {name: float(right.double().mean()) for name, right in found.items()}
    assert shares == pytest.approx(CHANCE, abs=0.005)


def test_a_right_caption_must_beat_all_wrong_ones():
    right = torch.tensor([0.5, 0.5, 0.5])
    wrong = [torch.tensor([0.1, 0.4]), torch.tensor([0.1, 0.6]), torch.tensor([0.5])]
    assert right_is_best(right, wrong).tolist() == [True, False, False]
    with pytest.raises(ShapeError):
        right_is_best(right, [torch.zeros(0)] * 3)


def test_pairs_of_a_folder(folder):
    lines = [
        {"image_0": "red", "image_1": "blue.png", "caption_0": "a red wall", "caption_1": "a blue wall", "tag": "noun"},
        {
            "image_0": "red",
            "image_1": "green",
            "caption_0": "the red eats the green",
            "caption_1": "the green eats the red",
            "tag": "order",
        },
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert caption_test_kind(folder) == "pairs"
    rows = {(row.split, row.metric): row for row in evaluate_own(Words(), folder).rows}
    assert rows["all", "group_score"].value == 0.5  # the order of words is lost on this model
    assert rows["noun", "text_score"].value == rows["noun", "image_score"].value == 1
    assert rows["order", "image_score"].value == 0
    row = rows["all", "text_score"]
    assert (row.model, row.task, row.n, row.chance) == ("Words", f"own:{folder.name}", 2, 0.25)
    assert 0 < row.low < 0.5 < row.high < 1


def test_files_of_sugarcrepe_and_of_ones_own(folder):
    replace = {"0": {"filename": "red.png", "caption": "a red cup", "negative_caption": "a blue cup"}}
    swap = {
        "0": {"filename": "red.png", "caption": "red on green", "negative_caption": "green on red"},
        "1": {"filename": "blue.png", "caption": "blue", "negative_caption": "green"},
    }
    (folder / "replace_obj.json").write_text(json.dumps(replace))
    (folder / "swap_obj.json").write_text(json.dumps(swap))
    (folder / "other.json").write_text("{}")
    values = {row.split: (row.value, row.n, row.chance) for row in evaluate_own(Words(), folder, model_name="w").rows}
    assert values == {"all": (2 / 3, 3, 0.5), "replace_obj": (1, 1, 0.5), "swap_obj": (0.5, 2, 0.5)}
    own = [{"image": "red", "caption": "red", "negatives": ["blue", "green", "a wall"]}]
    (folder / "negatives.jsonl").write_text(json.dumps(own[0]) + "\n\n")
    (row,) = evaluate_own(Words(), folder).rows
    assert (row.task, row.value, row.chance) == (f"own:{folder.name}", 1, 0.25)


def test_other_captions_of_the_same_pictures_are_another_test(folder, tmp_path):
    samples = []
    for side, wrong in (("a", "blue"), ("b", "green"), ("c", "green")):
        item = {"image": "red", "caption": "red", "negatives": [wrong]}
        (folder / "negatives.jsonl").write_text(json.dumps(item) + "\n")
        (row,) = evaluate_own(Words(), folder, tmp_path / side).rows
        assert row.run is not None
        samples.append(row.run["samples"])
    assert samples[0] != samples[1] == samples[2]
    assert compare_folders(tmp_path / "b", tmp_path / "c").tasks[0].result.n == 1
    with pytest.raises(DataError, match="different data, and their samples have no keys"):
        compare_folders(tmp_path / "a", tmp_path / "b")


def test_what_is_wrong_is_named(folder):
    with pytest.raises(DataError, match="no caption test"):
        open_caption_test(folder)
    line = {"image_0": "red", "image_1": "grey", "caption_0": "a", "caption_1": "b"}
    (folder / "pairs.jsonl").write_text(json.dumps(line))
    with pytest.raises(DataError, match="line 1: there is no image 'grey'"):
        evaluate_own(Words(), folder)
    (folder / "pairs.jsonl").write_text(json.dumps({**line, "image_1": "blue", "caption_1": " "}))
    with pytest.raises(DataError, match="line 1: expected text under caption_1"):
        evaluate_own(Words(), folder)
    (folder / "pairs.jsonl").write_text("")
    with pytest.raises(DataError, match="no items"):
        evaluate_own(Words(), folder)
    (folder / "pairs.jsonl").write_text("[")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        evaluate_own(Words(), folder)
    (folder / "pairs.jsonl").unlink()
    entry = {"image": "red", "caption": "a", "negatives": []}
    (folder / "negatives.jsonl").write_text(json.dumps(entry))
    with pytest.raises(DataError, match="expected wrong captions"):
        evaluate_own(Words(), folder)
    (folder / "negatives.jsonl").write_text(json.dumps({**entry, "negatives": ["b"], "bbox_x": 3}))
    with pytest.raises(DataError, match="cut the parts out"):
        evaluate_own(Words(), folder)
    (folder / "images" / "red.png").write_bytes(b"no picture")
    (folder / "negatives.jsonl").write_text(json.dumps({**entry, "negatives": ["b"]}))
    with pytest.raises(DataError):
        evaluate_own(Words(), folder)
