"""Folders of somebody else's, prepared to run code: every verb opens each of them, and nothing of it runs."""

import builtins
import hashlib
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import eyesmith as public
from eyesmith.cli.main import VERBS, main
from eyesmith.hub import save_model
from eyesmith.images import PreprocessConfig
from eyesmith.models import own
from eyesmith.models.clip import ClipConfig
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.own import own_config
from eyesmith.models.text import ClipTextConfig, HuggingFaceTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.tasks import run_to_dict
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.callbacks.logging import append_line
from eyesmith.train.config import DataConfig

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "patch_mixer.py"
SCRIPT = "<script>alert(1)</script>\x1b]0;owned\x07"
Eyesmith = Callable[..., tuple[int, str, str]]

# what each verb is given of the folder; {run} is finished, {open} is the same run before its end. Verbs that open no
# folder of others show their help
COMMANDS: dict[str, list[str]] = {
    "quickstart": ["quickstart --help"],
    "models": ["models --help"],
    "train": ["train finetune data.path={photos} batch_size=2 --from {run} --plan", "train {run}"],
    "resume": ["resume {run}", "resume {open}"],
    "branch": ["branch {open} {new} --at 1 --steps 2"],
    "alternate": ["alternate --data {photos} --out {run}"],
    "replay": ["replay {open}/replay/step-2", "replay {open}/replay/step-2/replay.json"],
    "average": ["average {new} {run} {run}"],
    "eval": ["eval {run} {photos}", "eval {run} {photos} --out {new}"],
    "compare": ["compare {run} {run}"],
    "probe": ["probe {run} --train {photos}"],
    "classify": ["classify {run} {photos} --names cat dog"],
    "embed": ["embed {run} {photos} --out {new}.npz"],
    "search": ["search {run} {photos} cat"],
    "segment": ["segment {run} {photos} --classes cat,dog --out {new}", "segment {run} --truth {run} --out {new}"],
    "detect": ["detect {run} {photos} --classes cat,dog --out {new}", "detect {open} {photos} --classes cat,dog"],
    "compare-models": ["compare-models {run} {run} --data {photos}"],
    "chat": ["chat {run} - hello", "chat {open} - hello"],
    "chat-eval": ["chat-eval {run} pope --data {photos} --out {new}"],
    "convert": ["convert {run} {new}.safetensors --to eyesmith", "convert {run} {new} --to hugging_face"],
    "export": ["export {run} {new} --to torch_export --part text"],
    "verify": ["verify {run}", "verify {open}"],
    "data": ["data check {run}", "data probe {run}"],
    "curate": ["curate basic --pool {run} --out {new}", "curate marks {run} --out {new}.npz"],
    "lab": [
        "lab report {plan} out={lab} batch_size=2",
        "lab run {plan} out={lab} batch_size=2 --plan",
        "lab run {plan} out={lab} batch_size=2 --only none",
        "lab check {run}/config.json",
    ],
    "report": ["report {run} --out {new}.html"],
    "bench": ["bench {run}"],
}


class Payload:
    """Unpickled by pickle itself, it makes the folder `mark`."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What every payload makes; asked at the terminal, the user says yes."""
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "mark"


def _config(image: Any, text: Any, photos: Path) -> TrainConfig:
    model = ClipConfig(
        name=SCRIPT, image=image, text=text, preprocess=PreprocessConfig(image_size=(32, 32)), prompts=("{}",)
    )
    config = TrainConfig(model=model, data=DataConfig(path=str(photos), decode_px=40), batch_size=2, epochs=1)
    return replace(config, precision="fp32")


