"""A model as a folder that needs nothing of ours: a file for each tower, a card, the tokenizer; compared with it."""

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from eyesmith.errors import ConfigError, EyesmithError
from eyesmith.files import sha256_file, write_json
from eyesmith.hub.export import card as cards
from eyesmith.hub.export import graph, onnx_file, parity
from eyesmith.hub.export.parity import ExportRow, Run
from eyesmith.hub.export.target import ExportTarget
from eyesmith.hub.export.tokenizer import save_tokenizer
from eyesmith.hub.parity import FP32_BOUND, TEXTS, sample_images
from eyesmith.images import ImageSource, PreprocessConfig
from eyesmith.images.decode import open_image
from eyesmith.images.pixels import normalize
from eyesmith.models.clip import Clip
from eyesmith.models.encoder import Encoder

FORMAT = 1


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares with the model."""

    folder: Path
    files: tuple[str, ...]
    """Relative to the folder."""
    rows: tuple[ExportRow, ...]
    speed: dict[str, float]
    """onnx_int8 only: how many times faster than the fp32 file each tower was here, one row at a time."""
    agreement: float | None
    """onnx_int8 only: share of the pictures with the same best class as the model's, None for an image tower alone."""


@dataclass(frozen=True)
class _Samples:
    """What both sides are asked: features [N, D] are the model's own, of unit length."""

    images: Tensor  # as the file eats them
    image_features: Tensor
    texts: Tensor | None
    text_features: Tensor | None


def export_model(
    model: Clip | Encoder,
    out: str | os.PathLike[str],
    target: ExportTarget | None = None,
    *,
    name: str = "",
    images: Sequence[ImageSource] = (),
    class_names: Sequence[str] = parity.CLASS_NAMES,
    overwrite: bool = False,
) -> ExportReport:
    """Write `model` to the folder `out`, after its files were run and compared with it.

    The folder holds image and text files as `target` says, card.json (names, shapes, preprocessing, prompts, scale,
    file hashes, the comparison) and tokenizer/. It appears whole or not at all. The image tower is exported at the
    size it has now (`load(..., image_size=)`). name: of an encoder, which has none, for the card. images: what to
    compare with, instead of nine pictures that every installation has; class_names: for the agreement of an 8-bit
    file. Raises ConfigError for a wish that cannot be met, MissingDependencyError without the export packages, and
    EyesmithError when a file is not equal to the model, or an 8-bit file is not faster here than the fp32 one.
    """
    target = target or ExportTarget()
    folder = Path(out)
    if target.format != "torch_export":
        onnx_file.require_onnx()
    if isinstance(model, Encoder) and target.part != "image":
        raise ConfigError(f"part: this model has an image tower alone; expected 'image', got {target.part!r}")
    if wrong := {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}:
        raise ConfigError(f"model: expected fp32 weights, got {', '.join(map(str, wrong))}; load it with fp32 weights")
    check_place(folder, overwrite=overwrite)

    clip = model if isinstance(model, Clip) else None
    encoder = model.image if isinstance(model, Clip) else model
    preprocess = _preprocess(clip, encoder)
    samples = _samples(clip, encoder, preprocess, target, images)
    name = clip.config.name if clip is not None else name
    with whole_folder(folder) as part_folder:
        card: dict[str, Any] = {"format": FORMAT, "made_by": f"eyesmith {metadata.version('eyesmith')}", "model": name}
        rows: list[ExportRow] = []
        runs: dict[str, Run] = {}
        speed: dict[str, float] = {}
        for part in target.parts:
            if part == "image":
                program = graph.trace_image(encoder, target)
                facts = cards.image_card(encoder, preprocess, target)
                batch, ours = samples.images, samples.image_features
            else:
                assert clip is not None
                assert samples.texts is not None
                assert samples.text_features is not None
                program = graph.trace_text(clip, target)
                tokenizer = save_tokenizer(clip.text, part_folder / "tokenizer")
                facts = cards.text_card(clip, target, f"tokenizer/{tokenizer}")
                batch, ours = samples.texts, samples.text_features
            card[part] = {"file": f"{part}{target.suffix}", **cards.file_card(program, target), **facts}
            path = part_folder / f"{part}{target.suffix}"
            runs[part], ratio = _write(program, path, target, name, facts, batch[:1])
            if ratio is not None:
                speed[part] = ratio
            rows += parity.compare(part, runs[part], ours, batch, is_int8=target.format == "onnx_int8")
        _require_equal(rows, target)
        share = None
        if target.format == "onnx_int8" and clip is not None and "image" in runs:
            share = _agreement(clip, samples, runs, class_names)
        if clip is not None:
            card |= cards.clip_card(clip)
        card["parity"] = [asdict(row) for row in rows]
        if target.format == "onnx_int8":
            card["int8"] = {"speed_of_fp32_here": speed, "agreement": share}
        files = sorted(path.relative_to(part_folder).as_posix() for path in part_folder.rglob("*") if path.is_file())
        card["files"] = {file: sha256_file(part_folder / file) for file in files}
        write_json(part_folder / cards.CARD_FILE, card)
    return ExportReport(folder, (cards.CARD_FILE, *files), tuple(rows), speed, share)


