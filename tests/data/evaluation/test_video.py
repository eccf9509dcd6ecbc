import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyesmith.data.evaluation import open_evaluation_set, video
from eyesmith.data.evaluation.video import middle_frame
from eyesmith.data.make import make_miniatures
from eyesmith.errors import DataError, ImageError
from eyesmith.images.decode import open_image

LEVELS = 20  # of grey between two frames


def _frame(number: int) -> Image.Image:
    return Image.new("RGB", (32, 24), (LEVELS * number,) * 3)


def _folder(place, count: int) -> None:
    place.mkdir(parents=True)
    for number in range(count):
        _frame(number).save(place / f"frame{number + 1}.png")  # 10 comes after 9, not after 1


@pytest.fixture
def frames(tmp_path):
    root = tmp_path / "videos"
    _folder(root / "test" / "archery" / "a", 11)
    _folder(root / "test" / "biking" / "b", 4)
    _folder(root / "test" / "biking" / "c", 1)
    (root / "classnames.txt").write_text("doing archery\nriding a bike\n")
    (root / "zeroshot_classification_templates.txt").write_text("a photo of {c}.\n")
    (root / "dataset_type.txt").write_text("video\n")
    return root


def _grey(content: bytes) -> int:
    return round(np.asarray(open_image(content).convert("L")).mean() / LEVELS)


def test_the_middle_frame_of_a_folder_of_frames(frames):
    found = open_evaluation_set(frames)
    assert (found.layout, found.classes) == ("video", ("doing archery", "riding a bike"))
    assert found.labels.tolist() == [0, 1, 1]
    assert list(found.source.keys) == ["archery/a", "biking/b", "biking/c"]
    assert [_grey(found.source.image_bytes(index)) for index in range(3)] == [5, 2, 0]


def test_an_empty_class_and_a_video_without_frames_are_named(frames):
    (frames / "test" / "biking" / "d").mkdir()
    with pytest.raises(DataError, match="biking/d biking/d a folder without frames"):
        open_evaluation_set(frames)
    (frames / "test" / "biking" / "d").rmdir()
    (frames / "test" / "yoga").mkdir()
    (frames / "classnames.txt").unlink()
    with pytest.raises(DataError, match="yoga/ a class folder without videos"):
        open_evaluation_set(frames)


def test_names_must_be_one_for_each_class_folder(frames):
    (frames / "classnames.txt").write_text("archery\n")
    with pytest.raises(DataError, match="1 names for 2 class folders"):
        open_evaluation_set(frames)


@pytest.mark.parametrize("form", ["mp4", "avi", "mkv"])
@pytest.mark.parametrize("count", [1, 2, 9, 12])
def test_the_middle_frame_of_a_file(tmp_path, count, form):
    av = pytest.importorskip("av")
    path = tmp_path / f"v.{form}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.gop_size, stream.max_b_frames = 32, 24, 4, 2
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_image(_frame(number))))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        levels = [frame.to_ndarray(format="rgb24").mean() / LEVELS for frame in container.decode(video=0)]
    assert np.allclose(levels, range(count), atol=0.3)  # every frame, decoded from the start
    pixels = middle_frame(path)
    assert (pixels.shape, pixels.dtype) == ((24, 32, 3), np.uint8)
    assert round(pixels.mean() / LEVELS) == count // 2


def test_video_files_are_a_set(tmp_path):
    pytest.importorskip("av")
    files = make_miniatures(tmp_path / "files", ["video/ucf101"], as_files=True)["video/ucf101"]
    folders = make_miniatures(tmp_path / "frames", ["video/ucf101"])["video/ucf101"]
    one, other = open_evaluation_set(files), open_evaluation_set(folders)
    assert one.labels.tolist() == other.labels.tolist()
    (files / "dataset_type.txt").unlink()  # and is recognised by what lies in it
    assert open_evaluation_set(files).layout == "video"
    for index in range(3):  # the same pictures but for two lossy codecs
        pixels = [np.asarray(open_image(each.source.image_bytes(index)).convert("RGB")) for each in (one, other)]
        assert np.abs(pixels[0].astype(int) - pixels[1]).mean() < 12


def test_a_damaged_video_is_an_image_error(tmp_path):
    pytest.importorskip("av")
    path = tmp_path / "v.mp4"
    path.write_bytes(b"not a video at all" * 50)
    with pytest.raises(ImageError, match="not a readable video"):
        middle_frame(path)


def test_the_picture_of_a_file_is_a_lossless_ppm(tmp_path):
    pytest.importorskip("av")
    folder = make_miniatures(tmp_path, ["video/ucf101"], as_files=True)["video/ucf101"]
    source = open_evaluation_set(folder).source
    path = folder / "test" / source.keys[0]
    image = Image.open(io.BytesIO(source.image_bytes(0)))
    assert image.format == "PPM"
    assert np.array_equal(np.asarray(image), middle_frame(path))


def _video(path, form=None):
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 32, 24
        for number in range(3):
            container.mux(stream.encode(av.VideoFrame.from_image(_frame(number))))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    "content",
    [
        "ffconcat version 1.0\nfile secret.avi\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1.0,\nsecret.avi\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45678 RTP/AVP 96\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet><Representation>'
        "<BaseURL>secret.avi</BaseURL></Representation></AdaptationSet></Period></MPD>",
    ],
)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
def test_a_list_of_other_files_opens_none_of_them(tmp_path, content):
    pytest.importorskip("av")
    os.mkfifo(tmp_path / "secret.avi")  # a pipe tells its writer that somebody reads it
    was_opened, is_over = threading.Event(), threading.Event()

    def watch():
        while not is_over.wait(0.005):
            try:
                os.close(os.open(tmp_path / "secret.avi", os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                continue
            was_opened.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    (tmp_path / "v.mp4").write_text(content)
    with pytest.raises(ImageError, match="not a readable video"):
        middle_frame(tmp_path / "v.mp4")
    is_over.set()
    watcher.join()
    assert not was_opened.is_set()


def test_a_file_name_is_no_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _video("other.avi")
    Path("concat:other.avi").write_bytes(b"not a video at all" * 50)
    with pytest.raises(ImageError, match="not a readable video"):
        middle_frame(Path("concat:other.avi"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
def test_a_pipe_is_not_waited_for(tmp_path):
    pytest.importorskip("av")
    os.mkfifo(tmp_path / "v.mp4")
    with pytest.raises(ImageError, match="device"):
        middle_frame(tmp_path / "v.mp4")


def test_frames_are_bounded_as_pictures_are(tmp_path, monkeypatch):
    _video(tmp_path / "v.mp4")
    monkeypatch.setattr(video, "MAX_PIXELS", 1 << 16)  # FFmpeg counts a margin too
    assert middle_frame(tmp_path / "v.mp4").shape == (24, 32, 3)
    monkeypatch.setattr(video, "MAX_PIXELS", 16 * 24)
    with pytest.raises(ImageError, match="not a readable video"):
        middle_frame(tmp_path / "v.mp4")


@pytest.mark.parametrize("form", ["matroska", "avi", "mov"])
def test_a_container_under_another_extension_is_read(tmp_path, form):
    _video(tmp_path / "v.mp4", form)
    assert middle_frame(tmp_path / "v.mp4").shape == (24, 32, 3)
