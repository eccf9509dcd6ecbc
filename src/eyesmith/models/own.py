"""Encoders from a user's files: each is run once, when it is registered, and built by configs that name its bytes."""

import hashlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from eyesmith.config import closest
from eyesmith.errors import ConfigError, MissingDependencyError
from eyesmith.images.pixels import OPENAI_MEAN, OPENAI_STD
from eyesmith.models.encoder import Encoder

FACTS = ("image_size", "mean", "std", "stride", "embed_dim", "taps")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_TAKEN = ("vit", "convnext", "coatnet", "vitamin", "trv", "timm")  # families of the lab's plans
_GIVEN = ("image_size", "embed_dim")  # the arguments of `build` that are not of a size


@dataclass(frozen=True, kw_only=True)
class OwnEncoderConfig:
    """One size of an encoder that a file defines. The config holds no code: `build` works only after that very file was
    registered in this process, so opening a folder with such a config runs nothing."""

    name: str
    """What the file calls its encoder: NAME, or the file's name without .py."""
    file: str
    """Name of the file, without its folder."""
    sha256: str
    """Hexadecimal SHA-256 of the file's bytes."""
    size: str
    """One of the file's SIZES."""
    image_size: tuple[int, int]
    """Height and width of the input, pixels."""
    embed_dim: int
    """Width of the projected feature; 0 leaves out the projection (the feature is then the encoder's)."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Mean of the pixels per channel, in 0..1."""
    std: tuple[float, float, float] = OPENAI_STD
    """Standard deviation of the pixels per channel, in 0..1."""

    def __post_init__(self) -> None:
        if self.file in ("", ".", "..") or set(self.file) & set("/\\\0"):
            raise ConfigError(f"file: expected the name of a file without its folder, got {self.file!r}")
        if min(self.image_size) < 1:
            raise ConfigError(f"image_size: expected positive sides, got {self.image_size}")
        if self.embed_dim < 0:
            raise ConfigError(f"embed_dim: expected 0 (no projection) or more, got {self.embed_dim}")

    def build(self) -> Encoder:
        """A new encoder, initialised by the file's own code.

        Raises ConfigError when the file is not registered or has changed, when its code fails, and when what it builds
        is no encoder of this size, width and these pixels.
        """
        file = _registered(self)
        if self.size not in file.sizes:
            raise ConfigError(f"{file.path}: its SIZES have no {self.size!r}{closest(self.size, file.sizes)}")
        arguments = {"image_size": self.image_size, "embed_dim": self.embed_dim, **file.sizes[self.size]}
        call = "build(" + ", ".join(f"{name}={value!r}" for name, value in arguments.items()) + ")"
        try:
            encoder = file.make(**arguments)
        except MissingDependencyError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise ConfigError(f"{file.path}: {call} raised {describe_error(error, file.path)}") from error
        if wrong := _wrong_facts(encoder, self):
            raise ConfigError(f"{file.path}: {call} " + "; ".join(wrong))
        encoder.config = self  # by which a run folder knows it
        return encoder


