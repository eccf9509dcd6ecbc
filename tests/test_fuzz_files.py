"""Configs, results and checkpoints with anything in them: errors of our family, no hang, no growth.

About a minute. EYESMITH_FUZZ=10 makes ten times as many inputs. Tars and pictures: tests/data/test_fuzz.py.
"""

import base64
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from eyesmith.config import to_dict
from eyesmith.data.make.scenes import make_scenes
from eyesmith.eval.results import append_eval_result, append_rows, write_info, write_records
from eyesmith.eval.results.rows import ResultRow
from eyesmith.eval.sets import TASKS
from eyesmith.hub.convert import convert
from eyesmith.hub.run_folder import save_model
from eyesmith.lab.plans import PLANS
from eyesmith.models import create
from eyesmith.runs import start
from eyesmith.tasks import run_to_dict
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.replay import Replay

HANG_S = 60.0  # fuzz_files.py bounds the processor time of a reader; this is for one that waits
TIMES = int(os.environ.get("EYESMITH_FUZZ", "1"))


class Reader:
    """The process of fuzz_files.py, with limits on the time of each input; started again where one ended it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("fuzz_files.py")), str(self.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready\n"

    def _line(self) -> str:
        assert self.process.stdout is not None
        timer = threading.Timer(HANG_S, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        return line

    def read(self, file: str, content: bytes) -> str | None:
        """What went wrong with an input, None for nothing."""
        assert self.process.stdin is not None
        whole = (self.root / file).read_bytes()
        self.process.stdin.write(json.dumps({"file": file, "bytes": base64.b64encode(content).decode()}) + "\n")
        self.process.stdin.flush()
        answer = self._line()
        if answer:
            return json.loads(answer)
        status = self.process.wait()
        self.close()
        (self.root / file).write_bytes(whole)
        self._start()
        reasons = {-signal.SIGKILL: "it hangs", -signal.SIGXCPU: "it took more than 10 s"}
        return reasons.get(status, f"the process ended with status {status}")

    def close(self) -> None:
        with self.process:  # closes its pipes
            self.process.kill()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, config: TrainConfig) -> Path:
    """A finished run, results, a checkpoint, a plan and data, all whole."""
    root = tmp_path_factory.mktemp("fuzz")
    start(replace(config, epochs=1), root / "run")
    for name in ("hub", "average", "replay", "lab"):
        (root / name).mkdir()
    save_model(root / "nano", create("ViTamin-Nano").eval())
    for name in ("model.safetensors", "model.pt"):
        convert(root / "nano", root / "hub" / name, to="open_clip", parity=False)
    tensors = torch.load(root / "hub" / "model.pt", weights_only=True)
    torch.save({"epoch": 3, "state_dict": tensors, "state_dict_ema": tensors}, root / "average" / "model.pt")
    facts = {"model_cfg": {"vision_cfg": {"image_size": 48}}}
    (root / "hub" / "open_clip_config.json").write_text(json.dumps(facts | {"preprocess_cfg": {"size": 48}}))
    replay = Replay(
        eyesmith_version="0", step=3, world_size=1, precision="fp32", loss="nan", grad_norm="1.0", keys=("a", "b"),
        train=run_to_dict(config),
    )  # fmt: skip
    replay.write(root / "replay")
    (root / "lab" / "plan.json").write_text(json.dumps(to_dict(PLANS["smoke"]())))
    make_scenes(root / "data", samples=8, size_px=32)
    results = root / "results"
    run = {"weights": "w", "source": "runs/a", "model": "m", "images": 3, "precision": "fp32"}
    for key in ("cifar10", "vtab/pets", "wilds/fmow"):
        task = TASKS[key]
        assert task.metric is not None
        append_eval_result(
            results / "eval_results.jsonl", key=key, name=task.name, metrics={task.metric: 0.5}, main=0.5
        )
        row = ResultRow(
            model="m",
            task=key,
            split="test",
            metric=task.metric,
            value=0.5,
            low=0.4,
            high=0.6,
            n=9,
            chance=0.1,
            run=run,
        )
        append_rows(results / "results.jsonl", [row])
        append_rows(root / "run" / "results.jsonl", [row])
    write_info(results, model="m", image_gmacs=5.5, params_m=1.0)
    rows = np.arange(9)
    records = {"targets": rows % 3, "ranks": rows % 2, "top": (rows[:, None] + np.arange(5)) % 10}
    records |= {"top_score": np.ones((9, 5), np.float32), "num_classes": np.array(10)}
    write_records(results, "cifar10", {"keys": np.array([f"s{row}" for row in rows])} | records)
    clip_benchmark = {
        "dataset": "cifar10", "model": "ViT-B-32", "pretrained": "x", "task": "zeroshot_classification",
        "metrics": {"acc1": 0.5, "acc5": 0.9, "mean_per_class_recall": 0.5}, "language": "en",
    }  # fmt: skip
    (results / "run.json").write_text(json.dumps(clip_benchmark))
    (results / "table.csv").write_text(
        "name,pretrained,params (M),FLOPs (B),Average perf. on 38 datasets,cifar10\na,b,1.5,2.5,0.5,0.5\n"
    )
    return root


@pytest.fixture(scope="module")
def reader(root: Path) -> Iterator[Reader]:
    made = Reader(root)
    yield made
    made.close()


DEEP = json.loads("[" * 90 + "]" * 90)
JUNK = st.one_of(
    st.sampled_from(
        [None, True, False, 0, 1, -1, 2, 7, 1 << 31, 1 << 63, 10**30, 10**400, 0.5, -0.0, 1e308, float("nan"),
         float("inf"), -float("inf"), "", "a", "\0", "../../x", "/dev/zero", "\ud800", "{}", "nan", "x" * 5000, [], {},
         [[]], [None], {"": None}, [1, 2, 3], [1 << 40, 1 << 40], {"kind": "Eva02Config"}, DEEP]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.none() | st.integers(-9, 9), max_size=4),
)  # fmt: skip
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container with every key in it."""
    found = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        found += [(one, key) for key in keys]
        waiting += [one[key] for key in keys]
    return found


