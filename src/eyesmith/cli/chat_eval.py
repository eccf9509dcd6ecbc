"""`eyesmith chat-eval`: a chat model on one of LLaVA-1.5's benchmarks."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import Device
from eyesmith.cli.output import AsJson, messages, print_json, print_table, say
from eyesmith.hub.device import find_device


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(chat_eval, argv, prog=prog)


def chat_eval(
    run: Annotated[Positional[str], tyro.conf.arg(metavar="RUN", help="The folder of a finished chat run.")],
    benchmark: Annotated[
        Positional[str],
        tyro.conf.arg(
            metavar="BENCHMARK",
            help="vqav2, gqa, vizwiz, scienceqa, textvqa, pope, mme, mmbench, mmbench-cn, seed, llava-bench, mm-vet or "
            "mmvp.",
        ),
    ],
    /,
    *,
    data: Path,
    out: Path | None = None,
    device: Device = None,
    as_json: AsJson = False,
) -> int:
    """Greedy answers to every question, kept one by one; numbers with intervals, or the file for who scores.

    What was answered before by the same model is not asked again.

    Args:
        data: The folder with questions.jsonl, images/ and truth.json (docs/chat.md).
        out: The folder to write, RUN/eval/BENCHMARK where not given.
    """
    from eyesmith.eval.results.rows import append_rows
    from eyesmith.multimodal.benchmarks import answer_benchmark, read_benchmark, write_results
    from eyesmith.multimodal.benchmarks.run import asked_hash
    from eyesmith.multimodal.benchmarks.table import BENCHMARKS
    from eyesmith.multimodal.chat import ChatAssistant
    from eyesmith.train.callbacks.progress import progress

    where = find_device(device)
    questions = read_benchmark(benchmark, data)
    assistant = ChatAssistant(run, device=where)
    folder = out or Path(run) / "eval" / benchmark
    with progress(messages(), benchmark, len(questions), unit="question") as advance:
        answers = answer_benchmark(assistant, benchmark, questions, folder, advance=advance)
    whose = {**assistant.facts, "asked": asked_hash(BENCHMARKS[benchmark], questions)}
    rows, file = write_results(benchmark, questions, answers, folder, model=Path(run).name, run=whose)
    if rows:  # added, as the folder may be that of a run or of other benchmarks; of equal lines the last one counts
        append_rows(folder / "results.jsonl", rows)
    if as_json:
        print_json({"rows": [row.__dict__ for row in rows], "answers": len(answers), "to_send": file and str(file)})
        return 0
    if rows:
        shown = [
            (row.split, row.metric, f"{100 * row.value:.1f} %", _interval(row.low, row.high), f"{row.n:,}")
            for row in rows
        ]
        print_table(("split", "metric", "value", "95 %", "n"), shown, right=("value", "95 %", "n"))
    if file is not None:
        say(f"{file}: for who scores {benchmark}: the {BENCHMARKS[benchmark].scored_by}")
    return 0


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"
