"""The adapter to lmms-eval, against a stand-in with the interface of its version 0.7: registry, class, requests."""

import abc
import importlib
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from eyesmith.errors import ConfigError
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.multimodal import harness
from eyesmith.multimodal.chat import load_chat
from eyesmith.multimodal.eye import Eye, EyeConfig
from eyesmith.multimodal.language import TinyConfig, build_language
from eyesmith.multimodal.model import ChatModel
from eyesmith.multimodal.stock import save_chat


@pytest.fixture
def lmms_eval(monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """What lmms-eval 0.7 has where the adapter touches it; returns its base class."""

    class lmms(abc.ABC):
        is_simple = True

        def __init__(self) -> None:
            self._rank, self._world_size, self.task_dict = 0, 1, {}

        @abc.abstractmethod
        def loglikelihood(self, requests: list) -> list: ...

        @abc.abstractmethod
        def generate_until(self, requests: list) -> list: ...

        @abc.abstractmethod
        def generate_until_multi_round(self, requests: list) -> list: ...

        @classmethod
        def create_from_arg_string(cls, text: str, more: dict[str, Any]) -> Any:
            words = dict(pair.split("=") for pair in text.split(","))
            return cls(**words, **{name: value for name, value in more.items() if value is not None})

    @dataclass(frozen=True)
    class ModelManifest:
        model_id: str
        simple_class_path: str | None = None
        chat_class_path: str | None = None
        aliases: tuple[str, ...] = ()

    for name, content in {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.models": {},
        "lmms_eval.api.model": {"lmms": lmms},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    harness.chat_class.cache_clear()
    yield lmms
    harness.chat_class.cache_clear()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    eye = ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=0)
    language = build_language("tiny", tiny=TinyConfig(width=16, layers=2, heads=2, hidden=24), texts=["a red cat . no"])
    model = ChatModel(Eye(eye.build(), EyeConfig()), language.model, image_id=3)
    folder = tmp_path_factory.mktemp("run")
    save_chat(
        folder, model.eval(), language.tokenizer, template="bare", preprocess=PreprocessConfig(image_size=(32, 32))
    )
    return folder


def test_it_is_found_and_answers_as_chat_does(lmms_eval: type, run: Path) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    place, _, maker = project["entry-points"]["lmms_eval.models"]["eyesmith"].partition(":")
    manifest = getattr(importlib.import_module(place), maker)()
    module, _, name = manifest.simple_class_path.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    assert manifest.model_id == "eyesmith"
    assert issubclass(kind, lmms_eval)
    assert kind.is_simple
    model = kind.create_from_arg_string(
        f"pretrained={run}", {"batch_size": "2", "device": "cpu", "max_batch_size": None}
    )
    picture = Image.new("RGB", (40, 30), "red")
    model.task_dict = {"made": {"test": [{"picture": picture}, {"picture": None}, {"picture": picture}]}}

    def visuals(row: dict[str, Any]) -> list[Image.Image]:
        return [row["picture"]] if row["picture"] is not None else []

    settings = {"max_new_tokens": 5, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}
    asked = [
        SimpleNamespace(args=(text, settings, visuals, row, "made", "test"))
        for row, text in enumerate(["a red cat", "no", "<image>\na cat"])
    ]
    assistant = load_chat(run)
    expected = [
        assistant.chat(image, text, max_new_tokens=5)
        for image, text in ((picture, "a red cat"), (None, "no"), (picture, "a cat"))
    ]
    assert model.generate_until(asked) == expected
    short = [
        SimpleNamespace(args=(one.args[0], {**settings, "max_new_tokens": length}, *one.args[2:]))
        for one, length in zip(asked, (1, 5, 1), strict=True)
    ]
    lengths = [len(answer.split()) for answer in model.generate_until(short)]
    assert lengths[0] <= 1, "an answer is as long as its own task asks, whatever it is batched with"
    assert lengths[2] <= 1
    assert model.generate_until(short)[1] == expected[1]
    said = next(answer for answer in expected if answer)
    word = said.split()[-1]
    cut = [SimpleNamespace(args=(*one.args[:1], {**settings, "until": [word]}, *one.args[2:])) for one in asked]
    assert all(word not in answer for answer in model.generate_until(cut))


def test_what_it_cannot_do_is_said(lmms_eval: type, run: Path) -> None:
    model = harness.chat_class()(str(run))
    model.task_dict = {"made": {"test": [{}]}}
    picture = Image.new("RGB", (4, 4))
    for settings, pictures, message in (
        ({"do_sample": True}, [], "greedily"),
        ({"num_beams": 3}, [], "greedily"),
        ({}, [picture, picture], "question 0 shows 2 pictures"),
    ):
        request = SimpleNamespace(args=("no", settings, lambda row, some=pictures: some, 0, "made", "test"))
        with pytest.raises(ConfigError, match=message):
            model.generate_until([request])
    with pytest.raises(ConfigError, match="words only"):
        model.loglikelihood([1])
    with pytest.raises(ConfigError, match="batch_size"):
        harness.chat_class()(str(run), batch_size="auto")
