"""The parts of the page that tell how the model was made, how to use it, and whose pictures it learned from."""

import shlex

from eyesmith.report.content import ReportData, RunFacts, SourceFacts
from eyesmith.report.markup import Child, Markup, element, join
from eyesmith.report.words import count, duration, params, shorten, split_title

# settings that a reader asks for first; all others are one click away
CHOSEN_SETTINGS = {
    "epochs": "Epochs",
    "batch_size": "Batch size",
    "optim.peak_lr": "Peak learning rate",
    "optim.warmup_frac": "Warm-up, share of steps",
    "optim.weight_decay": "Weight decay",
    "optim.ema_decay": "Decay of averaged weights",
    "precision": "Precision",
    "seed": "Seed",
}


def making_section(data: ReportData) -> Markup:
    """Data, machine, time, parameters and settings of the run, beside the baseline's."""
    runs = [data.ours] if data.baseline is None else [data.ours, data.baseline]
    rows: list[tuple[str, list[str]]] = [
        ("State", [_state(run) for run in runs]),
        ("Training time", [duration(run.train_time_s) for run in runs]),
        ("Steps", [count(run.steps) for run in runs]),
        ("Pictures shown", [_shown(run) for run in runs]),
        ("Pictures per second", [f"{run.images_per_s:.0f} (median)" if run.images_per_s else "–" for run in runs]),
        ("Picture size", [_size(run) for run in runs]),
        ("Parameters, image tower", [params(run.image_params) for run in runs]),
        ("Parameters, text tower", [_text_params(run) for run in runs]),
        ("Parameters trained", [params(run.trained_params) for run in runs]),
        ("Machine", [", ".join(map(_machine_part, run.machine)) or "not recorded" for run in runs]),
        ("Software", [", ".join(f"{key} {value}" for key, value in run.versions) or "not recorded" for run in runs]),
    ]
    rows += _chosen_settings(runs)
    head = element(
        "tr",
        element("td", element("span", "", class_="soft")),
        [element("th", run.name, scope="col", class_=f"t-{run.role}") for run in runs],
    )
    body = [
        element("tr", element("th", name, scope="row"), [element("td", value) for value in values])
        for name, values in rows
        if any(value not in ("–", "") for value in values)
    ]
    table = element("table", element("thead", head), element("tbody", body), class_="facts")
    return element(
        "section",
        element("h2", "How it was made", id="making-title"),
        _data_paragraphs(data),
        element("div", table, class_="scroll", tabindex=0, role="region", aria_label="Facts of the runs"),
        [_health(run) for run in runs if run.health],
        [_all_settings(run) for run in runs if run.settings],
        id="making",
        aria_labelledby="making-title",
    )


def _machine_part(pair: tuple[str, str]) -> str:
    key, value = pair
    if not value.isdigit():
        return value  # "Linux x86_64", but "2 cores"
    return f"{value} {key.removesuffix('s') if value == '1' else key}"


def _state(run: RunFacts) -> str:
    if run.is_finished:
        told = "finished"
    elif run.planned_steps:
        told = f"stopped at step {count(run.steps)} of {count(run.planned_steps)}"
    else:
        told = "stopped before its end"
    return told + (f", resumed {run.resumes} times" if run.resumes > 1 else ", resumed once" if run.resumes else "")


def _shown(run: RunFacts) -> str:
    if run.samples is None:
        return "–"
    return count(run.samples) + (f", {run.epochs:.1f} rounds through the training data" if run.epochs else "")


def _size(run: RunFacts) -> str:
    return "–" if run.image_size_px is None else f"{run.image_size_px[1]} × {run.image_size_px[0]} pixels"


def _text_params(run: RunFacts) -> str:
    return params(run.text_params) + (f" ({run.text_tower})" if run.text_tower else "")


def _chosen_settings(runs: list[RunFacts]) -> list[tuple[str, list[str]]]:
    settings = [dict(run.settings) for run in runs]
    return [
        (title, [shorten(values.get(key, "–"), 60) for values in settings]) for key, title in CHOSEN_SETTINGS.items()
    ]


def _health(run: RunFacts) -> Markup:
    """What the health rules said while the run went, in order."""
    listed = [element("li", f"Step {count(step)}: {shorten(sentence, 600)}") for step, sentence in run.health]
    times = "once" if len(listed) == 1 else f"{len(listed)} times"
    return join(
        element("h3", f"What looked wrong while {run.name} trained"),
        element("p", f"The rules that watch a run spoke {times}:"),
        element("ul", listed),
    )


