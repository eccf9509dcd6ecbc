"""The lab's page: findings first, each with its figure and table, and how to make every number again."""

import base64
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from eyesmith.files import write_atomic, write_json
from eyesmith.lab.answers.ablation import AblationAnswer
from eyesmith.lab.answers.answer import Answer
from eyesmith.lab.answers.every import Answers, answer_all, results_csv, to_json
from eyesmith.lab.figures import (
    Chart,
    ablation_chart,
    correlation_chart,
    cost_charts,
    data_chart,
    resolution_chart,
    size_chart,
)
from eyesmith.lab.folder import PLAN_FILE
from eyesmith.lab.page.samples import samples_section
from eyesmith.lab.page.tables import cells_table, table, tables_of
from eyesmith.lab.plans import PLANS
from eyesmith.lab.result import LabResults
from eyesmith.report.document import document
from eyesmith.report.markup import Child, Markup, element
from eyesmith.report.words import metric_title, split_title

PAGE_FILE = "index.html"
ANSWERS_FILE = "answers.json"
RESULTS_FILE = "results.csv"
# figures are drawn on white, so the page is white at night too
STYLE = """
:root { color-scheme: light; --paper: #fff; --raised: #fff; --ink: #16191d; --soft: #4d545c;
  --rule: #d9dbde; --faint: #f3f4f5;
  --ours: #0b6e7f; --ours-wash: #d7ebee; --baseline: #b1500f; --baseline-wash: #f6e3d3;
  --chance: #62666c; --chance-wash: #e7e8ea;
  --right: #2c7a3f; --near: #7c590d; --wrong: #a8343a; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: 1.5rem 2.5rem; max-width: 56rem; }
.charts figure { margin: 1rem 0 0; max-width: 30rem; }
.charts img { display: block; width: 100%; height: auto; }
.finding { font-size: 1.125rem; }
.note { margin: .9rem 0 0; }
table code { white-space: nowrap; font-size: .8125rem; }
td.n small { white-space: nowrap; }
"""


def write_page(results: LabResults) -> Path:
    """Write index.html, answers.json, results.csv and every figure (SVG, PNG, CSV) to `results.folder`.

    Returns the path of index.html. What the plan asks and no cell answers yet is left out and told on the page.
    """
    folder = results.folder
    answers = answer_all(results)
    charts = {} if answers is None else _charts(folder, answers)
    write_atomic(folder / RESULTS_FILE, results_csv(results))
    write_json(folder / ANSWERS_FILE, {} if answers is None else to_json(answers))
    notices = _notices(results)
    parts = [] if answers is None else [_part(answer, charts.get(answer.name, [])) for answer in answers.all]
    sections: list[tuple[str, str, Markup]] = [*parts]
    samples = samples_section(results, None if answers is None else answers.metric, notices)
    if samples is not None:
        sections.append(("samples", "Pictures", samples))
    sections.append(("cells", "Cells", _cells_section(results, answers)))
    if results.failed or results.missing:
        sections.append(("failed", "Not there", _failed_section(results)))
    sections.append(("machine", "Machine", _machine_section(results)))
    links = [element("li", element("a", title, href=f"#{anchor}")) for anchor, title, _ in sections]
    page = document(
        results.plan.title,
        element("a", "Skip to the answers", href="#main", class_="skip"),
        element(
            "header",
            element("p", "eyesmith lab", class_="eyebrow"),
            element("h1", results.plan.title),
            *_lead(results, answers),
            _notice_box(notices),
            element("nav", element("ul", links), aria_label="Parts of this page"),
        ),
        element("main", [section for _, _, section in sections], id="main"),
        element(
            "footer",
            f"Plan {results.plan.name}. Numbers of all figures stand beside this page as CSV; {ANSWERS_FILE} has every "
            f"fit and correlation, {RESULTS_FILE} every result of every cell.",
        ),
        style=STYLE,
    )
    write_atomic(folder / PAGE_FILE, page)
    return folder / PAGE_FILE


def _charts(folder: Path, answers: Answers) -> dict[str, list[Chart]]:
    """Figures by answer."""
    found: dict[str, list[Chart | None]] = {}
    if answers.hybrid is not None:
        found["hybrid"] = [*cost_charts(folder, answers.hybrid)]
    if answers.data is not None:
        found["data"] = [data_chart(folder, answers.data)]
    if answers.size is not None:
        found["size"] = [size_chart(folder, answers.size)]
    if answers.resolution is not None:
        found["resolution"] = [resolution_chart(folder, answers.resolution)]
    for one in answers.ablations:
        found[one.name] = [ablation_chart(folder, one)]
    if answers.correlation is not None:
        found["correlation"] = [correlation_chart(folder, answers.correlation)]
    return {name: [chart for chart in charts if chart is not None] for name, charts in found.items()}


