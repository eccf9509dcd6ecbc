"""Which benchmarks there are, how each is asked and scored. Source: LLaVA-1.5 (arXiv 2310.03744) and its scripts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from eyesmith.multimodal.benchmarks.answers import letter, mme_says, pope_says_no, vqa_accuracy, vqa_words
from eyesmith.multimodal.benchmarks.question import BenchQuestion

WORD = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
LETTER_CN = "请直接回答选项字母。"
MME_PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)

Questions = Sequence[BenchQuestion]


class Measured(NamedTuple):
    """One number. per_question: what its mean over questions is drawn from, for intervals; None where it is no mean.
    asked: questions that it is of, where it is no mean; None: all.
    """

    split: str
    metric: str
    value: float
    per_question: list[float] | None = None
    asked: int | None = None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """suffix: added to each question; max_new_tokens: longest answer. score: of questions and answers, None where a
    server or a judge scores; submit: what is sent there, as JSON, rows of a table, or a mapping.
    """

    name: str
    suffix: str
    max_new_tokens: int
    scored_by: Literal["here", "server", "judge"]
    score: Callable[[Questions, Sequence[str]], list[Measured]] | None = None
    submit: Callable[[Questions, Sequence[str]], Any] | None = None
    submit_as: Literal["json", "xlsx"] = "json"

    @property
    def is_local(self) -> bool:
        return self.scored_by == "here"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _accuracy(right: Callable[[BenchQuestion, str], float]) -> Callable[[Questions, Sequence[str]], list[Measured]]:
    """A mean over all questions, and over those of each group where there are several."""

    def score(questions: Questions, answers: Sequence[str]) -> list[Measured]:
        each = [float(right(question, answer)) for question, answer in zip(questions, answers, strict=True)]
        found = [Measured("all", "accuracy", _mean(each), each)]
        groups = sorted({question.group for question in questions if question.group})
        for group in groups if len(groups) > 1 else ():
            own = [value for question, value in zip(questions, each, strict=True) if question.group == group]
            found.append(Measured(group, "accuracy", _mean(own), own))
        return found

    return score


def _vqa(question: BenchQuestion, answer: str) -> float:
    return vqa_accuracy(answer, question.truth)


def _gqa(question: BenchQuestion, answer: str) -> float:
    return answer.lower().strip().rstrip(".") == question.truth[0]


def _science(question: BenchQuestion, answer: str) -> float:
    chosen = letter(answer, question.choices or 5)
    return chosen is not None and "ABCDEFGHIJ"[chosen] == question.truth[0]


def _exact(question: BenchQuestion, answer: str) -> float:
    return answer.strip() == question.truth[0]


def score_pope(questions: Questions, answers: Sequence[str]) -> list[Measured]:
    """F1 of "yes" in each of the three parts (random, popular, adversarial), their mean, and what it is made of."""
    parts = sorted({question.group for question in questions})
    found, means = list[Measured](), list[float]()
    for part in parts:
        pairs = [(q, a) for q, a in zip(questions, answers, strict=True) if q.group == part]
        own = [(question.truth[0].lower() == "yes", not pope_says_no(answer)) for question, answer in pairs]
        hits = sum(truth and said for truth, said in own)
        said, true = sum(said for _, said in own), sum(truth for truth, _ in own)
        precision, recall = hits / said if said else 0.0, hits / true if true else 0.0
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        each = [float(truth == said) for truth, said in own]
        name = part or "all"
        found += [
            Measured(name, "f1", f1, asked=len(own)),
            Measured(name, "accuracy", _mean(each), each),
            Measured(name, "precision", precision, asked=len(own)),
            Measured(name, "recall", recall, asked=len(own)),
            Measured(name, "yes_ratio", said / len(own), asked=len(own)),
        ]
        means.append(f1)
    return [Measured("mean", "f1", _mean(means)), *found] if len(parts) > 1 else found


def score_mme(questions: Questions, answers: Sequence[str]) -> list[Measured]:
    """Per subtask accuracy and the share of pictures whose two questions are both right, and perception's total / 2000.

    Two questions of one picture are those with equal `image`. Values are fractions: the published score of a subtask is
    100 x (accuracy + paired), at most 200; `perception` is the sum over ten of them over 2,000.
    """
    found, total, counted = list[Measured](), 0.0, 0
    for part in sorted({question.group for question in questions}):
        asked = [(q, a) for q, a in zip(questions, answers, strict=True) if q.group == part]
        own = [(question, mme_says(answer) == question.truth[0].lower()) for question, answer in asked]
        pictures: dict[Any, list[bool]] = {}
        for question, is_right in own:
            pictures.setdefault(question.image, []).append(is_right)
        each = [float(is_right) for _, is_right in own]
        both = [float(len(pair) == 2 and all(pair)) for pair in pictures.values()]
        found += [Measured(part, "accuracy", _mean(each), each), Measured(part, "paired", _mean(both), both)]
        if part in MME_PERCEPTION:
            total, counted = total + 100 * (_mean(each) + _mean(both)), counted + len(each)
    return [*([Measured("perception", "score_of_2000", total / 2000, asked=counted)] if counted else []), *found]


def score_mmvp(questions: Questions, answers: Sequence[str]) -> list[Measured]:
    """The share of pairs, questions in order two by two, that are both right; a letter may stand in brackets."""
    right = [
        answer.strip().lower().strip("().")[:1] == question.truth[0].lower().strip("()")
        for question, answer in zip(questions, answers, strict=True)
    ]
    pairs = [float(one and two) for one, two in zip(right[::2], right[1::2], strict=False)]
    each = [float(one) for one in right]
    return [Measured("pairs", "accuracy", _mean(pairs), pairs), Measured("all", "accuracy", _mean(each), each)]


def _of_vqa(questions: Questions, answers: Sequence[str]) -> list[dict[str, Any]]:
    """VQAv2's server; numbers where the ids are numbers."""
    keys = [int(question.key) if question.key.isdigit() else question.key for question in questions]
    return [{"question_id": key, "answer": vqa_words(answer)} for key, answer in zip(keys, answers, strict=True)]


