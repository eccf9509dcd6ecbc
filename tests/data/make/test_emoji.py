"""The emoji maker on small packages built here; the real packages are looked at only where they lie in the cache."""

import base64
import hashlib
import io
import json
import random
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyesmith.data.make import emoji
from eyesmith.data.make import icons as packages
from eyesmith.data.make.icons import STYLES, icon_svg, normal_hexcode, read_concepts, read_icons
from eyesmith.data.make.npm import NpmPackage, is_cached
from eyesmith.data.make.phrases import captions, with_article
from eyesmith.data.make.render import SvgRenderer
from eyesmith.data.make.world_splits import assign_splits
from eyesmith.errors import ConfigError, DataError, MissingDependencyError
from eyesmith.files import cache_folder

pytest.importorskip("resvg_py")

make_emoji = partial(emoji.make_emoji, world="small")

REAL_CACHE = cache_folder()
REAL = {package: REAL_CACHE / "npm" / package.file_name for package in (packages.NAMES, *STYLES.values())}
LICENCES = {"noto": "Apache-2.0", "twemoji": "CC-BY-4.0", "openmoji": "CC-BY-SA-4.0", "fluent-emoji-flat": "MIT"}

# 20 concepts of the groups asked for: code points, name; the third is written with a variation selector
FOUND = [(f"1F4{n:02X}", f"beast {n}") for n in range(20)]
FOUND[2] = ("1F43B-200D-2744-FE0F", "Polar  Bear")
LACKING = {"fluent-emoji-flat": {"1F405"}, "openmoji": {"1F406"}}