def _prepare(root: Path, config: TrainConfig, mark: Path) -> None:
    """Run folders `run` and `open` in `root`, with a payload wherever a run folder has a file that could hold one."""
    with torch.random.fork_rng(devices=[]):
        save_model(root / "run", config.model.build().eval(), config={"train": run_to_dict(config)})
    for name in ("run", "open"):
        folder = root / name
        folder.mkdir(exist_ok=True)
        described = json.loads((root / "run" / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(described))
        replay = folder / "replay" / "step-2"
        for place in (folder, replay):
            (place / "state" / "step-00000001").mkdir(parents=True)
            (place / "state" / "step-00000001" / ".metadata").write_bytes(pickle.dumps(Payload(mark)))
        content = {"eyesmith_version": "1", "step": 2, "world_size": 1, "precision": "fp32", "loss": "nan"}
        (replay / "replay.json").write_text(
            json.dumps({**content, "grad_norm": "nan", "keys": ["a", "b"], "train": described["train"]})
        )
        line = {"model": SCRIPT, "task": "zero_shot", "split": SCRIPT, "metric": "top1", "value": 0.5, "n": 4}
        (folder / "results.jsonl").write_text(json.dumps({**line, "low": None, "high": None, "chance": None}) + "\n")
        log = [{"event": "start", "steps": 1, "machine": {SCRIPT: SCRIPT}}, {"step": 1, "time_s": 1.0}]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
        for file in ("conftest.py", "sitecustomize.py", "usercustomize.py", "torch.py", "numpy.py", "plan.py"):
            (folder / file).write_text(f"import os\nos.mkdir({str(mark)!r})\n")
        with (folder / "subset.pkl").open("wb") as stream:
            pickle.dump(Payload(mark), stream)


def _own(root: Path, photos: Path, mark: Path) -> None:
    """The encoder comes from a file of the folder, which marks when it is run."""
    file = root / "mixer.py"
    file.write_text(
        EXAMPLE.read_text("utf-8")
        + '\nSIZES["tiny"] = {"width": 16, "depth": 2}\n'
        + f"import os\nos.makedirs({str(mark)!r}, exist_ok=True)\n"
    )
    public.register_encoder(file)
    mark.rmdir()  # it was asked for
    image = own_config("mixer", "tiny", image_size=(32, 32), embed_dim=16)
    text = ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16)
    config = _config(image, text, photos)
    pixels = replace(config.model.preprocess, mean=image.mean, std=image.std)
    config = replace(config, model=replace(config.model, preprocess=pixels))
    _prepare(root, config, mark)
    (root / "open" / "encoder").mkdir()
    (root / "open" / "encoder" / "mixer.py").write_bytes(file.read_bytes())
    assert image.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    own._BY_NAME.clear()  # a new process
    own._BY_HASH.clear()


def _foreign_text(root: Path, photos: Path, mark: Path) -> None:
    """The text tower asks for Python files beside it."""
    if find_spec("transformers") is None:
        pytest.skip("needs transformers")
    ensure_torchvision()
    import transformers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog"]
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    with torch.random.fork_rng(devices=[]):
        transformers.BertModel(transformers.BertConfig(vocab_size=8, **sizes)).save_pretrained(root / "text")
    transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(root / "text")
    image = ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=16)
    text = HuggingFaceTextConfig(source=str(root / "text"), context_len=8)
    config = _config(image, text, photos)
    config = replace(config, model=replace(config.model, lock_text=True))
    _prepare(root, config, mark)
    names = {"AutoConfig": "evil.C", "AutoModel": "evil.C", "AutoTokenizer": ["evil.C", "evil.C"]}
    for folder in (root / "text", root / "run" / "text"):
        (folder / "evil.py").write_text(f"import os\nos.makedirs({str(mark)!r}, exist_ok=True)\nclass C: pass\n")
        for file in ("config.json", "tokenizer_config.json"):
            content = json.loads((folder / file).read_text())
            (folder / file).write_text(json.dumps({**content, "model_type": "evil", "auto_map": names}))


def _states(root: Path, photos: Path, mark: Path) -> None:
    """Nothing but the saved states is prepared, so that all before them opens."""
    image = ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=16)
    text = ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16)
    _prepare(root, _config(image, text, photos), mark)


PREPARED = {"own": _own, "text": _foreign_text, "states": _states}


def test_every_verb_has_its_commands() -> None:
    assert COMMANDS.keys() == VERBS.keys()