def _of_vizwiz(questions: Questions, answers: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"image": question.facts["image"], "answer": vqa_words(answer)}
        for question, answer in zip(questions, answers, strict=True)
    ]


def _of_mmbench(questions: Questions, answers: Sequence[str]) -> list[dict[str, Any]]:
    """The benchmark's own rows without what its server does not want, and a prediction each."""
    dropped = {"hint", "category", "source", "image", "comment", "l2-category", "text", "question_id", "choices"}
    return [
        {
            "index": question.facts.get("index", question.key),
            **{name: value for name, value in question.facts.items() if name not in dropped and name != "index"},
            "prediction": answer.strip(),
        }
        for question, answer in zip(questions, answers, strict=True)
    ]


def _of_judge(questions: Questions, answers: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"question_id": question.key, "prompt": question.text, "text": answer, "category": question.group}
        for question, answer in zip(questions, answers, strict=True)
    ]


def _of_mmvet(questions: Questions, answers: Sequence[str]) -> Mapping[str, str]:
    return {question.key: answer for question, answer in zip(questions, answers, strict=True)}


BENCHMARKS: dict[str, Benchmark] = {
    one.name: one
    for one in (
        Benchmark(
            name="vqav2", suffix=WORD, max_new_tokens=128, scored_by="server", score=_accuracy(_vqa), submit=_of_vqa
        ),
        Benchmark(name="gqa", suffix=WORD, max_new_tokens=128, scored_by="here", score=_accuracy(_gqa)),
        Benchmark(
            name="vizwiz", suffix="", max_new_tokens=128, scored_by="server", score=_accuracy(_vqa), submit=_of_vizwiz
        ),
        Benchmark(name="scienceqa", suffix=LETTER, max_new_tokens=1024, scored_by="here", score=_accuracy(_science)),
        Benchmark(name="textvqa", suffix=WORD, max_new_tokens=128, scored_by="here", score=_accuracy(_vqa)),
        Benchmark(name="pope", suffix=WORD, max_new_tokens=128, scored_by="here", score=score_pope),
        Benchmark(name="mme", suffix=WORD, max_new_tokens=128, scored_by="here", score=score_mme),
        Benchmark(
            name="mmbench", suffix=LETTER, max_new_tokens=1024, scored_by="server", submit=_of_mmbench, submit_as="xlsx"
        ),
        Benchmark(
            name="mmbench-cn",
            suffix=LETTER_CN,
            max_new_tokens=1024,
            scored_by="server",
            submit=_of_mmbench,
            submit_as="xlsx",
        ),
        Benchmark(name="seed", suffix=LETTER, max_new_tokens=128, scored_by="here", score=_accuracy(_exact)),
        Benchmark(name="llava-bench", suffix="", max_new_tokens=1024, scored_by="judge", submit=_of_judge),
        Benchmark(name="mm-vet", suffix="", max_new_tokens=1024, scored_by="judge", submit=_of_mmvet),
        Benchmark(name="mmvp", suffix=LETTER, max_new_tokens=128, scored_by="here", score=score_mmvp),
    )
}
