"""Task `things`: targets and loss against slow loops, a whole run, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from eyesmith.data.loader import Batch
from eyesmith.data.make.scenes import make_scenes
from eyesmith.data.sources import open_source
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval.results.rows import read_rows
from eyesmith.hub import load_encoder, verify
from eyesmith.images.augment import AugmentConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.recipes import recipe
from eyesmith.runs.train import resume, start
from eyesmith.tasks.things import Things, ThingsConfig, ThingsModel, answers_of, targets_of
from eyesmith.train.config import DataConfig, EvalConfig

EYE = ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("things") / "scenes"
    make_scenes(folder, samples=96, size_px=32)
    return folder


@pytest.fixture
def config(scenes: Path) -> ThingsConfig:
    found = recipe("scenes-eye")
    assert isinstance(found, ThingsConfig)
    data = DataConfig(path=str(scenes), split="train", decode_px=32)
    return replace(found, model=EYE, data=data, batch_size=32, epochs=1)


def test_cells_hold_the_things_whose_middle_is_in_them(scenes: Path) -> None:
    source = open_source(str(scenes), split="train")
    asked = ("shape", "color")
    answers, counts = answers_of(source, asked)
    assert len(answers["shape"]) == 12
    assert counts == ["1", "2", "3", "4"]
    found = targets_of(source, answers, counts, (4, 4))
    for index in range(len(source)):
        things = source[index].meta["objects"]
        assert counts[found["whole"][index, 0]] == str(len(things))
        assert [answers[name][found["whole"][index, 1 + i]] for i, name in enumerate(asked)] == [
            things[0]["shape"],
            things[0]["color"],
        ]
        wanted = {}
        for thing in things:
            wanted.setdefault((int(thing["y"] * 4), int(thing["x"] * 4)), (thing["shape"], thing["color"]))
        cells = found["things"][index].view(4, 4, 2)
        told = {
            (row, column): tuple(answers[name][cells[row, column, i]] for i, name in enumerate(asked))
            for row in range(4)
            for column in range(4)
            if cells[row, column, 0] >= 0
        }
        assert told == wanted
    with pytest.raises(DataError, match="does not say the weight of its things"):
        answers_of(source, ("weight",))


def test_the_loss_is_that_of_a_loop(config: ThingsConfig) -> None:
    torch.manual_seed(0)
    model = ThingsModel(EYE.build(), {"shape": "abc", "color": "de"}, ("1", "2"))
    task = Things(model, config, {})
    things = torch.full((2, 4, 2), -1)
    things[0, 1], things[1, 0], things[1, 3] = torch.tensor([2, 0]), torch.tensor([0, 1]), torch.tensor([1, 1])
    whole = torch.tensor([[0, 2, 0], [1, 0, 1]])
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    extra = {"things": things, "whole": whole}
    batch = Batch(pixels=pixels, texts=[], labels=None, keys=("a", "b"), rows=torch.arange(2), extra=extra)
    cells, told = torch.randn(2, 4, 6), torch.randn(2, 7)
    found = task.terms((cells, told), batch)
    for row in range(2):
        has = [place for place in range(4) if things[row, place, 0] >= 0]
        loss = sum(
            F.softplus(-cells[row, place, 0] if place in has else cells[row, place, 0]).item() for place in range(4)
        )
        loss /= 4
        for low, high, name in ((1, 4, 0), (4, 6, 1)):
            for place in has:
                loss -= cells[row, place, low:high].log_softmax(0)[things[row, place, name]].item() / len(has)
        for low, high, name in ((0, 2, 0), (2, 5, 1), (5, 7, 2)):
            loss -= told[row, low:high].log_softmax(0)[whole[row, name]].item()
        assert found[row].item() == pytest.approx(loss, rel=1e-5)


def test_a_run_leaves_an_encoder_and_the_rows_of_the_probe(config: ThingsConfig, tmp_path: Path) -> None:
    start(config, tmp_path / "run")
    assert type(load_encoder(tmp_path / "run")).__name__ == "ViTamin"
    assert verify(tmp_path / "run").ok
    rows = read_rows(tmp_path / "run" / "results.jsonl")
    assert [(row.model, row.task, row.split) for row in rows] == [
        ("scenes-eye", "probe", name) for name in ("shape", "colour", "count", "pattern")
    ]
    assert (tmp_path / "run" / "things.safetensors").is_file()


def test_a_stopped_run_goes_on_to_the_same_weights(
    config: ThingsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, eval=EvalConfig(), save_every_steps=1)
    start(config, tmp_path / "whole")
    backward, steps = Things.backward, []

    def stopping(self: Things, *words: object) -> object:
        if len(steps) == 2:
            raise KeyboardInterrupt
        steps.append(0)
        return backward(self, *words)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Things, "backward", stopping)
    with pytest.raises(KeyboardInterrupt):
        start(config, tmp_path / "parts")
    monkeypatch.undo()
    resume(tmp_path / "parts")
    one, other = (load_encoder(tmp_path / name).state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_what_would_move_things_is_refused(config: ThingsConfig) -> None:
    for augment in (
        AugmentConfig(horizontal_flip_prob=0.5),
        AugmentConfig(erase_prob=0.5),
        AugmentConfig(scale=(0.5, 1.0)),
    ):
        with pytest.raises(ConfigError, match="things must stay"):
            replace(config, augment=augment)
    with pytest.raises(ConfigError, match="asked"):
        replace(config, asked=("shape", "count"))
