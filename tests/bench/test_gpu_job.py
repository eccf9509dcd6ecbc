"""The job for a GPU: its parts do not take each other down, and what is done is on disk. The whole of it is slow."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from bench.gpu_job import PARTS, RESULT, Job, PartFailed, bench_cases, run_facts, run_parts

ROOT = Path(__file__).parents[2]


def job(folder: Path, *, left_s: float = 1000.0) -> Job:
    (folder / "runs").mkdir()
    return Job(out=folder / "runs", ends_at=time.monotonic() + left_s, small=True)


def test_a_part_that_fails_leaves_the_others(tmp_path: Path) -> None:
    def fails(given: Job) -> dict[str, Any]:
        given.call((sys.executable, "-c", "import sys; print('told' * 1000, file=sys.stderr); sys.exit(3)"))
        return {}

    def reads(given: Job) -> dict[str, Any]:
        return {"before": json.loads((given.out.parent / RESULT).read_text())["parts"]["fails"]["status"]}

    found = run_parts(job(tmp_path), {"fails": fails, "wrong": lambda given: {"x": 1 / 0}, "reads": reads})["parts"]
    assert {name: part["status"] for name, part in found.items()} == {
        "fails": "failed",
        "wrong": "failed",
        "reads": "done",
    }
    assert found["fails"]["why"] == "PartFailed: exit status 3"
    assert len(found["fails"]["told"]) == 1500
    assert found["reads"]["before"] == "failed"  # each part's result is written before the next
    assert json.loads((tmp_path / RESULT).read_text())["parts"] == found


def test_a_command_ends_with_the_job(tmp_path: Path) -> None:
    words = (sys.executable, "-c", "import sys, time; print('begun', file=sys.stderr, flush=True); time.sleep(60)")
    with pytest.raises(PartFailed, match="took more than") as failed:
        job(tmp_path, left_s=3.0).call(words)
    assert failed.value.told.strip() in ("begun", "")


def test_no_part_begins_without_time(tmp_path: Path) -> None:
    found = run_parts(job(tmp_path, left_s=1.0), {"late": lambda given: {"x": 1}})
    assert found["parts"]["late"]["status"] == "skipped"


def test_rates_are_medians_of_a_run_s_second_half(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [{"event": "start"}]
    lines += [{"step": n, "loss": 5.0 - n, "images_per_s": 10.0 * n, "mfu": None} for n in range(1, 7)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = run_facts(tmp_path)
    assert (found["steps"], found["images_per_s"], found["is_finished"]) == (6, 50.0, False)
    assert found["losses"] == [4.0, 3.0, 2.0, 1.0, 0.0, -1.0]
    assert "mfu" not in found


def test_cases_have_distinct_names_and_the_most_telling_comes_first() -> None:
    assert next(iter(bench_cases())) == "gpu_vitamin_s_infer"
    assert {"gpu_loss", "gpu_vitamin_l_train", "gpu_vit_b32_train"} <= set(bench_cases())


@pytest.mark.slow
def test_the_small_job_on_a_processor(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    words = ("bash", str(ROOT / "bench" / "gpu_job.sh"), str(tmp_path / "out"), "--small", "--budget-s", "1200")
    subprocess.run(words, check=True, env=environment, timeout=1300)
    found = json.loads((tmp_path / "out" / RESULT).read_text())
    assert {name: part["status"] for name, part in found["parts"].items()} == dict.fromkeys(PARTS, "done")
    for name, bound in {"ddp": 1e-4, "fsdp": 5e-2, "resume after kill": 1e-4}.items():  # FSDP holds weights in bf16
        assert found["parts"][name]["largest_difference"] < bound
    assert found["parts"]["resume after kill"]["was_killed_before_the_end"]
