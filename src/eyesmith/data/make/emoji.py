"""Emoji as image-text pairs: the animals, plants, food and drink of four icon sets, one concept in up to four drawings.

The sets and the English names and tags come from pinned npm packages; a drawing is matched to a concept by its code
points, never by its name, since the sets differ in names. What is held out is decided by hashes of the code points.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eyesmith.data.make.npm import NpmPackage, fetch, read_members
from eyesmith.data.make.phrases import captions
from eyesmith.data.make.render import SvgRenderer
from eyesmith.data.shards import ShardWriter, begin_dataset, finish_dataset, split_facts
from eyesmith.errors import ConfigError, DataError

MAKER_VERSION = 1  # raise it when the same parameters would give other bytes

STYLES: dict[str, NpmPackage] = {
    "noto": NpmPackage(
        name="@iconify-json/noto",
        version="1.2.9",
        integrity="sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    ),
    "twemoji": NpmPackage(
        name="@iconify-json/twemoji",
        version="1.2.5",
        integrity="sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
    ),
    "openmoji": NpmPackage(
        name="@iconify-json/openmoji",
        version="1.2.29",
        integrity="sha512-vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
    ),
    "fluent-emoji-flat": NpmPackage(
        name="@iconify-json/fluent-emoji-flat",
        version="1.2.6",
        integrity="sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    ),
}
NAMES = NpmPackage(
    name="emojibase-data",
    version="17.0.0",
    integrity="sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
)

GROUPS = ("animals-nature", "food-drink")
TEMPLATES = ("{}", "{} emoji", "a drawing of a {}", "an emoji of a {}")  # "a" before a vowel too: a template is blind
UNSEEN_CONCEPT_FRAC = 0.1

Holdout = Literal["drawing", "style"]


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One emoji. hexcode: its code points, upper-case hexadecimal joined by "-", without variation selectors."""

    hexcode: str
    label: str
    tags: tuple[str, ...]
    group: str
    subgroup: str


@dataclass(frozen=True, kw_only=True)
class IconSet:
    """One style: SVG text by hexcode, and what the package says of itself."""

    style: str
    svgs: Mapping[str, str]
    source: Mapping[str, Any]


def make_emoji(
    folder: Path, *, holdout: Holdout = "drawing", style: str = "openmoji", size_px: int = 72, seed: int = 0
) -> dict[str, Any]:
    """Make the data set in `folder`; returns the content of its dataset.json (also when it was already made).

    holdout "drawing": of every concept one drawing is held out (`unseen_drawing`), the styles in balance.
    holdout "style": the whole `style` is held out (`unseen_style`); `style` has no meaning otherwise.
    In both a tenth of the concepts is held out in all styles (`unseen_concept`). size_px: side of the square images.
    Raises ConfigError for a wrong argument, DataError when the folder holds something else or a package is damaged,
    MissingDependencyError when the packages are neither cached nor within reach, or without resvg-py.
    """
    if holdout not in ("drawing", "style"):
        raise ConfigError(f"holdout: expected 'drawing' or 'style', got {holdout!r}")
    if style not in STYLES:
        raise ConfigError(f"style: expected one of {', '.join(STYLES)}, got {style!r}")
    if not 8 <= size_px <= 1024:
        raise ConfigError(f"size_px: expected 8 to 1024, got {size_px}")
    parameters = {"holdout": holdout, "size_px": size_px, "seed": seed}
    if holdout == "style":
        parameters["style"] = style
    identity = {"name": "emoji", "maker": "emoji", "maker_version": MAKER_VERSION, "parameters": parameters}
    made = begin_dataset(folder, identity)
    if made is not None:
        return made

    archives = fetch([NAMES, *STYLES.values()])
    concepts, names_source = read_concepts(archives[NAMES.name])
    sets = [read_icons(name, package, archives[package.name], concepts) for name, package in STYLES.items()]
    concepts = [concept for concept in concepts if any(concept.hexcode in icons.svgs for icons in sets)]
    available = {c.hexcode: [icons.style for icons in sets if c.hexcode in icons.svgs] for c in concepts}
    splits = assign_splits(available, holdout=holdout, style=style, seed=seed)

    facts = _write_splits(folder, splits, concepts, sets, names_source, size_px)
    held_out = {hexcode for hexcode, _ in splits["unseen_concept"]}
    return finish_dataset(
        folder,
        {
            **identity,
            "size_px": size_px,
            "classes": [concept.label for concept in concepts],
            "templates": list(TEMPLATES),
            "splits": facts,
            "sources": [*(dict(icons.source) for icons in sets), names_source],
            "held_out_concepts": [concept.label for concept in concepts if concept.hexcode in held_out],
            "split_rule": _split_rule(holdout, style),
        },
    )


