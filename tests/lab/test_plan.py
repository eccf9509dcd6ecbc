from dataclasses import replace
from pathlib import Path

import pytest

from eyesmith.errors import ConfigError
from eyesmith.lab.cells import DataFacts, cells_of, samples_as_stated
from eyesmith.lab.plan import Group, LabPlan, changed
from eyesmith.lab.plans import PLANS, read_plan


@pytest.mark.parametrize("name", PLANS)
def test_every_named_plan_is_read_by_its_name(name: str) -> None:
    assert read_plan(name) == PLANS[name]()
    assert PLANS[name]().name == name


@pytest.mark.parametrize("name", PLANS)
def test_every_cell_of_every_plan_can_be_trained(name: str) -> None:
    """A recipe may refuse an encoder, which is known when its config is made."""
    plan = PLANS[name]()
    assert cells_of(plan, {plan.data: DataFacts(split="train", samples=783)}, samples_as_stated)


def test_the_laptop_plan_is_the_papers_grid() -> None:
    plan = read_plan("laptop")
    grid = plan.groups[0]
    assert {name.partition("/")[0] for name in grid.encoders} == {"ViT", "ConvNeXt", "CoAtNet", "ViTamin"}
    assert (len(grid.sizes), len(grid.budgets), len(grid.seeds)) == (2, 3, 2)


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[2] / "docs" / "examples").glob("*.toml")), ids=lambda file: file.stem
)
def test_the_plans_of_the_docs_are_read(file: Path) -> None:
    assert read_plan(str(file)).groups


def test_a_plan_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'data = "pairs"\nmatch = "macs"\n[[groups]]\nname = "g"\nquestion = "grid"\nencoders = ["ViTamin"]\n'
        "budgets = [1000, 2000]\n"
    )
    plan = read_plan(str(file))
    assert (plan.name, plan.data, plan.match) == ("mine", "pairs", "macs")
    assert plan.groups[0].budgets == (1000.0, 2000.0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("data = ", "cannot be read"),
        ('dta = "x"\ngroups = []\n', "unknown field 'dta'; did you mean data"),
        ("groups = []\n", "groups: expected one or more"),
        (
            '[[groups]]\nname = "g"\nquestion = "grid"\nencoders = ["a", "a"]\nbudgets = [1]\n',
            "encoders: expected one or more, each once",
        ),
        ('[[groups]]\nname = "g"\nquestion = "grid"\nencoders = ["a"]\nbudgets = [0]\n', "positive budgets"),
        (
            '[[groups]]\nname = "g"\nquestion = "quality"\nencoders = ["a"]\nbudgets = [1]\ndata = ["x", "y"]\n',
            "eval_data: data sets are compared",
        ),
    ],
)
def test_a_wrong_file_is_said_to_be_wrong(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=words):
        read_plan(str(file))


def test_an_unknown_plan_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="did you mean laptop"):
        read_plan("labtop")


def test_changes_reach_the_groups_that_do_not_compare_them() -> None:
    grid = Group(name="grid", question="grid", encoders=("A", "B"), sizes=("s", "m"), budgets=(1.0, 2.0, 3.0))
    text = replace(grid, name="text", question="ltt", recipes=("a", "b"), sizes=("m",), budgets=(2.0,))
    patches = replace(grid, name="patches", question="resolution", encoders=("A", "C"), sizes=("m",), budgets=(3.0,))
    plan = LabPlan(name="p", title="p", groups=(grid, text, patches))
    new = changed(
        plan, encoders=("D",), recipes=("c",), seeds=(5,), budgets=(20.0, 10.0), sizes=("s",), image_px=32, data=None
    )
    assert [one.encoders for one in new.groups] == [("D",), ("D",), ("A", "C")]
    assert [one.recipes for one in new.groups] == [("c",), ("a", "b"), ("c",)]
    assert [one.seeds for one in new.groups] == [(5,)] * 3
    assert [one.budgets for one in new.groups] == [(10.0, 20.0), (20.0,), (20.0,)]
    assert [one.sizes for one in new.groups] == [("s",)] * 3
    assert (new.image_px, new.data) == (32, plan.data)
