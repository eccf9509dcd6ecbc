"""Answering a benchmark: raw answers kept as they come, then numbers with intervals, or a file for who scores."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from eyesmith.errors import DataError, MissingDependencyError
from eyesmith.eval.results.lines import append_objects
from eyesmith.eval.results.rows import ResultRow
from eyesmith.eval.statistics.bootstrap import bootstrap_interval, bounded, mean
from eyesmith.files import atomic_path, write_json
from eyesmith.multimodal.benchmarks.question import BenchQuestion
from eyesmith.multimodal.benchmarks.table import BENCHMARKS, Benchmark

ANSWERS = "answers.jsonl"


class Assistant(Protocol):
    """What answers: a `ChatAssistant`. facts: `weights` and `model`, digests of its tensors and of their use."""

    facts: dict[str, Any]

    def chat(self, image: Any, messages: Any, *, max_new_tokens: int = 128) -> str: ...


def asked_hash(benchmark: Benchmark, questions: Sequence[BenchQuestion]) -> str:
    """Of everything that is asked: the texts, the pictures' files, the longest answer."""
    digest = hashlib.sha256(f"{benchmark.name} {benchmark.max_new_tokens}".encode())
    for question in questions:
        stat = None if question.image is None else question.image.stat()
        file = None if stat is None else [str(question.facts["image"]), stat.st_size, stat.st_mtime_ns]
        digest.update(json.dumps([question.key, question.text, file]).encode())
    return digest.hexdigest()[:24]


def answer_benchmark(
    assistant: Assistant,
    name: str,
    questions: Sequence[BenchQuestion],
    out: Path,
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """Greedy answers, one by one, kept in out/answers.jsonl; those that are there from the same model are not asked.

    Raises DataError where the file holds answers of another model or to other questions.
    """
    benchmark = BENCHMARKS[name]
    # equal weights may read other tokens of the eye, other pixels, or questions put in another way
    whose = {name: assistant.facts[name] for name in ("weights", "model")} | {"asked": asked_hash(benchmark, questions)}
    known = _known(out / ANSWERS, whose)
    answers = []
    for question in questions:
        if question.key not in known:
            said = assistant.chat(question.image, question.text, max_new_tokens=benchmark.max_new_tokens)
            line = {"question_id": question.key, "prompt": question.text, "text": said, "metadata": whose}
            out.mkdir(parents=True, exist_ok=True)
            append_objects(out / ANSWERS, [line])
            known[question.key] = said
        answers.append(known[question.key])
        advance(1)
    return answers


def _known(file: Path, whose: dict[str, str]) -> dict[str, str]:
    if not file.is_file():
        return {}
    found = {}
    for number, line in enumerate(file.read_text("utf-8").split("\n"), 1):
        try:
            record = json.loads(line)
            key, said, theirs = record["question_id"], record["text"], record["metadata"]
        except (ValueError, KeyError, TypeError):
            continue  # the last line of a process that was killed
        theirs = {"model": whose["model"], **theirs}  # files of before do not say it
        if theirs != whose:
            is_other = any(theirs.get(name) != whose[name] for name in ("weights", "model"))
            what = "another model" if is_other else "other questions or pictures"
            raise DataError(f"{file}: line {number}: holds answers of {what}; choose another folder")
        found[key] = said
    return found


def read_answers(file: Path, questions: Sequence[BenchQuestion]) -> list[str]:
    """Answers that were kept, by whatever program, in the order of the questions: {"question_id", "text"} a line.

    One that is missing is empty, and so wrong. Raises DataError for one that is there twice, or for no question.
    """
    found: dict[str, str] = {}
    wanted = {question.key for question in questions}
    for number, line in enumerate(file.read_text("utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            key, text = str(record["question_id"]), str(record["text"])
        except (ValueError, KeyError, TypeError):
            raise DataError(f'{file}: line {number}: expected {{"question_id", "text"}}') from None
        if key not in wanted:
            raise DataError(f"{file}: line {number}: {key} is no question of this benchmark")
        if key in found:
            raise DataError(f"{file}: line {number}: question {key} is answered twice")
        found[key] = text
    return [found.get(question.key, "") for question in questions]


def write_results(
    name: str,
    questions: Sequence[BenchQuestion],
    answers: Sequence[str],
    out: Path,
    *,
    model: str,
    run: dict[str, Any] | None = None,
) -> tuple[list[ResultRow], Path | None]:
    """Result rows where the answers can be scored here, and the file for the server or the judge where not."""
    benchmark = BENCHMARKS[name]
    rows = []
    if benchmark.score is not None and all(question.truth for question in questions):
        for found in benchmark.score(questions, answers):
            low = high = None
            n = len(questions) if found.asked is None else found.asked
            if found.per_question:
                n = len(found.per_question)
                low, high = bounded(bootstrap_interval(found.per_question), mean, n)
            rows.append(
                ResultRow(
                    model=model,
                    task=f"chat/{name}",
                    split=found.split,
                    metric=found.metric,
                    value=found.value,
                    low=low,
                    high=high,
                    n=n,
                    chance=None,
                    run=run,
                )
            )
    if benchmark.submit is None:
        return rows, None
    made = benchmark.submit(questions, answers)
    file = out / f"{name}.{'xlsx' if benchmark.submit_as == 'xlsx' else 'json'}"
    out.mkdir(parents=True, exist_ok=True)
    if benchmark.submit_as == "xlsx":
        _write_table(file, made)
    else:
        write_json(file, made)
    return rows, file


def _write_table(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    try:
        from openpyxl import Workbook
    except ImportError:
        raise MissingDependencyError(f"{file.name} needs openpyxl: pip install 'eyesmith[chat]'") from None
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    names = list(dict.fromkeys(name for row in rows for name in row))
    sheet.append(names)
    for row in rows:
        values = [row.get(name) for name in names]
        sheet.append([value if value is None or isinstance(value, int | float) else str(value) for value in values])
    for line in sheet.iter_rows(min_row=2):
        for cell in line:
            if cell.data_type == "f":
                cell.data_type = "s"  # an answer that begins with = is no formula
    with atomic_path(file) as part:
        book.save(part)
