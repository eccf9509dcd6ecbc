"""Whether a user's encoder file can take part in the lab, and if not, everything that speaks against it."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from eyesmith.errors import ConfigError, EyesmithError
from eyesmith.hub.build import build as build_stored
from eyesmith.lab.encoders import SIZES, contender
from eyesmith.models.conformance import find_violations
from eyesmith.models.cost import encoder_cost
from eyesmith.models.encoder import Encoder
from eyesmith.models.own import EncoderFileError, OwnEncoderConfig, describe_error, own_config, own_encoders
from eyesmith.models.registry import register_encoder

EMBED_DIM = 128  # of the text tower that the lab's recipes pair with
MATCHED_FRAC = 0.1  # difference in parameters from ViTamin of that size that is worth a note
_BATCH = 4


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about an encoder file: a failure keeps it out of the lab, a note does not."""

    check: str  # what was looked at, with the size: "file", "nano: gradients"
    message: str  # what was expected, and what came
    is_note: bool = False

    def __str__(self) -> str:
        return f"{self.check}: {self.message}"


def check_file(
    path: str | os.PathLike[str], *, image_px: int = 64, sizes: Sequence[str] | None = None
) -> list[Finding]:
    """Run the file, build each of its sizes, and take them through what training and measuring will ask of them.

    image_px: side of the images. sizes: those that are wanted; None: all that the file has. The file is registered
    (eyesmith.register_encoder) if it defines an encoder at all. Returns failures and notes in the order they were
    found; no failure means that the encoder can take part. Never raises for what the file does.
    """
    return _checked(path, image_px, sizes)[1]


def require_file(path: str | os.PathLike[str], *, image_px: int = 64, sizes: Sequence[str] | None = None) -> str:
    """The name of the encoder of a file that passes check_file. Raises ConfigError with all failures of another."""
    name, findings = _checked(path, image_px, sizes)
    if failures := [str(finding) for finding in findings if not finding.is_note]:
        raise ConfigError(f"{path}: the encoder is refused, {len(failures)} failure(s):\n- " + "\n- ".join(failures))
    return name


def _checked(path: str | os.PathLike[str], image_px: int, sizes: Sequence[str] | None) -> tuple[str, list[Finding]]:
    """The encoder's name, empty where there is none, and the findings."""
    try:
        name = register_encoder(path)
    except EncoderFileError as error:
        return "", [Finding(check="file", message=problem) for problem in error.problems]
    except ConfigError as error:
        return "", [Finding(check="file", message=str(error))]
    file = own_encoders()[name]
    findings = [
        Finding(check="sizes", message=f"expected {size!r} in SIZES, which has {', '.join(file.sizes)}")
        for size in sizes or ()
        if size not in file.sizes
    ]
    if sizes is None and (absent := [size for size in SIZES if size not in file.sizes]):
        message = f"the lab's plans ask for {' and '.join(SIZES)}; the file has no {' and no '.join(absent)}"
        findings.append(Finding(check="sizes", message=message, is_note=True))
    for size in file.sizes if sizes is None else [size for size in sizes if size in file.sizes]:
        config = own_config(name, size, image_size=(image_px, image_px), embed_dim=EMBED_DIM)
        findings += _check_size(config, file.path)
    return name, findings


def _check_size(config: OwnEncoderConfig, path: Path) -> list[Finding]:
    try:
        encoder = _seeded(config, 0)
    except EyesmithError as error:
        return [Finding(check=f"{config.size}: build", message=str(error).removeprefix(f"{path}: "))]
    checks: tuple[tuple[str, Callable[[OwnEncoderConfig, Encoder], Iterator[Finding | str]]], ...] = (
        ("conformance", _conformance),
        ("repeatability", _repeatability),
        ("state dict", _state_dict),
        ("gradients", _gradients),
        ("without projection", _without_projection),
        ("cost", _cost),
    )
    findings: list[Finding] = []
    for name, check in checks:
        where = f"{config.size}: {name}"
        try:
            for found in check(config, encoder):
                findings.append(found if isinstance(found, Finding) else Finding(check=where, message=found))
        except Exception as error:  # the user's code may raise anything, and the other checks are still worth hearing
            findings.append(Finding(check=where, message=f"raised {describe_error(error, path)}"))
    return findings


def _seeded(config: OwnEncoderConfig, seed: int) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return config.build()


