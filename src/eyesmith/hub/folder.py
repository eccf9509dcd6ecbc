"""A folder as the Hugging Face hub has it: a weight file, and perhaps the config of open_clip or timm beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eyesmith.errors import CheckpointError
from eyesmith.files import load_json
from eyesmith.hub.peers import OPEN_CLIP_FILE, read_facts
from eyesmith.hub.run_folder import CONFIG_FILE
from eyesmith.hub.weights import INDEX_SUFFIX
from eyesmith.images import OPENAI_MEAN, OPENAI_STD, PreprocessConfig

# the first of these that is there is taken; each may be cut into several files, listed in NAME.index.json
WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)
CONFIG_FILES = (OPEN_CLIP_FILE, CONFIG_FILE)


@dataclass(frozen=True)
class Folder:
    """What the configs in a folder say. timm_name: of the image tower, '' where they say nothing; pooling: as there."""

    timm_name: str = ""
    preprocess: PreprocessConfig | None = None
    where: str = ""
    pooling: str | None = None

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width in pixels."""
        return None if self.preprocess is None else self.preprocess.image_size

    def preprocess_like(self, known: PreprocessConfig) -> PreprocessConfig:
        """How pictures are prepared, at the size of `known`; `known` itself where the folder says nothing."""
        if self.preprocess is None:
            return known
        self.check_colours()
        return replace(self.preprocess, image_size=known.image_size)

    def check_colours(self) -> None:
        """Raise CheckpointError unless the pixels are those that every published ViTamin and EVA-02 expects."""
        found = self.preprocess
        if found is not None and (found.mean, found.std) != (OPENAI_MEAN, OPENAI_STD):
            raise CheckpointError(
                f"{self.where}: the model was made for pixels of mean {found.mean} and deviation {found.std}; here it "
                f"takes {OPENAI_MEAN} and {OPENAI_STD}, and would give wrong features without a word"
            )


def read_folder(folder: Path) -> Folder:
    """What open_clip_config.json, else config.json, says of the model; other people's config.json says nothing."""
    for path in (folder / name for name in CONFIG_FILES):
        if not path.is_file():
            continue
        try:
            content = load_json(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from None
        if isinstance(content, dict):
            name, preprocess = read_facts(content, str(path))
            if name or preprocess is not None:
                pooling = content.get("global_pool")  # timm's
                return Folder(name, preprocess, str(path), pooling if isinstance(pooling, str) else None)
    return Folder()


def find_weights(folder: Path) -> Path | None:
    """The weight file of a folder or the index of its parts; None when it holds none under a known name."""
    names = {path.name for path in folder.iterdir()}
    chosen = choose_weights(sorted(names))
    return None if chosen is None else folder / chosen


def choose_weights(names: Sequence[str]) -> str | None:
    """Which of these files to read: the first known name, whole before cut into parts."""
    known = [name for file in WEIGHT_FILES for name in (file, file + INDEX_SUFFIX)]
    return next((name for name in known if name in names), None)
