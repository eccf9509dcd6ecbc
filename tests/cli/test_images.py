import errno
import json
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch

import eyesmith as package
from eyesmith.data.shards import ShardWriter
from eyesmith.models.clip import Clip


def test_classify_prints_every_image_with_its_likeliest_names(eyesmith, run_folder: Path, photos: Path) -> None:
    status, out, err = eyesmith("classify", run_folder, photos, "--names", "cat", "dog")
    assert status == 0, err
    for name in ("cat/red.png", "cat/blue.png", "dog/green.png"):
        assert str(photos / name) in out
    assert out.count("cat ") >= 3
    assert out.count(" %") == 6


def test_classify_as_json_equals_the_library(eyesmith, run_folder: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\n\n dog \nbird\n")
    images = [photos / "cat" / "red.png", photos / "dog" / "green.png"]
    status, out, _ = eyesmith("classify", run_folder, *images, "--names-file", tmp_path / "names.txt", "--json")
    assert status == 0
    found = json.loads(out)
    want = package.load(run_folder).classify(images, ["cat", "dog", "bird"])
    assert [one["image"] for one in found["images"]] == [str(image) for image in images]
    got = [list(one["probabilities"].values()) for one in found["images"]]
    np.testing.assert_allclose(got, want.numpy(), atol=1e-6)
    assert list(found["images"][0]["probabilities"]) == ["cat", "dog", "bird"]


def test_broken_images_are_named_and_skipped(eyesmith, run_folder: Path, broken: Path) -> None:
    status, out, err = eyesmith("classify", run_folder, broken, "--names", "cat", "dog", "--json")
    assert status == 0
    found = json.loads(out)
    assert len(found["images"]) == 3
    skipped = {Path(one["image"]).name for one in found["skipped"]}
    assert skipped == {"text.jpg", "half.png"}
    assert "skipped: " in err
    assert "text.jpg" in err


def test_only_broken_images_is_a_failure(eyesmith, run_folder: Path, broken: Path) -> None:
    status, out, err = eyesmith("classify", run_folder, broken / "dog" / "text.jpg", "--names", "cat", "dog")
    assert (status, out) == (1, "")
    assert "not one of its 1 images can be read" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["PHOTOS"], "expected the names to choose from"),
        (["PHOTOS", "--names", "cat", "cat"], "'cat' is given twice"),
        (["PHOTOS", "--names", "cat", "--prompts", "a photo"], "has no {} for the class name"),
        (["PHOTOS", "--names-file", "nowhere.txt"], "nowhere.txt: No such file"),
        (["--names", "cat"], "expected at least one image file"),
        (["PHOTOS", "--name", "cat", "dog"], "the names to choose from are --names"),
        (
            ["PHOTOS", "--images", "x"],
            "--images: IMAGES has no name before it but its place: `eyesmith classify MODEL IMA",
        ),
        (["nowhere", "--names", "cat"], "nowhere: no such file or folder"),
        (["nowhere/*.jpg", "--names", "cat"], "this pattern matches no image"),
    ],
)
def test_wrong_input_to_classify(eyesmith, run_folder: Path, photos: Path, words: list[str], message: str) -> None:
    status, _, err = eyesmith("classify", run_folder, *[photos if word == "PHOTOS" else word for word in words])
    assert status == 2
    assert message in err


def test_one_name_alone_is_said_to_mean_nothing(eyesmith, run_folder: Path, photos: Path) -> None:
    status, out, err = eyesmith("classify", run_folder, photos, "--names", "cat")
    assert status == 0
    assert "cat 100.0 %" in out
    assert "one name alone always gets 100 %" in err
    assert "alone" not in eyesmith("classify", run_folder, photos, "--names", "cat", "dog")[2]


def test_a_wrong_model_is_a_message(eyesmith, photos: Path, tmp_path: Path) -> None:
    status, _, err = eyesmith("classify", tmp_path / "nowhere", photos, "--names", "cat")
    assert status == 2
    assert "nowhere" in err


def test_embed_writes_unit_rows_in_order(eyesmith, run_folder: Path, broken: Path, tmp_path: Path) -> None:
    out_file = tmp_path / "features.npz"
    status, out, err = eyesmith("embed", run_folder, broken, "--out", out_file)
    assert status == 0, err
    assert "3 images" in out
    with np.load(out_file, allow_pickle=False) as arrays:
        features, keys, skipped = arrays["features"], arrays["keys"], arrays["broken"]
    assert features.dtype == np.float32
    assert [Path(key).name for key in keys] == ["blue.png", "red.png", "green.png"]
    assert {Path(row[0]).name for row in skipped} == {"text.jpg", "half.png"}
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    want = package.load(run_folder).encode_image([str(key) for key in keys])
    np.testing.assert_allclose(features, want.numpy(), atol=1e-5)
    status, _, err = eyesmith("embed", run_folder, broken, "--out", out_file)
    assert status == 2
    assert "is there already" in err
    assert eyesmith("embed", run_folder, broken, "--out", out_file, "--overwrite")[0] == 0
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_embed_takes_a_data_set_as_search_does(eyesmith, run_folder: Path, photos: Path, tmp_path: Path) -> None:
    for split in ("one", "two"):
        with ShardWriter(tmp_path / "shards" / split) as writer:
            for file in sorted((photos / "cat").iterdir()):
                writer.write(f"{split}-{file.stem}", {"png": file.read_bytes(), "txt": b"a cat"})
    out = tmp_path / "f.npz"
    status, _, err = eyesmith("embed", run_folder, tmp_path / "shards", "--split", "two", "--out", out)
    assert status == 0, err
    with np.load(out) as found:
        assert found["keys"].tolist() == ["two-blue", "two-red"]
        torch.testing.assert_close(
            torch.from_numpy(found["features"]),
            package.load(run_folder).encode_image([photos / "cat" / "blue.png", photos / "cat" / "red.png"]),
        )


