"""Icon sets of npm packages: pinned versions, the names of emojis, and each drawing as a whole SVG document."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyesmith.data.make.npm import NpmPackage, read_members
from eyesmith.errors import DataError

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
NAMED_STYLES: dict[str, NpmPackage] = {
    "noto-v1": NpmPackage(
        name="@iconify-json/noto-v1",
        version="1.2.5",
        integrity="sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
    ),
    "emojione": NpmPackage(
        name="@iconify-json/emojione",
        version="1.2.3",
        integrity="sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
    ),
    "emojione-v1": NpmPackage(
        name="@iconify-json/emojione-v1",
        version="1.2.3",
        integrity="sha512-UjI2VQEXVtGlPBvQuxEizro7QCgBcJDOYwKUupquvvZ8UV4xOlvm45IU82JYWegiAWLerY79gFLMZ26U6Ms+ww==",
    ),
    "fxemoji": NpmPackage(
        name="@iconify-json/fxemoji",
        version="1.2.2",
        integrity="sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
    ),
    "fluent-emoji": NpmPackage(
        name="@iconify-json/fluent-emoji",
        version="1.2.7",
        integrity="sha512-D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
    ),
    "streamline-emojis": NpmPackage(
        name="@iconify-json/streamline-emojis",
        version="1.2.4",
        integrity="sha512-iNr9T9XuZVTyQPJO8ZlLxBzPkpi7qMl+z1l0C31vpEMqhPMelth3n7CeWQYtixdetDPdI81yeG4ROqjWpYJE6A==",
    ),
}
"""Sets without a table of code points: a drawing is found by its name (`names.py`)."""
NAMES = NpmPackage(
    name="emojibase-data",
    version="17.0.0",
    integrity="sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
)


GROUPS = ("animals-nature", "food-drink")
ALL_GROUPS = (
    *GROUPS,
    "travel-places",
    "activities",
    "objects",
    "symbols",
    "smileys-emotion",
    "people-body",
)
"""All but flags and components."""


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


def read_concepts(archive: Path, groups: Sequence[str] = GROUPS) -> tuple[list[Concept], dict[str, Any]]:
    """The concepts of `groups` in Unicode order, and the source entry of the package of names.

    Raises DataError when two concepts have one label, or the package lacks what is read.
    """
    names = ["package.json", "en/data.json", "meta/groups.json"]
    members = read_members(archive, names)
    package, emoji, meta = (_json(members[name], archive, name) for name in names)
    _expect(NAMES, package, archive)
    wanted = {int(index): name for index, name in meta["groups"].items() if name in groups}
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


def read_icons(
    style: str, package: NpmPackage, archive: Path, concepts: Sequence[Concept], refused: Iterable[str] = ()
) -> IconSet:
    """The drawings of `concepts` in one icon set, found through its table of code points (chars.json).

    refused: names of drawings that are not taken.

    Raises DataError when the package is not what it should be.
    """
    names = ["package.json", "info.json", "chars.json", "icons.json"]
    members = read_members(archive, names)
    facts, info, chars, icons = (_json(members[name], archive, name) for name in names)
    _expect(package, facts, archive)
    if facts["license"] != info["license"]["spdx"]:
        raise DataError(f"{archive}: two licences are stated, {facts['license']} and {info['license']['spdx']}")
    by_hexcode = {normal_hexcode(code): name for code, name in chars.items() if name not in refused}
    svgs = {
        concept.hexcode: icon_svg(icons, by_hexcode[concept.hexcode], where=str(package))
        for concept in concepts
        if concept.hexcode in by_hexcode
    }
    source = _source(facts, archive, author=info["author"]["name"], url=info["author"]["url"])
    return IconSet(style=style, svgs=svgs, source=source)


def read_tables(archives: Mapping[str, Path]) -> dict[str, list[str]]:
    """Hexcode to the names that the sets with a table of code points give its drawing."""
    names: dict[str, list[str]] = {}
    for package in STYLES.values():
        archive = archives[package.name]
        table = _json(read_members(archive, ["chars.json"])["chars.json"], archive, "chars.json")
        for code, name in table.items():
            names.setdefault(normal_hexcode(code), []).append(name)
    return names


def read_other_names(archive: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """From the package of names, both by hexcode: the names of the Unicode standard, and the shortcodes in use."""
    sources = ("cldr", "emojibase", "emojibase-legacy", "github", "iamcal", "joypixels")
    members = read_members(archive, ["meta/unicode-names.json", *(f"en/shortcodes/{name}.json" for name in sources)])
    standard: dict[str, list[str]] = {}
    codes: dict[str, list[str]] = {}
    for member, content in members.items():
        into = codes if "shortcodes" in member else standard
        for code, names in _json(content, archive, member).items():
            into.setdefault(normal_hexcode(code), []).extend([names] if isinstance(names, str) else names)
    return standard, codes


def read_named_icons(
    style: str, package: NpmPackage, archive: Path, match: Callable[[Iterable[str]], Mapping[str, str]]
) -> IconSet:
    """The drawings of a set without a table of code points. match: of all its names, hexcode to name.

    Raises DataError when the package is not what it should be.
    """
    names = ["package.json", "info.json", "icons.json"]
    members = read_members(archive, names)
    facts, info, icons = (_json(members[name], archive, name) for name in names)
    _expect(package, facts, archive)
    svgs = {code: icon_svg(icons, name, where=str(package)) for code, name in match(icons["icons"]).items()}
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


def _source(package: Mapping[str, Any], archive: Path, *, author: str, url: str) -> dict[str, Any]:
    return {
        "name": package["name"],
        "version": package["version"],
        "licence": package["license"],
        "author": author,
        "url": url,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }


def _expect(package: NpmPackage, facts: Mapping[str, Any], archive: Path) -> None:
    if (facts["name"], facts["version"]) != (package.name, package.version):
        raise DataError(f"{archive}: expected {package}, found {facts['name']}@{facts['version']}")


def _json(content: bytes, archive: Path, name: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise DataError(f"{archive}: {name} is no JSON ({error})") from error
