"""Hostile and honest archives: what is refused, with which member named, and that nothing is left behind."""

import bz2
import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covbook.datasets import archives
from covlib.errors import DataError


def make_zip(path: Path, members: dict[str, bytes], **attributes) -> Path:
    """A zip with the members' names exactly as given."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in attributes.items():
                setattr(info, key, value)
            opened.writestr(info, content)
    return path


def make_tar(path: Path, members: list[tuple[str, bytes, dict]], mode: str = "w:gz") -> Path:
    """A tar; each member's dict sets TarInfo fields (type, linkname ...)."""
    with tarfile.open(path, mode) as opened:
        for name, content, fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            opened.addfile(info, io.BytesIO(content))
    return path


def refused(archive: Path, tmp_path: Path, *words: str) -> None:
    """``unpack`` says why in one line, and leaves nothing in or around the target."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError) as caught:
        archives.unpack(archive, tmp_path / "target")
    text = str(caught.value)
    assert "\n" not in text and archive.name in text
    for word in words:
        assert word in text
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_unpacks_files_and_folders(tmp_path, mode):
    content = {"top/a.txt": b"one", "top/deep/er/b.bin": os.urandom(70_000), "c.txt": b""}
    if mode == "zip":
        archive = make_zip(tmp_path / "x.zip", content)
    else:
        archive = make_tar(tmp_path / "x.tar.gz", [(n, c, {"mode": 0o6777}) for n, c in content.items()], mode)
    folder = archives.unpack(archive, tmp_path / "new" / "target")
    assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == content
    assert stat.S_IMODE((folder / "c.txt").stat().st_mode) & 0o6111 == 0  # stored modes are not taken over
    assert [p.name for p in folder.parent.iterdir()] == ["target"]


def test_strip_drops_the_top_folder_and_junk_is_left_out(tmp_path):
    archive = make_zip(tmp_path / "x.zip", {"repo-1.0/": b"", "repo-1.0/data/a.txt": b"a",
                                            "repo-1.0/.DS_Store": b"junk", "repo-1.0/data/._a.txt": b"junk"})
    folder = archives.unpack(archive, tmp_path / "target", strip=1)
    assert [str(p.relative_to(folder)) for p in folder.rglob("*")] == ["data", "data/a.txt"]
    mac = make_zip(tmp_path / "mac.zip", {"a.txt": b"a", "__MACOSX/._a.txt": b"junk"})
    assert [p.name for p in archives.unpack(mac, tmp_path / "mac").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/etc/evil", "C:\\evil", "c:evil", "..\\evil.txt",
                                  "a\\..\\..\\evil", "\\\\server\\evil"])
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    word = "absolute" if name[0] in "/Cc" or name.startswith("\\") else "../"
    refused(make_zip(tmp_path / "x.zip", {"good.txt": b"good", name: b"evil"}), tmp_path, ascii(name), word)
    refused(make_tar(tmp_path / "x.tar.gz", [("good.txt", b"good", {}), (name, b"evil", {})]), tmp_path,
            ascii(name), word)


@pytest.mark.parametrize(("kind", "word"), [(tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "link"),
                                            (tarfile.CHRTYPE, "device"), (tarfile.BLKTYPE, "device"),
                                            (tarfile.FIFOTYPE, "device"), (b"Z", "unknown kind")])
def test_tar_links_and_devices_are_refused(tmp_path, kind, word):
    members = [("good.txt", b"good", {}), ("bad", b"", {"type": kind, "linkname": "/etc"})]
    archive = make_tar(tmp_path / "x.tar", members, "w")
    refused(archive, tmp_path, "'bad'", word)


def test_tar_link_then_file_through_it_cannot_write_outside(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = make_tar(tmp_path / "x.tar.gz", [("out", b"", {"type": tarfile.SYMTYPE, "linkname": str(outside)}),
                                               ("out/evil.txt", b"evil", {})])
    refused(archive, tmp_path, "'out'", "link")
    assert not list(outside.iterdir())


@pytest.mark.parametrize(("mode", "word"), [(stat.S_IFLNK | 0o777, "link"), (stat.S_IFCHR | 0o600, "device"),
                                            (stat.S_IFIFO | 0o600, "device")])
def test_zip_links_and_devices_are_refused(tmp_path, mode, word):
    refused(make_zip(tmp_path / "x.zip", {"bad": b"/etc/passwd"}, external_attr=mode << 16), tmp_path, "'bad'", word)


def test_encrypted_zip_is_refused(tmp_path):
    archive = make_zip(tmp_path / "x.zip", {"secret": b"abc"})
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag in both of the member's headers
        content[content.index(signature) + offset] |= 1
    archive.write_bytes(content)
    refused(archive, tmp_path, "'secret'", "encrypted")


def test_bombs_are_refused_with_the_limits_that_users_have(tmp_path):
    zeros = bytes(70 << 20)
    zipped = make_zip(tmp_path / "x.zip", {"good.txt": b"good", "bomb.bin": zeros})
    refused(zipped, tmp_path, "'bomb.bin'", "200 times")
    refused(make_tar(tmp_path / "x.tar.gz", [("bomb.bin", zeros, {})]), tmp_path, "'bomb.bin'", "200 times")


def test_limits_on_size_and_number(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "x.zip", {f"{i}.bin": os.urandom(1000) for i in range(5)})
    with monkeypatch.context() as patch:
        patch.setattr(archives, "FILES", 4)
        refused(archive, tmp_path, "'4.bin'", "more than 4 files")
    monkeypatch.setattr(archives, "TOTAL", 3500)
    refused(archive, tmp_path, "'3.bin'", "3500 bytes")
    tar = make_tar(tmp_path / "x.tar.gz", [(f"{i}.bin", os.urandom(1000), {}) for i in range(5)])
    refused(tar, tmp_path, "'3.bin'", "3500 bytes")
    monkeypatch.setattr(archives, "TOTAL", 5000)
    assert len(list(archives.unpack(archive, tmp_path / "target").iterdir())) == 5


def test_size_in_the_header_may_not_lie(tmp_path):
    archive = make_zip(tmp_path / "x.zip", {"liar.bin": bytes(100_000)})
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(signature) + offset, 10)
    archive.write_bytes(content)
    refused(archive, tmp_path)


def test_a_huge_pax_header_is_not_read_into_memory(tmp_path):
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XHDTYPE, (1 << 33) - 1  # 8 GB announced, as zeros a gzip of some MB would hold
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20)))
    refused(archive, tmp_path, "one piece")


def test_two_members_of_one_name_and_a_file_as_a_folder_are_refused(tmp_path):
    twice = make_tar(tmp_path / "x.tar", [("a.txt", b"1", {}), ("./a.txt", b"2", {})], "w")
    refused(twice, tmp_path, "'a.txt'", "twice")
    refused(make_zip(tmp_path / "x.zip", {"a": b"1", "a/b": b"2"}), tmp_path, "'a'", "both a file and a folder")


def test_damaged_archives_are_one_line(tmp_path):
    whole = make_tar(tmp_path / "whole.tar.gz", [("a.bin", os.urandom(200_000), {}), ("b.bin", os.urandom(9000), {})])
    content = whole.read_bytes()
    damaged = {"cut.tar.gz": content[: len(content) // 2], "text.zip": b"hello, this is a text\n" * 40,
               "flipped.tar.gz": content[:5000] + b"\0" * 64 + content[5064:], "empty.zip": b"",
               "cut.bz2.tar": bz2.compress(content)[:99]}
    zipped = make_zip(tmp_path / "whole.zip", {"a.bin": os.urandom(200_000)}).read_bytes()
    damaged["cut.zip"] = zipped[: len(zipped) // 2]
    damaged["flipped.zip"] = zipped[:5000] + b"\0" * 64 + zipped[5064:]
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
    for name in damaged:
        refused(tmp_path / name, tmp_path)
    with pytest.raises(DataError, match=r"missing\.zip: No such file"):
        archives.unpack(tmp_path / "missing.zip", tmp_path / "target")


def test_plain_tar_cut_inside_a_file_is_refused(tmp_path):
    archive = make_tar(tmp_path / "x.tar", [("a.bin", os.urandom(50_000), {})], "w")
    archive.write_bytes(archive.read_bytes()[:20_000])
    refused(archive, tmp_path)


def test_target_must_be_new_or_empty(tmp_path):
    archive = make_zip(tmp_path / "x.zip", {"a.txt": b"a"})
    (tmp_path / "empty").mkdir()
    assert (archives.unpack(archive, tmp_path / "empty") / "a.txt").read_bytes() == b"a"
    with pytest.raises(DataError, match="is not empty"):
        archives.unpack(archive, tmp_path / "empty")


def test_too_long_a_name_is_one_line(tmp_path):
    refused(make_zip(tmp_path / "x.zip", {"n" * 300: b"a"}), tmp_path, "too long")


def test_archives_are_known_by_name(tmp_path):
    for name in ("a.zip", "A.ZIP", "b.tar.gz", "c.tgz", "d.tar"):
        (tmp_path / name).write_bytes(b"")
        assert archives.is_archive(tmp_path / name)
    (tmp_path / "scan.nii.gz").write_bytes(b"")
    assert not archives.is_archive(tmp_path / "scan.nii.gz") and not archives.is_archive(tmp_path)


NASTY = st.text(st.sampled_from("ab./\\: \0\n"), max_size=12) | st.text(max_size=20)


@given(NASTY, st.integers(0, 2))
@settings(max_examples=400, deadline=None)
def test_no_name_leaves_the_folder(name, strip):
    try:
        path = archives.safe_path(name, strip)
    except ValueError:
        return
    if path is not None:
        assert not path.is_absolute() and ".." not in path.parts and str(path) != "."
        inside = os.path.normpath(os.path.join("/base", str(PurePosixPath(path))))
        assert inside.startswith("/base/")


@given(st.lists(NASTY.filter(lambda name: "\0" not in name), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_names_unpack_inside_or_not_at_all(tmp_path_factory, names):
    base = tmp_path_factory.mktemp("names")
    (base / "room").mkdir()
    archive = base / "x.tar"
    try:
        make_tar(archive, [(name, b"content", {}) for name in names], "w")
    except (ValueError, UnicodeError):
        return  # tarfile itself cannot write this name
    try:
        archives.unpack(archive, base / "room" / "target")
    except DataError as error:
        assert "\n" not in str(error) and not list((base / "room").iterdir())
    assert sorted(p.name for p in base.iterdir()) == ["room", "x.tar"]
    assert [p.name for p in (base / "room").iterdir()] in ([], ["target"])
