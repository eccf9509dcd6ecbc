"""The parts of the page that show measurements: splits, learning curves, styles."""

from collections.abc import Sequence

from eyesmith.eval.heads.pixel_neighbour import TASK as PIXEL_TASK
from eyesmith.report.charts import Bar, Line, bar_rows, line_chart
from eyesmith.report.content import Curve, Interval, ReportData, Score
from eyesmith.report.markup import Markup, element
from eyesmith.report.words import (
    SPACE,
    SPLIT_MEANINGS,
    count,
    interval_text,
    metric_title,
    percent,
    split_title,
)

OTHER_TASKS = {
    "zero_shot_all": (
        "Naming with every name as a candidate",
        "As above, but the model may choose among all names of the data set, also those outside the split.",
    ),
    "retrieval": (
        "Search: the picture's own text",
        "Image R@k (recall): among the k pictures nearest to a text is its own. Text R@k: among the k texts nearest "
        "to a picture is one of its own. Another picture of the same thing counts as wrong.",
    ),
    "retrieval_label": (
        "Search: any picture of the same thing",
        "As before, but every picture or text of the same thing counts as right.",
    ),
}
SPLIT_ORDER = ("unseen_drawing", "unseen_style", "unseen_concept")


def splits_in_order(names: Sequence[str]) -> list[str]:
    """The names without repeats: the ones we know in our order, then the others as they come."""
    known = [name for name in SPLIT_ORDER if name in names]
    return known + [name for name in dict.fromkeys(names) if name not in SPLIT_ORDER]


def main_score(data: ReportData) -> Score | None:
    """The number the page leads with: zero-shot top-1 of the first split, or None where nothing was evaluated."""
    scores = [score for score in data.scores if score.task == "zero_shot" and score.metric == "acc1" and score.ours]
    for split in splits_in_order([score.split for score in scores]):
        return next(score for score in scores if score.split == split)
    return None


def results_section(data: ReportData) -> Markup | None:
    """Bars and table of every split; None where nothing was evaluated."""
    if not data.scores:
        return None
    naming = [score for score in data.scores if score.task == "zero_shot"]
    tasks = dict.fromkeys(score.task for score in data.scores)
    others = [task for task in tasks if task not in ("zero_shot", PIXEL_TASK)]
    splits = splits_in_order([score.split for score in naming])
    panels = [_split_panel(data, split, [score for score in naming if score.split == split]) for split in splits]
    return element(
        "section",
        element("h2", "How good it is", id="results-title"),
        element(
            "p",
            "The model names a picture by comparing it with the names of all candidates. Top-1: the best name is "
            "right. Top-5: the right name is among the best five.",
        ),
        element("div", panels, class_="panels") if panels else None,
        _score_table(data, naming, "Naming pictures (zero-shot classification)") if naming else None,
        _pixel_note([score for score in data.scores if score.task == PIXEL_TASK]),
        [_other_task(data, task) for task in others],
        id="results",
        aria_labelledby="results-title",
    )


def _pixel_note(scores: list[Score]) -> Markup | None:
    """What no encoder at all reaches: of no model, so in no table of models."""
    if not scores:
        return None
    found = [
        f"{metric_title(score.metric)} {percent(score.ours.value)} ({split_title(score.split).lower()})"
        for score in scores
        if score.ours is not None
    ]
    told = "For scale, naming each picture by the training picture nearest to it, pixel by pixel, without any model: "
    return element("p", told + ", ".join(found) + ".", class_="soft")


def _other_task(data: ReportData, task: str) -> Markup:
    title, meaning = OTHER_TASKS.get(task, (task.replace("_", " ").capitalize(), ""))
    table = _score_table(data, [score for score in data.scores if score.task == task], title)
    return element(
        "details", element("summary", title), element("p", meaning, class_="soft") if meaning else None, table
    )


