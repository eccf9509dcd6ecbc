"""Models on the Hugging Face hub: into its cache, checked, and from there like local ones."""

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from eyesmith.errors import CheckpointError
from eyesmith.files import cache_folder, load_json, sha256_file, write_atomic
from eyesmith.hub.folder import CONFIG_FILES, WEIGHT_FILES, choose_weights
from eyesmith.hub.run_folder import CONFIG_FILE, MODEL_FILE, TEXT_FOLDER
from eyesmith.hub.weights import INDEX_SUFFIX
from eyesmith.models.text.hugging_face_files import TABLES

_PATIENCE_S = 10.0  # until the hub says what a repository holds


def fetch(name: str) -> tuple[str, Path]:
    """Bring OWNER/NAME or OWNER/NAME@REVISION into the hub's cache, if it is not there; a broken download goes on.

    Returns the repository's name and its folder. What the cache holds, weights and their config, is used without asking
    the hub; OWNER/NAME then means the version that was fetched first. Large files are compared with the hash the hub
    has for them, once. Raises CheckpointError when the repository does not exist, cannot be reached and is not in the
    cache, holds no weights, when only a part of it came, or when a file is not what the hub says.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub import errors as hub

    repo, _, revision = name.partition("@")
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise CheckpointError(f"hf:{name}: expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    place: dict[str, Any] = {"repo_id": repo, "revision": revision or None}
    cached = _cached(place)
    if cached is not None and _is_whole(cached):
        return repo, _checked(cached)
    known: list[str] = []
    reason = "fetching it stopped"
    try:
        # the listing of files tries again for half a minute where there is no network; this asks once
        files = [one.rfilename for one in HfApi().model_info(**place, timeout=_PATIENCE_S).siblings or ()]
        wanted = _choose(files)
        if not wanted:
            raise CheckpointError(
                f"hf:{name}: holds no weights that are known; expected one of {', '.join(WEIGHT_FILES)}"
            )
        known = [file for file in files if any(fnmatch(file, pattern) for pattern in wanted)]
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
        folder = _cached(place)
        if folder is None:
            raise CheckpointError(
                f"hf:{name}: not in the local cache, and the hub cannot be reached ({type(error).__name__}); on a "
                f"machine with a network run `hf download {repo}` and copy the folder here, then load that"
            ) from None
        reason = f"{type(error).__name__}: {error}"
    # the hub's client gives what its cache has when the line breaks, and says nothing
    lacking = [file for file in known or _parts(folder) if not (folder / file).is_file()]
    if lacking:
        raise CheckpointError(
            f"hf:{name}: the copy in the cache ({folder}) is not whole, it lacks {', '.join(lacking[:3])} ({reason}); "
            "load it again to go on"
        )
    if choose_weights(_files(folder)) is None:
        raise CheckpointError(
            f"hf:{name}: the copy in the cache ({folder}) has none of {', '.join(WEIGHT_FILES)}; fetch it again"
        )
    return repo, _checked(folder)


def fetch_file(repo: str, file: str) -> Path:
    """One file of a repository into the hub's cache, if it is not there.

    Raises CheckpointError when it cannot be had, or is not what the hub says.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(repo, file, local_files_only=True))
    except Exception:  # a name that is none is explained by who asks the hub
        try:
            path = Path(hf_hub_download(repo, file))
        except Exception as error:  # no network shows in as many ways as there are network libraries
            raise CheckpointError(
                f"hf:{repo}: {file} is not in the local cache, and the hub does not give it ({type(error).__name__}); "
                f"on a machine with a network run `hf download {repo} {file}` and copy the cache here"
            ) from None
    _check_hash(path)
    return path


def _cached(place: dict[str, Any]) -> Path | None:
    """The folder of a revision in the hub's cache, whole or not; None when there is none."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(**place, local_files_only=True))
    except Exception:  # a name that is none is explained by who asks the hub
        return None


def _is_whole(folder: Path) -> bool:
    """Whether a cached folder has weights, all parts of them, and a config."""
    has_config = any((folder / name).is_file() for name in CONFIG_FILES)
    return (
        has_config
        and choose_weights(_files(folder)) is not None
        and all((folder / name).is_file() for name in _parts(folder))
    )


def _parts(folder: Path) -> list[str]:
    """Files that the index of the weights names; [] where they are in one piece."""
    chosen = choose_weights(_files(folder))
    if chosen is None or not chosen.endswith(INDEX_SUFFIX):
        return []
    try:
        places = load_json((folder / chosen).read_text("utf-8"))["weight_map"].values()
        return sorted({str(place) for place in places})
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []  # reading the weights says what is wrong with the index


def _files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _checked(folder: Path) -> Path:
    for file in _files(folder):
        _check_hash(folder / file)
    return folder


def _choose(files: Sequence[str]) -> list[str]:
    """Patterns of the files to fetch: one format of the weights, the configs, and what else a run folder has."""
    chosen = choose_weights(files)
    if chosen is None:
        return []
    wanted = [name for name in CONFIG_FILES if name in files]
    if CONFIG_FILE in files and chosen == MODEL_FILE:  # may be a run folder; text/ tells only once it is here
        wanted += ["fingerprint.json", f"{TEXT_FOLDER}/*"]
    wanted += [name for name in files if "/" not in name and fnmatch(name, "*processor_config.json")]
    if any(name in files for name in ("tokenizer_config.json", "tokenizer.json")):  # of other people's text towers
        wanted += [name for name in TABLES if name in files] + ["tokenizer_config.json"]
    if chosen.endswith(INDEX_SUFFIX):
        stem, _, suffix = chosen.removesuffix(INDEX_SUFFIX).rpartition(".")
        wanted.append(f"{stem}-*.{suffix}")
    return [chosen, *wanted]


def _check_hash(file: Path) -> None:
    """Compare a file of the cache with the SHA-256 that it is stored under, as the hub's cache names large files.

    A file that was right is not read again while its size and time stay. Raises CheckpointError for a wrong one.
    """
    blob = file.resolve()
    if not re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return
    facts = blob.stat()
    state = f"{facts.st_size} {facts.st_mtime_ns}"
    mark = cache_folder() / "hub" / blob.name
    if mark.is_file() and mark.read_text("utf-8") == state:
        return
    if sha256_file(blob) != blob.name:
        raise CheckpointError(
            f"{file}: the download is damaged, its SHA-256 is not the hub's ({blob.name[:12]}...); delete {blob} and "
            "load again"
        )
    write_atomic(mark, state)