def _lead(results: LabResults, answers: Answers | None) -> list[Markup]:
    """The head finding, how far to trust it, and what was measured."""
    if answers is None:
        return [element("p", "No cell is finished yet, so there is nothing to say.", class_="lead")]
    first = next((one for one in answers.all if one.rows), None)
    lines: list[Markup] = []
    if first is not None:
        lines.append(element("p", first.sentence, class_="lead"))
    if answers.correlation is not None and answers.correlation is not first:
        lines.append(element("p", answers.correlation.sentence))
    measured = (
        f"{len(results.cells)} training runs, {metric_title(answers.metric.metric)} of "
        f"{split_title(answers.metric.split).lower()}. Values in brackets bound 95 % intervals over seeds and test "
        "images; “not told apart” stands where a difference's interval holds zero."
    )
    return [*lines, element("p", measured, class_="soft")]


def _part(answer: Answer, charts: Sequence[Chart]) -> tuple[str, str, Markup]:
    title = answer.title.partition(":")[0]
    section = element(
        "section",
        element("h2", answer.title, id=f"{answer.name}-title"),
        element("p", answer.sentence, class_="finding"),
        element("p", answer.detail) if answer.detail else None,
        element("div", [_figure(chart) for chart in charts], class_="charts") if charts else None,
        tables_of(answer),
        [element("p", note, class_="soft note") for note in answer.notes],
        id=answer.name,
        aria_labelledby=f"{answer.name}-title",
    )
    return answer.name, f"{title} ({answer.name})" if isinstance(answer, AblationAnswer) else title, section


def _figure(chart: Chart) -> Markup:
    source = f"data:image/svg+xml;base64,{base64.b64encode(chart.svg).decode('ascii')}"
    # files of a page that is passed on alone are missing, so no link to them: their names are enough
    return element(
        "figure",
        element("img", src=source, alt=chart.alt),
        element("figcaption", f"{chart.caption} ", element("code", f"{chart.name}.svg, .png, .csv")),
    )


def _notices(results: LabResults) -> list[str]:
    notices = []
    if results.missing:
        num = f"{len(results.missing)} cells" if len(results.missing) > 1 else "One cell"
        notices.append(f"{num} of the plan not run yet; the answers are of what is there.")
    if results.failed:
        num = f"{len(results.failed)} cells" if len(results.failed) > 1 else "One cell"
        notices.append(f"{num} failed; what went wrong is told below.")
    return notices


def _notice_box(notices: Sequence[str]) -> Markup | None:
    if not notices:
        return None
    return element("div", element("ul", [element("li", one) for one in notices]), class_="notices", role="note")


def _command(results: LabResults) -> str:
    """How one cell is run again, with ID for its name: by the plan's name, or by what is in its folder."""
    named = PLANS.get(results.plan.name)
    plan = results.plan.name
    if named is None or named() != results.plan:
        plan = f"{_shown(results.folder)}/{PLAN_FILE}"
    own = "".join(f" --encoder {shlex.quote(file)}" for file in results.encoder_files)
    return f"eyesmith lab run {shlex.quote(plan)} --only ID --out {shlex.quote(_shown(results.folder.parent))}{own}"


def _shown(folder: Path) -> str:
    """As a user would type it from here; its name alone where it lies elsewhere, so that no home is told."""
    try:
        return folder.resolve().relative_to(Path(os.getcwd()).resolve()).as_posix()
    except ValueError:
        return folder.name


def _cells_section(results: LabResults, answers: Answers | None) -> Markup:
    metric = None if answers is None else answers.metric
    return element(
        "section",
        element("h2", "Every cell", id="cells-title"),
        element(
            "p", "The last column makes the cell again, in the folder it names; a cell that is done is not run twice."
        ),
        cells_table(results.cells, metric, _command(results)) if results.cells else None,
        id="cells",
        aria_labelledby="cells-title",
    )


def _failed_section(results: LabResults) -> Markup:
    command = _command(results)
    lines: list[list[Child]] = [
        [one.id, one.message, element("code", command.replace("ID", one.id))] for one in results.failed
    ]
    failed = {one.id for one in results.failed}
    lines += [
        [name, "not run yet", element("code", command.replace("ID", name))]
        for name in results.missing
        if name not in failed
    ]
    return element(
        "section",
        element("h2", "What is not there", id="failed-title"),
        table(["Cell", "what it said", "again"], lines, "Cells that are missing", words=3),
        id="failed",
        aria_labelledby="failed-title",
    )


def _machine_section(results: LabResults) -> Markup:
    facts = {**results.machine, **results.versions}
    lines: list[list[Child]] = [[name, str(value)] for name, value in facts.items() if value is not None]
    return element(
        "section",
        element("h2", "Machine and versions", id="machine-title"),
        table(["What", "Here"], lines, "Machine and versions", words=2) if lines else element("p", "Not recorded."),
        id="machine",
        aria_labelledby="machine-title",
    )