def _split_panel(data: ReportData, split: str, scores: list[Score]) -> Markup:
    blocks: list[Markup] = []
    for score in scores:
        bars = [_bar("ours", data.ours.name, score.ours)]
        if data.baseline is not None and score.baseline is not None:
            bars.append(_bar("baseline", data.baseline.name, score.baseline))
        if score.chance is not None:
            bars.append(_bar("chance", "chance", Interval(value=score.chance)))
        blocks += [element("h3", f"{split_title(split)}, {metric_title(score.metric)}"), bar_rows(bars)]
    facts = next((facts for facts in data.data.splits if facts.name == split), None)
    num_samples = next((score.num_samples for score in scores if score.num_samples is not None), None)
    told = [] if num_samples is None else [f"{count(num_samples)} pictures"]
    if facts is not None and facts.num_classes is not None:
        told.append(f"{count(facts.num_classes)} names to choose from")
    meaning = [SPLIT_MEANINGS[split].capitalize()] if split in SPLIT_MEANINGS else []
    sizes = [", ".join(told)] if told else []
    caption = ". ".join([*meaning, *sizes, f"Bars from 0 to 100{SPACE}%, whiskers: 95{SPACE}% interval."])
    return element("figure", blocks, element("figcaption", caption), class_="panel")


def _bar(role: str, name: str, interval: Interval | None) -> Bar:
    if interval is None:
        return Bar(role=role, label=name, value=None, shown="–")
    return Bar(
        role=role, label=name, value=interval.value, low=interval.low, high=interval.high, shown=percent(interval.value)
    )


def _score_table(data: ReportData, scores: list[Score], title: str) -> Markup:
    has_baseline = data.baseline is not None
    head = [
        element("th", "Split", scope="col"),
        element("th", "Metric", scope="col"),
        element("th", data.ours.name, scope="col", class_="n t-ours"),
        element("th", data.baseline.name, scope="col", class_="n t-baseline") if data.baseline else None,
        element("th", "Chance", scope="col", class_="n"),
        element("th", "n", scope="col", class_="n"),
    ]
    rows: list[Markup] = []
    for split in splits_in_order([score.split for score in scores]):
        for score in (score for score in scores if score.split == split):
            cells = [
                element("th", split_title(split), scope="row"),
                element("td", metric_title(score.metric)),
                _interval_cell(score.ours, "t-ours"),
                _interval_cell(score.baseline, "t-baseline") if has_baseline else None,
                element("td", percent(score.chance), class_="n"),
                element("td", count(score.num_samples), class_="n"),
            ]
            rows.append(element("tr", cells))
    table = element("table", element("thead", element("tr", head)), element("tbody", rows), aria_label=title)
    return element(
        "figure",
        element("div", table, class_="scroll", tabindex=0, role="region", aria_label=title),
        element("figcaption", f"{title}. Small figures: 95{SPACE}% interval; n: how many were asked."),
    )


def _interval_cell(interval: Interval | None, role: str) -> Markup:
    shown = interval_text(interval)
    value = percent(interval.value if interval else None)
    return element("td", value, element("small", shown) if shown else None, class_=f"n {role}")


