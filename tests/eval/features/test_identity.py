"""What is kept is used again only where everything that it depends on is as it was."""

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from eyesmith.data.class_folders import open_image_folder
from eyesmith.data.evaluation import open_evaluation_set
from eyesmith.data.make import make_miniatures
from eyesmith.errors import ConfigError
from eyesmith.eval import Settings, evaluate_suite
from eyesmith.eval.features import identity
from eyesmith.eval.features.identity import cache_key, content_hash, model_facts
from eyesmith.eval.features.store import FeatureStore
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.sets import TASKS
from eyesmith.files import seal
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.clip import Clip
from eyesmith.models.identity import structure_hash, weights_hash
from eyesmith.models.text.model import Block


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pictures(folder: Path, count: int) -> list[Path]:
    files = []  # of equal sizes in bytes, whatever they show
    for number in range(count):
        file = folder / ("cat" if number % 2 else "dog") / f"{number:03}.bmp"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (5 * number, 255 - 5 * number, 90)).save(file)
        files.append(file)
    return files


def other_heads(clip: Clip) -> Clip:
    """The same tensors, used with half as many heads in the text tower."""
    found = copy.deepcopy(clip)
    for block in found.text.transformer.resblocks:
        assert isinstance(block, Block)
        block.attn.heads //= 2
    return found


def test_pictures_written_over_at_the_same_size_are_encoded_again(clip: Clip, tmp_path: Path) -> None:
    files = pictures(tmp_path / "photos", 40)
    first = FeatureStore(clip, tmp_path / "kept")(open_image_folder(tmp_path / "photos", require_text=False)).features
    old = files[3].stat()
    Image.new("RGB", (40, 40), (255, 0, 255)).save(files[3])
    assert files[3].stat().st_size == old.st_size
    os.utime(files[3], ns=(old.st_atime_ns, old.st_mtime_ns + 1_000))  # written within the same second
    source = open_image_folder(tmp_path / "photos", require_text=False)
    again = FeatureStore(clip, tmp_path / "kept")(source).features
    torch.testing.assert_close(again, FeatureStore(clip)(source).features)
    assert not torch.allclose(again, first, atol=1e-3)


def test_another_number_of_heads_is_another_model(clip: Clip, tmp_path: Path) -> None:
    names, prompts = ["cat", "dog", "owl"], ["a photo of a {} on a red chair."]
    first = TextFeatures(clip, folder=tmp_path / "texts").class_weights(names, prompts)
    other = other_heads(clip)
    assert weights_hash(other) == weights_hash(clip)
    assert structure_hash(other) != structure_hash(clip)
    found = TextFeatures(other, folder=tmp_path / "texts").class_weights(names, prompts)
    assert torch.equal(found, TextFeatures(other).class_weights(names, prompts))
    assert not torch.allclose(found, first, atol=1e-4)


