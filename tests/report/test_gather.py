"""From run folders to the page, with a tiny model on a tiny made data set."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from eyesmith.config import to_dict
from eyesmith.data.shards import ShardWriter, begin_dataset, finish_dataset, split_facts
from eyesmith.errors import EyesmithError
from eyesmith.eval import evaluate
from eyesmith.eval.results.rows import ResultRow, append_rows, read_rows
from eyesmith.hub import load, save_model
from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.report import write_report
from eyesmith.report.gather import gather

NAMES = ["red <b>square</b>", "green square", "blue square", "white square", "black square", "grey square"]
COLOURS = ["red", "green", "blue", "white", "black", "grey"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "squares"
    identity = {"name": "squares", "maker": "emoji", "maker_version": 1, "parameters": {}}
    begin_dataset(folder, identity)
    splits = {}
    for split, styles in {"train": ("thin", "thick", "flat"), "unseen_drawing": ("thin", "thick")}.items():
        with ShardWriter(folder / split) as writer:
            for style in styles:
                for label, colour in enumerate(COLOURS):
                    buffer = io.BytesIO()
                    Image.new("RGB", (36 + len(style), 36), colour).save(buffer, "PNG")
                    record = {"label": NAMES[label], "style": style, "texts": [NAMES[label]]}
                    members = {"png": buffer.getvalue(), "txt": NAMES[label].encode(), "cls": str(label).encode()}
                    writer.write(f"{colour}_{style}", {**members, "json": json.dumps(record).encode()})
        splits[split] = split_facts(writer, NAMES)
    source = {"name": "palette", "version": "3", "licence": "CC0-1.0", "sha256": "ab" * 32}
    facts = {"size_px": 36, "classes": NAMES, "templates": ["{}"], "splits": splits, "sources": [source]}
    finish_dataset(folder, {**identity, **facts, "held_out_concepts": [], "split_rule": "by style"})
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Folders "ours" and "plain": whole runs of an untrained model."""
    root = tmp_path_factory.mktemp("runs")
    for name, seed in (("ours", 0), ("plain", 1)):
        config = ClipConfig(
            name=f"Tiny-{name}",
            image=ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 1), num_heads=2, embed_dim=16),
            text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=20),
            preprocess=PreprocessConfig(image_size=(32, 32)),
            lock_text=True,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            clip = config.build()
        train = {"model": to_dict(config), "epochs": 3.0, "data": {"path": "/home/somebody/squares"}, "seed": seed}
        save_model(root / name, clip, config={"train": train})
        append_rows(root / name / "results.jsonl", evaluate(clip, data))
        start = {"event": "start", "steps": 20, "machine": {"cores": 2, "torch": "2.13", "accelerator": None}}
        log = [start | {"parameters": {"image": 1, "text": 2, "trained": 3}}]
        log += [{"step": step, "samples": 8 * step, "loss": 5 / step, "time_s": float(step)} for step in range(1, 21)]
        log += [{"step": 20, "time_s": 20.0, "eval": {"unseen_drawing/acc1": 0.25}}]
        log += [{"event": "end", "step": 20, "time_s": 20.0, "wall_s": 21.0, "skipped": 0}]
        (root / name / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return root


@pytest.fixture
def ours(runs: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(runs / "ours", tmp_path / "ours"))


def test_a_whole_run(runs: Path, data: Path) -> None:
    report = gather(runs / "ours", baseline=runs / "plain", data=data)
    assert report.notices == ()
    assert (report.ours.name, report.baseline and report.baseline.name) == ("Tiny-ours", "Tiny-plain")
    assert report.ours.is_finished
    assert (report.ours.steps, report.ours.train_time_s, report.ours.samples) == (20, 20.0, 160)
    assert dict(report.ours.machine) == {"cores": "2"}
    assert dict(report.ours.versions).keys() == {"eyesmith", "torch"}
    clip = load(runs / "ours")
    image_params = sum(parameter.numel() for parameter in clip.image.parameters())
    assert report.ours.image_params == image_params
    assert report.ours.trained_params == image_params + 1  # the temperature; the text tower is locked
    assert [curve.evaluations["unseen_drawing/acc1"] for curve in report.curves] == [((20.0, 0.25),)] * 2
    scores = {(score.task, score.metric): score for score in report.scores}
    top1 = scores["zero_shot", "acc1"]
    assert report.gallery is not None
    groups = {group.outcome: group for group in report.gallery.groups}
    assert top1.ours is not None
    assert top1.ours.value == groups["first"].total / 12
    assert sum(group.total for group in report.gallery.groups) == 12
    assert {style.style for style in report.styles} == {"thin", "thick"}
    assert sum(style.ours.value * style.num_samples for style in report.styles) == pytest.approx(groups["first"].total)
    assert report.search_pool_size == 12
    assert all(len(search.hits) == 8 for search in report.searches)
    assert all(search.hits[0].cosine >= search.hits[-1].cosine for search in report.searches)
    assert report.data.sources[0].licence == "CC0-1.0"


def test_the_page_is_written_whole_and_twice_the_same(runs: Path, data: Path, tmp_path: Path) -> None:
    first = write_report(runs / "ours", baseline=runs / "plain", data=data, out=tmp_path / "a.html")
    second = write_report(runs / "ours", baseline=runs / "plain", data=data, out=tmp_path / "b.html")
    assert first == tmp_path / "a.html"
    page = first.read_text(encoding="utf-8")
    assert page == second.read_text(encoding="utf-8")
    assert len(page) < 3_000_000
    assert "red &lt;b&gt;square" in page
    assert "<b>square" not in page
    assert "/home/somebody" not in page
    assert str(tmp_path.parent) not in page


def test_the_default_place_is_the_run_folder(ours: Path, data: Path) -> None:
    assert write_report(ours, baseline=None, data=data) == ours / "report.html"
    page = (ours / "report.html").read_text(encoding="utf-8")
    assert "No baseline was trained" in page
    assert "Tiny-plain" not in page


def test_an_interrupted_run_has_a_page(ours: Path, data: Path) -> None:
    (ours / "model.safetensors").unlink()
    (ours / "results.jsonl").unlink()
    (ours / "log.jsonl").write_text("".join((ours / "log.jsonl").read_text().splitlines(keepends=True)[:8]) + '{"ste')
    report = gather(ours, baseline=None, data=data)
    assert not report.ours.is_finished
    assert report.gallery is None
    assert (report.ours.steps, report.ours.planned_steps, report.ours.trained_params) == (7, 20, 3)
    told = " ".join(report.notices)
    assert "stopped at step 7" in told
    assert "no evaluation results" in told
    assert "1 lines of the log" in told
    write_report(ours, baseline=None, data=data)


def test_damaged_parts_are_told(ours: Path, data: Path) -> None:
    (ours / "model.safetensors").write_bytes(b"no weights")
    (ours / "results.jsonl").write_text("{}\n")
    report = gather(ours, baseline=ours.parent / "gone", data=data)
    told = " ".join(report.notices)
    assert "could not be loaded" in told
    assert "cannot be read" in told
    assert "gone is not there" in told
    write_report(ours, baseline=None, data=data)


def test_missing_data_leaves_the_numbers(ours: Path, tmp_path: Path) -> None:
    report = gather(ours, baseline=None, data=tmp_path / "nothing")
    assert report.gallery is None
    assert report.scores
    assert any("could not be shown" in notice for notice in report.notices)


def test_no_run_is_an_error(tmp_path: Path, data: Path) -> None:
    with pytest.raises(EyesmithError, match="no such run folder"):
        write_report(tmp_path / "gone", baseline=None, data=data)


def test_results_of_other_data_do_not_take_the_place_of_those_of_the_page(ours: Path, runs: Path, data: Path) -> None:
    before = gather(ours, baseline=runs / "plain", data=data)
    rows = read_rows(ours / "results.jsonl")
    others = [
        dataclasses.replace(row, value=1.0, high=1.0, run={**(row.run or {}), "samples": "0" * 64}) for row in rows
    ]
    append_rows(ours / "results.jsonl", others)
    after = gather(ours, baseline=runs / "plain", data=data)
    assert after.scores == before.scores
    assert f"{len(others)} results of other data with splits of the same names were left out." in after.notices


def test_results_of_another_model_do_not_take_the_place_of_the_run_s_own(ours: Path, runs: Path, data: Path) -> None:
    before = gather(ours, baseline=runs / "plain", data=data)
    others = [dataclasses.replace(row, model="Other", value=1.0, high=1.0) for row in read_rows(ours / "results.jsonl")]
    append_rows(ours / "results.jsonl", others)
    after = gather(ours, baseline=runs / "plain", data=data)
    assert after.scores == before.scores
    assert f"{len(others)} results of other models in the folder of Tiny-ours were left out." in after.notices


def test_a_model_used_in_two_ways_has_the_numbers_of_both(ours: Path, runs: Path, data: Path) -> None:
    row = ResultRow(
        model="Tiny-ours dense", task="boxes", split="test", metric="acc1", value=0.25, low=0.2, high=0.3, n=9, chance=0
    )
    rows = [row, dataclasses.replace(row, model="Tiny-ours crop", value=0.75, high=0.8)]
    append_rows(ours / "results.jsonl", [*rows, dataclasses.replace(row, model="Other crop", value=0.5, high=0.5)])
    report = gather(ours, baseline=None, data=data)
    found = {one.task: one.ours and one.ours.value for one in report.scores if one.split == "test"}
    assert found == {"boxes_by_dense": 0.25, "boxes_by_crop": 0.75}
