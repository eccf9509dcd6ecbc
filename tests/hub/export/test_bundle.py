"""Exported folders against the model they came from, with the runtimes they are made for."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from eyesmith.errors import ConfigError, EyesmithError, MissingDependencyError
from eyesmith.hub.export import ExportReport, ExportTarget, bundle, export_model, parity
from eyesmith.hub.export import card as cards
from eyesmith.hub.parity import TEXTS, sample_images
from eyesmith.images import evaluation_pixels, normalize
from eyesmith.models import Clip, ClipConfig, create
from eyesmith.models.encoder import Encoder
from eyesmith.models.eva02.model import Eva02Config

pytest.importorskip("onnxruntime")


def onnx_run(path: Path, batch: Tensor) -> Tensor:
    """What a stranger gets: onnxruntime alone, default settings."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (features,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
    return torch.from_numpy(features)


def perturbed(clip: Clip) -> Clip:
    """No norm and no bias is left at a value that would hide a mistake."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in clip.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return clip.eval()


def with_seed(make: Callable[[], Clip]) -> Clip:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return perturbed(make())


@pytest.fixture(scope="module")
def model(tiny_config: ClipConfig) -> Clip:
    return with_seed(tiny_config.build)


@pytest.fixture(scope="module")
def free(tiny_config: ClipConfig) -> Clip:
    """As ViTamin-XL: no position table, heads of another width."""
    image = replace(tiny_config.image, has_position=False, widths=(8, 16, 48))
    return with_seed(lambda: replace(tiny_config, image=image).build())


@pytest.fixture(scope="module")
def exported(model: Clip, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export_model(model, tmp_path_factory.mktemp("tiny") / "out")


def pixels(clip: Clip, size: tuple[int, int] | None = None) -> Tensor:
    preprocess = clip.preprocess if size is None else replace(clip.preprocess, image_size=size)
    return torch.stack([evaluation_pixels(image, preprocess) for image in sample_images()[:7]])


def card_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "card.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("ViTamin-Nano", "image"),  # docs/bring-it-elsewhere.md compares its text tower too
        pytest.param("ViTamin-S", "image", marks=pytest.mark.slow),
        pytest.param("ViTamin-S", "text", marks=pytest.mark.slow),
    ],
)
def test_named_models_run_in_onnxruntime_at_batch_1_and_7(
    name: str, part: Literal["image", "text"], tmp_path: Path
) -> None:
    clip = with_seed(lambda: create(name))
    report = export_model(clip, tmp_path / "out", ExportTarget(part=part))
    assert [(row.part, row.batch) for row in report.rows] == [(part, 1), (part, 7)]
    images, texts = pixels(clip), (list(TEXTS) * 2)[:7]
    for count in (1, 7):
        if part == "image":
            batch, expected = images[:count], clip.encode_image(images[:count])
        else:  # one text alone is a short row, seven hold one of 77 tokens
            batch, expected = clip.text.tokenize(texts[:count]), clip.encode_text(texts[:count])
        found = onnx_run(report.folder / f"{part}.onnx", batch)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_card_says_what_is_in_the_folder(exported: ExportReport, model: Clip) -> None:
    card = card_of(exported.folder)
    assert card["image"]["input"]["shape"] == ["batch", 3, 32, 32]
    assert card["image"]["input"]["dtype"] == "uint8"
    assert card["image"]["preprocess"]["mean"] == list(model.preprocess.mean)
    assert card["image"]["parameters"] == sum(p.numel() for p in model.image.parameters())
    assert card["text"]["tokenizer"]["longest"] == 20
    assert card["prompts"] == ["a drawing of a {}"]
    assert card["scale"] == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-6)
    assert [row["is_equal"] for row in card["parity"]] == [True] * 4
    files = {path.relative_to(exported.folder).as_posix() for path in exported.folder.rglob("*") if path.is_file()}
    assert files == {*card["files"], "card.json"} == set(exported.files)
    for name, digest in card["files"].items():
        assert hashlib.sha256((exported.folder / name).read_bytes()).hexdigest() == digest


def test_the_file_is_valid_named_and_says_nothing_of_this_machine(exported: ExportReport) -> None:
    import onnx

    for part, axes in (("image", ["batch", 3, 32, 32]), ("text", ["texts", "tokens"])):
        path = exported.folder / f"{part}.onnx"
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
        assert [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == axes
        facts = {entry.key: entry.value for entry in model.metadata_props}
        assert facts["eyesmith.model"] == "Tiny"
        assert facts["eyesmith.input"].startswith("pixels uint8" if part == "image" else "ids int64")
        assert not {node.op_type for node in model.graph.node} & {"Dropout", "RandomUniform", "Bernoulli"}
        content = path.read_bytes()
        assert b".py" not in content
        assert b"site-packages" not in content


@pytest.mark.parametrize("is_unit", [True, False])
def test_a_program_of_torch_export_is_reloaded_with_torch_alone(model: Clip, tmp_path: Path, is_unit: bool) -> None:
    target = ExportTarget(format="torch_export", is_unit=is_unit)
    report = export_model(model, tmp_path / "out", target)
    program = torch.export.load(report.folder / "image.pt2").module()
    raw = model.image(pixels(model)).detach()
    expected = torch.nn.functional.normalize(raw, dim=-1) if is_unit else raw
    for count in (1, 7):
        torch.testing.assert_close(program(pixels(model)[:count]), expected[:count], rtol=0, atol=1e-5)
    text = torch.export.load(report.folder / "text.pt2").module()
    ids = model.text.tokenize(["a cat", "two cats and a dog"])
    found = torch.nn.functional.normalize(text(ids[:1, :4]), dim=-1)
    torch.testing.assert_close(found, model.encode_text(["a cat"]), rtol=0, atol=1e-6)


def test_weights_lie_beside_the_file_when_asked_for_or_large(
    model: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle.onnx_file, "LARGE_BYTES", 1000)
    report = export_model(model, tmp_path / "out", ExportTarget(part="image"))
    assert report.files == ("card.json", "image.onnx", "image.onnx.data")
    assert (report.folder / "image.onnx").stat().st_size < (report.folder / "image.onnx.data").stat().st_size
    moved = report.folder.rename(tmp_path / "elsewhere")
    found = onnx_run(moved / "image.onnx", pixels(model))
    torch.testing.assert_close(found, model.encode_image(pixels(model)), rtol=0, atol=1e-6)


def test_float_pixels_another_size_and_an_encoder_alone(model: Clip, tmp_path: Path) -> None:
    encoder: Encoder = with_seed(model.config.build).image
    encoder.set_image_size(48, 32)
    target = ExportTarget(part="image", pixels="float32", is_unit=False, opset=20)
    report = export_model(encoder, tmp_path / "out", target, name="mine")
    card = card_of(report.folder)
    assert card["model"] == "mine"
    assert "scale" not in card
    assert card["image"]["input"]["shape"] == ["batch", 3, 48, 32]
    floats = normalize(pixels(model, (48, 32)), encoder.mean, encoder.std)
    with torch.no_grad():
        torch.testing.assert_close(
            onnx_run(report.folder / "image.onnx", floats), encoder(floats), rtol=1e-5, atol=1e-5
        )
    with pytest.raises(ConfigError, match="an image tower alone"):
        export_model(encoder, tmp_path / "both")


def check_sizes(run: Callable[[Tensor], Tensor], clip: Clip) -> None:
    for size in ((32, 32), (48, 160), (96, 32)):
        batch = pixels(clip, size)[:3]
        clip.image.set_image_size(*size)
        try:
            torch.testing.assert_close(run(batch), clip.image_features(batch), rtol=0, atol=1e-6)
        finally:
            clip.image.set_image_size(32, 32)


@torch.no_grad()
def test_without_a_position_table_any_size_runs(free: Clip, tmp_path: Path) -> None:
    target = ExportTarget(format="torch_export", part="image", is_dynamic_size=True)
    report = export_model(free, tmp_path / "out", target)
    assert card_of(report.folder)["image"]["input"]["shape"][2] == "height: a multiple of 16, at least 32"
    check_sizes(torch.export.load(report.folder / "image.pt2").module(), free)
    assert "prepare" not in vars(free.image)  # sizes are checked again


@pytest.mark.slow
@torch.no_grad()
def test_any_size_in_onnxruntime(free: Clip, tmp_path: Path) -> None:
    report = export_model(free, tmp_path / "out", ExportTarget(part="image", is_dynamic_size=True))
    check_sizes(lambda batch: onnx_run(report.folder / "image.onnx", batch), free)


def test_a_position_table_and_a_free_size_are_refused(model: Clip, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has a position table for 32 x 32 pixels"):
        export_model(model, tmp_path / "out", ExportTarget(part="image", is_dynamic_size=True))
    assert list(tmp_path.iterdir()) == []


def test_8_bits_are_close_and_smaller(model: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "speed_ratio", lambda *_: 1.5)
    report = export_model(model, tmp_path / "out", ExportTarget(format="onnx_int8", part="image"))
    assert report.files == ("card.json", "image.onnx")
    assert report.speed == {"image": 1.5}
    assert report.agreement is not None
    assert 0 <= report.agreement <= 1
    # without 8-bit dot products sums of two products saturate: 0.984 there
    least = 0.99 if torch.cpu._is_vnni_supported() else 0.98
    assert min(row.min_cosine for row in report.rows) > least
    found, expected = onnx_run(report.folder / "image.onnx", pixels(model)), model.encode_image(pixels(model))
    assert float((found * expected).sum(dim=1).min()) > least
    assert not found.equal(expected)
    card = card_of(report.folder)
    assert card["int8"] == {"speed_of_fp32_here": {"image": 1.5}, "agreement": report.agreement}
    assert card["image"]["precision"].startswith("int8")


def test_8_bits_that_are_not_faster_are_not_offered(
    model: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "speed_ratio", lambda *_: 0.97)
    with pytest.raises(EyesmithError, match=r"has 0\.97 times the speed of the fp32 one"):
        export_model(model, tmp_path / "out", ExportTarget(format="onnx_int8", part="image"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_the_model_is_not_written(
    model: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = parity.compare
    monkeypatch.setattr(parity, "compare", lambda part, run, ours, *a, **k: real(part, run, ours.roll(1), *a, **k))
    target = ExportTarget(format="torch_export", part="text")
    with pytest.raises(EyesmithError, match="does not give the model's features at batch 1"):
        export_model(model, tmp_path / "out", target)
    assert list(tmp_path.iterdir()) == []


def test_only_an_exported_model_is_replaced(model: Clip, tmp_path: Path) -> None:
    target = ExportTarget(format="torch_export", part="text")
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        export_model(model, tmp_path / "mine", target)
    with pytest.raises(ConfigError, match="is no exported model"):
        export_model(model, tmp_path / "mine", target, overwrite=True)
    folder = export_model(model, tmp_path / "out", target).folder
    (folder / "stale").touch()
    export_model(model, folder, target, overwrite=True)
    assert not (folder / "stale").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "out"}


def test_the_model_stays_as_it_was(model: Clip, exported: ExportReport) -> None:
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model.training
    assert (exported.folder / "tokenizer" / "clip_vocabulary.txt.gz").is_file()


def test_other_weights_than_fp32_and_missing_packages(
    model: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = with_seed(model.config.build).to(torch.bfloat16)
    with pytest.raises(ConfigError, match="expected fp32 weights, got torch.bfloat16"):
        export_model(half, tmp_path / "out")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"onnxruntime.*eyesmith\[export\]"):
        export_model(model, tmp_path / "out")


@pytest.mark.parametrize("wrong", [{"opset": 17}, {"format": "torch_export", "external_data": True}])
def test_wishes_that_cannot_be_met(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ExportTarget(**wrong)


def test_agreement_counts_equal_best_classes() -> None:
    classes = torch.eye(2)
    ours = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert parity.agreement(ours, ours, classes, classes) == 1
    assert parity.agreement(ours, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), classes, classes) == 0.5


def test_compare_sees_a_wrong_row() -> None:
    ours = torch.nn.functional.normalize(torch.from_numpy(np.random.default_rng(0).normal(size=(8, 4))), dim=-1)
    right = parity.compare("image", lambda batch: 3 * batch, ours, ours, is_int8=False)
    assert [(row.batch, row.is_equal) for row in right] == [(1, True), (7, True)]
    wrong = parity.compare("image", lambda batch: batch + 1e-3, ours, ours, is_int8=False)
    assert not any(row.is_equal for row in wrong)


@pytest.mark.parametrize(
    "changes",
    [
        {"pooling": "token", "has_inner_norm": True},
        {"pooling": "mean", "norm": "sub"},
        {"pooling": "normed_mean", "embed_dim": 0},
        {"ffn": "mlp", "norm": "post", "relation": "none", "pooling": "token"},
        {"relation": "bias", "pooling": "token"},
    ],
    ids=["clip", "fine-tuned", "pre-trained", "enormous", "relative bias"],
)
def test_every_kind_of_eva02_tower_has_a_free_batch(changes: dict[str, Any], tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"width": 32, "depth": 2, "num_heads": 2, "hidden_dim": 64, "embed_dim": 16}
    config = Eva02Config(image_size=(32, 32), patch_px=8, **{**sizes, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        encoder = config.build().eval()
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    is_onnx = config.has_inner_norm  # one of them: it takes far longer than the trace, where a batch gets fixed
    target = ExportTarget(part="image", format="onnx" if is_onnx else "torch_export")
    report = export_model(encoder, tmp_path / "out", target)
    assert card_of(report.folder)["image"]["input"]["shape"] == ["batch", 3, 32, 32]
    path = report.folder / f"image{target.suffix}"
    batch = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(encoder(batch), dim=-1)
    for count in (1, 5):
        found = onnx_run(path, batch[:count]) if is_onnx else torch.export.load(path).module()(batch[:count])
        torch.testing.assert_close(found, expected[:count], rtol=0, atol=1e-5)


def test_the_card_of_a_sigmoid_model_has_its_bias(model: Clip) -> None:
    plain = cards.clip_card(model)
    assert plain["probability"] == "softmax"
    assert "bias" not in plain
    model.logit_bias = torch.tensor(-9.5)
    try:
        card = cards.clip_card(model)
    finally:
        model.logit_bias = None
    assert (card["bias"], card["probability"]) == (-9.5, "sigmoid")
    assert card["classify"].startswith("sigmoid, for each class by itself")