def changed_json(draw: Any, text: str) -> str:
    value = json.loads(text)
    for _ in range(draw(st.integers(1, 3))):
        there = places(value)
        if not there:
            break
        holder, key = draw(st.sampled_from(range(len(there))).map(there.__getitem__))
        what = draw(st.sampled_from(("value", "value", "value", "drop", "wrap", "add")))
        if what == "value":
            holder[key] = deepcopy(draw(JUNK))
        elif what == "drop":
            del holder[key]
        elif what == "wrap":
            holder[key] = [holder[key]]
        elif isinstance(holder, dict):
            holder[draw(st.sampled_from((*map(str, holder), "x", "")))] = deepcopy(draw(JUNK))
        else:
            holder.append(deepcopy(draw(JUNK)))
    return json.dumps(value if draw(st.integers(0, 30)) else deepcopy(draw(JUNK)))


def changed_bytes(draw: Any, content: bytes) -> bytes:
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        if not found:
            break
        reach = min(len(found), draw(st.sampled_from((16, 128, 2048, 1 << 40))))
        place = draw(st.integers(0, reach - 1))
        place = place if draw(st.booleans()) else len(found) - 1 - place  # a zip has its list at its end
        what = draw(st.integers(0, 5))
        if what < 2:
            found[place] = draw(st.integers(0, 255))
        elif what < 4:
            number, size = draw(st.sampled_from(NUMBERS)), draw(st.sampled_from((1, 2, 4, 8)))
            found[place : place + size] = (number % (1 << 8 * size)).to_bytes(
                size, draw(st.sampled_from(("little", "big")))
            )
        elif what < 5:
            del found[place : place + draw(st.integers(1, 40))]
        else:
            found[place:place] = draw(st.binary(min_size=1, max_size=20))
    return bytes(found[: draw(st.integers(0, len(found)))]) if not draw(st.integers(0, 12)) else bytes(found)


def changed(draw: Any, file: str, content: bytes) -> bytes:
    """A file with something else in it, which still is one of its kind most times."""
    if not draw(st.integers(0, 40)):
        return draw(
            st.sampled_from([b"", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"nan", b"null", b"1" * 10_000])
        )
    if file.endswith(".json") and draw(st.integers(0, 5)):
        return changed_json(draw, content.decode()).encode("utf-8", "surrogatepass")
    if file.endswith(".jsonl") and draw(st.integers(0, 5)):
        lines = content.decode().splitlines()
        number = draw(st.integers(0, len(lines) - 1))
        lines[number] = changed_json(draw, lines[number])
        return "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"
    if file.endswith(".safetensors") and draw(st.booleans()):
        (length,) = struct.unpack("<Q", content[:8])
        header = changed_json(draw, content[8 : 8 + length].decode()).encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(header)) + header + content[8 + length :]
    return changed_bytes(draw, content)


def fuzz(reader: Reader, files: list[str], count: int) -> None:
    @seed(TIMES)
    @settings(max_examples=count * TIMES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def examples(data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(files))
        content = changed(data.draw, file, (reader.root / file).read_bytes())
        wrong = reader.read(file, content)
        if wrong is not None:
            (reader.root / "input").write_bytes(content)
            pytest.fail(f"{file}, kept as {reader.root / 'input'} ({len(content):,} bytes): {wrong}")

    examples()


@pytest.mark.slow
def test_configs(reader: Reader) -> None:
    run = ["config.json", "fingerprint.json", "origin.json", "log.jsonl"]
    others = ["hub/open_clip_config.json", "replay/replay.json", "lab/plan.json", "data/dataset.json"]
    fuzz(reader, [*(f"run/{name}" for name in run), *others], 900)


@pytest.mark.slow
def test_results(reader: Reader) -> None:
    names = ["results.jsonl", "eval_results.jsonl", "info.json", "run.json", "table.csv", "predictions/cifar10.npz"]
    fuzz(reader, ["run/results.jsonl", *(f"results/{name}" for name in names)], 700)


@pytest.mark.slow
def test_checkpoints(reader: Reader) -> None:
    state = max((reader.root / "run" / "state").iterdir()).name
    files = ["run/model.safetensors", "hub/model.safetensors", "hub/model.pt", "average/model.pt", f"run/state/{state}"]
    fuzz(reader, files, 900)
