"""The errors a user can meet. Every message says what was expected, what came, where, and what to do.

An `InputError` is the user's to mend (exit status 2 on the command line), any other `EyesmithError` is work that
failed (exit status 1). Neither ever reaches a terminal as a traceback.
"""


class EyesmithError(Exception):
    """The work could not be done."""


class InputError(EyesmithError):
    """Something the user gave is wrong: an argument, a file, a data set, a checkpoint."""


class ConfigError(InputError, ValueError):
    """A field of a config has a value that makes no sense, or a name is unknown."""


class DataError(InputError):
    """A data set or one of its samples is unusable."""


class ImageError(DataError):
    """One image cannot be decoded, or is refused (too many pixels)."""


class CheckpointError(InputError):
    """A weight file is damaged, unsafe to read, or belongs to another model."""


class ShapeError(InputError, ValueError):
    """A tensor given to a public entry point has the wrong rank, size or dtype."""


class MissingDependencyError(InputError, ImportError):
    """An optional package or program is needed and not installed; the message names the extra that brings it."""


class TrainingError(EyesmithError):
    """A run cannot go on: a loss or gradient is not finite, too many samples are broken."""
