"""All benchmarks on miniature files that were scored by hand: ties, missing answers, wrong formats."""

import json
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook
from PIL import Image

from eyesmith.cli.main import main
from eyesmith.errors import DataError
from eyesmith.eval.results import append_rows, read_results, read_rows
from eyesmith.eval.results.rows import ResultRow
from eyesmith.multimodal.benchmarks import (
    BENCHMARKS,
    answer_benchmark,
    read_answers,
    read_benchmark,
    write_results,
)
from eyesmith.multimodal.benchmarks.question import BenchQuestion


def _folder(root: Path, asked: list[dict[str, Any]], truth: object = None) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    for one in asked:
        if "image" in one:
            Image.new("RGB", (8, 8)).save(root / "images" / one["image"])
    (root / "questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    if truth is not None:
        (root / "truth.json").write_text(json.dumps(truth))
    return root


def _scored(name: str, root: Path, answers: list[str]) -> dict[tuple[str, str], float]:
    rows, _ = write_results(name, read_benchmark(name, root), answers, root / "out", model="m")
    assert all(row.task == f"chat/{name}" for row in rows)
    return {(row.split, row.metric): row.value for row in rows}


def _asked(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"question_id": i, "image": f"{i}.png", "text": f"What {i}?", **fields} for i in range(count)]


def test_there_are_llavas_twelve_and_mmvp() -> None:
    assert len(BENCHMARKS) == 13
    here = {name for name, one in BENCHMARKS.items() if one.scored_by == "here"}
    assert here == {"gqa", "scienceqa", "textvqa", "pope", "mme", "seed", "mmvp"}
    assert {one.max_new_tokens for one in BENCHMARKS.values()} == {128, 1024}


def test_the_suffix_is_added_once(tmp_path: Path) -> None:
    suffix = "Answer the question using a single word or phrase."
    asked = [{"question_id": "a", "text": "What?"}, {"question_id": "b", "text": f"<image>\nWhat?\n{suffix}"}]
    found = read_benchmark("vqav2", _folder(tmp_path, asked))
    assert [question.text for question in found] == [f"What?\n{suffix}"] * 2
    assert found[0].image is None


def test_gqa_wants_the_word_in_lower_case_without_its_dot(tmp_path: Path) -> None:
    root = _folder(tmp_path, _asked(4), {"0": "cat", "1": "cat", "2": "cat", "3": "cat"})
    assert _scored("gqa", root, ["Cat.", "a cat", "", "cat"]) == {("all", "accuracy"): 0.5}


def test_textvqa_is_soft(tmp_path: Path) -> None:
    root = _folder(tmp_path, _asked(3), {"0": ["stop"] * 10, "1": ["stop"] + ["go"] * 9, "2": ["go"] * 10})
    found = _scored("textvqa", root, ["Stop.", "stop", "stop"])
    assert found[("all", "accuracy")] == pytest.approx((1 + 0.3 + 0) / 3)


def test_scienceqa_needs_a_letter_among_the_choices(tmp_path: Path) -> None:
    truth = [{"question_id": i, "answer": answer, "choices": 3} for i, answer in enumerate("ABCCA")]
    root = _folder(tmp_path, _asked(5), truth)
    found = _scored("scienceqa", root, ["A", "B. two", "The answer is C.", "D", "one"])
    assert found == {("all", "accuracy"): 3 / 5}


def test_seed_wants_the_very_letter_and_tells_each_dimension(tmp_path: Path) -> None:
    truth = [{"question_id": i, "answer": "A", "category": "scene" if i < 2 else "text"} for i in range(4)]
    found = _scored("seed", _folder(tmp_path, _asked(4), truth), ["A", "A.", " A\n", "a"])
    assert found == {("all", "accuracy"): 0.5, ("scene", "accuracy"): 0.5, ("text", "accuracy"): 0.5}


def test_popes_f1_is_the_mean_of_its_parts(tmp_path: Path) -> None:
    truth = [
        {"question_id": i, "answer": answer, "category": "random" if i < 4 else "popular"}
        for i, answer in enumerate(["yes", "yes", "no", "no", "yes", "no"])
    ]
    # random: hit, missed, false alarm ("maybe" is a yes), right: P 1/2, R 1/2; popular: all said no, so F1 is 0
    said = ["Yes", "No, none", "maybe", "There is no dog.", "No", "Not sure, no"]
    found = _scored("pope", _folder(tmp_path, _asked(6), truth), said)
    assert found[("random", "f1")] == 0.5
    assert found[("random", "yes_ratio")] == 0.5
    assert found[("popular", "f1")] == 0.0
    assert found[("popular", "accuracy")] == 0.5
    assert found[("mean", "f1")] == 0.25