def _all_settings(run: RunFacts) -> Markup:
    rows = [
        element("tr", element("th", key, scope="row"), element("td", shorten(value, 300)))
        for key, value in run.settings
    ]
    table = element("table", element("tbody", rows), class_="facts")
    box = element("div", table, class_="scroll", tabindex=0, role="region", aria_label=f"All settings of {run.name}")
    return element("details", element("summary", f"All {len(rows)} settings of {run.name}"), box)


def _data_paragraphs(data: ReportData) -> list[Child]:
    facts = data.data
    parts: list[Child] = []
    if facts.splits:
        listed = ", ".join(f"{split_title(split.name).lower()} ({count(split.num_samples)})" for split in facts.splits)
        size = f", drawn {facts.size_px} pixels wide" if facts.size_px else ""
        names = f" of {count(facts.num_classes)} things" if facts.num_classes else ""
        version = f" (version {facts.maker_version})" if facts.maker_version else ""
        command = element("code", f"eyesmith data make {facts.maker}")
        maker = join(", made by ", command, version) if facts.maker else None
        parts.append(element("p", f"Data set “{facts.name}”{names}{size}", maker, f": {listed}."))
    if facts.split_rule:
        parts.append(element("p", f"How it was split: {shorten(facts.split_rule, 600)}"))
    if facts.templates:
        listed = ", ".join(f"“{shorten(template)}”" for template in facts.templates[:8])
        parts.append(element("p", f"Names are put into these sentences and averaged: {listed}."))
    return parts


def use_section(data: ReportData) -> Markup:
    """Commands and code that open the run folder."""
    folder = data.ours.folder
    shell = shlex.quote(folder)
    names = _example_names(data)
    listed = " ".join(shlex.quote(name) for name in names)
    wanted = data.searches[0].query if data.searches else "a drawing"
    pictures = "FOLDER"
    if data.data.folder and data.gallery is not None:
        pictures = f"{shlex.quote(data.data.folder)} --split {shlex.quote(data.gallery.split)}"
    python = (
        "import eyesmith\n\n"
        f"clip = eyesmith.load({folder!r})\n"
        f"names = {names!r}\n"
        "clip.classify(['picture.png'], names)             # probabilities, one row a picture\n"
        "clip.encode_image(['picture.png'])                # unit vectors, one row a picture\n"
        f"clip.encode_text([{wanted!r}])\n"
    )
    commands = (
        f"eyesmith classify {shell} picture.png --names {listed}\n"
        f"eyesmith search {shell} {pictures} {shlex.quote(wanted)}\n"
        f"eyesmith verify {shell}\n"
    )
    return element(
        "section",
        element("h2", "Use this model", id="use-title"),
        element("p", "The run folder is the model: it needs no network and no other file."),
        element("h3", "In a terminal"),
        element("pre", element("code", commands), tabindex=0),
        element("h3", "In Python"),
        element("pre", element("code", python), tabindex=0),
        id="use",
        aria_labelledby="use-title",
    )


def _example_names(data: ReportData) -> list[str]:
    truths = [example.truth for group in (data.gallery.groups if data.gallery else ()) for example in group.examples]
    return [shorten(name, 40) for name in list(dict.fromkeys(truths))[:3]] or ["cat", "dog", "apple"]


def _author(source: SourceFacts) -> Markup:
    # a link is followed by the reader only; other schemes than these have no place in it
    name = source.author or ("link" if source.url else "–")
    is_link = source.url.startswith(("https://", "http://"))
    return element("a", name, href=source.url, rel="noreferrer") if is_link else join(name)


def sources_section(data: ReportData) -> Markup | None:
    """Origin and licence of every picture; None where the data set names no source."""
    if not data.data.sources:
        return None
    head = element(
        "tr", [element("th", name, scope="col") for name in ("Source", "By", "Version", "Licence", "SHA-256")]
    )
    rows = [
        element(
            "tr",
            element("th", source.name, scope="row"),
            element("td", _author(source)),
            element("td", source.version or "–"),
            element("td", source.licence or "not stated"),
            element("td", element("span", shorten(source.sha256, 17), class_="hash")),
        )
        for source in data.data.sources
    ]
    table = element("table", element("thead", head), element("tbody", rows))
    return element(
        "section",
        element("h2", "Whose pictures these are", id="sources-title"),
        element(
            "p",
            "The pictures on this page and in the training data come from these sources, under these licences. Whoever "
            "passes the pictures on has to keep the attribution.",
        ),
        element("div", table, class_="scroll", tabindex=0, role="region", aria_label="Sources and licences"),
        id="sources",
        aria_labelledby="sources-title",
    )
