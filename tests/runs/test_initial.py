from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from eyesmith.data import open_source
from eyesmith.errors import CheckpointError
from eyesmith.eval import read_rows
from eyesmith.hub import load_model, save_model
from eyesmith.hub.initial import InitialConfig, load_initial
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.text import ClipTextConfig
from eyesmith.recipes import locked_text
from eyesmith.runs.average import average
from eyesmith.runs.train import start
from eyesmith.tasks.contrastive import Contrastive, TrainConfig
from eyesmith.tasks.task import BEFORE
from eyesmith.train.config import EvalConfig


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def trained(tiny_model: ClipConfig, tmp_path: Path) -> Path:
    torch.manual_seed(7)
    clip = tiny_model.build()
    with torch.no_grad():
        clip.logit_scale.fill_(3.0)
    save_model(tmp_path / "trained", clip.eval())
    return tmp_path / "trained"


def weights(clip: Clip, tower: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in clip.state_dict().items() if name.startswith(tower)}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def test_all_weights_or_those_of_the_text_tower(tiny_model: ClipConfig, trained: Path) -> None:
    source = load_model(trained)
    torch.manual_seed(0)
    whole, text, neither = tiny_model.build(), tiny_model.build(), tiny_model.build()
    load_initial(whole, InitialConfig(weights=str(trained)))
    load_initial(text, InitialConfig(weights=str(trained), part="text"))
    random = weights(neither, "")
    load_initial(neither, InitialConfig())
    assert same(weights(whole, ""), weights(source, ""))
    assert same(weights(text, "text."), weights(source, "text."))
    assert text.logit_scale.item() == 3.0
    assert not same(weights(text, "image."), weights(source, "image."))
    assert same(weights(neither, ""), random)
    assert all(parameter.requires_grad for parameter in whole.parameters())


@pytest.mark.parametrize("projection", ["plain", "biased"])
def test_a_text_tower_starts_without_the_projection_to_other_images(
    tiny_model: ClipConfig, tmp_path: Path, projection: Literal["plain", "biased"]
) -> None:
    """That of SigLIP is a layer, CLIP's a matrix."""
    assert isinstance(tiny_model.text, ClipTextConfig)
    config = replace(tiny_model, text=replace(tiny_model.text, projection=projection))
    torch.manual_seed(7)
    save_model(tmp_path / "source", config.build().eval())
    torch.manual_seed(0)
    clip = config.build()
    before = weights(clip, "text.text_projection")
    path = str(tmp_path / "source")
    load_initial(clip, InitialConfig(weights=path, part="image", text=path))
    assert same(weights(clip, "text.text_projection"), before)
    assert same(weights(clip, "text.transformer."), weights(load_model(path), "text.transformer."))


def test_weights_of_another_model_are_refused(tiny_model: ClipConfig, trained: Path) -> None:
    other = replace(tiny_model, image=replace(tiny_model.image, depths=(1, 1, 4))).build()
    with pytest.raises(CheckpointError, match="belong to another model"):
        load_initial(other, InitialConfig(weights=str(trained)))
    load_initial(other, InitialConfig(weights=str(trained), part="text"))  # the text tower is the same
    narrow = replace(tiny_model, text=replace(tiny_model.text, depth=2)).build()
    with pytest.raises(CheckpointError, match="text tower of"):
        load_initial(narrow, InitialConfig(weights=str(trained), part="text"))


def test_the_model_comes_from_the_weights(config: TrainConfig, trained: Path) -> None:
    changed = replace(config, model=replace(config.model, name="other"))
    found = Contrastive.from_weights(changed, str(trained))
    assert found.model == load_model(trained).config
    assert found.initial == InitialConfig(weights=str(trained))
    assert found.optim == config.optim


def test_locked_text_trains_no_text_parameter_and_encodes_each_distinct_text_once(
    config: TrainConfig, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the recipe itself, but for the size of its towers and what needs shards
    run = locked_text("S", "128m")
    run = replace(
        config,
        model=replace(config.model, lock_text=run.model.lock_text),
        initial=replace(run.initial, weights=str(trained)),
        optim=replace(run.optim, warmup_steps=2),
    )
    encoded: list[str] = []
    encode = Clip.encode_text
    monkeypatch.setattr(
        Clip, "encode_text", lambda clip, texts, **kw: encoded.extend(texts) or encode(clip, texts, **kw)
    )
    done = start(run, tmp_path / "run")
    source = open_source(run.data.path)
    captions = {text for index in range(len(source)) for text in source.texts(index)}
    # the fingerprint at the end has texts of its own
    assert sorted(text for text in encoded if text in captions) == sorted(captions)
    before, after = load_model(trained), load_model(done.folder)
    assert same(weights(before, "text."), weights(after, "text."))
    assert not same(weights(before, "image."), weights(after, "image."))
    assert float(after.logit_scale.detach()) != 3.0  # the temperature starts at the trained one's and trains


def test_a_fine_tuned_model_is_measured_before_and_after(
    config: TrainConfig, pairs: Path, trained: Path, tmp_path: Path
) -> None:
    settings = EvalConfig(curve_data=(str(pairs),), keep_best="none")
    run = replace(Contrastive.from_weights(config, str(trained)), eval=settings, epochs=1)
    done = start(run, tmp_path / "tuned")
    rows = read_rows(done.folder / "results.jsonl")
    assert rows == done.rows
    before = {(row.task, row.split, row.metric): row for row in rows if row.model == "tiny" + BEFORE}
    after = {(row.task, row.split, row.metric): row for row in rows if row.model == "tiny"}
    assert before.keys() == after.keys() != set()
    assert rows[0].model == "tiny"
    assert {split for _, split, _ in after} == {f"{pairs.name}:all"}
    between = average([trained, done.folder], tmp_path / "between", method="wise_ft", alphas=(0.0, 1.0), data=[pairs])
    value = lambda rows: rows["zero_shot", f"{pairs.name}:all", "acc1"].value  # noqa: E731
    assert [tried.score for tried in between.tried] == pytest.approx([value(before), value(after)])
    best = trained if between.tried[0].score >= between.tried[1].score else done.folder
    assert same(weights(load_model(between.folder), ""), weights(load_model(best), ""))
