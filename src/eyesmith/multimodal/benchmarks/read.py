"""The questions of a benchmark: LLaVA's question file, with the truth out of the benchmark's own files."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eyesmith.data.conversations import IMAGE_WORD
from eyesmith.data.text import decoded, parse_json
from eyesmith.errors import DataError
from eyesmith.multimodal.benchmarks.question import BenchQuestion
from eyesmith.multimodal.benchmarks.table import BENCHMARKS, Benchmark

QUESTIONS, TRUTH, IMAGES = "questions.jsonl", "truth", "images"


def read_benchmark(name: str, folder: Path) -> list[BenchQuestion]:
    """The questions of `folder`: questions.jsonl, images/, and truth.json, .jsonl or .tsv where answers are public.

    questions.jsonl is LLaVA's question file: {"question_id", "image", "text", "category"} a line. The suffix of the
    benchmark is added where the text does not end with it. truth maps question_id to an answer, or a list of them, or
    is a list of {"question_id", "answer" or "answers", "category", "choices"}. Raises DataError for a missing file, a
    missing picture, a question twice or without what is needed to score it.
    """
    if name not in BENCHMARKS:
        raise DataError(f"benchmark: expected one of {', '.join(BENCHMARKS)}, got {name!r}")
    benchmark = BENCHMARKS[name]
    file = folder / QUESTIONS
    if not file.is_file():
        raise DataError(f"{file}: expected LLaVA's question file of {name}, a JSON object a line")
    truth = _truth(folder)
    found: dict[str, BenchQuestion] = {}
    for number, record in enumerate(_lines(file), 1):
        where = f"{file}: line {number}"
        question = _question(benchmark, record, truth, folder, where)
        if question.key in found:
            raise DataError(f"{where}: question {question.key} is there twice")
        found[question.key] = question
    if not found:
        raise DataError(f"{file}: holds no question")
    return list(found.values())


def _question(
    benchmark: Benchmark, record: Any, truth: Mapping[str, Mapping[str, Any]], folder: Path, where: str
) -> BenchQuestion:
    if not isinstance(record, dict) or "question_id" not in record or not isinstance(record.get("text"), str):
        raise DataError(f'{where}: expected {{"question_id", "image", "text"}}, got {str(record)[:60]!r}')
    key = str(record["question_id"])
    image = record.get("image")
    file = None if image is None else folder / IMAGES / str(image)
    if file is not None and not file.is_file():
        raise DataError(f"{where}: {key}: its picture {file} is missing")
    own = truth.get(key, {})
    listed, choices = _answers(own, folder, key), own.get("choices") or 0
    if not str(choices).isdecimal():
        raise DataError(f"{folder / TRUTH}.*: {key}: 'choices' is how many there are, got {str(choices)[:60]!r}")
    if benchmark.is_local and not listed:
        raise DataError(f"{where}: {key}: no answer in {folder / TRUTH}.*, and {benchmark.name} is scored here")
    text = record["text"].replace(IMAGE_WORD, "").strip()
    if benchmark.suffix and not text.endswith(benchmark.suffix):
        text = f"{text}\n{benchmark.suffix}"
    return BenchQuestion(
        key=key,
        text=text,
        image=file,
        truth=tuple(str(one) for one in listed),
        group=str(own.get("category", record.get("category", ""))),
        choices=int(choices),
        facts={**record, **own, "image": image},
    )


def _answers(own: Mapping[str, Any], folder: Path, key: str) -> list[str | int | float]:
    """The right answers of a question; none where the benchmark's file has none for it."""
    answers = own.get("answers", own.get("answer"))
    listed = answers if isinstance(answers, list) else [] if answers is None else [answers]
    if wrong := [one for one in listed if not isinstance(one, str | int | float)]:
        raise DataError(f"{folder / TRUTH}.*: {key}: expected an answer or a list of them, got {str(wrong[0])[:60]!r}")
    return listed


def _truth(folder: Path) -> dict[str, dict[str, Any]]:
    for ending in (".json", ".jsonl", ".tsv"):
        file = folder / (TRUTH + ending)
        if not file.is_file():
            continue
        if ending == ".tsv":
            stream = io.StringIO(decoded(file.read_bytes())[0], newline="")
            records: Any = list(csv.DictReader(stream, delimiter="\t"))
        else:
            records = list(_lines(file)) if ending == ".jsonl" else _json(file, file.read_bytes(), str(file))
        if isinstance(records, dict):
            return {
                str(key): value if isinstance(value, dict) else {"answers": value} for key, value in records.items()
            }
        if not isinstance(records, list) or not all(isinstance(one, dict) and "question_id" in one for one in records):
            raise DataError(f"{file}: expected question_id to answer, or a list of objects with question_id")
        return {str(one["question_id"]): one for one in records}
    return {}


def _lines(file: Path) -> Iterable[Any]:
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        if line.strip():
            yield _json(file, line, f"{file}: line {number}")


def _json(file: Path, content: bytes, where: str) -> Any:
    del file
    try:
        return parse_json(decoded(content)[0])[0]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: cannot be read as JSON ({error})") from None