def _preprocess(clip: Clip | None, encoder: Encoder) -> PreprocessConfig:
    if clip is None:
        return encoder.evaluation_config()
    return replace(clip.preprocess, image_size=encoder.image_size)


@torch.no_grad()
def _samples(
    clip: Clip | None,
    encoder: Encoder,
    preprocess: PreprocessConfig,
    target: ExportTarget,
    images: Sequence[ImageSource],
) -> _Samples:
    given = [open_image(image) for image in images] or sample_images()
    pixels = parity.prepared(given, preprocess)
    fed = pixels if target.pixels == "uint8" else normalize(pixels, encoder.mean, encoder.std)
    was_training = encoder.training
    encoder.eval()
    features = torch.cat([encoder(part) for part in pixels.split(8)])
    encoder.train(was_training)
    if clip is None or "text" not in target.parts:
        return _Samples(fed, features, None, None)
    texts = clip.text.tokenize(list(TEXTS))
    return _Samples(fed, features, texts, clip.encode_text(list(TEXTS)))


def _write(
    program: ExportedProgram, path: Path, target: ExportTarget, name: str, entry: dict[str, Any], row: Tensor
) -> tuple[Run, float | None]:
    """Write one tower. Returns how to run it, and for 8 bits how many times faster it is than in fp32."""
    if target.format == "torch_export":
        facts = cards.file_facts(name, path.stem, entry)
        torch.export.save(program, path, extra_files={f"{key}.txt": text for key, text in facts.items()})
        again = torch.export.load(path).module()
        return lambda batch: again(batch), None
    apart = onnx_file.has_external_data(program, is_wanted=target.external_data)

    def write(place: Path) -> None:
        onnx_file.write_onnx(
            program,
            place,
            takes={entry["input"]["name"]: _axes(entry["input"])},
            gives={entry["output"]["name"]: _axes(entry["output"])},
            opset=target.opset,
            external_data=apart,
            facts=cards.file_facts(name, path.stem, entry),
        )

    if target.format == "onnx":
        write(path)
        return onnx_file.OnnxRunner(path), None
    full = path.with_name(f"{path.stem}-fp32.onnx")
    write(full)
    onnx_file.quantize(full, path, external_data=apart)
    run = onnx_file.OnnxRunner(path)
    ratio = parity.speed_ratio(onnx_file.OnnxRunner(full), run, row)
    for stale in path.parent.glob(f"{full.name}*"):
        stale.unlink()
    if ratio <= 1:
        raise EyesmithError(
            f"onnx_int8: on this machine the 8-bit {path.stem} tower has {ratio:.2f} times the speed of the fp32 one: "
            "it would cost accuracy and bring nothing; export to onnx, or the other part alone (part)"
        )
    return run, ratio


def _axes(end: dict[str, Any]) -> list[int | str]:
    """Of an entry's shape: a number, or the name of an axis that is free."""
    axes: list[int | str] = list(end["shape"])
    return [axis if isinstance(axis, int) else axis.partition(":")[0] for axis in axes]


def _require_equal(rows: Sequence[ExportRow], target: ExportTarget) -> None:
    for row in rows:
        if not row.is_equal:
            bound = (
                f"cosine {row.min_cosine:.4f}, at least {parity.MIN_COSINE_INT8} is asked for"
                if target.format == "onnx_int8"
                else f"difference {row.max_difference:.1e}, at most {FP32_BOUND:.0e} is allowed"
            )
            raise EyesmithError(
                f"{target.format}: the exported {row.part} tower does not give the model's features at batch "
                f"{row.batch} ({bound}); nothing was written"
            )


def _agreement(clip: Clip, samples: _Samples, runs: dict[str, Run], names: Sequence[str]) -> float:
    classes = clip.class_weights(names)
    theirs = classes
    if "text" in runs:
        sentences = [prompt.replace("{}", name) for name in names for prompt in clip.prompts]
        features = runs["text"](clip.text.tokenize(sentences)).view(len(names), len(clip.prompts), -1)
        theirs = torch.nn.functional.normalize(torch.nn.functional.normalize(features, dim=-1).mean(dim=1), dim=-1)
    found = torch.cat([runs["image"](part) for part in samples.images.split(8)])
    return parity.agreement(samples.image_features, found, classes, theirs)


def check_place(folder: Path, *, overwrite: bool) -> None:
    """Raise ConfigError where something is at `folder`, unless it is an exported model that may be overwritten."""
    if folder.exists() and not overwrite:
        raise ConfigError(f"{folder}: is there already; choose another folder, or overwrite")
    if folder.exists() and not (folder / cards.CARD_FILE).is_file():
        raise ConfigError(f"{folder}: is no exported model (it has no {cards.CARD_FILE}), so it is not overwritten")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` that takes its place when all went well, and is removed when not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = f"{os.getpid()}-{secrets.token_hex(3)}"
    made, old = (folder.with_name(f".{folder.name}.{mark}.{end}") for end in ("part", "old"))
    made.mkdir()
    try:
        yield made
        for path in made.rglob("*"):
            if path.is_file():
                with path.open("rb") as written:
                    os.fsync(written.fileno())
        if folder.exists():
            os.replace(folder, old)
        os.replace(made, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(made, ignore_errors=True)