@dataclass(frozen=True, kw_only=True)
class EncoderFile:
    """A file that was run in this process, and what it defines."""

    name: str
    path: Path
    sha256: str
    source: bytes
    sizes: Mapping[str, Mapping[str, Any]]  # size name to the arguments that `make` takes for it
    make: Callable[..., Any]  # the file's `build`
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class EncoderFileError(ConfigError):
    """A file does not define an encoder; `problems` lists what is wrong, one sentence each."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(f"{path}: defines no encoder: " + "; ".join(problems))


class UnregisteredEncoderError(ConfigError):
    """A config names a file that was not registered in this process; nothing is known of what it builds."""


_BY_NAME: dict[str, EncoderFile] = {}  # the newest of each name
_BY_HASH: dict[str, EncoderFile] = {}


def add_file(path: str | os.PathLike[str], *, taken: Collection[str] = ()) -> str:
    """Run a file that defines an encoder and keep what it defines; returns its name. See registry.register_encoder.

    taken: names that it may not have.
    """
    file = _read_file(path, taken)
    known = _BY_NAME.get(file.name)
    if known is not None and known.sha256 == file.sha256:
        return known.name
    if known is not None and known.path != file.path:
        raise ConfigError(
            f"{file.path}: the name {file.name!r} is that of {known.path}; put NAME = '...' into one of the files"
        )
    _BY_NAME[file.name] = _BY_HASH[file.sha256] = file
    return file.name


def own_encoders() -> Mapping[str, EncoderFile]:
    """The files registered in this process, by name; of a name that was registered again, the newest."""
    return MappingProxyType(_BY_NAME)


def own_config(name: str, size: str, *, image_size: tuple[int, int] = (64, 64), embed_dim: int = 0) -> OwnEncoderConfig:
    """The config of a registered encoder at one of its sizes. Raises ConfigError for an unknown name or size."""
    if name not in _BY_NAME:
        hint = closest(name, _BY_NAME) if _BY_NAME else "; none is registered"
        raise ConfigError(
            f"encoder: no file with an encoder {name!r} is registered{hint}. Do so with "
            "eyesmith.register_encoder(FILE), or put `--encoder FILE` before the verb on the command line"
        )
    file = _BY_NAME[name]
    if size not in file.sizes:
        raise ConfigError(f"{file.path}: its SIZES have no {size!r}{closest(size, file.sizes)}")
    return OwnEncoderConfig(
        name=name,
        file=file.path.name,
        sha256=file.sha256,
        size=size,
        image_size=image_size,
        embed_dim=embed_dim,
        mean=file.mean,
        std=file.std,
    )


def encoder_source(config: OwnEncoderConfig, *, at: str = "") -> bytes:
    """The bytes of the file that `config` names. Raises ConfigError when they were not registered.

    at: where the message shall say that a copy of the file is.
    """
    return _registered(config, at=at).source


def _registered(config: OwnEncoderConfig, *, at: str = "") -> EncoderFile:
    if (file := _BY_HASH.get(config.sha256)) is not None:
        return file
    if (other := _BY_NAME.get(config.name)) is not None:
        raise UnregisteredEncoderError(
            f"encoder {config.name}: {other.path} is not the file this was made with: its SHA-256 begins with "
            f"{other.sha256[:12]}, expected {config.sha256[:12]}. Weights and results belong to the file as it was; "
            f"register {at or 'that file'} instead, or start a new run with the new one"
        )
    at = at or config.file
    raise UnregisteredEncoderError(
        f"encoder {config.name}: comes from the file {config.file} (SHA-256 {config.sha256[:12]}...), which was not "
        f"registered. No file is run without being asked for: call eyesmith.register_encoder({at!r}) first, or put "
        f"`--encoder {at}` before the verb on the command line"
    )


def _read_file(path: str | os.PathLike[str], taken: Collection[str]) -> EncoderFile:
    place = Path(path).expanduser().resolve()
    try:
        source = place.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{place}: expected a Python file that defines an encoder, it cannot be read ({error.strerror})"
        ) from None
    sha256 = hashlib.sha256(source).hexdigest()
    names = _run(place, source, sha256)
    if (found := names.get("NAME", place.stem)) is None or not isinstance(found, str) or not _NAME.fullmatch(found):
        raise EncoderFileError(
            place, [f"its name is {found!r}, expected letters, digits, _ . and -, a letter first; set NAME = '...'"]
        )
    problems = _problems(names)
    if found.lower() in _TAKEN or found in taken:
        problems.insert(0, f"its name {found!r} is that of an encoder of eyesmith's; set NAME = '...' in the file")
    if problems:
        raise EncoderFileError(place, problems)
    return EncoderFile(
        name=found,
        path=place,
        sha256=sha256,
        source=source,
        sizes={size: dict(arguments) for size, arguments in names["SIZES"].items()},
        make=names["build"],
        mean=tuple(names.get("MEAN", OPENAI_MEAN)),
        std=tuple(names.get("STD", OPENAI_STD)),
    )


def describe_error(error: BaseException, path: Path) -> str:
    """Class and words of an error out of a user's file, with the line of the file where there is one."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}{where}"


