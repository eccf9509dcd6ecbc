import importlib.util
import json
import sys

import pytest

from eyesmith.data.evaluation import babel_imagenet, class_names, names, open_evaluation_set, templates_for
from eyesmith.errors import ConfigError, DataError, MissingDependencyError
from eyesmith.eval.sets import TASKS


@pytest.fixture
def lists(tmp_path, monkeypatch):
    """A stand-in for clip-benchmark: its JSON files only."""
    package = tmp_path / "site" / "clip_benchmark"
    (package / "datasets").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('nobody needs to import this')\n")
    for name, content in {
        "en_classnames": {"eurosat": ["forest", "river"], "imagenet1k": ["x"]},
        "en_zeroshot_classification_templates": {"eurosat": ["a satellite photo of {c}."], "imagenet1k": ["a {c}"]},
        "jp_classnames": {"imagenet1k": ["鯉"]},
        "jp_zeroshot_classification_templates": {"imagenet1k": ["{c}の写真"]},
        "babel_imagenet": {"DE": [[1, 8], ["Goldfisch", "Henne"]]},
        "nllb_dist13b_prompts": {"DE": ["ein Foto von {}."]},
    }.items():
        (package / "datasets" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    for name in [name for name in sys.modules if name.partition(".")[0] == "clip_benchmark"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(package.parent))
    names._clip_benchmark.cache_clear()
    yield
    names._clip_benchmark.cache_clear()


def test_lists_come_from_the_package_without_importing_it(lists):
    assert class_names("eurosat") == ("forest", "river")
    assert templates_for("eurosat") == ("a satellite photo of {c}.",)
    assert templates_for("vtab/eurosat") == templates_for("eurosat")
    assert "clip_benchmark" not in sys.modules


def test_other_languages(lists):
    assert (class_names("imagenet1k", language="jp"), templates_for("imagenet1k", language="jp")) == (
        ("鯉",),
        ("{c}の写真",),
    )
    assert babel_imagenet("de") == ((1, 8), ("Goldfisch", "Henne"), ("ein Foto von {c}.",))
    with pytest.raises(ConfigError, match="language: expected one of en, ar, cn, it, jp"):
        class_names("imagenet1k", language="xx")
    with pytest.raises(ConfigError, match="no 'xx'"):
        babel_imagenet("xx")


def test_an_unknown_name_never_falls_back_to_other_templates(lists):
    with pytest.raises(ConfigError, match=r"no installed templates for 'eurosatt'; did you mean eurosat\?"):
        templates_for("eurosatt")
    with pytest.raises(ConfigError, match="no installed class names for 'objectnet'"):
        class_names("objectnet")


def test_a_set_without_its_own_files_takes_the_lists_it_is_told(lists, tmp_path, write_set, picture):
    folder = write_set(
        tmp_path / "set", [[{"png": picture(n), "cls": b"%d" % n} for n in range(2)]], classes=None, templates=None
    )
    found = open_evaluation_set(folder, prompts="eurosat", class_list="eurosat")
    assert (found.classes, found.templates) == (("forest", "river"), ("a satellite photo of {c}.",))
    (folder / "classnames.txt").write_text("wood\nwater\n")
    (folder / "zeroshot_classification_templates.txt").write_text("{c} from above\n")
    found = open_evaluation_set(folder, prompts="eurosat", class_list="eurosat")  # its own come first
    assert (found.classes, found.templates) == (("wood", "water"), ("{c} from above",))
    with pytest.raises(DataError, match="templates.txt: not there"):
        (folder / "zeroshot_classification_templates.txt").unlink()
        open_evaluation_set(folder)


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(names, "package_file", lambda package, file: None)
    names._clip_benchmark.cache_clear()
    with pytest.raises(MissingDependencyError, match="pip install clip-benchmark"):
        class_names("eurosat")


def test_imagenet_comes_from_open_clip():
    if importlib.util.find_spec("open_clip") is None:
        pytest.skip("open_clip_torch is not installed")
    is_imported = "open_clip" in sys.modules
    found = class_names("imagenet1k")
    assert found[:3] == ("tench", "goldfish", "great white shark")
    assert (len(found), len(set(found))) == (1000, 998)
    assert (found[657], found[744], found[836], found[837]) == ("missile", "missile", "sunglasses", "sunglasses")
    templates = templates_for("imagenet1k")
    assert len(templates) == 80
    assert (templates[0], templates[-1]) == ("a bad photo of a {c}.", "a tattoo of the {c}.")
    assert all(template.count("{c}") == 1 for template in templates)
    assert ("open_clip" in sys.modules) == is_imported  # importing it takes seconds


def test_the_lists_of_clip_benchmark_fit_the_tasks():
    if importlib.util.find_spec("clip_benchmark") is None:
        pytest.skip("clip-benchmark is not installed")
    for task in TASKS.values():
        if task.class_list:
            assert len(class_names(task.class_list)) == task.num_classes, task.key
        if task.prompts:
            assert all("{c}" in template for template in templates_for(task.prompts)), task.key
    assert (len(templates_for("vtab/caltech101")), len(templates_for("cifar10")), len(templates_for("svhn"))) == (
        34,
        18,
        6,
    )
    assert class_names("clevr_closest_object_distance")[3] == ""
    counts = {code: len(templates_for("imagenet1k", language=code)) for code in ("ar", "cn", "it", "jp")}
    assert counts == {"ar": 55, "cn": 80, "it": 49, "jp": 37}
    assert len(names._clip_benchmark("babel_imagenet.json")) == 93
    indices, words, _ = babel_imagenet("DE")
    assert len(indices) == len(words) <= 1000


@pytest.fixture
def open_clip_file(tmp_path, monkeypatch):
    path = tmp_path / "zero_shot_metadata.py"
    monkeypatch.setattr(names, "package_file", lambda package, file: path)
    names._open_clip.cache_clear()
    yield path
    names._open_clip.cache_clear()


def test_the_file_of_open_clip_is_read_and_not_run(open_clip_file, tmp_path):
    mark = tmp_path / "ran"
    open_clip_file.write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "IMAGENET_CLASSNAMES = ('tench', \"crane (bird)\",)\n"
        "OPENAI_IMAGENET_TEMPLATES = (lambda c: f'a {c}.', lambda c: f'{c}, a {{x}} of {c}', lambda c: 'plain')\n"
    )
    assert class_names("imagenet1k") == ("tench", "crane (bird)")
    assert templates_for("imagenet1k") == ("a {c}.", "{c}, a {x} of {c}", "plain")
    assert not mark.exists()


@pytest.mark.parametrize("table", ["", "IMAGENET_CLASSNAMES = (1, 2)", "IMAGENET_CLASSNAMES = names()"])
def test_another_file_of_open_clip_is_named(open_clip_file, table):
    open_clip_file.write_text(table)
    with pytest.raises(DataError, match=r"zero_shot_metadata\.py"):
        class_names("imagenet1k")
