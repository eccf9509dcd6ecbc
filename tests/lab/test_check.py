"""The check of a user's encoder file: the example passes, each broken one fails by what is wrong with it."""

import re
from pathlib import Path

import pytest

from eyesmith.errors import ConfigError
from eyesmith.lab.check import check_file, require_file
from eyesmith.lab.encoders import contender
from eyesmith.models.own import OwnEncoderConfig

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "patch_mixer.py"
SMALL = re.sub("SIZES = .*", 'SIZES = {"pico": {"width": 16, "depth": 2}}', EXAMPLE.read_text("utf-8"))


def changed(folder: Path, *changes: tuple[str, str]) -> Path:
    text = SMALL
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    path = folder / "mine.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_enters_the_lab_without_a_finding() -> None:
    assert check_file(EXAMPLE) == []
    assert require_file(EXAMPLE, sizes=("pico", "nano")) == "patch_mixer"
    one = contender("patch_mixer", "nano", image_px=64)
    assert isinstance(one.image, OwnEncoderConfig)
    assert (one.family, one.image.size, one.image.image_size, one.image.embed_dim) == (
        "patch_mixer",
        "nano",
        (64, 64),
        0,
    )


def test_another_size_than_the_labs_is_a_note(tmp_path: Path) -> None:
    findings = check_file(changed(tmp_path), image_px=32)
    assert not any(not finding.is_note for finding in findings)
    assert [str(finding) for finding in findings] == [
        "sizes: the lab's plans ask for pico and nano; the file has no nano",
        "pico: parameters: 13,328 parameters without projection, ViTamin pico has 635,632: not of equal size",
    ]


FORWARD = "return self.project(self.dense(pixels).mean((2, 3)))"
DENSE = "return self.maps(pixels)[-1]"
LAST = "        self.norm = nn.LayerNorm(width)\n"


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        pytest.param((DENSE, "return self.maps(pixels)[-1][..., 1:]"), ["dense is"], id="wrong shape"),
        pytest.param((FORWARD, "return self.dense(pixels).mean((2, 3))"), ["the result is"], id="forgotten head"),
        pytest.param((FORWARD, FORWARD + " / 0"), ["values that are not finite"], id="not finite"),
        pytest.param(
            (FORWARD, FORWARD + " / (0 if self.training else 1)"),
            ["pico: gradients: expected finite features in training mode"],
            id="not finite in training",
        ),
        pytest.param(("Tap(16, width)", "Tap(8, width)"), ["the last tap has stride 8"], id="wrong tap"),
        pytest.param(
            (
                "return {name: self.dense(pixels) for name in self.check_taps(taps)}",
                'return {"cells": self.dense(pixels)}',
            ),
            ["an unknown tap must raise ConfigError"],
            id="taps unchecked",
        ),
        pytest.param(("self.check_size(height, width)", "pass"), ["must raise ShapeError"], id="any size is taken"),
        pytest.param(
            (LAST, LAST + "        self.patch.weight.requires_grad_(False)\n"),
            ["pico: gradients: expected every parameter to train, patch.weight has requires_grad=False"],
            id="frozen parameter",
        ),
        pytest.param(
            (LAST, LAST + "        self.extra = nn.Linear(width, width)\n"),
            ["expected a gradient for every parameter, extra.weight, extra.bias got none"],
            id="unused parameter",
        ),
        pytest.param(
            (FORWARD, FORWARD + " * __import__('torch').rand(1)"),
            ["differ from call to call"],
            id="chance in evaluation",
        ),
        pytest.param(
            (LAST, LAST + "        self.table = __import__('torch').randn(width)\n"), None, id="table is not used"
        ),
        pytest.param(
            (DENSE, "return self.maps(pixels)[-1] + self.table[:, None, None]"),
            ["expected equal features after load_state_dict"],
            id="tensor outside of the state dict",
        ),
        pytest.param(("if embed_dim else nn.Identity()", ""), ["pico: without projection: "], id="always a projection"),
        pytest.param(
            ("return PatchMixer(", "raise OSError('no disk', "),
            ["pico: build: build(image_size=", "OSError"],
            id="build raises",
        ),
    ],
)
def test_a_broken_file_is_refused_with_what_it_fails(
    tmp_path: Path, change: tuple[str, str], messages: list[str] | None
) -> None:
    changes = [change]
    if "self.table[" in change[1]:
        changes.append((LAST, LAST + "        self.table = __import__('torch').randn(width)\n"))
    path = changed(tmp_path, *changes)
    if messages is None:
        assert not any(not finding.is_note for finding in check_file(path, image_px=32))
        return
    failures = "\n".join(str(finding) for finding in check_file(path, image_px=32) if not finding.is_note)
    for message in messages:
        assert message in failures
    with pytest.raises(ConfigError, match=r"mine.py: the encoder is refused, \d+ failure"):
        require_file(path, image_px=32)


def test_a_file_without_an_encoder_fails_by_every_part_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("x = 1\n", encoding="utf-8")
    assert [finding.check for finding in check_file(path)] == ["file", "file"]
    assert "cannot be read" in check_file(tmp_path / "none.py")[0].message


def test_a_size_that_the_plan_wants_has_to_be_there(tmp_path: Path) -> None:
    findings = check_file(changed(tmp_path), image_px=32, sizes=("nano",))
    assert [str(finding) for finding in findings] == ["sizes: expected 'nano' in SIZES, which has pico"]
    assert not findings[0].is_note


def test_an_image_size_off_the_stride_is_a_failure_of_build(tmp_path: Path) -> None:
    path = changed(tmp_path, (LAST, LAST + "        self.check_size(*image_size)\n"))
    failures = [str(finding) for finding in check_file(path, image_px=40) if not finding.is_note]
    assert len(failures) == 1
    assert "expected positive multiples of 16, got 40 x 40" in failures[0]