def test_classifiers_kept_of_another_tokenizer_are_not_taken(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reused = []
    for tokenizer in ("one", "one", "other"):
        monkeypatch.setattr(type(clip.text), "tokenizer_hash", lambda _, tokenizer=tokenizer: tokenizer)
        texts = TextFeatures(clip, folder=tmp_path)
        texts.class_weights(["cat", "dog"], ["a {}"])
        reused.append(texts.num_reused)
    assert reused == [0, 1, 0]


def test_another_activation_is_another_model() -> None:
    class Tower(nn.Module):
        def __init__(self, activation: Any) -> None:
            super().__init__()
            self.layer, self.activation = nn.Linear(2, 2), activation

    assert structure_hash(Tower(torch.tanh)) == structure_hash(Tower(torch.tanh))
    assert structure_hash(Tower(nn.functional.gelu)) != structure_hash(Tower(nn.functional.silu))
    assert structure_hash(nn.GELU()) != structure_hash(nn.GELU(approximate="tanh"))
    assert structure_hash(nn.GELU()) != structure_hash(nn.ReLU())


def test_results_do_not_survive_another_preprocessing_or_other_heads(
    clip: Clip, miniatures: Path, tmp_path: Path
) -> None:
    tasks = [TASKS["cifar10"]]
    evaluate_suite(clip, tasks, miniatures, out=tmp_path)
    changed = copy.deepcopy(clip)
    changed.preprocess = replace(clip.preprocess, mean=(0.1, 0.1, 0.1))
    with pytest.raises(ConfigError, match="preprocess"):
        evaluate_suite(changed, tasks, miniatures, out=tmp_path)
    with pytest.raises(ConfigError, match="architecture"):
        evaluate_suite(other_heads(clip), tasks, miniatures, out=tmp_path)


def test_results_do_not_survive_other_pictures_or_decoders(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_miniatures(tmp_path / "sets", ["cifar10"])
    told: list[str] = []

    def measure() -> list[str]:
        told.clear()
        evaluate_suite(clip, [TASKS["cifar10"]], tmp_path / "sets", out=tmp_path, settings=Settings(note=told.append))
        return [line for line in told if "not comparable" not in line]

    assert measure() == []
    (line,) = measure()
    assert "taken from" in line
    assert "because weights, model, preprocessing, pictures and decoders are as they were" in line
    (tar,) = (tmp_path / "sets").rglob("*.tar")
    content = bytearray(tar.read_bytes())
    place = content.index(b"\x89PNG") + 60
    content[place] ^= 1  # one bit of one picture, the same size
    tar.write_bytes(content)
    assert any("since it was measured, data changed" in line for line in measure())
    monkeypatch.setattr("eyesmith.eval.engine.decoders", lambda: {"pillow": "0.0"})
    assert any("since it was measured, decoders changed" in line for line in measure())


def test_fresh_uses_nothing_that_is_kept_and_reuse_is_said(clip: Clip, miniatures: Path, tmp_path: Path) -> None:
    told: list[str] = []
    settings = Settings(cache=tmp_path / "kept", note=told.append)
    tasks = [TASKS["cifar10"]]
    evaluate_suite(clip, tasks, miniatures, out=None, settings=settings)
    assert not any("reused" in line for line in told)
    evaluate_suite(clip, tasks, miniatures, out=None, settings=settings)
    (line,) = (line for line in told if "reused because" in line)
    assert "image features of" in line
    assert "text features (1)" in line
    for file in (tmp_path / "kept" / "texts").rglob("*.npy"):
        np.save(file, -np.load(file))  # nobody can tell that these are wrong
        seal(file)
    expected = evaluate_suite(clip, tasks, miniatures, out=None)[0].metrics
    wrong = evaluate_suite(clip, tasks, miniatures, out=None, settings=settings)[0].metrics
    fresh = evaluate_suite(clip, tasks, miniatures, out=None, settings=replace(settings, fresh=True))[0].metrics
    assert wrong != expected
    assert fresh == expected


def test_a_key_depends_on_all_that_changes_a_number(clip: Clip, miniatures: Path, monkeypatch: Any) -> None:
    source = open_evaluation_set(miniatures / TASKS["cifar10"].folder).source
    preprocess = PreprocessConfig(image_size=(32, 32))
    facts = model_facts(clip.image, preprocess)
    known = cache_key(facts, source, precision="fp32")
    assert known == cache_key(model_facts(copy.deepcopy(clip.image), preprocess), source, precision="fp32")
    moved = replace(preprocess, mean=(0.0, 0.0, 0.0))
    changed = copy.deepcopy(clip.image)
    next(changed.parameters()).data.flatten()[0] += 1
    others = [
        cache_key(model_facts(clip.text, preprocess), source, precision="fp32"),
        cache_key(model_facts(clip.image, moved), source, precision="fp32"),
        cache_key(model_facts(changed, preprocess), source, precision="fp32"),
        cache_key(facts, source, precision="bf16"),
    ]
    monkeypatch.setattr(identity, "decoders", lambda: {"pillow": "0.0"})
    others.append(cache_key(facts, source, precision="fp32"))
    monkeypatch.setattr(identity, "FORMAT", 0)
    others.append(cache_key(model_facts(clip.image, preprocess), source, precision="fp32"))
    assert len({known, *others}) == 1 + len(others)


def test_a_tar_counts_by_its_bytes_wherever_it_lies(miniatures: Path, tmp_path: Path) -> None:
    folder = miniatures / TASKS["cifar10"].folder
    make_miniatures(tmp_path, ["cifar10"])
    copied = tmp_path / TASKS["cifar10"].folder
    assert content_hash(open_evaluation_set(folder).source) == content_hash(open_evaluation_set(copied).source)


def test_a_source_that_does_not_say_where_its_pictures_lie_is_read(make_source: Any, make_png: Any) -> None:
    sources = [make_source([("a", make_png(colour), ("text",), None)]) for colour in ((1, 2, 3), (1, 2, 4))]
    for source in sources:
        source.fingerprint = lambda: "equal"
    assert content_hash(sources[0]) != content_hash(sources[1])


def test_a_file_name_that_is_no_utf8_is_a_key_like_others(tmp_path: Path) -> None:
    for name in (b"cat/caf\xe9.png", b"dog/1.png"):
        file = tmp_path / os.fsdecode(name)
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(file)
    first = content_hash(open_image_folder(tmp_path))
    (tmp_path / os.fsdecode(b"cat/caf\xe9.png")).rename(tmp_path / os.fsdecode(b"cat/caf\xe8.png"))
    assert content_hash(open_image_folder(tmp_path)) != first


def test_pictures_of_equal_names_and_sizes_are_told_apart_where_nothing_is_kept(clip: Clip, tmp_path: Path) -> None:
    pictures(tmp_path / "val", 4)
    for file in pictures(tmp_path / "test", 4):
        Image.new("RGB", (40, 40), (0, 0, file.stat().st_mtime_ns % 7 * 30)).save(file)
    val, test = (open_image_folder(tmp_path / split, require_text=False) for split in ("val", "test"))
    assert val.fingerprint() == test.fingerprint(), "keys and sizes are equal: uncompressed, or written anew"
    store = FeatureStore(clip)
    store(val)
    torch.testing.assert_close(store(test).features, FeatureStore(clip)(test).features)