def _noise(config: OwnEncoderConfig) -> Tensor:
    """Normalised pixels [B, 3, H, W], fp32."""
    return torch.randn((_BATCH, 3, *config.image_size), generator=torch.Generator().manual_seed(0))


def _conformance(_: OwnEncoderConfig, encoder: Encoder) -> Iterator[str]:
    yield from find_violations(encoder)


def _repeatability(config: OwnEncoderConfig, encoder: Encoder) -> Iterator[str]:
    """Equal seeds give equal weights, and evaluation has no chance in it."""
    again = _seeded(config, 0).state_dict()
    if changed := [name for name, value in encoder.state_dict().items() if not torch.equal(value, again[name])]:
        yield (
            f"expected equal weights from equal seeds of torch, {_some(changed)} differ; draw them from torch's own "
            "random numbers"
        )
    encoder.eval()
    with torch.no_grad():
        if not torch.equal(encoder(_noise(config)), encoder(_noise(config))):
            yield "expected equal features of equal images in evaluation mode, they differ from call to call"


def _state_dict(config: OwnEncoderConfig, encoder: Encoder) -> Iterator[str]:
    """What was saved is the whole encoder: another one with these tensors gives the same features."""
    tensors = {name: value.detach().clone() for name, value in encoder.state_dict().items()}
    other = _seeded(config, 1)  # weights of its own, so that a tensor outside the state dict differs
    other.load_state_dict(tensors)
    with torch.no_grad():
        features = encoder.eval()(_noise(config))
        if not torch.equal(other.eval()(_noise(config)), features):
            yield (
                "expected equal features after load_state_dict, they differ; keep every tensor as nn.Parameter or by "
                "register_buffer"
            )
        stored = build_stored(config, tensors, where=config.file)
        assert isinstance(stored, Encoder)
        if not torch.equal(stored(_noise(config)), features):
            yield "expected equal features from a saved encoder, they differ"


def _gradients(config: OwnEncoderConfig, encoder: Encoder) -> Iterator[str]:
    """A training step reaches every parameter, with finite numbers."""
    parameters = dict(encoder.named_parameters())
    if frozen := [name for name, value in parameters.items() if not value.requires_grad]:
        yield f"expected every parameter to train, {_some(frozen)} has requires_grad=False; use register_buffer for it"
    encoder.train()
    encoder.zero_grad(set_to_none=True)
    features = encoder(_noise(config))
    if not bool(features.isfinite().all()):
        yield "expected finite features in training mode, some are NaN or infinite"
        return
    target = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    (F.normalize(features, dim=-1) * F.normalize(target, dim=-1)).sum().backward()
    if unused := [name for name, value in parameters.items() if value.requires_grad and value.grad is None]:
        yield f"expected a gradient for every parameter, {_some(unused)} got none; forward does not use it"
    wrong = [name for name, value in parameters.items() if value.grad is not None and not value.grad.isfinite().all()]
    if wrong:
        yield f"expected finite gradients, those of {_some(wrong)} are not"
    encoder.zero_grad(set_to_none=True)


def _without_projection(config: OwnEncoderConfig, _: Encoder) -> Iterator[Finding | str]:
    """embed_dim=0 builds the encoder alone, which is what sizes are compared by."""
    bare = own_config(config.name, config.size, image_size=config.image_size)
    encoder = _seeded(bare, 0).eval()
    with torch.no_grad():
        shape = list(encoder(_noise(config)).shape)
    if encoder.embed_dim < 1 or shape != [_BATCH, encoder.embed_dim]:
        yield (
            "expected embed_dim=0 to leave out the projection and embed_dim to be the width of the feature then; "
            f"embed_dim is {encoder.embed_dim}, the feature {shape}"
        )
    if config.size not in SIZES:
        return
    params = sum(parameter.numel() for parameter in encoder.parameters())
    wanted = encoder_cost(contender("ViTamin", config.size, image_px=config.image_size[0]).image).tower.params
    if abs(params / wanted - 1) > MATCHED_FRAC:
        message = f"{params:,} parameters without projection, ViTamin {config.size} has {wanted:,}: not of equal size"
        yield Finding(check=f"{config.size}: parameters", message=message, is_note=True)


def _cost(config: OwnEncoderConfig, _: Encoder) -> Iterator[str]:
    cost = encoder_cost(config).tower
    if cost.macs < 1:
        yield "expected multiply-adds to be counted, got 0: the encoder computes without torch's operators"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
