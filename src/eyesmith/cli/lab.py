"""`eyesmith lab`: encoders, sizes, budgets, data and recipes compared under one protocol."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import Verb, call, dispatch
from eyesmith.cli.failures import on_interrupt
from eyesmith.cli.numbers import check_place
from eyesmith.cli.output import AsJson, answer, messages, print_json, print_table
from eyesmith.cli.overrides import parse_config
from eyesmith.errors import ConfigError
from eyesmith.lab.place import PlaceConfig
from eyesmith.lab.plans import PLANS, read_plan

_HERE = "eyesmith.cli.lab"
_VERBS = {
    "run": Verb(_HERE, "run a plan, or go on with it, and write its page: `run PLAN [field=value ...]`", "run"),
    "report": Verb(_HERE, "write a plan's page again from what is there", "report"),
    "plans": Verb(_HERE, "the plans there are", "plans"),
    "encoders": Verb(_HERE, "the encoders that plans can name, with their parameters and multiply-adds", "encoders"),
    "check": Verb(_HERE, "whether an encoder in a file of yours can enter", "check"),
}


@dataclass(frozen=True, kw_only=True)
class LabOptions:
    """What can be changed of a plan on the command line. Empty values leave the plan's own."""

    out: Path = Path("runs/lab")
    """Folder of all cells and of the plan's answers; plans share the cells of one folder."""
    data: str = ""
    """What is trained on: a made data set, shards, a table or a folder; see docs/data.md."""
    eval_data: str = ""
    """What is measured on; empty: the data trained on, on its other splits."""
    splits: tuple[str, ...] = ()
    """Splits of it; all but train."""
    encoder: tuple[str, ...] = ()
    """Files with encoders of yours, which join the plan's grid; docs/own-encoder.md."""
    encoders: tuple[str, ...] = ()
    """The grid's encoders, in place of the plan's; `eyesmith lab encoders` lists names."""
    sizes: tuple[str, ...] = ()
    """The grid's sizes."""
    budgets: tuple[float, ...] = ()
    """The grid's budgets; other groups follow it."""
    budget_unit: Literal["", "samples", "tflop", "seconds"] = ""
    """What budgets are in: images seen, 10^12 operations, or seconds of training on this machine."""
    seeds: tuple[int, ...] = ()
    recipes: tuple[str, ...] = ()
    """Of all groups but those that compare recipes."""
    match: Literal["", "parameters", "macs"] = ""
    """What the families have in common at each size."""
    image_px: int = 0
    batch_size: int = 0
    keep: Literal["", "largest", "all", "none"] = ""
    """Cells whose weights are kept: those of the largest budget, all, or none."""
    only: tuple[str, ...] = ()
    """Run these cells alone, by id."""
    retry: bool = True
    """Run cells again that failed before."""
    place: PlaceConfig = field(default_factory=PlaceConfig)

    def __post_init__(self) -> None:
        if not all(budget > 0 for budget in self.budgets):
            raise ConfigError(f"budgets: expected numbers above 0, got {self.budgets}")


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return dispatch(_VERBS, argv, prog=prog, about="Compare image encoders under one protocol, on any machine.")


def run(argv: list[str], prog: str) -> int:
    """Run a plan; --plan prints its cells and cost instead."""
    from eyesmith.lab.run import run_lab

    shows = "--plan" in argv
    as_json = "--json" in argv
    name, options = _parsed([word for word in argv if word not in ("--plan", "--json")], prog)
    check_place("out", options.out, "folder")
    lab = _lab(name, options)
    if shows:
        return _show_plan(lab, as_json)
    with on_interrupt(
        f"finished cells are kept, running ones saved their state; the same `{prog} {name}` command goes on"
    ):
        found = run_lab(lab, only=options.only, retry=options.retry, console=messages())
    return _show(found, as_json)


def report(argv: list[str], prog: str) -> int:
    """Write the page of a plan from the cells that are done."""
    from eyesmith.lab.run import results

    as_json = "--json" in argv
    name, options = _parsed([word for word in argv if word != "--json"], prog)
    return _show(results(_lab(name, options), measures=True), as_json)


def plans(argv: list[str], prog: str) -> int:
    """List the plans."""
    return call(_plans, argv, prog=prog)


def encoders(argv: list[str], prog: str) -> int:
    """List the encoders."""
    return call(_encoders, argv, prog=prog)


def check(argv: list[str], prog: str) -> int:
    """Check a user's encoder."""
    return call(_check, argv, prog=prog)


def _parsed(argv: list[str], prog: str) -> tuple[str, LabOptions]:
    if argv and argv[0] in ("-h", "--help"):
        parse_config(LabOptions(), ["--help"], prog=f"{prog} PLAN")
    name, *words = argv or ["="]
    if name.startswith("-") or "=" in name:
        raise ConfigError(f"expected a plan first: `{prog} PLAN`, one of {', '.join(PLANS)}, or a .toml or .json file")
    return name, parse_config(LabOptions(), words, prog=f"{prog} {name}")


