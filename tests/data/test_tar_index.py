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


def header(name: str = "x.txt", *, size: bytes = b"%011o\0" % 0, kind: bytes = b"0", **places: bytes) -> bytes:
    """One header block with the size field as it is given; places: other bytes by offset, such as at482."""
    block = bytearray(tar_bytes({name: b""}, tarfile.USTAR_FORMAT)[:512])
    block[124:136], block[156:157] = size.ljust(12, b"\0"), kind
    for place, content in places.items():
        offset = int(place.removeprefix("at"))
        block[offset : offset + len(content)] = content
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax_header(**records: str) -> bytes:
    content = b""
    for keyword, value in records.items():
        record = f" {keyword.replace('__', '.')}={value}\n".encode()
        length = next(n for n in range(len(record), len(record) + 9) if len(str(n)) + len(record) == n)
        content += str(length).encode() + record
    return header(size=b"%011o\0" % len(content), kind=b"x") + content.ljust(-(-len(content) // 512) * 512, b"\0")


def index_of(tmp_path, content: bytes):
    (tmp_path / "t.tar").write_bytes(content)
    return index_tar(tmp_path / "t.tar")


WHOLE = header("0.txt", size=b"%011o\0" % 3) + b"abc".ljust(512, b"\0")
END = bytes(1024)


def test_size_in_base_256(tmp_path):
    index = index_of(tmp_path, header(size=b"\x80" + b"\0" * 3 + struct.pack(">Q", 1 << 35)) + b"abc")
    assert f"{512 + (1 << 35):,}" in str(index.damage)
    index = index_of(tmp_path, header(size=b"\x80" + b"\0" * 10 + b"\x03") + b"abc".ljust(512, b"\0") + END)
    assert [(member.size, index.damage) for member in index.members] == [(3, None)]


@pytest.mark.parametrize("kind", [b"0", b"7", b"L", b"x", b"g", b"S", b"?"])
@pytest.mark.parametrize(
    "size",
    [
        b"-0000001000",  # back to the header before: read for ever
        b"-1",
        b"+3",
        b"0o17",
        b"1_0",
        b"9",
        b"\xff" * 12,  # base 256, minus one
        b"\xff" * 10 + b"\xfc\x00",  # minus 1,024
        b"\x80" + b"\xff" * 11,
        b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7,
        b"\xc0" + b"\0" * 11,
    ],
)
def test_a_size_that_cannot_be_ends_the_reading(tmp_path, size, kind):
    index = index_of(tmp_path, WHOLE + header("1.txt", size=size, kind=kind) + WHOLE + END)
    assert [member.name for member in index.members] == ["0.txt"]
    assert "header at byte 1,024" in str(index.damage)
    with pytest.raises(DataError, match="not a tar file"):
        index_of(tmp_path, header(size=size, kind=kind) + END)


@pytest.mark.parametrize("kind", [b"0", b"7", b"V", b"S"])
def test_a_size_past_the_end_of_the_file_is_a_cut(tmp_path, kind):
    for size in (b"%011o\0" % 5000, b"77777777777", b"\x80" + b"\0" * 3 + struct.pack(">Q", 1 << 62)):
        index = index_of(tmp_path, WHOLE + header("1.txt", size=size, kind=kind) + END)
        assert [member.name for member in index.members] == ["0.txt"]
        assert str(index.damage).startswith("cut inside 1.txt")


@pytest.mark.parametrize("size", ["-1", "-1024", "1e3", "9" * 19, "9" * 5000, "²", "٣", "0x10", ""])
def test_a_pax_size_that_cannot_be_ends_the_reading(tmp_path, size):
    index = index_of(tmp_path, WHOLE + pax_header(size=size) + header("1.txt") + WHOLE + END)
    assert [member.name for member in index.members] == ["0.txt"]
    assert "has no size" in str(index.damage)


def test_a_pax_size_counts(tmp_path):
    index = index_of(tmp_path, pax_header(size="3", path="a\0b.txt") + header("1.txt") + b"abc".ljust(512, b"\0") + END)
    # a name ends at its first NUL, as in a header
    assert [(member.name, member.size, index.damage) for member in index.members] == [("a", 3, None)]


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_a_name_of_absurd_length_is_damage(tmp_path, kind):
    long = header("1.txt", size=b"%011o\0" % (1 << 21), kind=kind) + bytes(1 << 21)
    for content in (long, long[:700]):
        index = index_of(tmp_path, WHOLE + content + WHOLE + END)
        assert [member.name for member in index.members] == ["0.txt"]
        assert "name header at byte 1,024" in str(index.damage)


def test_what_has_no_bytes_skips_none(tmp_path):
    absurd = b"\x80" + b"\xff" * 11
    others = b"".join(header("other", size=absurd, kind=kind) for kind in (b"1", b"2", b"3", b"4", b"5", b"6"))
    index = index_of(tmp_path, others + WHOLE + END)
    assert [(member.name, index.damage) for member in index.members] == [("0.txt", None)]


def test_sparse_files_are_left_out_and_what_follows_is_read(tmp_path):
    size = b"%011o\0" % 512
    plain = header("s.txt", size=size, kind=b"S") + b"s" * 512
    more = header("s.txt", size=size, kind=b"S", at482=b"\x01") + bytes(504) + b"\x01" + bytes(519) + b"s" * 512
    pax = pax_header(GNU__sparse__major="1", path="s.txt") + header("s.txt", size=size) + b"s" * 512
    index = index_of(tmp_path, plain + more + pax + WHOLE + END)
    assert [(member.name, index.damage) for member in index.members] == [("0.txt", None)]
    endless = header("s.txt", kind=b"S", at482=b"\x01") + (bytes(504) + b"\x01" + bytes(7)) * 100
    assert "sparse map" in str(index_of(tmp_path, WHOLE + endless).damage)


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


def test_links_have_the_bytes_of_what_they_lead_to(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        early = tarfile.TarInfo("d/early.png")
        early.type, early.linkname = tarfile.SYMTYPE, "../a.png"
        tar.addfile(early)
        first = tarfile.TarInfo("a.png")
        first.size = 3
        tar.addfile(first, io.BytesIO(b"abc"))
        for name, kind, target in (
            ("b.png", tarfile.LNKTYPE, "a.png"),
            ("x" * 120 + ".png", tarfile.LNKTYPE, "b.png"),
            ("gone.png", tarfile.LNKTYPE, "none.png"),
            ("loop.png", tarfile.SYMTYPE, "loop.png"),
            ("out.png", tarfile.SYMTYPE, "/etc/passwd"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            tar.addfile(link)
    index = index_tar(tmp_path / "t.tar")
    content = (tmp_path / "t.tar").read_bytes()
    assert {one.name: content[one.offset : one.offset + one.size] for one in index.members} == {
        "d/early.png": b"abc",
        "a.png": b"abc",
        "b.png": b"abc",
        "x" * 120 + ".png": b"abc",
    }
    assert [name for name, _ in index.left_out] == ["gone.png", "loop.png", "out.png"]
    assert "none.png" in index.left_out[0][1]


def test_names_in_latin_1_do_not_collide_and_sparse_files_are_named(tmp_path):
    names = header("?", at0=b"caf\xe9.txt") + header("?", at0=b"caf\xe8.txt")
    sparse = header("s.jpg", size=b"%011o\0" % 512, kind=b"S") + b"s" * 512
    index = index_of(tmp_path, names + sparse + END)
    assert [one.name for one in index.members] == ["caf\\xe9.txt", "caf\\xe8.txt"]
    assert [(name, "sparse" in why) for name, why in index.left_out] == [("s.jpg", True)]