def test_mme_adds_accuracy_and_pairs(tmp_path: Path) -> None:
    asked = [{"question_id": i, "image": f"{i // 2}.png", "text": "Is it?"} for i in range(8)]
    truth = [
        {"question_id": i, "answer": ["Yes", "No"][i % 2], "category": "count" if i < 4 else "code_reasoning"}
        for i in range(8)
    ]
    found = _scored("mme", _folder(tmp_path, asked, truth), ["yes", "no", "Yes.", "yes", "", "no", "yes", "no"])
    assert found[("count", "accuracy")] == 0.75
    assert found[("count", "paired")] == 0.5
    assert found[("code_reasoning", "accuracy")] == 0.75
    # only perception counts: 100 x (0.75 + 0.5) of 2,000
    assert found[("perception", "score_of_2000")] == pytest.approx(125 / 2000)


def test_a_line_says_how_many_questions_it_is_of(tmp_path: Path) -> None:
    truth = [{"question_id": i, "answer": "yes", "category": "code_reasoning" if i < 4 else "count"} for i in range(6)]
    root = _folder(tmp_path, _asked(6), truth)
    for name, others in {"pope": ("mean",), "mme": ()}.items():
        rows, _ = write_results(name, read_benchmark(name, root), ["Yes"] * 6, root / "out", model="m")
        wanted = {"code_reasoning": 4, "count": 2, "perception": 2} | dict.fromkeys(others, 6)
        assert {row.split for row in rows} <= set(wanted)
        assert all(row.n == wanted[row.split] for row in rows if row.metric != "paired")


def test_mmvp_counts_pairs(tmp_path: Path) -> None:
    truth = dict(zip("0123", ["(a)", "(b)", "(a)", "(b)"], strict=True))
    found = _scored("mmvp", _folder(tmp_path, _asked(4), truth), ["(a)", "B", "A.", "a"])
    assert found == {("pairs", "accuracy"): 0.5, ("all", "accuracy"): 0.75}


def test_servers_and_judges_get_their_files(tmp_path: Path) -> None:
    asked = [{"question_id": 7, "image": "p.png", "text": "What?", "category": "conv"}]
    for name, wanted in {
        "vqav2": [{"question_id": 7, "answer": "2 cats"}],
        "vizwiz": [{"image": "p.png", "answer": "2 cats"}],
        "mm-vet": {"7": "Two cats."},
        "llava-bench": [{"question_id": "7", "prompt": "What?", "text": "Two cats.", "category": "conv"}],
    }.items():
        root = _folder(tmp_path / name, asked)
        rows, file = write_results(name, read_benchmark(name, root), ["Two cats."], root, model="m")
        assert rows == []
        assert file is not None
        assert json.loads(file.read_text()) == wanted


@pytest.mark.parametrize("name", ["mmbench", "mmbench-cn"])
def test_mmbench_gets_a_table_in_which_no_answer_is_a_formula(tmp_path: Path, name: str) -> None:
    asked = [
        {"question_id": 3, "index": 3, "image": "p.png", "text": "What?", "question": "What?", "A": "cat", "hint": "h"},
        {"question_id": 4, "index": 4, "image": "p.png", "text": "Who?", "question": "Who?", "A": "dog", "hint": "h"},
    ]
    root = _folder(tmp_path, asked)
    _, file = write_results(name, read_benchmark(name, root), [" B\n", "=1+1"], root, model="m")
    assert file is not None
    rows = [[cell.value for cell in line] for line in load_workbook(file).active.iter_rows()]  # pyright: ignore
    assert rows == [["index", "question", "A", "prediction"], [3, "What?", "cat", "B"], [4, "Who?", "dog", "=1+1"]]
    assert load_workbook(file).active["D3"].data_type == "s"  # pyright: ignore