def test_features_that_are_no_numbers_are_never_written(
    eyesmith, run_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are numbers may still lead to none: squares that overflow, a bad kernel."""
    compute = Clip.image_features

    def overflow(self: Clip, pixels: torch.Tensor) -> torch.Tensor:
        features = compute(self, pixels)
        features[1, 0] = torch.inf
        return features

    monkeypatch.setattr(Clip, "image_features", overflow)
    status, _, err = eyesmith("embed", run_folder, photos, "--out", tmp_path / "features.npz")
    assert status == 1
    assert "finite" in err
    assert not (tmp_path / "features.npz").exists()


def test_embed_on_a_full_disk_names_the_file_and_leaves_nothing(
    eyesmith, run_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(stream: BinaryIO, **_: object) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numpy.savez", fill)
    status, _, err = eyesmith("embed", run_folder, photos, "--out", tmp_path / "features.npz")
    assert status == 1
    assert f"{tmp_path / 'features.npz'}: the disk is full" in err
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("photos", "cache")] == []


def test_embed_refuses_another_extension_before_any_work(eyesmith, photos: Path) -> None:
    status, _, err = eyesmith("embed", "no-model", photos, "--out", "features.txt")
    assert status == 2
    assert "ends in .npz" in err


def test_search_ranks_by_cosine_and_keeps_the_features(
    eyesmith, run_folder: Path, broken: Path, tmp_path: Path
) -> None:
    status, out, _ = eyesmith("search", run_folder, broken, "a red thing", "--top", "2", "--json")
    assert status == 0
    hits = json.loads(out)
    clip = package.load(run_folder)
    files = sorted(str(path) for path in broken.glob("*/*.png") if path.name != "half.png")
    scores = (clip.encode_text(["a red thing"]) @ clip.encode_image(files).T)[0]
    order = scores.argsort(descending=True)[:2].tolist()
    assert [hit["image"] for hit in hits] == [files[place] for place in order]
    np.testing.assert_allclose([hit["score"] for hit in hits], scores[order].tolist(), atol=1e-5)
    assert [hit["rank"] for hit in hits] == [1, 2]
    kept = list((tmp_path / "cache" / "search").glob("*.npz"))
    assert len(kept) == 1
    kept[0].write_bytes(b"damaged")  # a cache that cannot be read is made anew
    status, again, err = eyesmith("search", run_folder, broken, "a red thing", "--top", "2", "--json")
    assert (status, json.loads(again)) == (0, hits)
    assert "text.jpg" in err


def test_search_sees_a_changed_picture(eyesmith, run_folder: Path, photos: Path) -> None:
    first = eyesmith("search", run_folder, photos, "a red thing", "--json")[1]
    (photos / "dog" / "green.png").write_bytes((photos / "cat" / "red.png").read_bytes())
    second = json.loads(eyesmith("search", run_folder, photos, "a red thing", "--json")[1])
    assert second != json.loads(first)
    scores = {Path(hit["image"]).name: hit["score"] for hit in second}
    assert scores["green.png"] == scores["red.png"]


@pytest.mark.parametrize(
    ("words", "message"), [(["  "], "the text to search for is empty"), (["cat", "--top", "0"], "expected at least 1")]
)
def test_wrong_input_to_search(eyesmith, run_folder: Path, photos: Path, words: list[str], message: str) -> None:
    status, _, err = eyesmith("search", run_folder, photos, *words)
    assert status == 2
    assert message in err


@pytest.mark.parametrize(
    "words",
    [
        ("classify", "RUN", "PHOTOS", "--names", "cat", "dog"),
        ("embed", "RUN", "PHOTOS", "--out", "OUT.npz"),
        ("search", "RUN", "PHOTOS", "a cat"),
        ("probe", "RUN", "--train", "PHOTOS", "--test", "PHOTOS"),
        ("eval", "RUN", "PHOTOS"),
        ("eval", "RUN", "cifar10", "--data", "PHOTOS"),
        ("curate", "marks", "PHOTOS", "--out", "OUT.npz", "--evaluation", "--model", "RUN"),
    ],
)
def test_every_verb_that_uses_a_model_takes_a_device_and_refuses_one_that_is_not_there(
    eyesmith, run_folder: Path, photos: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    places = {"RUN": run_folder, "PHOTOS": photos, "OUT.npz": tmp_path / "out.npz"}
    status, out, err = eyesmith(*[places.get(word, word) for word in words], "--device", "gpu")
    assert (status, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert "device: expected" in err
    assert "'gpu'" in err


def test_a_model_goes_to_the_device_that_is_named(eyesmith, run_folder: Path, photos: Path, monkeypatch) -> None:
    moved: list[object] = []
    move = Clip.to
    monkeypatch.setattr(Clip, "to", lambda self, *where, **more: moved.extend(where) or move(self, *where, **more))
    assert eyesmith("classify", run_folder, photos, "--names", "cat", "dog", "--device", "cpu")[0] == 0
    assert moved == [torch.device("cpu")]
