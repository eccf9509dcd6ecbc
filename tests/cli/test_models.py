"""`eyesmith models`: the table a person reads and the fields a program reads."""

import json
from importlib.util import find_spec
from typing import Any

import pytest

NUMBERS = {"image_params": 2_560_000, "image_gmacs_paper": 0.0412, "image_gmacs": 0.0433, "stride": 16, "tokens": 9}
ONE = {"name": "One", "origin": "native", "image_size": [48, 48], "embed_dim": 64, **NUMBERS}
TEXT = {"text_params": 7_000_000, "text_gmacs_paper": 6.55, "text_gmacs": 6.6519}


def test_models_is_a_table_and_json(eyesmith, monkeypatch: pytest.MonkeyPatch) -> None:
    one: dict[str, Any] = ONE | TEXT
    two = one | dict.fromkeys(TEXT) | {"name": "Two", "image_size": [48, 32]}
    three = one | dict.fromkeys(NUMBERS) | {"name": "Three"}
    monkeypatch.setattr("eyesmith.models.cost.model_rows", lambda configs: [one, two, three])
    status, out, _ = eyesmith("models")
    assert status == 0
    cells = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert cells["One"] == ["native", "48", "9", "64", "2.56", "M", "0.04", "0.04", "7.00", "M", "6.65", "6.55"]
    assert cells["Two"] == ["native", "48x32", "9", "64", "2.56", "M", "0.04", "0.04", "-", "-", "-"]
    assert cells["Three"] == ["native", "48", "-", "64", "-", "-", "-", "7.00", "M", "6.65", "6.55"]
    status, out, _ = eyesmith("models", "--json")
    assert (status, json.loads(out)) == (0, [one, two, three])


def test_encoders_have_no_text(eyesmith, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyesmith.models.cost.encoder_rows", lambda: [ONE])
    status, out, _ = eyesmith("models", "--encoders")
    assert status == 0
    assert "text" not in out
    assert out.splitlines()[1].split() == ["One", "native", "48", "9", "64", "2.56", "M", "0.04", "0.04"]
    status, out, _ = eyesmith("models", "--encoders", "--json")
    assert (status, json.loads(out)) == (0, [ONE])


def test_the_command_counts_for_itself(eyesmith, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyesmith.models.cost.list_models", lambda: ["ViTamin-Nano"])
    status, out, _ = eyesmith("models", "--json")
    assert status == 0
    (row,) = json.loads(out)
    assert (row["name"], row["image_params"], row["text_params"]) == ("ViTamin-Nano", 2_557_856, 7_160_192)


def test_an_unknown_option_names_the_closest(eyesmith) -> None:
    status, _, err = eyesmith("models", "--encoder")
    assert status == 2
    assert "--encoders" in err


@pytest.mark.skipif(find_spec("timm") is None or find_spec("open_clip") is None, reason="needs timm and open_clip")
def test_models_of_other_packages_are_counted_by_their_ids(eyesmith) -> None:
    status, out, _ = eyesmith("models", "timm:test_vit", "open_clip:ViT-B-32", "--json")
    timm, clip = json.loads(out)
    assert status == 0
    assert (timm["name"], timm["origin"], timm["text_params"]) == ("timm:test_vit", "timm", None)
    # open_clip's README: 151 M parameters, the temperature among them
    assert (clip["origin"], clip["image_params"] + clip["text_params"] + 1) == ("open_clip", 151_277_313)
    status, _, err = eyesmith("models", "timm:test_vi")
    assert status == 2
    assert "did you mean" in err
