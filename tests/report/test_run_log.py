import json
from pathlib import Path

from eyesmith.report.run_log import read_log


def write(folder: Path, *entries: object, tail: str = "") -> Path:
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries) + tail)
    return folder


def step(number: int, time_s: float, loss: float) -> dict[str, float]:
    return {
        "step": number,
        "samples": 64 * number,
        "epoch": number / 10,
        "loss": loss,
        "images_per_s": 300.0,
        "time_s": time_s,
    }


def test_no_log_is_an_empty_one(tmp_path: Path) -> None:
    log = read_log(tmp_path)
    assert log.loss == []
    assert log.steps is None
    assert log.images_per_s is None


def test_steps_and_evaluations(tmp_path: Path) -> None:
    log = read_log(
        write(
            tmp_path,
            {"event": "start", "machine": {"cores": 2}},
            step(10, 1.0, 5.0),
            step(20, 2.0, 4.0),
            {"step": 20, "time_s": 2.0, "eval": {"unseen_drawing/acc1": 0.25, "broken": None}},
        )
    )
    assert log.loss == [(1.0, 5.0), (2.0, 4.0)]
    assert log.evaluations == {"unseen_drawing/acc1": [(2.0, 0.25)]}
    assert (log.steps, log.samples, log.epochs, log.time_s, log.images_per_s) == (20, 1280, 2.0, 2.0, 300.0)
    assert log.start["machine"] == {"cores": 2}


def test_half_lines_and_other_values_are_counted(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, step(10, 1.0, 5.0), [1], tail='{"step": 20, "lo'))
    assert log.num_broken == 2
    assert log.steps == 10


def test_steps_repeated_by_a_resume_count_once(tmp_path: Path) -> None:
    first = [step(10, 1.0, 5.0), step(20, 2.0, 4.0), step(30, 3.0, 9.0)]
    log = read_log(write(tmp_path, *first, {"event": "resume", "step": 20, "time_s": 2.0}, step(30, 3.1, 3.0)))
    assert log.loss == [(1.0, 5.0), (2.0, 4.0), (3.1, 3.0)]
    assert log.resumes == 1


def test_what_the_health_rules_said_is_kept(tmp_path: Path) -> None:
    said = {"event": "health", "step": 20, "rule": "stuck", "message": "the loss has stayed", "hint": "look at pairs"}
    again = said | {"step": 30, "hint": None}
    log = read_log(write(tmp_path, step(10, 1.0, 5.0), said, step(20, 2.0, 5.0), again))
    assert log.health == [(20, "the loss has stayed; look at pairs"), (30, "the loss has stayed")]
    assert log.steps == 20


def test_a_clock_that_starts_again_is_set_on(tmp_path: Path) -> None:
    first = [step(10, 1.0, 5.0), step(20, 2.0, 4.0)]
    log = read_log(write(tmp_path, *first, {"event": "resume", "step": 20}, step(30, 0.5, 3.0), step(40, 1.5, 2.0)))
    assert [time_s for time_s, _ in log.loss] == [1.0, 2.0, 2.5, 3.5]


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, step(10, 1.0, float("nan")), step(20, 2.0, 4.0)))
    assert log.loss == [(2.0, 4.0)]