def run_file(path: Path, source: bytes, name: str) -> ModuleType:
    """Run a user's file as the module `name`, with the rights of this process; raises whatever it raises."""
    module = ModuleType(name)
    module.__file__ = str(path)
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses and pickle look classes up there
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def _run(path: Path, source: bytes, sha256: str) -> dict[str, Any]:
    try:
        return run_file(path, source, f"eyesmith_encoder_{sha256[:16]}").__dict__
    except KeyboardInterrupt:
        raise
    except SyntaxError as error:
        raise EncoderFileError(path, [f"line {error.lineno} is no Python: {error.msg}"]) from None
    except BaseException as error:
        raise EncoderFileError(path, [f"running it raised {describe_error(error, path)}"]) from error


def _problems(names: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    sizes, make = names.get("SIZES"), names.get("build")
    if sizes is None:
        problems.append("SIZES is missing: expected a dict such as {'pico': {'width': 96}, 'nano': {'width': 192}}")
    elif not isinstance(sizes, Mapping) or not sizes:
        problems.append(f"SIZES: expected a dict with one size or more, got {sizes!r}")
        sizes = None
    for size, arguments in (sizes or {}).items():
        if not isinstance(size, str) or not _NAME.fullmatch(size):
            problems.append(f"SIZES: expected names of sizes as keys, got {size!r}")
        if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
            problems.append(f"SIZES[{size!r}]: expected keyword arguments of build as a dict, got {arguments!r}")
        elif given := [key for key in _GIVEN if key in arguments]:
            problems.append(f"SIZES[{size!r}]: {' and '.join(given)} are given by the caller; leave them out")
        elif callable(make):
            problems += _signature_problems(make, size, arguments)
    if make is None:
        problems.append("build is missing: expected def build(*, image_size, embed_dim, ...) -> Encoder")
    elif not callable(make):
        problems.append(f"build: expected a function, got {make!r}")
    for name in ("MEAN", "STD"):
        values = names.get(name, OPENAI_MEAN)
        if not isinstance(values, tuple | list) or len(values) != 3 or not all(_is_share(value) for value in values):
            problems.append(f"{name}: expected three numbers in 0..1, got {values!r}")
    return problems


def _is_share(value: object) -> bool:
    return isinstance(value, float) and 0 < value < 1


def _signature_problems(make: Callable[..., Any], size: str, arguments: Mapping[str, Any]) -> list[str]:
    try:
        signature = inspect.signature(make)
        signature.bind(image_size=(64, 64), embed_dim=0, **arguments)
    except (TypeError, ValueError) as error:
        wanted = ", ".join((*_GIVEN, *arguments))
        return [f"build: has to take the keywords {wanted} (of size {size!r}): {error}"]
    return []


def _wrong_facts(encoder: Any, config: OwnEncoderConfig) -> list[str]:
    if not isinstance(encoder, Encoder):
        return [f"gave {type(encoder).__name__}, expected an instance of a subclass of eyesmith.Encoder"]
    if missing := [fact for fact in FACTS if not hasattr(encoder, fact)]:
        return [f"gave an encoder that does not declare {', '.join(missing)}; set them in __init__"]
    wrong: list[str] = []
    for fact, expected, remedy in (
        ("image_size", config.image_size, "keep the argument"),
        ("mean", config.mean, "set MEAN = (...) in the file"),
        ("std", config.std, "set STD = (...) in the file"),
    ):
        if tuple(getattr(encoder, fact)) != tuple(expected):
            wrong.append(f"gave an encoder with {fact} {getattr(encoder, fact)}, expected {expected}; {remedy}")
    if config.embed_dim and encoder.embed_dim != config.embed_dim:
        wrong.append(f"gave an encoder with embed_dim {encoder.embed_dim}, expected {config.embed_dim}")
    return wrong
