"""The hub's tar layout: names and templates beside numbered shards, labels and metadata inside them."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eyesmith.data.evaluation.evaluation_set import LAYOUTS, EvaluationSet, Instance, Layout, Objective
from eyesmith.data.evaluation.names import CLASS_FILE, TEMPLATE_FILE, class_names, templates_for
from eyesmith.data.sample import Finding
from eyesmith.data.tar_samples import label_of, read_meta
from eyesmith.data.tar_source import TarSource
from eyesmith.data.text import parse_json, read_lines
from eyesmith.errors import DataError

TYPE_FILE = "dataset_type.txt"
COUNT_FILE = "nshards.txt"
INSTANCE_FILE = "instances.jsonl"
_MOST_SHOWN = 3
_MOST_SHARDS = 1_000_000


def open_tars(
    folder: Path, shards: Path, *, layout: Layout | None, prompts: str, class_list: str, is_strict: bool
) -> EvaluationSet:
    """Open the set whose names lie in `folder` and whose shards lie in `shards` (as a rule folder/test).

    One pass over the headers and the small members gives labels and metadata together. Arguments as of
    `open_evaluation_set`.
    """
    files, problems = _shards(shards)
    name = folder.name
    source = TarSource(files, name=name, problems=problems, require_text=False)
    chosen = layout or _layout(folder, source)
    faults: list[Finding] = []
    fields: dict[str, Any] = {}
    if chosen == "attributes":
        fields["objectives"] = _objectives(folder)
        fields["metadata"] = _rows(source, faults, is_required=True)
    elif chosen in ("classification", "multilabel"):
        fields["classes"] = _names(folder, class_list)
        fields["templates"] = _templates(folder, prompts)
        source.name_classes(fields["classes"])
        rows = _rows(source, faults, is_required=chosen == "multilabel")
        if chosen == "multilabel":
            fields["multilabels"] = _marks(source, rows, len(fields["classes"]), faults)
        else:
            fields["labels"] = _labels(source, len(fields["classes"]), faults)
            fields["metadata"] = rows
    elif chosen == "retrieval":
        fields["texts"] = _captions(source, faults)
    elif chosen == "winogavil":
        fields["instances"] = _instances(source, shards / INSTANCE_FILE, faults)
    else:
        raise DataError(f"{folder}: tar shards cannot hold the layout {chosen!r}")
    found = EvaluationSet(
        name=name, path=folder, layout=chosen, source=source, problems=(*source.problems, *faults), **fields
    )
    if is_strict:
        refuse_errors(found)
    return found


def refuse_errors(found: EvaluationSet) -> None:
    """Raise DataError when opening found an error: what is left would give a number that nobody can compare."""
    errors = [problem for problem in found.problems if problem.severity == "error"]
    if errors:
        shown = "; ".join(" ".join(filter(None, (one.where, one.key, one.detail))) for one in errors[:_MOST_SHOWN])
        more = f" and {len(errors) - _MOST_SHOWN:,} more" if len(errors) > _MOST_SHOWN else ""
        raise DataError(
            f"{found.path}: {shown}{more}; fetch or mend the set (`eyesmith data check {found.path}` lists everything)"
        )


def _shards(folder: Path) -> tuple[list[Path], list[Finding]]:
    counted = folder / COUNT_FILE
    if not counted.is_file():
        raise DataError(
            f"{counted}: not there; it holds the number of shards, without it nobody knows whether the set is whole. "
            "Fetch the set again, or write the number of .tar files into it"
        )
    content = counted.read_text("utf-8", "replace").strip()
    num_shards = shard_count(content)
    if num_shards is None:
        raise DataError(f"{counted}: expected one whole number of shards, got {content[:40]!r}")
    files = [folder / f"{number}.tar" for number in range(num_shards)]
    missing = [file.name for file in files if not file.is_file()]
    there = {file.name for file in folder.glob("*.tar") if file.name[0] != "."}
    extra = sorted(there - {file.name for file in files})
    problems = []
    if missing:
        detail = f"says {content} shards, {len(missing)} are missing: {', '.join(missing[:_MOST_SHOWN])}"
        problems.append(Finding("missing_shard", "error", "", COUNT_FILE, detail))
    if extra:
        detail = f"says {content} shards, 0.tar and on; the folder also holds {', '.join(extra[:_MOST_SHOWN])}"
        problems.append(Finding("extra_shard", "error", "", COUNT_FILE, detail))
    files = [file for file in files if file.is_file()]
    if not files:
        raise DataError(f"{folder}: {COUNT_FILE} says {content} shards, not one is there; expected 0.tar, 1.tar ...")
    return files, problems


def shard_count(content: str) -> int | None:
    """The number in a COUNT_FILE, None where it is none from 1 to a million: each of them becomes a file name."""
    digits = content.strip()
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= 9
    return int(digits) if is_number and 1 <= int(digits) <= _MOST_SHARDS else None


def _layout(folder: Path, source: TarSource) -> Layout:
    if (folder / TYPE_FILE).is_file():
        word = " ".join(read_lines(folder / TYPE_FILE)).strip()
        for layout in LAYOUTS:
            if word == str(layout):
                return layout
        raise DataError(f"{folder / TYPE_FILE}: expected one of {', '.join(LAYOUTS)}, got {word[:40]!r}")
    if not (folder / CLASS_FILE).is_file() or source.member(0, "cls") is not None:
        return "classification"
    # FairFace and UTKFace are not marked: they have no labels, and an objective stands before each name and template
    names = {line.partition(":")[0] for line in read_lines(folder / CLASS_FILE) if ":" in line}
    prompts = read_lines(folder / TEMPLATE_FILE) if (folder / TEMPLATE_FILE).is_file() else ()
    is_split = bool(names) and {line.partition(":")[0] for line in prompts if ":" in line} == names
    return "attributes" if is_split else "classification"


def _names(folder: Path, class_list: str) -> tuple[str, ...]:
    file = folder / CLASS_FILE
    if file.is_file():
        return read_lines(file)
    if class_list:
        return class_names(class_list)
    raise DataError(f"{file}: not there; expected the class names, one a line in the order of the labels")


def _templates(folder: Path, prompts: str) -> tuple[str, ...]:
    file = folder / TEMPLATE_FILE
    if file.is_file():
        found = tuple(line for line in read_lines(file) if line)
        wrong = [line for line in found if "{c}" not in line]
        if wrong or not found:
            what = f"{wrong[0]!r} has no place {{c}} for the class name" if wrong else "the file is empty"
            raise DataError(f"{file}: {what}; expected one template a line, such as: a photo of a {{c}}.")
        return found
    if prompts:
        return templates_for(prompts)
    raise DataError(f"{file}: not there; expected prompt templates, one a line, with {{c}} for the class name")


def _objectives(folder: Path) -> dict[str, Objective]:
    parts: dict[str, tuple[list[str], list[str]]] = {}
    for place, file in enumerate((CLASS_FILE, TEMPLATE_FILE)):
        if not (folder / file).is_file():
            raise DataError(
                f"{folder / file}: not there; expected lines such as gender:male or gender:a photo of a {{c}}"
            )
        for line in read_lines(folder / file):
            objective, colon, text = line.partition(":")
            if not colon:
                raise DataError(f"{folder / file}: expected OBJECTIVE:TEXT, got {line[:60]!r}")
            parts.setdefault(objective, ([], []))[place].append(text)
    for objective, (names, prompts) in parts.items():
        if not names or not prompts:
            lacking = CLASS_FILE if not names else TEMPLATE_FILE
            raise DataError(f"{folder / lacking}: no line of the objective {objective!r}, which the other file has")
    return {objective: Objective(tuple(names), tuple(prompts)) for objective, (names, prompts) in parts.items()}


def _labels(source: TarSource, num_classes: int, faults: list[Finding]) -> NDArray[np.int64]:
    labels = np.full(len(source), -1, dtype=np.int64)
    for index in range(len(source)):
        label = label_of(source.member(index, "cls"), None)
        if label is None:
            _fault(faults, source, index, "missing_member", "no cls, so no label")
        elif isinstance(label, str):
            _fault(faults, source, index, "bad_label", f"cls: expected a whole number, got {label}")
        elif label >= num_classes:
            detail = f"label {label} is out of range, {CLASS_FILE} has {num_classes} names (0 to {num_classes - 1})"
            _fault(faults, source, index, "bad_label", detail)
        else:
            labels[index] = label
    return labels


def _rows(source: TarSource, faults: list[Finding], *, is_required: bool) -> NDArray[np.float64] | None:
    rows: list[NDArray[np.float64] | None] = []
    known: dict[bytes, np.dtype] = {}
    for index in range(len(source)):
        raw = source.member(index, "npy")
        row = None
        if raw is not None:
            try:
                row = _row(raw, known)
            except (ValueError, EOFError, OSError, TypeError) as error:
                _fault(faults, source, index, "bad_metadata", f"npy: cannot be read as an array of numbers: {error}")
        rows.append(row)
    width = next((len(row) for row in rows if row is not None), None)
    if width is None:
        if is_required:
            faults.append(
                Finding("missing_member", "error", "", "", "no sample has an npy member, this layout needs it")
            )
        return None
    table = np.full((len(rows), width), np.nan)
    for index, row in enumerate(rows):
        if row is not None and len(row) == width:
            table[index] = row
        elif row is not None:
            _fault(faults, source, index, "bad_metadata", f"npy: {len(row)} values, other samples have {width}")
        elif source.member(index, "npy") is None:
            _fault(faults, source, index, "missing_member", "no npy, other samples have one")
    return table


def _row(raw: bytes, known: dict[bytes, np.dtype]) -> NDArray[np.float64]:
    """The numbers of an npy file. known: headers seen before; reading one takes ten times as long as the numbers do."""
    header = raw[: 10 + int.from_bytes(raw[8:10], "little")] if raw[6:8] == b"\x01\x00" else b""
    if header in known:
        return np.frombuffer(raw, known[header], offset=len(header)).astype(np.float64)
    stream = io.BytesIO(raw)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    num_bytes = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or num_bytes != len(raw) - stream.tell():  # before room is made for what the header promises
        raise ValueError(f"{shape} of {dtype} do not fill {len(raw) - stream.tell():,} bytes")
    array = np.load(io.BytesIO(raw), allow_pickle=False)
    if header and array.ndim == 1 and raw[len(header) :] == array.tobytes():
        known[header] = array.dtype
    return array.astype(np.float64).reshape(-1)


def _marks(
    source: TarSource, rows: NDArray[np.float64] | None, num_classes: int, faults: list[Finding]
) -> NDArray[np.int64]:
    if rows is None:
        return np.zeros((len(source), num_classes), dtype=np.int64)
    if rows.shape[1] != num_classes:
        detail = f"label vectors have {rows.shape[1]} places, {CLASS_FILE} has {num_classes} names"
        faults.append(Finding("bad_label", "error", "", "", detail))
    for index in np.flatnonzero(~np.isin(rows, (0, 1)).all(1) & ~np.isnan(rows).any(1)):
        _fault(faults, source, int(index), "bad_label", "npy: expected zeros and ones")
    return np.nan_to_num(rows).astype(np.int64)


def _captions(source: TarSource, faults: list[Finding]) -> tuple[tuple[str, ...], ...]:
    captions = []
    for index in range(len(source)):
        raw, whole = source.member(index, "txt"), _texts_of(source.member(index, "json"))
        lines: list[str] = []
        if whole is not None:  # captions that lines cannot hold
            lines = whole
        elif raw is None:
            _fault(faults, source, index, "missing_member", "no txt, so no captions")
        else:
            try:
                # as the reference reads them: every line counts, repeated ones too, and stays as it is
                lines = raw.decode("utf-8").splitlines()
            except UnicodeDecodeError as error:
                _fault(faults, source, index, "not_utf8", f"txt: byte {error.start} is not UTF-8")
            else:
                if not any(line.strip() for line in lines):
                    _fault(faults, source, index, "empty_caption", "no caption that is not blank")
        captions.append(tuple(lines))
    return tuple(captions)


def _texts_of(raw: bytes | None) -> list[str] | None:
    """The list `texts` of a sample's json member; None where there is none."""
    texts = read_meta(raw, []).get("texts") if raw is not None else None
    is_list = isinstance(texts, list) and all(isinstance(text, str) for text in texts) and any(map(str.strip, texts))
    return texts if is_list else None


