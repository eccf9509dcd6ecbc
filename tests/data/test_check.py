import io
import json

import pytest
from PIL import Image

from eyesmith.data import check as check_module
from eyesmith.data.check import check
from eyesmith.data.sources import open_source
from eyesmith.errors import ConfigError, DataError


def kinds(report):
    return sorted((finding.kind, finding.key) for finding in report.findings)


def test_sound_data_set(made):
    report = check(made)
    assert report.findings == []
    assert report.splits == {"train": 6, "unseen_drawing": 2}
    assert report.num_samples == 8
    assert report.exit_status == 0
    assert report.images_per_s > 0


def test_one_split_and_an_open_source(made):
    assert check(made, "unseen_drawing").splits == {"unseen_drawing": 2}
    assert check(open_source(made, split="train")).splits == {"": 6}
    with pytest.raises(ConfigError, match="open already"):
        check(open_source(made, split="train"), "train")
    with pytest.raises(DataError, match="no split"):
        check(made, "nowhere")


def test_every_kind_of_broken_sample(tmp_path, write_tar, picture):
    images = {
        "broken": picture(0)[:60],
        "text": b"this is no image",
        "small": picture(1, size=(8, 40)),
        "strip": picture(2, size=(400, 20)),
        "blank": picture(3),
        "latin": picture(4),
        "label": picture(5),
        "fine": picture(6),
    }
    parts = {}
    for key, image in images.items():
        parts |= {f"{key}.png": image, f"{key}.txt": b"a caption", f"{key}.cls": b"0"}
    parts |= {"blank.txt": b" ", "latin.txt": b"caf\xe9", "label.cls": b"5", "fine.json": b"{", "lonely.txt": b"x"}
    write_tar(tmp_path / "0.tar", parts)
    (tmp_path / "classnames.txt").write_text("one\ntwo\n")
    report = check(tmp_path)
    assert kinds(report) == [
        ("bad_json", "fine"),
        ("bad_label", "label"),
        ("empty_caption", "blank"),
        ("extreme_aspect", "strip"),
        ("missing_member", "lonely"),
        ("not_utf8", "latin"),
        ("too_small", "small"),
        ("undecodable", "broken"),
        ("undecodable", "text"),
    ]
    assert {finding.kind for finding in report.findings if finding.severity == "warning"} == {
        "too_small",
        "extreme_aspect",
    }
    assert report.exit_status == 1
    assert report.counts["undecodable"] == 2
    assert {finding.where for finding in report.findings} == {"0.tar"}
    assert "extreme_aspect" not in check(tmp_path, max_aspect=20).counts
    assert "too_small" not in check(tmp_path, min_px=8).counts


def test_duplicates_within_a_split(tmp_path, write_tar, picture):
    picture_bytes = picture(0, size=(72, 72))
    image = Image.open(io.BytesIO(picture_bytes))
    other_file, other_size = io.BytesIO(), io.BytesIO()
    image.save(other_file, "png", compress_level=0)
    image.resize((64, 64), Image.Resampling.BICUBIC).save(other_size, "jpeg", quality=90)
    parts = {
        "a.png": picture_bytes,
        "b.png": picture_bytes,
        "c.png": other_file.getvalue(),
        "d.jpg": other_size.getvalue(),
    }
    parts |= {"e.png": picture(1, size=(72, 72))} | {f"{key}.txt": b"x" for key in "abcde"}
    write_tar(tmp_path / "0.tar", parts)
    write_tar(tmp_path / "1.tar", {"a.png": picture(2), "a.txt": b"x"})
    report = check(tmp_path)
    assert kinds(report) == [
        ("duplicate_image", "b"),
        ("duplicate_image", "c"),
        ("duplicate_key", "a"),
        ("near_duplicate", "d"),
    ]
    assert report.exit_status == 0  # warnings only
    details = {finding.key: finding.detail for finding in report.findings}
    assert details["b"] == "the same file as a in 0.tar"
    assert details["c"].startswith("the same pixels in another file as a")
    assert details["a"] == "the key is in 0.tar too"


def test_leaks_between_splits(made, write_tar, members, picture):
    train = members(4, "train", label=1) | {"train-4.png": picture(4, size=(72, 72))}
    write_tar(made / "train" / "1.tar", members(3) | train | members(5, label=2))
    image = Image.open(io.BytesIO(train["train-4.png"]))
    again = io.BytesIO()
    image.resize((64, 64), Image.Resampling.BICUBIC).save(again, "jpeg", quality=92)
    parts = members(0, "unseen_drawing") | {"unseen_drawing-0.png": train["train-4.png"]}
    parts |= {"train-1.jpg": again.getvalue(), "train-1.txt": b"x", "train-1.cls": b"0"}
    write_tar(made / "unseen_drawing" / "0.tar", parts)
    report = check(made)
    assert kinds(report) == [("leak", "unseen_drawing-0"), ("near_leak", "train-1"), ("same_key", "")]
    by_kind = {finding.kind: finding for finding in report.findings}
    assert by_kind["leak"].where == "unseen_drawing/0.tar"
    assert by_kind["leak"].detail == "the same file as train-4 in train/1.tar"
    assert by_kind["same_key"].detail == "1 keys are in each of train, unseen_drawing, such as train-1"
    assert report.exit_status == 1
    assert "leak" not in check(made, "unseen_drawing").counts


