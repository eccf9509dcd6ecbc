"""Models on the Hugging Face hub: into its cache, and from there like local ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eyesmith.errors import CheckpointError
from eyesmith.hub.run_folder import CONFIG_FILE, MODEL_FILE, TEXT_FOLDER, is_run_folder

# where a repository is no run folder: the first of these is taken
WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)


def fetch(name: str) -> tuple[str, Path, Path | None]:
    """Bring OWNER/NAME or OWNER/NAME@REVISION into the hub's cache, if it is not there.

    Returns the repository's name, its folder, and its weight file, None when the folder is a run folder. Without a
    network the cache alone is used. Raises CheckpointError when the repository does not exist, cannot be reached and
    is not in the cache, or holds no weights.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub import errors as hub

    repo, _, revision = name.partition("@")
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise CheckpointError(f"hf:{name}: expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    place: dict[str, Any] = {"repo_id": repo, "revision": revision or None}
    try:
        files = HfApi().list_repo_files(**place)
        wanted = _choose(files)
        if not wanted:
            raise CheckpointError(
                f"hf:{name}: holds no weights that are known; expected one of {', '.join(WEIGHT_FILES)}"
            )
        folder = Path(snapshot_download(**place, allow_patterns=wanted))
    except hub.GatedRepoError:
        raise CheckpointError(
            f"hf:{name}: its owner asks you to agree to terms first; do so on the web, then log in"
        ) from None
    except hub.RepositoryNotFoundError:
        raise CheckpointError(
            f"hf:{name}: the hub has no such model, or it is private and you are not logged in"
        ) from None
    except hub.RevisionNotFoundError:
        raise CheckpointError(f"hf:{name}: the model has no revision {revision!r}") from None
    except hub.HFValidationError as error:
        raise CheckpointError(f"hf:{name}: no name of a model on the hub ({error})") from None
    except CheckpointError:
        raise
    except Exception as error:  # no network shows in as many ways as there are network libraries
        folder = _from_cache(name, place, error)
    if is_run_folder(folder):
        return repo, folder, None
    file = next((folder / file for file in WEIGHT_FILES if (folder / file).is_file()), None)
    if file is None:
        raise CheckpointError(
            f"hf:{name}: the copy in the cache ({folder}) has none of {', '.join(WEIGHT_FILES)}; fetch it again"
        )
    return repo, folder, file


def _choose(files: Sequence[str]) -> list[str]:
    if CONFIG_FILE in files and MODEL_FILE in files:  # may be a run folder; text/ tells only once it is here
        return [CONFIG_FILE, MODEL_FILE, "fingerprint.json", f"{TEXT_FOLDER}/*"]
    return [file for file in WEIGHT_FILES if file in files][:1]


def _from_cache(name: str, place: dict[str, Any], reason: Exception) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(**place, local_files_only=True))
    except Exception:
        raise CheckpointError(
            f"hf:{name}: not in the local cache, and the hub cannot be reached ({type(reason).__name__}); on a machine "
            f"with a network run `hf download {place['repo_id']}` and copy the folder here, then load that"
        ) from None