def _instances(source: TarSource, file: Path, faults: list[Finding]) -> tuple[Instance, ...]:
    if not file.is_file():
        raise DataError(f"{file}: not there; expected one WinoGAViL instance a line (cue, candidates, associations)")
    index_of: dict[str, int] = {}
    for index in range(len(source)):
        raw = source.member(index, "txt")
        name = raw.decode("utf-8", "replace").strip() if raw is not None else source.keys[index]
        if name in index_of:
            _fault(faults, source, index, "duplicate_key", f"a second image with the name {name!r}")
        index_of.setdefault(name, index)
    instances = []
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row, _ = parse_json(line)
            cue, names, gold = row["cue"], row["candidates"], set(row["associations"])
            places = tuple(index_of[name] for name in names)
        except (ValueError, TypeError, RecursionError) as error:
            faults.append(Finding("bad_row", "error", "", f"{file.name} line {number}", f"not an instance: {error}"))
            continue
        except KeyError as error:
            detail = f"no field, or no image, named {error.args[0]!r}"
            faults.append(Finding("bad_row", "error", "", f"{file.name} line {number}", detail))
            continue
        if not gold or not gold <= set(names) or not isinstance(cue, str) or not cue:
            detail = "expected a cue, and associations that are among the candidates"
            faults.append(Finding("bad_row", "error", "", f"{file.name} line {number}", detail))
            continue
        instances.append(Instance(cue, places, tuple(name in gold for name in names)))
    if not instances:
        raise DataError(f"{file}: no usable instance")
    return tuple(instances)


def _fault(faults: list[Finding], source: TarSource, index: int, kind: str, detail: str) -> None:
    faults.append(Finding(kind, "error", source.keys[index], source.where(index), detail))