def _lab(name: str, options: LabOptions) -> Any:
    from eyesmith.lab.check import require_file
    from eyesmith.lab.plan import changed
    from eyesmith.lab.run import Lab

    plan = read_plan(name)
    taken = ("data", "eval_data", "splits", "encoders", "sizes", "budgets", "budget_unit", "seeds", "recipes", "match")
    values = {key: getattr(options, key) or None for key in (*taken, "image_px", "batch_size", "keep")}
    if options.encoder:
        grid = next((group for group in plan.groups if group.question == "grid"), plan.groups[0])
        side, sizes = options.image_px or plan.image_px, options.sizes or grid.sizes
        own = [require_file(file, image_px=side, sizes=sizes) for file in options.encoder]
        values["encoders"] = (*(options.encoders or grid.encoders), *own)
    return Lab(plan=changed(plan, **values), out=options.out, place=options.place, encoder_files=options.encoder)


def _show_plan(lab: Any, as_json: bool) -> int:
    from eyesmith.lab.cost import costs
    from eyesmith.lab.place import room_of

    found = costs(lab.cells(), lab.out)
    if as_json:
        print_json([asdict(cost) for cost in found])
        return 0
    columns = ("cell", "images", "TFLOP", "seconds", "")
    rows = [
        (c.id, f"{c.samples:,}", f"{c.tflop:,.2f}", f"{c.seconds:,.0f}", "done" if c.is_done else "") for c in found
    ]
    print_table(columns, rows, right=columns[1:4])
    left = [cost for cost in found if not cost.is_done]
    room = room_of(lab.place)
    hours = sum(cost.seconds for cost in left) / min(room, max(len(left), 1)) / 3600
    basis = "by cells that were run here" if any(cost.is_measured for cost in found) else "at a nominal 25 GFLOP/s"
    answer(
        f"{len(found)} cells, {len(found) - len(left)} done; left: {sum(c.samples for c in left):,} images, "
        f"{sum(c.tflop for c in left):,.1f} TFLOP, about {hours:.2f} hours with {room} at a time ({basis})"
    )
    return 0


def _show(found: Any, as_json: bool) -> int:
    from eyesmith.lab.page import write_page
    from eyesmith.lab.result import summary

    page = write_page(found)
    if as_json:
        print_json([_row(cell, found) for cell in found.cells])
    else:
        columns, rows = summary(found.cells)
        print_table(columns, rows, right=columns[3:])
    if found.failed:
        answer(f"{len(found.failed)} cells failed; their messages are on the page")
    if found.missing:
        answer(f"{len(found.missing)} cells were not run yet; the same command goes on")
    answer(f"{len(found.cells)} cells done; page: {page}")
    return 1 if found.failed else 0


def _row(cell: Any, found: Any) -> dict[str, Any]:
    row = asdict(cell) | {"folder": str(cell.folder), "rows": [asdict(one) for one in cell.rows]}
    return row | {"plan": found.plan.name}


def _plans(*, as_json: AsJson = False) -> int:
    """The plans there are."""
    rows = [
        {"plan": name, "title": make().title, "groups": len(make().groups), "about": (make.__doc__ or "").strip()}
        for name, make in PLANS.items()
    ]
    if as_json:
        print_json(rows)
        return 0
    print_table(("plan", "what it compares"), [(row["plan"], row["about"]) for row in rows])
    return 0


def _encoders(
    *, image_px: int = 64, match: Literal["parameters", "macs"] = "parameters", as_json: AsJson = False
) -> int:
    """Every encoder by size: parameters without projection, multiply-adds for one image."""
    from eyesmith.lab.encoders import ENCODER_NAMES, SIZES, contender
    from eyesmith.models.cost import encoder_cost

    rows = []
    for name in ENCODER_NAMES:
        for size in SIZES:
            one = contender(name, size, image_px=image_px, match=match)
            cost = encoder_cost(one.image)
            rows.append(
                {
                    "encoder": name,
                    "size": size,
                    "parameters": cost.tower.params,
                    "mmacs": cost.tower.macs / 1e6,
                    "stride": cost.stride,
                    "paper": one.paper,
                }
            )
    if as_json:
        print_json(rows)
        return 0
    columns = ("encoder", "size", "parameters", "M multiply-adds", "stride", "stands for")
    cells = [
        (row["encoder"], row["size"], f"{row['parameters']:,}", f"{row['mmacs']:.1f}", row["stride"], row["paper"])
        for row in rows
    ]
    print_table(columns, cells, right=columns[2:5])
    return 0


def _check(
    file: Annotated[Positional[Path], tyro.conf.arg(metavar="FILE", help="A Python file with an encoder.")],
    /,
    *,
    image_px: int = 64,
    as_json: AsJson = False,
) -> int:
    """Run a user's encoder through everything that the lab asks of one."""
    from eyesmith.lab.check import check_file

    findings = check_file(file, image_px=image_px)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            answer(f"note: {finding}" if finding.is_note else str(finding))
        if all(finding.is_note for finding in findings):
            answer(f"{file}: can enter; `eyesmith lab run PLAN --encoder {file}`")
    return int(any(not finding.is_note for finding in findings))