@pytest.mark.parametrize(
    ("asked", "truth", "why"),
    [
        ([], {}, "holds no question"),
        ([{"question_id": 1, "text": "a"}, {"question_id": "1", "text": "b"}], {"1": "a"}, "question 1 is there twice"),
        ([{"question_id": 1}], {"1": "a"}, "line 1: expected"),
        ([{"question_id": 1, "text": "a"}], None, "1: no answer in"),
        ([{"question_id": 1, "text": "a"}], [{"answer": "x"}], "expected question_id to answer"),
        ([{"question_id": 1, "text": "a"}], {"1": None}, "1: no answer in"),
        ([{"question_id": 1, "text": "a"}], {"1": [["x"]]}, "1: expected an answer or a list of them, got"),
        (
            [{"question_id": 1, "text": "a"}],
            [{"question_id": 1, "answer": "A", "choices": ["cat", "dog"]}],
            "1: 'choices' is how many there are, got",
        ),
    ],
)
def test_files_that_cannot_be_scored_are_told(tmp_path: Path, asked: list, truth: object, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read_benchmark("gqa", _folder(tmp_path, asked, truth))


def test_a_table_of_answers_may_leave_the_choices_out(tmp_path: Path) -> None:
    root = _folder(tmp_path, _asked(2))
    (root / "truth.tsv").write_text("question_id\tanswer\tchoices\n0\tA\t\n1\tB\t2\n")
    assert [(one.truth, one.choices) for one in read_benchmark("scienceqa", root)] == [(("A",), 0), (("B",), 2)]


def test_a_missing_picture_and_a_missing_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected LLaVA's question file"):
        read_benchmark("gqa", tmp_path)
    root = _folder(tmp_path, _asked(1), {"0": "a"})
    (root / "images" / "0.png").unlink()
    with pytest.raises(DataError, match=r"0: its picture .*0\.png is missing"):
        read_benchmark("gqa", root)
    with pytest.raises(DataError, match="expected one of vqav2"):
        read_benchmark("vqa", root)


class _Parrot:
    def __init__(self, weights: str, model: str = "read so") -> None:
        self.facts, self.asked = {"weights": weights, "model": model}, 0

    def chat(self, image: Any, messages: Any, *, max_new_tokens: int = 128) -> str:
        del image, max_new_tokens
        self.asked += 1
        if self.asked > 3:
            raise KeyboardInterrupt
        return f"said\u2028{messages[5]}"


def test_answers_are_kept_as_they_come_and_belong_to_their_model(tmp_path: Path) -> None:
    root = _folder(tmp_path, _asked(5), {str(i): "a" for i in range(5)})
    questions = read_benchmark("gqa", root)
    with pytest.raises(KeyboardInterrupt):
        answer_benchmark(_Parrot("one"), "gqa", questions, tmp_path / "out")
    with (tmp_path / "out" / "answers.jsonl").open("a") as file:
        file.write('{"question_id": "3", "te')  # of a process that was killed
    again = _Parrot("one")
    answers = answer_benchmark(again, "gqa", questions, tmp_path / "out")
    assert again.asked == 2
    assert answers == [f"said\u2028{i}" for i in range(5)]
    assert read_answers(tmp_path / "out" / "answers.jsonl", questions) == answers
    for other in (_Parrot("two"), _Parrot("one", "read otherwise")):
        with pytest.raises(DataError, match="holds answers of another model"):
            answer_benchmark(other, "gqa", questions, tmp_path / "out")
    Image.new("RGB", (9, 9)).save(root / "images" / "2.png")
    with pytest.raises(DataError, match="other questions or pictures"):
        answer_benchmark(_Parrot("one"), "gqa", questions, tmp_path / "out")


def test_foreign_answers_are_matched_by_question(tmp_path: Path) -> None:
    questions = [BenchQuestion(key=key, text="?", image=None) for key in "abc"]
    file = tmp_path / "a.jsonl"
    file.write_text('{"question_id": "c", "text": "3"}\n\n{"question_id": "a", "text": "1"}\n')
    assert read_answers(file, questions) == ["1", "", "3"]
    for line, why in (
        ('{"question_id": "a", "text": "2"}', "answered twice"),
        ('{"question_id": "x", "text": "2"}', "is no question"),
        ("[]", "expected"),
    ):
        file.write_text('{"question_id": "a", "text": "1"}\n' + line + "\n")
        with pytest.raises(DataError, match=f"line 2: .*{why}"):
            read_answers(file, questions)


def test_the_verb_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat-eval", str(tmp_path), "pope", "--data", str(tmp_path)]) == 2
    assert "questions.jsonl: expected LLaVA's question file of pope" in capsys.readouterr().err


def test_the_verb_adds_its_lines_to_those_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stub:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.facts = {"weights": "w", "model": "m"}

        def chat(self, *_: Any, **__: Any) -> str:
            return "yes"

    monkeypatch.setattr("eyesmith.multimodal.chat.ChatAssistant", Stub)
    data, out = _folder(tmp_path / "data", _asked(2), {"0": "yes", "1": "no"}), tmp_path / "run"
    out.mkdir()
    before = ResultRow(model="run", task="chat", split="all", metric="m", value=1.0, low=None, high=None, n=1, chance=0)
    append_rows(out / "results.jsonl", [before])
    for _ in range(2):
        assert main(["chat-eval", str(out), "gqa", "--data", str(data), "--out", str(out), "--device", "cpu"]) == 0
    capsys.readouterr()
    rows = read_rows(out / "results.jsonl")
    assert rows[0] == before
    assert {row.value for row in rows[1:]} == {0.5}
    (found,) = read_results([out])
    assert found.records["chat/gqa/all"].main == 0.5
