import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from eyesmith.data import open_source
from eyesmith.eval import ResultRow, read_rows
from eyesmith.runs.quickstart import QuickstartSummary
from eyesmith.runs.work import RunSummary


def test_verify_passes_and_fails_when_one_byte_changed(eyesmith, run_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_folder, copy)
    assert eyesmith("verify", copy)[0] == 0
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    status, out, _ = eyesmith("verify", copy, "--json")
    assert status == 1
    assert json.loads(out)["ok"] is False
    status, _, err = eyesmith("verify", tmp_path)
    assert status == 2
    assert str(tmp_path) in err


def test_eval_adds_lines_to_the_result_file(eyesmith, run_folder: Path, photos: Path, tmp_path: Path) -> None:
    out_file = tmp_path / "results.jsonl"
    status, out, err = eyesmith("eval", run_folder, "zero_shot", "--data", photos, "--out", out_file)
    assert status == 0, err
    rows = read_rows(out_file)
    assert {row.task for row in rows} == {"zero_shot"}
    assert rows[0].metric == "acc1"
    assert "top-1" in out
    status, out, _ = eyesmith("eval", run_folder, "--data", photos, "--out", out_file, "--json")
    assert status == 0
    assert [ResultRow(**row) for row in json.loads(out)] == read_rows(out_file)[len(rows) :]


