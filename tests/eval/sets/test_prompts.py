"""Files of sentences against a set's own, on the same images."""

from pathlib import Path

import pytest
import torch

from eyesmith.data.make import make_miniatures
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval import Settings, Wording, evaluate_suite
from eyesmith.eval.sets import TASKS
from eyesmith.eval.sets.prompts import OWN, compare_prompt_files
from eyesmith.models import create


def test_each_file_has_the_accuracy_of_an_evaluation_with_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = create("ViTamin-Nano").eval()
    make_miniatures(tmp_path, ["cifar10", "retrieval/flickr_1k_test_image_text_retrieval"])
    task = TASKS["cifar10"]
    file, empty = tmp_path / "plain.txt", tmp_path / "empty.txt"
    file.write_text("{c}\n\nthis is {c}\n")
    empty.write_text("\n")
    place = tmp_path / task.folder
    found = {one.name: one for one in compare_prompt_files(clip, place, [file], task=task)}
    for name, wording in ((OWN, Wording()), ("plain", Wording(templates=("{c}", "this is {c}")))):
        (result,) = evaluate_suite(clip, [task], tmp_path, out=None, settings=Settings(wording=wording))
        assert found[name].accuracy.value == result.metrics["acc1"]
    assert found[OWN].against_first is None
    gap = found["plain"].against_first
    assert gap is not None
    assert gap.difference.value == pytest.approx(found["plain"].accuracy.value - found[OWN].accuracy.value)
    with pytest.raises(DataError, match="holds no sentence"):
        compare_prompt_files(clip, place, [empty], task=task)
    with pytest.raises(ConfigError, match="rename the file"):
        compare_prompt_files(clip, place, [file, file], task=task)
    pairs = tmp_path / TASKS["retrieval/flickr_1k_test_image_text_retrieval"].folder
    with pytest.raises(DataError, match="on images of classes"):
        compare_prompt_files(clip, pairs, [file])
