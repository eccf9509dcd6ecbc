"""Which data a run trains on: enough of every sample to notice another one in its place, and to say what differs."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from eyesmith.data import stream
from eyesmith.data.file_source import FileSource
from eyesmith.data.indexed import IndexedRows
from eyesmith.data.loader import Rows, StreamedRows
from eyesmith.data.sample import Source
from eyesmith.data.stream.identity import sample_mark
from eyesmith.errors import DataError

MAX_NAMED = 2_000  # samples of a set that are kept one by one; those of larger ones in as many groups, by their keys
MAX_READ = 20_000  # images whose content is read; of more, so many spread evenly, and the sizes of all
_DIGITS = 12


def describe_data(rows: Rows, *, reads_texts: bool = True) -> dict[str, Any]:
    """What a run reads, as JSON values, at most about 100 KB for any indexed set.

    Of indexed samples `samples` has, for each or for each group, a hash of captions and label and one of the image. Of
    images above 1 MiB the ends and some between are read. Neither the place on disk nor times of files count, nor do
    captions where the run does not read them.
    """
    if isinstance(rows, StreamedRows):
        return {"kind": "stream", **rows.describe()}
    if isinstance(rows, IndexedRows):
        return {"kind": "indexed", **_described(rows.source, reads_texts)}
    return {"kind": "other", "fingerprint": rows.fingerprint()}


def data_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two values of `describe_data`, a sentence each; none where a run can go on."""
    if before["kind"] != now["kind"]:
        return [f"the data were read as {before['kind']}, now as {now['kind']}"]
    if before["kind"] == "stream":
        return stream.differences(dict(before), dict(now))
    if before["kind"] == "indexed":
        return _indexed_differences(before, now)
    return [] if before == now else ["the data have another fingerprint"]


def _described(source: Source, reads_texts: bool) -> dict[str, Any]:
    keys, labels, total = [str(key) for key in source.keys], source.labels, len(source)
    step = max(1, -(-total // MAX_READ))
    files = source.files() if isinstance(source, FileSource) else None

    def image(index: int) -> str:
        if index % step:
            return ""
        try:
            if files is not None and isinstance(file := files[index], Path):
                return sample_mark(str(file), file.stat().st_size)
            return hashlib.sha256(source.image_bytes(index)).hexdigest()
        except (OSError, DataError):
            return "cannot be read"

    names = source.classes

    def words(index: int) -> str:
        label = None if labels is None else labels[index]
        return json.dumps(
            [source.texts(index) if reads_texts else None, label, names[label] if names and label is not None else None]
        )

    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(image, range(total)))
    samples: dict[str, list[Any]] = {}
    is_grouped = total > MAX_NAMED or len(set(keys)) < total
    for index, key in enumerate(keys):
        name = str(int(_short(key), 16) % MAX_NAMED) if is_grouped else key
        one = samples.setdefault(name, [0, hashlib.sha256(), hashlib.sha256()])
        one[0] += 1
        one[1].update(f"{key}\0{words(index)}\n".encode(errors="surrogatepass"))
        one[2].update(f"{key}\0{images[index]}\n".encode(errors="surrogatepass"))
    return {
        "num_samples": total,
        "grouped": is_grouped,
        "order": _short("\n".join(keys)),
        "fingerprint": source.fingerprint() if reads_texts else None,
        "samples": {
            name: [count, words.hexdigest()[:_DIGITS], image.hexdigest()[:_DIGITS]]
            for name, (count, words, image) in samples.items()
        },
    }


def _indexed_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    if before["num_samples"] != now["num_samples"]:
        found.append(f"{before['num_samples']:,} samples before, now {now['num_samples']:,}")
    if before["grouped"] != now["grouped"]:
        return found or ["its samples have other keys"]
    old, new = before["samples"], now["samples"]
    what = f"of {len(old):,} groups of samples" if before["grouped"] else "samples"
    if not before["grouped"]:
        found += _some((name for name in new if name not in old), "samples added")
        found += _some((name for name in old if name not in new), "samples gone")
    both = [name for name in old if name in new]
    shown = not before["grouped"]
    found += _some((name for name in both if old[name][2] != new[name][2]), f"{what} with other images", named=shown)
    found += _some(
        (name for name in both if old[name][1] != new[name][1]), f"{what} with other captions or labels", named=shown
    )
    if not found and before["order"] != now["order"]:
        found.append("the samples come in another order")
    if not found and before["fingerprint"] != now["fingerprint"]:
        found.append("some images have other sizes in bytes, or classes other names")
    return found


def _some(names: Iterable[str], what: str, *, named: bool = True) -> list[str]:
    listed = list(names)
    if not listed:
        return []
    return [f"{len(listed):,} {what}" + (f", the first is {listed[0]}" if named else "")]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
