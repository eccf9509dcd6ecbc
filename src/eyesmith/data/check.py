"""What is wrong with a data set: every sample read, decoded and compared with all others."""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from eyesmith.data.near import near_partners
from eyesmith.data.sample import Finding, Source
from eyesmith.data.sources import open_source, read_description, split_names
from eyesmith.errors import ConfigError, DataError, ImageError
from eyesmith.images.decode import open_image, to_rgb

_CHUNK = 256
_THUMBNAIL_PX = 16
_MAX_NEAR_SAMPLES = 100_000  # thumbnails compared all with all: two minutes of one core at worst


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """Result of `check`. findings: in reading order, `where` begins with the split when there are several."""

    path: str
    splits: dict[str, int]  # usable samples of each split; the one split of a set without splits is called ""
    findings: list[Finding]
    seconds: float
    images_per_s: float

    @property
    def num_samples(self) -> int:
        return sum(self.splits.values())

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind, most frequent first."""
        return dict(Counter(finding.kind for finding in self.findings).most_common())

    @property
    def num_errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def exit_status(self) -> int:
        """Of the command line: 1 when there is an error, 0 when there are warnings at most."""
        return int(self.num_errors > 0)

    def to_json(self) -> str:
        """The whole report as indented JSON."""
        summary: dict[str, Any] = {
            "path": self.path,
            "splits": self.splits,
            "samples": self.num_samples,
            "errors": self.num_errors,
            "warnings": len(self.findings) - self.num_errors,
            "counts": self.counts,
            "seconds": round(self.seconds, 3),
            "images_per_s": round(self.images_per_s, 1),
            "findings": [asdict(finding) for finding in self.findings],
        }
        return json.dumps(summary, indent=2, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class _Look:
    # what one sample looked like; digests are None when it has no pixels
    split: str
    key: str
    where: str
    findings: list[Finding]
    file_digest: bytes | None = None
    pixel_digest: bytes | None = None
    thumbnail: np.ndarray | None = None  # uint8 [16 * 16 * 3]


def check(
    data: str | os.PathLike[str] | Source,
    split: str | None = None,
    *,
    min_px: int = 16,
    max_aspect: float = 10.0,
    num_workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
    **columns: Any,
) -> CheckReport:
    """Read and decode every sample and report what is wrong.

    data: anything `open_source` opens, or an open source; a folder with several splits is checked whole, and against
    itself for leaks, unless `split` names one. min_px: a shorter side below it is "too_small"; max_aspect: a longer
    over shorter side above it is "extreme_aspect". `columns` goes to `open_source`. num_workers: decoding threads.

    Errors: truncated_tar, damaged_tar, unreadable_shard, missing_shard, extra_shard, missing_member, missing_image,
    duplicate_key (in one shard), undecodable, empty_caption, not_utf8, bad_json, bad_label, bad_row, leak (an image of
    one split is in another, as the same file or the same pixels), wrong_count.
    Warnings: duplicate_image, near_duplicate, near_leak (thumbnails of 16 x 16 differ by almost nothing), duplicate_key
    (in several shards), same_key (in several splits), too_small, extreme_aspect, transparent (alpha is dropped when a
    picture is read, so what lies under it shows), blank_without_alpha (and that is one colour), exif_orientation (a
    viewer would turn the picture, it is read as it is stored), not_compared. Two pictures of equal colours and another
    alpha are no duplicates.
    Raises DataError when the set cannot be opened at all.
    """
    if min_px < 1 or max_aspect < 1 or num_workers < 1:
        raise ConfigError(
            f"min_px, max_aspect, num_workers: expected 1 or more, got {min_px}, {max_aspect}, {num_workers}"
        )
    sources, description, path = _open(data, split, columns)
    findings: list[Finding] = []
    looks: list[_Look] = []
    num_all = sum(len(source) for source in sources.values())
    start = time.perf_counter()
    with ThreadPoolExecutor(num_workers) as pool:
        for name, source in sources.items():
            findings.extend(_placed(finding, name) for finding in source.problems)
            findings.extend(_check_count(name, source, description))
            for first in range(0, len(source), _CHUNK):
                chunk = range(first, min(first + _CHUNK, len(source)))
                for look in pool.map(lambda index, s=source, n=name: _look(s, index, n, min_px, max_aspect), chunk):
                    findings.extend(_placed(finding, name) for finding in look.findings)
                    looks.append(look)
                if on_progress is not None:
                    on_progress(len(looks), num_all)
    seconds = time.perf_counter() - start
    findings.extend(_check_keys(looks))
    findings.extend(_check_images(looks))
    return CheckReport(
        path=path,
        splits={name: len(source) for name, source in sources.items()},
        findings=findings,
        seconds=seconds,
        images_per_s=len(looks) / max(seconds, 1e-9),
    )


def _open(
    data: str | os.PathLike[str] | Source, split: str | None, columns: dict[str, Any]
) -> tuple[dict[str, Source], dict[str, Any], str]:
    if not isinstance(data, str | os.PathLike):
        if split is not None or columns:
            raise ConfigError("split and columns belong to a path; the source given is open already")
        return {"": data}, {}, data.name
    path = Path(data)
    splits = split_names(path)
    if split is not None or len(splits) < 2:
        return {split or "": open_source(data, split=split, **columns)}, read_description(path), str(path)
    ordered = sorted(splits, key=lambda name: name != "train")  # a leak is then reported on the side of the test split
    return {name: open_source(data, split=name, **columns) for name in ordered}, read_description(path), str(path)


def _look(source: Source, index: int, split: str, min_px: int, max_aspect: float) -> _Look:
    key, where = source.keys[index], source.where(index)

    def finding(kind: str, detail: str, *, is_error: bool = False) -> Finding:
        return Finding(kind, "error" if is_error else "warning", key, where, detail)

    findings = source.text_findings(index)
    try:
        content = source.image_bytes(index)
        image = open_image(content, where=key)
    except ImageError as error:
        return _Look(split, key, where, [*findings, finding("undecodable", str(error), is_error=True)])
    except DataError as error:
        return _Look(split, key, where, [*findings, finding("missing_image", str(error), is_error=True)])
    width, height = image.size
    if min(width, height) < min_px:
        findings.append(finding("too_small", f"{width} x {height} px, expected {min_px} or more"))
    if max(width, height) > max_aspect * min(width, height):
        findings.append(finding("extreme_aspect", f"{width} x {height} px, expected at most {max_aspect:g} to 1"))
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in range(2, 9):
        findings.append(finding("exif_orientation", f"orientation {orientation} is not applied"))
    picture = to_rgb(image)
    pixels = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    pixels.update(picture.tobytes())
    alpha = _alpha(image)
    if alpha is not None:
        share = float((np.asarray(alpha) < 255).mean())
        findings.append(
            finding("transparent", f"{share:.1%} of the pixels; alpha is dropped, what lies under it shows")
        )
        if len(picture.getcolors(1) or ()) == 1:
            findings.append(finding("blank_without_alpha", "one colour once alpha is dropped; lay it on a background"))
        pixels.update(alpha.tobytes())
        white = Image.new("RGB", image.size, "white")
        white.paste(picture, mask=alpha)  # the thumbnail shows what a person sees
        picture = white
    small = picture.resize((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BILINEAR)
    thumbnail = np.asarray(small).reshape(-1)  # [16 * 16 * 3]
    file_digest = hashlib.blake2b(content, digest_size=16).digest()
    return _Look(split, key, where, findings, file_digest, pixels.digest(), thumbnail)


def _alpha(image: Image.Image) -> Image.Image | None:
    """The alpha of a picture, mode "L"; None where all of it is opaque."""
    if not image.has_transparency_data:
        return None
    alpha = image.convert("RGBA").getchannel("A")
    return alpha if alpha.getextrema()[0] != 255 else None


def _check_count(split: str, source: Source, description: dict[str, Any]) -> list[Finding]:
    facts = description.get("splits", {}).get(split) if isinstance(description.get("splits"), dict) else None
    expected = facts.get("samples") if isinstance(facts, dict) else None
    if not isinstance(expected, int) or expected == len(source):
        return []
    detail = f"dataset.json counts {expected:,} samples, {len(source):,} are usable"
    return [_placed(Finding("wrong_count", "error", "", "dataset.json", detail), split)]


def _check_keys(looks: Sequence[_Look]) -> list[Finding]:
    findings: list[Finding] = []
    splits_of: dict[str, dict[str, str]] = {}
    for look in looks:
        places = splits_of.setdefault(look.key, {})
        if look.split in places:
            detail = f"the key is in {places[look.split]} too"
            findings.append(_placed(Finding("duplicate_key", "warning", look.key, look.where, detail), look.split))
        places.setdefault(look.split, look.where)
    shared = Counter(tuple(places) for places in splits_of.values() if len(places) > 1)
    for splits, number in shared.items():
        # one finding for all: sets that number their samples anew in each split share every key, harmlessly
        example = next(key for key, places in splits_of.items() if tuple(places) == splits)
        detail = f"{number:,} keys are in each of {', '.join(splits)}, such as {example}"
        findings.append(Finding("same_key", "warning", "", "", detail))
    return findings


def _check_images(looks: Sequence[_Look]) -> list[Finding]:
    findings: list[Finding] = []
    first_file: dict[bytes, _Look] = {}
    first_pixels: dict[bytes, _Look] = {}
    unique: list[_Look] = []
    for look in looks:
        if look.file_digest is None or look.pixel_digest is None:
            continue
        same_file = first_file.setdefault(look.file_digest, look)
        same_pixels = first_pixels.setdefault(look.pixel_digest, look)
        if same_file is not look:
            findings.append(_pair("duplicate_image", "leak", look, same_file, "the same file"))
        elif same_pixels is not look:
            findings.append(_pair("duplicate_image", "leak", look, same_pixels, "the same pixels in another file"))
        else:
            unique.append(look)
    compared = unique[:_MAX_NEAR_SAMPLES]
    if len(unique) > len(compared):
        detail = f"near duplicates were looked for among the first {len(compared):,} of {len(unique):,} distinct images"
        findings.append(Finding("not_compared", "warning", "", "", detail))
    thumbnails = np.array([look.thumbnail for look in compared], dtype=np.uint8)  # [N, 768]
    for index, partner in near_partners(thumbnails):
        findings.append(
            _pair("near_duplicate", "near_leak", compared[index], compared[partner], "almost the same picture")
        )
    return findings


def _pair(within: str, across: str, look: _Look, other: _Look, what: str) -> Finding:
    is_leak = look.split != other.split
    detail = f"{what} as {other.key} in {_place(other.split, other.where)}"
    kind = across if is_leak else within
    return _placed(Finding(kind, "error" if kind == "leak" else "warning", look.key, look.where, detail), look.split)


def _placed(finding: Finding, split: str) -> Finding:
    return Finding(finding.kind, finding.severity, finding.key, _place(split, finding.where), finding.detail)


def _place(split: str, where: str) -> str:
    return f"{split}/{where}" if split and where else split or where