def test_cut_and_missing_shards(made):
    shard = made / "train" / "1.tar"
    shard.write_bytes(shard.read_bytes()[:2500])
    counts = check(made).counts
    assert counts["truncated_tar"] == 1
    assert counts["wrong_count"] == 1
    shard.unlink()
    report = check(made)
    assert kinds(report) == [("missing_shard", ""), ("wrong_count", "")]
    assert report.findings[1].detail == "dataset.json counts 6 samples, 3 are usable"


def test_tables_and_folders(tmp_path, picture):
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "b.png").write_bytes(picture(0))
    (tmp_path / "p.csv").write_text("file,text\na.png,x\nb.png,\nc.png,y\n")
    report = check(tmp_path / "p.csv", image_column="file", text_column="text")
    assert kinds(report) == [("empty_caption", "b.png"), ("missing_image", "c.png")]
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.txt").write_text("y")
    assert kinds(check(tmp_path)) == [("duplicate_image", "b.png")]


def test_image_gone_while_checking(tmp_path, picture):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(picture(ord(name)))
        (tmp_path / f"{name}.txt").write_text("x")
    source = open_source(tmp_path)
    (tmp_path / "b.png").unlink()
    assert kinds(check(source)) == [("missing_image", "b.png")]


def test_limit_of_comparisons_is_said(made, monkeypatch):
    monkeypatch.setattr(check_module, "_MAX_NEAR_SAMPLES", 5)
    report = check(made)
    assert [finding.kind for finding in report.findings] == ["not_compared"]
    assert "the first 5 of 8 distinct images" in report.findings[0].detail


def test_report_as_json(made):
    (made / "train" / "1.tar").unlink()
    report = json.loads(check(made).to_json())
    assert report["samples"] == 5
    assert report["errors"] == 2
    assert report["warnings"] == 0
    assert report["counts"] == {"missing_shard": 1, "wrong_count": 1}
    assert set(report["findings"][0]) == {"kind", "severity", "key", "where", "detail"}


def test_progress_and_workers(made):
    seen = []
    report = check(made, num_workers=4, on_progress=lambda done, whole: seen.append((done, whole)))
    assert seen == [(6, 8), (8, 8)]
    assert report.findings == []
    with pytest.raises(ConfigError):
        check(made, num_workers=0)


def test_transparency_that_is_dropped_is_found(tmp_path):
    """Stamps: the shape is in the alpha alone, so all of them are one black square, and none is a duplicate."""
    for folder in ("stamps", "photos"):
        (tmp_path / folder).mkdir()
    photo = Image.effect_noise((40, 40), 60).convert("RGB")
    for name, box in (("round", (4, 4, 20, 20)), ("wide", (10, 2, 36, 12))):
        stamp = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
        stamp.paste((0, 0, 0, 255), box)
        stamp.save(tmp_path / "stamps" / f"{name}.png")
    photo.putalpha(255)
    photo.save(tmp_path / "photos" / "opaque.png")
    half = Image.effect_noise((40, 40), 60).convert("RGB")
    half.putalpha(128)
    half.save(tmp_path / "photos" / "half.png")
    palette = Image.effect_noise((40, 40), 60).convert("P")
    palette.save(tmp_path / "stamps" / "palette.png", transparency=palette.getpixel((0, 0)))
    found = {(kind, key.rpartition("/")[2].removesuffix(".png")) for kind, key in kinds(check(tmp_path))}
    assert found == {
        ("transparent", "half"),
        ("transparent", "palette"),
        ("transparent", "round"),
        ("transparent", "wide"),
        ("blank_without_alpha", "round"),
        ("blank_without_alpha", "wide"),
    }


def test_a_picture_that_a_viewer_would_turn_is_found(tmp_path):
    exif = Image.Exif()
    for orientation, folder in ((1, "upright"), (6, "turned")):
        exif[0x0112] = orientation
        (tmp_path / folder).mkdir()
        Image.effect_noise((40, 30), 60 + orientation).convert("RGB").save(tmp_path / folder / "1.jpg", exif=exif)
    (finding,) = [finding for finding in check(tmp_path).findings if finding.kind != "near_duplicate"]
    assert (finding.kind, finding.severity) == ("exif_orientation", "warning")
    assert "turned" in finding.key