@pytest.mark.parametrize("words", [("zero_shot", "--data"), ()])
def test_out_of_eval_is_a_file_by_its_ending_else_a_folder(
    eyesmith, run_folder: Path, photos: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    for out, file in (("a.jsonl", "a.jsonl"), ("made/new", "made/new/results.jsonl"), ("", "results.jsonl")):
        status, _, err = eyesmith("eval", run_folder, *words, photos, "--out", tmp_path / out)
        assert status == 0, err
        assert read_rows(tmp_path / file)


def test_wrong_input_to_eval(eyesmith, run_folder: Path, photos: Path) -> None:
    status, _, err = eyesmith("eval", run_folder, "zeroshot", "--data", photos)
    assert status == 2
    assert "did you mean zero_shot" in err
    status, _, err = eyesmith("eval", run_folder, "retrieval", "--data", photos)
    assert status == 2
    assert "retrieval captions" in err
    assert eyesmith("eval", run_folder)[0] == 2


def test_train_lists_recipes_and_names_the_closest(eyesmith) -> None:
    status, out, _ = eyesmith("train", "--help")
    assert status == 0
    assert "  debug " in out
    status, _, err = eyesmith("train", "debgu")
    assert status == 2
    assert "did you mean debug?" in err
    status, _, err = eyesmith("train", "debug", "optim.peek_lr=1")
    assert status == 2
    assert "did you mean optim.peak_lr?" in err
    status, _, err = eyesmith("train", "debug", "batch_size=1")
    assert status == 2
    assert "a contrastive loss needs" in err


def test_train_hands_the_config_to_the_run(eyesmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def start(config, folder: Path, *, console) -> SimpleNamespace:
        seen.append((config, folder))
        folder.mkdir()
        (folder / "model.safetensors").touch()
        (folder / "config.json").write_text('{"eyesmith_version": "0", "model": {}}')
        return SimpleNamespace(folder=folder, train_s=3.2, rows=[], was_finished=False)

    monkeypatch.setattr("eyesmith.runs.train.start_or_resume", start)
    run = tmp_path / "run"
    status, out, _ = eyesmith("train", "debug", "--out", run, "epochs=1", "--optim.peak_lr", "0.01", "data.path=x")
    assert status == 0
    assert str(run) in out
    ((config, folder),) = seen
    assert (config.epochs, config.optim.peak_lr, config.data.path, folder) == (1, 0.01, "x", run)
    assert eyesmith("train", "debug", "--out")[0] == 2


def test_resume_and_train_say_how_to_go_on_after_ctrl_c(eyesmith, tmp_path: Path, monkeypatch) -> None:
    def stop(*_, **__) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("eyesmith.runs.train.start_or_resume", stop)
    monkeypatch.setattr("eyesmith.runs.train.resume", stop)
    status, _, err = eyesmith("train", "debug", f"--out={tmp_path}", "data.path=x")  # before its folder is begun
    assert (status, err) == (130, "eyesmith: stopped; nothing was trained yet; the same command begins anew\n")
    (tmp_path / "config.json").write_text("{}")
    status, _, err = eyesmith("train", "debug", f"--out={tmp_path}", "data.path=x")
    assert (status, err) == (130, f"eyesmith: stopped; go on with `eyesmith resume {tmp_path}`\n")
    assert eyesmith("resume", tmp_path)[::2] == (130, f"eyesmith: stopped; go on with `eyesmith resume {tmp_path}`\n")


def test_resume_needs_a_run(eyesmith, tmp_path: Path) -> None:
    status, _, err = eyesmith("resume", tmp_path / "none")
    assert status == 2
    assert "no run folder" in err


def test_quickstart_reads_its_fields(eyesmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    # the package re-exports a function of the module's name, so the module is not to be had by its path
    module = importlib.import_module("eyesmith.runs.quickstart")

    def quickstart(config: object, *, console: object) -> QuickstartSummary:
        seen.append(config)
        run = RunSummary(folder=tmp_path, train_s=0.0, rows=[])
        return QuickstartSummary(run=run, baseline=None, data=tmp_path, pixels=[], wall_s=0.0)

    monkeypatch.setattr(module, "quickstart", quickstart)
    assert eyesmith("quickstart", "--folder", tmp_path, "seed=3", "--no-baseline", "--holdout-style")[0] == 0
    (config,) = seen
    assert (config.folder, config.seed, config.baseline, config.holdout_style) == (tmp_path, 3, False, True)
    status, _, err = eyesmith("quickstart", "--sed", "1")
    assert status == 2
    assert "did you mean seed?" in err


def test_data_make_search_and_check(eyesmith, run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    status, out, err = eyesmith("data", "make", "scenes", folder, "--samples", "40", "--size-px", "32")
    assert status == 0, err
    assert "train" in out
    status, out, _ = eyesmith("data", "check", folder, "--split", "train", "--json")
    assert json.loads(out)["splits"]["train"] == 40
    status, out, _ = eyesmith("search", run_folder, folder, "a red circle", "--split", "train", "--top", "2", "--json")
    assert status == 0
    first, _ = json.loads(out)
    source = open_source(folder, split="train")
    assert source.texts(list(source.keys).index(first["image"]))[0] == first["caption"]
    assert "0.tar" in first["where"]
    status, _, err = eyesmith("search", run_folder, folder, "a red circle")
    assert status == 2
    assert "has several splits, name one of: train" in err
    assert "(--split train; data.split=train of a run)" in err
    shard = folder / "train" / "0.tar"
    shard.write_bytes(shard.read_bytes()[:20_000])
    status, out, _ = eyesmith("data", "check", folder, "--split", "train")
    assert status == 1
    assert "truncated_tar" in out
    status, _, err = eyesmith("data", "check", folder, "--split", "trian")
    assert status == 2
    assert "train" in err


def test_bench_measures_through_the_checkout(eyesmith, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"row": "a", "ours": 2.0, "theirs": 1.0, "unit": "texts/s", "ratio": 2.0, "low": 1.9, "high": 2.1}
    row |= {"equal": True, "peer": "theirs 1.0"}
    groups = SimpleNamespace(GROUPS={"tokenizer": None}, run=lambda _: [SimpleNamespace(to_json=lambda: row)])
    monkeypatch.setattr("eyesmith.cli.bench._groups", lambda: groups)
    status, out, _ = eyesmith("bench", "tokenizer", "--json")
    assert (status, json.loads(out)) == (0, [row])
    status, out, _ = eyesmith("bench", "tokenizer")
    assert "2.00x" in out
    status, _, err = eyesmith("bench", "tokeniser")
    assert status == 2
    assert "did you mean tokenizer?" in err
    row["equal"] = False
    status, out, _ = eyesmith("bench", "tokenizer")
    assert status == 1
    assert "DIFFER" in out


def test_bench_without_a_checkout_says_so(eyesmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyesmith.__file__", str(tmp_path / "lib" / "python" / "eyesmith" / "__init__.py"))
    status, _, err = eyesmith("bench", "tokenizer")
    assert status == 2
    assert "clone the repository" in err


def test_data_probe_says_what_is_slow_and_what_a_model_takes(eyesmith, tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    assert eyesmith("data", "make", "scenes", folder, "--samples", 40, "--size-px", 32)[0] == 0
    options = ("--split", "train", "--workers", 1, "--seconds", 0.05)
    status, out, err = eyesmith("data", "probe", folder, "--model", "ViTamin-S", *options)
    assert status == 0, err
    assert "all together" in out
    assert "ViTamin-S on 1 x H100 at 40% of its peak takes" in out
    status, out, _ = eyesmith("data", "probe", folder / "train", "--image-size", 16, *options[2:], "--json")
    assert status == 0
    assert json.loads(out)["slowest"] in {"read", "decode", "transform", "collate"}
    status, _, err = eyesmith("data", "probe", folder / "none")
    assert status == 2
    assert "none" in err
