"""The language of captions: a column that is there already, or a detector of another package."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from eyesmith.errors import ConfigError, DataError, MissingDependencyError

Detector = Callable[[Sequence[str]], list[str]]
DETECTORS = ("fasttext", "gcld3")
_GCLD3_BYTES = (0, 1000)  # the range the laion2b filter's detector looks at


def detector(name: str, model: str) -> Detector:
    """A function from captions to language codes such as "en", in the same order.

    name: "fasttext" with the file of its language model (lid.176.bin), or "gcld3", which brings its own. Raises
    ConfigError for another name, DataError when the model is not there, MissingDependencyError when the package is not.
    """
    if name == "fasttext":
        if not model:
            raise ConfigError(
                "language: the pool has no such column, so give language.model, the file lid.176.bin of fastText "
                "(or language.column, a column that holds the language)"
            )
        return _fasttext(model)
    if name == "gcld3":
        return _gcld3()
    raise ConfigError(f"language.detector: expected one of {', '.join(DETECTORS)}, got {name!r}")


@cache
def _fasttext(model: str) -> Detector:
    try:
        import fasttext  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError(
            "language detection needs fastText: pip install 'eyesmith[language]', or give language.column"
        ) from error
    if not Path(model).is_file():
        raise DataError(f"{model}: not there; fetch fastText's language model lid.176.bin and give its path")
    try:
        loaded: Any = fasttext.load_model(model)
    except ValueError as error:
        raise DataError(f"{model}: cannot be read as a fastText model: {error}") from error

    def detect(texts: Sequence[str]) -> list[str]:
        # one line a caption: fastText reads up to a newline
        return [_label(loaded, text.replace("\n", " ")) for text in texts]

    return detect


def _label(model: Any, text: str) -> str:
    labels, _ = model.predict(text, k=1)
    return labels[0].removeprefix("__label__") if labels else ""


@cache
def _gcld3() -> Detector:
    try:
        import gcld3  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingDependencyError(
            "this detector needs the package gcld3: pip install gcld3, or give language.column"
        ) from error
    least, most = _GCLD3_BYTES
    identifier = gcld3.NNetLanguageIdentifier(min_num_bytes=least, max_num_bytes=most)
    return lambda texts: [identifier.FindLanguage(text=text.replace("\n", " ")).language for text in texts]
