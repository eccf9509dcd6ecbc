"""What the weights of a model may be used for, as far as their card says so."""

import re
from pathlib import Path

from eyesmith.errors import EyesmithError
from eyesmith.hub.foreign import OPEN_CLIP_PREFIX, TIMM_PREFIX
from eyesmith.hub.hugging_face import fetch_file

CARD = "README.md"
_FIELD = re.compile(r"^(license|license_name|license_link)\s*:\s*['\"]?(.+?)['\"]?\s*$", re.MULTILINE)


def licence_of(source: str) -> str | None:
    """The licence that the card of `source` (as `eyesmith.load` takes it) states, such as apache-2.0; None where there
    is no card, or it cannot be had. Of timm's weights timm itself says it.
    """
    if source.startswith(TIMM_PREFIX):
        from eyesmith.models.foreign.packages import import_timm

        name = source.removeprefix(TIMM_PREFIX)
        return (import_timm(source).get_pretrained_cfg(name).license or None) if "." in name else None
    card = _card(source)
    if card is None:
        return None
    try:
        return read_licence(card.read_text("utf-8", errors="replace"))
    except OSError:
        return None


def read_licence(card: str) -> str | None:
    """The licence in the front matter of a model card; of one called `other` its own name, else where it is written."""
    parts = card.split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    found: dict[str, str] = dict(_FIELD.findall(parts[1]))
    licence = found.get("license")
    if licence == "other":
        return found.get("license_name") or found.get("license_link") or licence
    return licence


def _card(source: str) -> Path | None:
    repo = _repo(source)
    if repo is None:
        here = Path(source.removeprefix(OPEN_CLIP_PREFIX))
        place = (here if here.is_dir() else here.parent) / CARD
        return place if place.is_file() else None
    try:
        return fetch_file(repo, CARD)
    except EyesmithError:
        return None


def _repo(source: str) -> str | None:
    if source.startswith("hf:"):
        return source.removeprefix("hf:").partition("@")[0]
    if not source.startswith(OPEN_CLIP_PREFIX) or Path(source.removeprefix(OPEN_CLIP_PREFIX)).is_dir():
        return None
    from eyesmith.models.foreign.packages import import_open_clip

    name, _, tag = source.removeprefix(OPEN_CLIP_PREFIX).partition("/")
    known = import_open_clip(source).get_pretrained_cfg(name, tag) if tag else {}
    return str(known.get("hf_hub") or "").rpartition("/")[0] or None