def curves_section(data: ReportData) -> Markup | None:
    """Loss and accuracy over time; None where no log has a point."""
    curves = [curve for curve in data.curves if curve.loss or curve.evaluations]
    if not curves:
        return None
    longest = max((points[-1][0] for curve in curves for points in _all_points(curve)), default=0.0)
    unit, unit_s = ("seconds", 1.0) if longest < 180 else ("minutes", 60.0) if longest < 3 * 3600 else ("hours", 3600.0)
    axis = f"{unit} of training"
    score = main_score(data)
    panels: list[Markup] = []
    key = _curve_key(curves, score)
    if key is not None:
        split, metric = key.split("/", 1)
        title = f"{split_title(split)}, {metric_title(metric)}"
        lines = _lines(curves, unit_s, key, 100.0)
        chance = next((s.chance for s in data.scores if (s.split, s.metric) == (split, metric)), None)
        panels.append(
            _curve_panel(
                f"Accuracy: {title}",
                line_chart(
                    lines,
                    x_label=axis,
                    y_label="% right",
                    description=f"{title} over {axis}. {_spoken(lines, ' %')}",
                    y_format=lambda value: percent(value / 100),
                    chance=None if chance is None else 100 * chance,
                ),
                "Measured during training, so the last dot may lie before the end; the table above is the final word.",
            )
        )
    lines = _lines(curves, unit_s, None, 1.0)
    if lines:
        panels.append(
            _curve_panel(
                "Training loss",
                line_chart(
                    lines,
                    x_label=axis,
                    y_label="loss (nats per pair)",
                    description=f"Training loss over {axis}. {_spoken(lines, '')}",
                    y_format=lambda value: f"{value:.2f}",
                ),
                "Contrastive loss on the training pictures: how far the model is from pairing picture and text.",
            )
        )
    return element(
        "section",
        element("h2", "How it learned", id="curves-title"),
        element("p", "Both models on one clock: the time spent training, evaluation left out.")
        if len(curves) > 1
        else None,
        element("div", panels, class_="panels"),
        id="curves",
        aria_labelledby="curves-title",
    )


def _all_points(curve: Curve) -> list[tuple[tuple[float, float], ...]]:
    return [points for points in (curve.loss, *curve.evaluations.values()) if points]


def _curve_key(curves: list[Curve], score: Score | None) -> str | None:
    keys = [key for curve in curves for key, points in curve.evaluations.items() if points and "/" in key]
    wanted = f"{score.split}/{score.metric}" if score else ""
    return wanted if wanted in keys else next((key for key in keys if key.endswith("/acc1")), keys[0] if keys else None)


def _lines(curves: list[Curve], unit_s: float, key: str | None, factor: float) -> list[Line]:
    lines: list[Line] = []
    for curve in curves:
        points = curve.loss if key is None else curve.evaluations.get(key, ())
        if points:
            scaled = [(time_s / unit_s, factor * value) for time_s, value in points]
            lines.append(Line(role=curve.role, label=curve.name, points=scaled, has_dots=key is not None))
    return lines


def _spoken(lines: list[Line], unit: str) -> str:
    ends = [(line.label, line.points[0][1], line.points[-1][1]) for line in lines]
    return " ".join(f"{label}: from {first:.2f}{unit} to {last:.2f}{unit}." for label, first, last in ends)


def _curve_panel(title: str, chart: Markup, caption: str) -> Markup:
    return element("figure", element("h3", title), chart, element("figcaption", caption), class_="panel")


def styles_section(data: ReportData) -> Markup | None:
    """Top-1 for each style, hardest first; None where the data set has a single style."""
    if len(data.styles) < 2:
        return None
    ordered = sorted(data.styles, key=lambda style: style.ours.value)
    panels: list[Markup] = []
    for style in ordered:
        bars = [_bar("ours", data.ours.name, style.ours)]
        if data.baseline is not None and style.baseline is not None:
            bars.append(_bar("baseline", data.baseline.name, style.baseline))
        title = element("h3", style.style, " ", element("span", f"{count(style.num_samples)} pictures", class_="soft"))
        panels.append(element("div", title, bar_rows(bars), class_="panel"))
    hardest, easiest = ordered[0], ordered[-1]
    return element(
        "section",
        element("h2", "Which style is hardest", id="styles-title"),
        element(
            "p",
            f"{split_title(data.style_split)}, sorted by who drew them. Hardest is {hardest.style} "
            f"({percent(hardest.ours.value)} top-1), easiest {easiest.style} ({percent(easiest.ours.value)}). "
            "Where whiskers overlap, the order may be luck.",
        ),
        element(
            "figure",
            element("div", panels, class_="panels"),
            element(
                "figcaption", f"Top-1 accuracy per style, bars from 0 to 100{SPACE}%, whiskers: 95{SPACE}% interval."
            ),
        ),
        id="styles",
        aria_labelledby="styles-title",
    )
