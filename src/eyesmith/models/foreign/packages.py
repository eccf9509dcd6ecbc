"""Other people's packages, imported when one of their models is asked for and never before."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from eyesmith.errors import MissingDependencyError
from eyesmith.models.foreign.torchvision import ensure_torchvision

BUILD_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What packages raise for names and sizes in a file that make no sense: they check few of them."""


def import_timm(what: str) -> Any:
    """timm; what: is asked for, for the message. Raises MissingDependencyError without it."""
    ensure_torchvision()
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} is a timm model, and timm is not installed: pip install 'eyesmith[timm]'"
        ) from error
    return timm


def import_open_clip(what: str) -> Any:
    """open_clip; what: is asked for, for the message. Raises MissingDependencyError without it."""
    ensure_torchvision()
    try:
        import open_clip
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} is a model of open_clip, which is not installed: pip install 'eyesmith[clip]'"
        ) from error
    return open_clip


def import_transformers(what: str) -> Any:
    """transformers; what: is asked for, for the message. Raises MissingDependencyError without it."""
    # transformers imports torchvision when one is installed, and stops when that is broken
    if importlib.util.find_spec("torchvision") is not None:
        ensure_torchvision()
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError(f"{what} needs transformers: pip install 'eyesmith[demo]'") from error
    return transformers


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Without the loading bar that transformers draws, and with its setting restored."""
    logging = transformers.utils.logging
    was_shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if was_shown:
            logging.enable_progress_bar()


def first_line(error: Exception) -> str:
    """What an error of a package says, cut to a line; its class where it says nothing."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def package_version(distribution: str) -> str:
    """Name and version of an installed distribution, which the features of its models depend on."""
    return f"{distribution} {metadata.version(distribution)}"