@pytest.mark.parametrize("kind", PREPARED)
def test_no_verb_runs_what_a_folder_brings(
    kind: str, tmp_path: Path, mark: Path, eyesmith: Eyesmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    for name in ("cat/1", "cat/2", "dog/1", "dog/2"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), "red").save(photos / f"{name}.png")
    root = tmp_path / "got"
    root.mkdir()
    PREPARED[kind](root, photos, mark)
    cell = tmp_path / "lab" / "cells" / "one"
    cell.mkdir(parents=True)
    (cell / "cell.json").write_text(json.dumps({"encoder_files": [str(root / "run" / "plan.py")], "train": {}}))
    plan = tmp_path / "plan.json"
    group = {"name": "g", "question": "grid", "encoders": ["ViT/16"], "budgets": [4], "recipes": ["lab-ltt"]}
    plan.write_text(json.dumps({"title": SCRIPT, "data": str(photos), "groups": [group]}))
    monkeypatch.chdir(root / "run")
    imported = set(sys.modules)
    for verb, commands in COMMANDS.items():
        if verb == "lab" and kind != "own":  # it looks at cells and plans, which are the same
            continue
        for number, command in enumerate(commands):
            places = {"run": root / "run", "open": root / "open", "photos": photos, "plan": plan}
            places |= {"lab": tmp_path / "lab", "new": tmp_path / f"new-{verb}-{number}"}
            status, out, err = eyesmith(*command.format(**places).split())
            assert not mark.exists(), f"{command}: ran a payload"
            assert status in (0, 1, 2), f"{command}: {out}{err}"
            assert "should not have happened" not in err, f"{command}: {err}"
            assert "\x1b]0" not in out + err, f"{command}: obeyed by a terminal"
    ours = {str(root), str(tmp_path / "modules")}
    new = [sys.modules[name] for name in set(sys.modules) - imported]
    assert not [one for one in new if str(getattr(one, "__file__", "")).startswith(tuple(ours))]
    for page in tmp_path.rglob("*.html"):
        assert "<script>alert" not in page.read_text("utf-8")


def test_a_prepared_state_is_named(tmp_path: Path, mark: Path, eyesmith: Eyesmith) -> None:
    photos = tmp_path / "photos"
    for name in ("cat/1", "dog/1"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), "red").save(photos / f"{name}.png")
    _states(tmp_path, photos, mark)
    for command in (("resume", tmp_path / "open"), ("replay", tmp_path / "open/replay/step-2")):
        status, _, err = eyesmith(*command)
        assert status == 2
        assert "refused: it names" in err
    torch.save(Payload(mark), tmp_path / "open/state/last.pt")
    (tmp_path / "open/state/step-00000001/.metadata").unlink()
    status, _, err = eyesmith("resume", tmp_path / "open")
    assert status == 2
    assert "cannot be read" in err
    assert not mark.exists()


def test_nothing_is_written_through_a_link(
    tmp_path: Path, run_folder: Path, photos: Path, eyesmith: Eyesmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a line of results in a file that a shell reads would run what the model is called
    startup = tmp_path / "startup"
    startup.write_text("mine\n")
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    (run / "results.jsonl").symlink_to(startup)
    (run / "log.jsonl").symlink_to(startup)
    monkeypatch.chdir(tmp_path)
    status, _, err = eyesmith("eval", run, photos)
    assert status == 0  # what was measured goes elsewhere
    assert "is a link to another file, which is not written to" in err
    assert "results go to results.jsonl here" in err
    with pytest.raises(OSError, match="is a link to another file"):
        append_line(run, {"event": "resume"})
    assert startup.read_text() == "mine\n"


def test_nested_json_is_a_users_mistake(tmp_path: Path, eyesmith: Eyesmith) -> None:
    for name in ("config.json", "model.safetensors", "model.safetensors.index.json"):
        (tmp_path / name).write_text("[" * 100_000)
    for command in ("verify", "resume"):
        status, _, err = eyesmith(command, tmp_path)
        assert status == 2
        assert "config.json" in err
    (tmp_path / "plan.json").write_text("[" * 100_000)
    assert eyesmith("lab", "run", tmp_path / "plan.json")[0] == 2


def test_a_terminal_obeys_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "no\x1b]0;owned\x07such\u202efolder"]) == 2
    assert r"no\x1b]0;owned\x07such\u202efolder" in capsys.readouterr().err
