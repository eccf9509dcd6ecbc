import io
import struct
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eyesmith.data.tar_index import index_tar
from eyesmith.errors import DataError

NAMES = ["a.txt", "folder/b.jpg", "x" * 150 + ".txt", "deep/" * 30 + "name.json", "smörgås-🦊.png", "p/" * 60 + "c.cls"]


def tar_bytes(members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_and_bytes_equal_those_of_tarfile(tmp_path, form):
    names = [name for name in NAMES if form != tarfile.USTAR_FORMAT or len(name) < 100]
    contents = {name: bytes([number]) * (number * 300) for number, name in enumerate(names)}
    path = tmp_path / "t.tar"
    path.write_bytes(tar_bytes(contents, form))

    index = index_tar(path)

    assert index.damage is None
    with tarfile.open(path) as tar:
        expected = [(member.name, member.offset_data, member.size) for member in tar.getmembers()]
    assert [(member.name, member.offset, member.size) for member in index.members] == expected
    whole = path.read_bytes()
    assert {member.name: whole[member.offset : member.offset + member.size] for member in index.members} == contents


def test_folders_and_links_are_no_members(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        folder = tarfile.TarInfo("d")
        folder.type = tarfile.DIRTYPE
        link = tarfile.TarInfo("d/l.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(folder)
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("d/empty.txt"))
    assert [(member.name, member.size) for member in index_tar(tmp_path / "t.tar").members] == [("d/empty.txt", 0)]


def test_every_cut_keeps_exactly_the_whole_members_before_it(tmp_path):
    contents = {f"{number}.txt": b"z" * 700 for number in range(4)}  # 512 header + 1024 of data each
    whole = tar_bytes(contents, tarfile.USTAR_FORMAT)
    path = tmp_path / "t.tar"
    for cut in [1, 511, 513, 1211, 1212, 1536, 1537, 3000, 3072, 4 * 1536]:
        path.write_bytes(whole[:cut])
        index = index_tar(path)
        expected = [number for number in range(4) if number * 1536 + 512 + 700 <= cut]
        assert [member.name for member in index.members] == [f"{number}.txt" for number in expected]
        assert index.damage is not None
        assert index.damage.startswith("cut")


def test_damaged_header_and_joined_tars_are_named(tmp_path):
    whole = bytearray(tar_bytes({"0.txt": b"a", "1.txt": b"b"}, tarfile.USTAR_FORMAT))
    joined = tmp_path / "joined.tar"
    joined.write_bytes(whole + whole)
    index = index_tar(joined)
    assert len(index.members) == 2
    assert "end mark" in str(index.damage)

    whole[1024 + 3] ^= 0xFF  # in the name of the second member
    path = tmp_path / "t.tar"
    path.write_bytes(whole)
    index = index_tar(path)
    assert [member.name for member in index.members] == ["0.txt"]
    assert "damaged" in str(index.damage)


def test_size_in_base_256(tmp_path):
    header = bytearray(tar_bytes({"0.txt": b""}, tarfile.USTAR_FORMAT)[:512])
    header[124:136] = b"\x80" + b"\0" * 3 + struct.pack(">Q", 1 << 35)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "t.tar").write_bytes(header + b"abc")
    assert f"{512 + (1 << 35):,}" in str(index_tar(tmp_path / "t.tar").damage)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"\x1f\x8b\x08" + b"x" * 600, "gzip"),
        (b"PK\x03\x04" + b"x" * 600, "zip"),
        (b"version https://git-lfs.github.com/spec/v1\n" + b"x" * 600, "git lfs pull"),
        (b"hello world " * 60, "not a tar file"),
    ],
)
def test_other_files_are_refused(tmp_path, content, expected):
    (tmp_path / "t.tar").write_bytes(content)
    with pytest.raises(DataError, match=expected):
        index_tar(tmp_path / "t.tar")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        index_tar(tmp_path)


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_is_a_crash(tmp_path, data):
    content = bytearray(tar_bytes(dict.fromkeys(NAMES, b"y" * 40)))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    (tmp_path / "t.tar").write_bytes(content)
    try:
        index = index_tar(tmp_path / "t.tar")
    except DataError:
        return
    assert all(member.offset + member.size <= len(content) for member in index.members)