def tgz(members: dict[str, object]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, value in members.items():
            content = json.dumps(value).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def names_package(found: list[tuple[str, str]]) -> bytes:
    entries = [
        {"hexcode": code, "label": label, "tags": ["animal", label.lower()], "group": 3, "subgroup": 34, "order": place}
        for place, (code, label) in enumerate(found)
    ]
    entries[0]["skins"] = [{"hexcode": f"{found[0][0]}-1F3FB", "label": "light", "group": 3, "order": 99}]
    others = [
        {"hexcode": "1F600", "label": "grinning", "group": 0, "subgroup": 0, "order": 500},
        {"hexcode": "1F3FB", "label": "light skin tone", "group": 2, "subgroup": 32, "order": 501},
        {"hexcode": "1F1E6", "label": "regional indicator A", "order": 502},
    ]
    groups = {"groups": {"0": "smileys-emotion", "2": "component", "3": "animals-nature", "4": "food-drink"}}
    return tgz(
        {
            "package.json": {"name": "emojibase-data", "version": "17.0.0", "license": "MIT", "author": "A. Uthor"},
            "en/data.json": list(reversed(entries)) + others,
            "meta/groups.json": groups | {"subgroups": {"0": "face", "32": "skin-tone", "34": "animal-mammal"}},
        }
    )


def icon_package(package: NpmPackage, style: str) -> bytes:
    # every drawing differs: a disc whose place and colour follow from the code points and the style
    icons, chars = {}, {}
    for place, (code, _) in enumerate(FOUND):
        if code in LACKING.get(style, set()):
            continue
        red, x = 10 * place, 20 + 15 * list(STYLES).index(style)
        body = f'<circle cx="{x}" cy="50" r="15" fill="rgb({red},90,{255 - red})"/>'
        icons[f"{style}-{place}"] = {"body": body}
        chars[code.lower().replace("-fe0f", "")] = f"{style}-{place}"
    author = {"name": f"{style} makers", "url": "https://example.org"}
    return tgz(
        {
            "package.json": {"name": package.name, "version": package.version, "license": LICENCES[style]},
            "info.json": {"license": {"spdx": LICENCES[style]}, "author": author},
            "chars.json": chars,
            "icons.json": {"prefix": style, "width": 100, "height": 100, "icons": icons},
        }
    )


def put(content: bytes, package: NpmPackage) -> NpmPackage:
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    pinned = NpmPackage(name=package.name, version=package.version, integrity=f"sha512-{digest}")
    path = cache_folder() / "npm" / pinned.file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return pinned


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    """Toy packages in a cache of their own; npm cannot be reached."""
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(packages, "NAMES", put(names_package(FOUND), packages.NAMES))
    styles = {style: put(icon_package(package, style), package) for style, package in STYLES.items()}
    monkeypatch.setattr(packages, "STYLES", styles)
    return tmp_path


def read(folder: Path) -> dict[str, dict[str, dict[str, bytes]]]:
    """split -> key -> extension -> bytes, read without our reader."""
    content: dict = {}
    for path in sorted(folder.glob("*/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, extension = member.name.split(".", 1)
                split = content.setdefault(path.parent.name, {})
                split.setdefault(key, {})[extension] = tar.extractfile(member).read()
    return content


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_made_data_set(tmp_path):
    dataset = make_emoji(tmp_path / "d")
    content = read(tmp_path / "d")
    counts = {split: facts["samples"] for split, facts in dataset["splits"].items()}
    assert counts == {split: len(samples) for split, samples in content.items()}
    # 20 concepts, a tenth unseen; 80 drawings but for two that do not exist
    assert len(dataset["held_out_concepts"]) == 2
    assert counts["unseen_drawing"] == 18
    assert sum(counts.values()) == 78
    assert len(dataset["classes"]) == len(set(dataset["classes"])) == 20
    assert dataset["classes"][:3] == ["beast 0", "beast 1", "polar bear"]
    assert dataset["splits"]["unseen_concept"]["classes"] == dataset["held_out_concepts"]
    assert set(dataset["splits"]["train"]["classes"]) == set(dataset["classes"]) - set(dataset["held_out_concepts"])
    assert dataset["splits"]["unseen_drawing"]["classes"] == dataset["splits"]["train"]["classes"]
    names = (tmp_path / "d" / "classnames.txt").read_text().splitlines()
    for split, samples in content.items():
        for key, members in samples.items():
            record = json.loads(members["json"])
            label = members["txt"].decode()
            assert label == record["label"] == record["concept"] == record["texts"][0] == names[int(members["cls"])]
            assert record["licence"] == LICENCES[record["style"]]
            assert record["text_licence"] == "MIT"
            assert key == f"{record['hexcode'].lower()}_{record['style']}"
            assert label in dataset["splits"][split]["classes"]
            assert len(set(record["texts"])) == len(record["texts"]) >= 5
            assert all(label in text for text in record["texts"])
            with Image.open(io.BytesIO(members["png"])) as image:
                assert (image.mode, image.size, image.info) == ("RGB", (72, 72), {})
                assert image.getpixel((0, 0)) == image.getpixel((71, 71)) == (255, 255, 255)


def test_sources_are_stated(tmp_path):
    sources = make_emoji(tmp_path / "d")["sources"]
    assert [(s["name"], s["licence"]) for s in sources] == [
        *((package.name, LICENCES[style]) for style, package in STYLES.items()),
        ("emojibase-data", "MIT"),
    ]
    for source in sources:
        file_name = f"{source['name'].lstrip('@').replace('/', '-')}-{source['version']}.tgz"
        assert source["sha256"] == hashlib.sha256((tmp_path / "cache" / "npm" / file_name).read_bytes()).hexdigest()
        assert source["author"]


def test_nothing_leaks(tmp_path):
    dataset = make_emoji(tmp_path / "d")
    content = read(tmp_path / "d")
    images = [members["png"] for samples in content.values() for members in samples.values()]
    assert len(set(images)) == len(images) == 78
    drawings = {split: {tuple(key.split("_")) for key in samples} for split, samples in content.items()}
    assert not drawings["train"] & drawings["unseen_drawing"]
    train, drawing, concept = (
        Counter(code for code, _ in drawings[s]) for s in ("train", "unseen_drawing", "unseen_concept")
    )
    assert set(train) == set(drawing)
    assert not set(train) & set(concept)
    assert set(drawing.values()) == {1}
    assert set(train.values()) <= {2, 3}
    styles = Counter(style for _, style in drawings["unseen_drawing"])
    assert max(styles.values()) - min(styles.values()) <= 1
    held_out = set(dataset["held_out_concepts"])
    assert all(json.loads(m["json"])["label"] in held_out for m in content["unseen_concept"].values())


def test_a_whole_style_held_out(tmp_path):
    dataset = make_emoji(tmp_path / "d", holdout="style", style="twemoji")
    content = read(tmp_path / "d")
    assert set(content) == {"train", "unseen_style", "unseen_concept"}
    assert {key.split("_")[1] for key in content["unseen_style"]} == {"twemoji"}
    assert {key.split("_")[1] for key in content["train"]} == set(STYLES) - {"twemoji"}
    assert dataset["splits"]["unseen_style"]["classes"] == dataset["splits"]["train"]["classes"]
    assert len(content["unseen_style"]) == 18
    # the same concepts are unseen, whichever way drawings are held out
    assert dataset["held_out_concepts"] == make_emoji(tmp_path / "e")["held_out_concepts"]


def test_same_bytes_again_and_recognised(tmp_path):
    first = make_emoji(tmp_path / "one")
    make_emoji(tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*")}
    assert make_emoji(tmp_path / "one") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*")} == stamps
    with pytest.raises(DataError, match="another data set lies here"):
        make_emoji(tmp_path / "one", seed=1)


def test_stopped_and_made_again(tmp_path, monkeypatch):
    class StopsAt40(SvgRenderer):
        def pngs(self, drawings: Iterable[tuple[str, str]], *, size_px: int, alpha: bool = False) -> Iterator[bytes]:
            for number, png in enumerate(super().pngs(drawings, size_px=size_px, alpha=alpha)):
                if number == 40:
                    raise KeyboardInterrupt
                yield png

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(emoji, "SvgRenderer", StopsAt40)
        make_emoji(tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "dataset.json").exists()
    make_emoji(tmp_path / "stopped")
    make_emoji(tmp_path / "clean")
    assert files(tmp_path / "stopped") == files(tmp_path / "clean")


def test_no_npm_and_no_cache(tmp_path):
    (cache_folder() / "npm" / packages.NAMES.file_name).unlink()
    with pytest.raises(MissingDependencyError, match="eyesmith data make scenes DIR"):
        make_emoji(tmp_path / "d")
    assert not (tmp_path / "d" / "dataset.json").exists()


def test_output_folder_with_other_things(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "log.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"found log\.jsonl"):
        make_emoji(tmp_path / "d")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"holdout": "all"}, "holdout"), ({"style": "comic"}, "style"), ({"size_px": 4}, "size_px")],
)
def test_wrong_arguments(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_emoji(tmp_path / "d", **arguments)
    assert not (tmp_path / "d").exists()


def test_packages_that_are_not_what_they_should_be(tmp_path):
    archive = tmp_path / "a.tgz"
    archive.write_bytes(names_package([("1F400", "rat"), ("1F401", "Rat")]))
    with pytest.raises(DataError, match="several emojis are called rat"):
        read_concepts(archive)
    noto = STYLES["noto"]
    archive.write_bytes(icon_package(STYLES["twemoji"], "twemoji"))
    with pytest.raises(DataError, match="expected @iconify-json/noto"):
        read_icons("noto", noto, archive, [])
    facts = {"name": noto.name, "version": noto.version, "license": "MIT"}
    info = {"license": {"spdx": "Apache-2.0"}, "author": {"name": "x", "url": ""}}
    archive.write_bytes(tgz({"package.json": facts, "info.json": info, "chars.json": {}, "icons.json": {}}))
    with pytest.raises(DataError, match="two licences"):
        read_icons("noto", noto, archive, [])


def test_splits_do_not_depend_on_the_order():
    available = {f"1F{n:03X}": list(STYLES) for n in range(200)}
    expected = assign_splits(available, holdout="drawing", style="noto", seed=3)
    names = list(available)
    random.Random(0).shuffle(names)
    assert assign_splits({n: available[n] for n in names}, holdout="drawing", style="noto", seed=3) == expected
    assert assign_splits(available, holdout="drawing", style="noto", seed=4) != expected
    assert len({code for code, _ in expected["unseen_concept"]}) == 20


def test_a_concept_with_one_drawing_stays_in_training():
    available = {f"1F{n:03X}": ["noto"] for n in range(20)}
    splits = assign_splits(available, holdout="drawing", style="noto", seed=0)
    assert (len(splits["train"]), len(splits["unseen_drawing"]), len(splits["unseen_concept"])) == (18, 0, 2)


def test_code_points_without_variation_selector():
    assert normal_hexcode("1f43b-200d-2744-fe0f") == "1F43B-200D-2744"
    assert normal_hexcode("2618-FE0F") == normal_hexcode("2618") == "2618"


def test_icon_aliases():
    icons = {
        "width": 10,
        "height": 20,
        "icons": {"cat": {"body": "<g/>", "left": -1}, "dog": {"body": "<b/>"}},
        "aliases": {
            "kitty": {"parent": "puss"},
            "puss": {"parent": "cat"},
            "tac": {"parent": "cat", "hFlip": True},
            "a": {"parent": "b"},
            "b": {"parent": "a"},
        },
    }
    assert icon_svg(icons, "kitty", where="toy") == icon_svg(icons, "cat", where="toy")
    assert 'viewBox="-1 0 10 20"' in icon_svg(icons, "cat", where="toy")
    for name, message in (("tac", "mirrored"), ("a", "no icon"), ("cow", "no icon 'cow'")):
        with pytest.raises(DataError, match=message):
            icon_svg(icons, name, where="toy")


def test_rendering_keeps_aspect_and_colour():
    # 40 wide, 20 high: fills the width, and a quarter of the height stays white above and below
    icons = {"width": 40, "height": 20, "icons": {"bar": {"body": '<path fill="#ff8000" d="M0 0h40v20H0z"/>'}}}
    with SvgRenderer() as renderer:
        png = renderer.png(icon_svg(icons, "bar", where="toy"), size_px=40)
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (40, 40, 3)
    assert (pixels[:10] == 255).all()
    assert (pixels[30:] == 255).all()
    assert (pixels[10:30] == (255, 128, 0)).all()


def test_transparent_pictures_are_the_white_ones_without_their_white(tmp_path):
    make_emoji(tmp_path / "white")
    dataset = make_emoji(tmp_path / "clear", alpha=True)
    assert dataset["parameters"]["alpha"] is True
    white, clear = (read(tmp_path / name) for name in ("white", "clear"))
    for split, samples in white.items():
        for key, members in samples.items():
            with Image.open(io.BytesIO(clear[split][key]["png"])) as image:
                assert image.mode == "RGBA"
                assert image.getpixel((0, 0)) == (0, 0, 0, 0)
                on_white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
            with Image.open(io.BytesIO(members["png"])) as image:
                assert np.abs(np.asarray(on_white).astype(int) - np.asarray(image)).max() <= 1
            assert clear[split][key]["json"] == members["json"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat face", "a cat face"),
        ("owl", "an owl"),
        ("unicorn", "a unicorn"),
        ("ewe", "a ewe"),
        ("herb", "an herb"),
        ("hot dog", "a hot dog"),
        ("ear of corn", "an ear of corn"),
        ("grapes", "grapes"),
        ("ice", "ice"),
        ("t-rex", "a t-rex"),
    ],
)
def test_articles(name, expected):
    assert with_article(name) == expected


def test_captions():
    texts = captions("owl", ["animal", "owl", "wise"], "animal-bird", "noto")
    assert texts == [
        "owl",
        "owl emoji",
        "an owl",
        "a drawing of an owl",
        "an emoji of an owl",
        "owl: animal, wise",
        "an owl, animal, wise",
        "bird: owl",
        "noto emoji of an owl",
    ]
    assert captions("ice", [], "unknown", "x")[:2] == ["ice", "ice emoji"]


@pytest.mark.skipif(not all(path.is_file() for path in REAL.values()), reason="the real packages are not in the cache")
def test_the_real_packages(monkeypatch):
    monkeypatch.setenv("EYESMITH_CACHE", str(REAL_CACHE))
    names, *sets = REAL.values()
    concepts, source = read_concepts(names)
    assert source["licence"] == "MIT"
    assert len(concepts) == 291
    icons = [read_icons(style, STYLES[style], path, concepts) for style, path in zip(STYLES, sets, strict=True)]
    assert {i.style: (len(i.svgs), i.source["licence"]) for i in icons} == {
        "noto": (291, "Apache-2.0"),
        "twemoji": (291, "CC-BY-4.0"),
        "openmoji": (291, "CC-BY-SA-4.0"),
        "fluent-emoji-flat": (288, "MIT"),
    }
    drawings = [svg for i in icons for svg in i.svgs.values()]
    assert len(set(drawings)) == len(drawings)
    available = {c.hexcode: [i.style for i in icons if c.hexcode in i.svgs] for c in concepts}
    splits = assign_splits(available, holdout="drawing", style="openmoji", seed=0)
    assert {split: len(members) for split, members in splits.items()} == {
        "train": 783,
        "unseen_drawing": 262,
        "unseen_concept": 116,
    }
    assert all(is_cached(package) for package in REAL)


@pytest.mark.skipif(not all(path.is_file() for path in REAL.values()), reason="the real packages are not in the cache")
def test_the_small_world_stays_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("EYESMITH_CACHE", str(REAL_CACHE))
    monkeypatch.setattr(packages, "NAMES", next(iter(REAL)))
    monkeypatch.setattr(packages, "STYLES", STYLES)
    make_emoji(tmp_path / "d")
    digest = hashlib.sha256((tmp_path / "d" / "classnames.txt").read_bytes())
    # of the pixels: the bytes of a PNG belong to the library that writes it
    for path in sorted((tmp_path / "d").glob("*/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member).read()
                if member.name.endswith(".png"):
                    with Image.open(io.BytesIO(content)) as image:
                        content = image.tobytes()
                digest.update(member.name.encode() + content)
    assert digest.hexdigest() == "c0754b9a040c5fe158fa344107a5ad12d345a6af5c6062bea9656a71e57e266c"