def read_concepts(archive: Path) -> tuple[list[Concept], dict[str, Any]]:
    """The concepts of GROUPS in Unicode order, and the source entry of the package of names.

    Raises DataError when two concepts have one label, or the package lacks what is read.
    """
    names = ["package.json", "en/data.json", "meta/groups.json"]
    members = read_members(archive, names)
    package, emoji, meta = (_json(members[name], archive, name) for name in names)
    _expect(NAMES, package, archive)
    wanted = {int(index): name for index, name in meta["groups"].items() if name in GROUPS}
    entries = sorted((entry for entry in emoji if entry.get("group") in wanted), key=lambda entry: entry["order"])
    concepts = [
        Concept(
            hexcode=normal_hexcode(entry["hexcode"]),
            label=" ".join(entry["label"].lower().split()),
            tags=tuple(entry.get("tags", ())),
            group=wanted[entry["group"]],
            subgroup=meta["subgroups"][str(entry["subgroup"])],
        )
        for entry in entries
    ]
    labels = [concept.label for concept in concepts]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise DataError(f"{archive}: several emojis are called {', '.join(twice)}; class names must differ")
    return concepts, _source(package, archive, author=package["author"], url="https://emojibase.dev")


def read_icons(style: str, package: NpmPackage, archive: Path, concepts: Sequence[Concept]) -> IconSet:
    """The drawings of `concepts` in one icon set, found through its table of code points (chars.json).

    Raises DataError when the package is not what it should be.
    """
    names = ["package.json", "info.json", "chars.json", "icons.json"]
    members = read_members(archive, names)
    facts, info, chars, icons = (_json(members[name], archive, name) for name in names)
    _expect(package, facts, archive)
    if facts["license"] != info["license"]["spdx"]:
        raise DataError(f"{archive}: two licences are stated, {facts['license']} and {info['license']['spdx']}")
    by_hexcode = {normal_hexcode(code): name for code, name in chars.items()}
    svgs = {
        concept.hexcode: icon_svg(icons, by_hexcode[concept.hexcode], where=str(package))
        for concept in concepts
        if concept.hexcode in by_hexcode
    }
    source = _source(facts, archive, author=info["author"]["name"], url=info["author"]["url"])
    return IconSet(style=style, svgs=svgs, source=source)


def icon_svg(icons: Mapping[str, Any], name: str, *, where: str) -> str:
    """One icon of an iconify set as a whole SVG document; aliases are followed.

    Raises DataError for a name that leads nowhere, and for an alias that turns or mirrors its parent.
    """
    for _ in range(8):  # aliases of aliases exist; a circle does not, and would end here
        alias = icons.get("aliases", {}).get(name)
        if name in icons["icons"] or alias is None:
            break
        if set(alias) - {"parent", "hidden", "lastModified"}:
            raise DataError(f"{where}: icon {name!r} is a turned or mirrored alias, which is not supported")
        name = alias["parent"]
    icon = icons["icons"].get(name)
    if icon is None:
        raise DataError(f"{where}: there is no icon {name!r}")
    left, top = (icon.get(side, icons.get(side, 0)) for side in ("left", "top"))
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))  # 16: iconify's default
    # equal sides and the default preserveAspectRatio: an icon that is not square is centred, not stretched
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="1em" height="1em" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    ).replace("1em", "100")


def normal_hexcode(code: str) -> str:
    """Upper-case code points without the variation selector FE0F, which sets write or leave out as they like."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def assign_splits(
    available: Mapping[str, Sequence[str]], *, holdout: Holdout, style: str, seed: int
) -> dict[str, list[tuple[str, str]]]:
    """Split name to (hexcode, style) pairs, in the order in which they are written.

    available: the styles each concept has. Everything is ordered by a hash of the code points and the seed, so the
    order of `available` is of no account.
    """

    def rank(purpose: str, *parts: str) -> str:
        return hashlib.sha256("/".join((str(seed), purpose, *parts)).encode()).hexdigest()

    by_rank = sorted(available, key=lambda hexcode: rank("concept", hexcode))
    num_held_out = round(len(by_rank) * UNSEEN_CONCEPT_FRAC)
    held_out, known = set(by_rank[:num_held_out]), by_rank[num_held_out:]
    held_style: dict[str, str | None] = {}
    if holdout == "style":
        held_style = {hexcode: style if style in available[hexcode] else None for hexcode in known}
    else:
        counts = dict.fromkeys(STYLES, 0)
        for hexcode in known:
            # a concept with one drawing keeps it for training; elsewhere the style held out least so far is next
            choices = sorted(available[hexcode], key=lambda name: (counts[name], rank("style", hexcode, name)))
            held_style[hexcode] = choices[0] if len(choices) > 1 else None
            if len(choices) > 1:
                counts[choices[0]] += 1
    unseen = "unseen_style" if holdout == "style" else "unseen_drawing"
    splits: dict[str, list[tuple[str, str]]] = {"train": [], unseen: [], "unseen_concept": []}
    for hexcode, styles in available.items():
        for name in styles:
            if hexcode in held_out:
                splits["unseen_concept"].append((hexcode, name))
            else:
                splits[unseen if held_style[hexcode] == name else "train"].append((hexcode, name))
    return {split: sorted(members, key=lambda member: rank("order", *member)) for split, members in splits.items()}


def sample_record(concept: Concept, icons: IconSet, names_source: Mapping[str, Any]) -> dict[str, Any]:
    """The json member of a sample. `licence` is that of the drawing, `text_licence` that of name and tags."""
    return {
        "concept": concept.label,
        "label": concept.label,
        "style": icons.style,
        "group": concept.group,
        "subgroup": concept.subgroup,
        "tags": list(concept.tags),
        "texts": captions(concept.label, concept.tags, concept.subgroup, icons.style.partition("-")[0]),
        "source": icons.source["name"],
        "source_version": icons.source["version"],
        "licence": icons.source["licence"],
        "text_source": f"{names_source['name']}@{names_source['version']}",
        "text_licence": names_source["licence"],
        "hexcode": concept.hexcode,
    }


def _write_splits(
    folder: Path,
    splits: Mapping[str, Sequence[tuple[str, str]]],
    concepts: Sequence[Concept],
    sets: Sequence[IconSet],
    names_source: Mapping[str, Any],
    size_px: int,
) -> dict[str, Any]:
    by_hexcode = {concept.hexcode: (index, concept) for index, concept in enumerate(concepts)}
    by_style = {icons.style: icons for icons in sets}
    facts: dict[str, Any] = {}
    for split, members in splits.items():
        drawings = [
            (by_style[style].svgs[hexcode], f"{by_style[style].source['name']}: {by_hexcode[hexcode][1].label}")
            for hexcode, style in members
        ]
        with ShardWriter(folder / split) as writer, SvgRenderer() as renderer:
            for (hexcode, style), png in zip(members, renderer.pngs(drawings, size_px=size_px), strict=True):
                index, concept = by_hexcode[hexcode]
                record = sample_record(concept, by_style[style], names_source)
                content = {
                    "png": png,
                    "txt": concept.label.encode(),
                    "cls": str(index).encode(),
                    "json": json.dumps(record, ensure_ascii=False).encode(),
                }
                writer.write(f"{hexcode.lower()}_{style}", content)
        present = {hexcode for hexcode, _ in members}
        facts[split] = split_facts(writer, [concept.label for concept in concepts if concept.hexcode in present])
    return facts


def _source(package: Mapping[str, Any], archive: Path, *, author: str, url: str) -> dict[str, Any]:
    return {
        "name": package["name"],
        "version": package["version"],
        "licence": package["license"],
        "author": author,
        "url": url,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }


def _split_rule(holdout: Holdout, style: str) -> str:
    concepts = "unseen_concept: a tenth of the concepts, by a hash of code points and seed, in all styles. "
    if holdout == "style":
        return f"{concepts}unseen_style: the style {style} of every other concept. train: their other styles."
    return f"{concepts}unseen_drawing: of every other concept one style, styles in balance. train: the rest."


def _expect(package: NpmPackage, facts: Mapping[str, Any], archive: Path) -> None:
    if (facts["name"], facts["version"]) != (package.name, package.version):
        raise DataError(f"{archive}: expected {package}, found {facts['name']}@{facts['version']}")


def _json(content: bytes, archive: Path, name: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise DataError(f"{archive}: {name} is no JSON ({error})") from error
