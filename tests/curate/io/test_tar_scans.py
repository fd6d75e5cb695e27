"""Walking through tars by their headers, against GNU tar and Python's tarfile."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from curate.io.tars.headers import FILE, FOLDER, SPARSE, BadTar
from curate.io.tars.scan import Member, Tar, find_tars, open_tar, split_name

# Made so that readers differ, or none takes them; what we make of them is told below.
DISPUTED = {
    "gnu-incremental.tar": "tarfile takes the times in GNU's header for a prefix of the name",
    "gnu-multi-hdrs.tar": "tarfile takes the first of two names, GNU tar and we the last",
    "pax-multi-hdrs.tar": "the same, for PAX",
    "invalid-go17.tar": "a prefix without the magic of USTAR",
    "pax-global-records.tar": "an empty path",
    "pax-bad-hdr-file.tar": "a record without the end of its line: refused",
    "pax-bad-mtime-file.tar": "one that GNU tar reads on after",
    "pax-nul-path.tar": "GNU tar reads past a NUL in a name",
    "hdr-only.tar": "sizes without bytes: GNU tar loses its way",
    "writer-big.tar": "only the header of 16 GB",
    "writer-big-long.tar": "only the header of 16 GB",
}


def walk(path: Path) -> tuple[list[Member], str]:
    """Return the members of a tar, and what is wrong with it."""
    found: list[Member] = []
    with open_tar(str(path)) as tar:
        try:
            found.extend(tar.members())  # those before a fault are kept
        except BadTar as error:
            return found, str(error)
    return found, ""


def by_tarfile(path: Path) -> list[tuple[str, int, int]] | None:
    try:
        with tarfile.open(path, "r:") as archive:
            return [(m.name, m.offset_data, m.size) for m in archive if m.sparse is None]
    except (tarfile.TarError, ValueError, OverflowError):
        return None


def by_gnu_tar(path: Path) -> list[str] | None:
    command = ["tar", "--list", "--quoting-style=literal", "--file", str(path)]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"})
    if done.returncode:
        return None
    return [line.rstrip("/") for line in done.stdout.decode("utf-8", "surrogateescape").splitlines()]


def test_odd_tars_are_read_as_tarfile_and_gnu_tar_read_them(odd_files: Path) -> None:
    compared = refused = 0
    for path in sorted((odd_files / "tars").glob("*.tar")):
        if any(path.name.endswith(name) for name in DISPUTED):
            continue
        members, fault = walk(path)
        tarfile_says, gnu_says = by_tarfile(path), by_gnu_tar(path)
        if tarfile_says is None and gnu_says is None:
            assert fault, path.name
            refused += 1
            continue
        if tarfile_says is not None:
            found = [(m.name, m.offset, m.size) for m in members if m.kind != SPARSE]
            assert found == tarfile_says, path.name
        if gnu_says is not None:
            assert [m.name for m in members] == gnu_says, path.name
        compared += 1
    assert compared >= 40
    assert refused >= 3


@pytest.mark.parametrize("name", DISPUTED)
def test_disputed_tars_are_read_or_refused_by_name(odd_files: Path, name: str) -> None:
    [path] = (odd_files / "tars").glob(f"*testdata-{name}")
    members, fault = walk(path)
    assert members or fault


@pytest.mark.parametrize("name", ["gnu-incremental", "gnu-multi-hdrs", "pax-multi-hdrs", "invalid-go17"])
def test_where_tarfile_errs_gnu_tar_is_followed(odd_files: Path, name: str) -> None:
    [path] = (odd_files / "tars").glob(f"*testdata-{name}.tar")
    names = [m.name for m in walk(path)[0]]
    assert names == by_gnu_tar(path)
    assert names != [n for n, _, _ in by_tarfile(path) or []]


def test_links_and_devices_have_no_bytes_whatever_their_size(odd_files: Path) -> None:
    [path] = (odd_files / "tars").glob("*testdata-hdr-only.tar")
    members, _ = walk(path)
    assert [(m.name, m.offset, m.size) for m in members] == by_tarfile(path)
    assert len(members) == 16


LONG = "d" * 60 + "/" + "e" * 60 + "/" + "f" * 120 + ".jpg"


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_tars_of_gnu_tar_are_read(tmp_path: Path, form: str) -> None:
    names = ["a.jpg", "b/c.jpg", "ü.txt", "e/" * 45 + "f.jpg"]  # the last one has exactly 95 bytes
    if form != "v7":
        names.append("g/" * 60 + "h.jpg")
    if form in ("oldgnu", "gnu", "posix"):
        names.append(LONG)
    for i, name in enumerate(names):
        file = tmp_path / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([65 + i]) * (i * 511))
    (tmp_path / "in" / "link.jpg").symlink_to("a.jpg")
    command = ["tar", f"--format={form}", "--create", "--file", str(tmp_path / "a.tar"), "."]
    subprocess.run(command, cwd=tmp_path / "in", check=True)
    members, fault = walk(tmp_path / "a.tar")
    assert fault == ""
    files = {m.name.removeprefix("./"): m for m in members if m.kind == FILE}
    assert set(files) == set(names)
    with open_tar(str(tmp_path / "a.tar")) as tar:
        for i, name in enumerate(names):
            assert tar.read(files[name].offset, files[name].size) == bytes([65 + i]) * (i * 511)
    assert [m.name for m in members if m.kind == "link"] == ["./link.jpg"]
    assert any(m.kind == FOLDER for m in members)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_python_are_read(tmp_path: Path, form: int) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        for i in range(50):
            name = "p/" * (i if form == tarfile.USTAR_FORMAT else 5 * i) + f"{i}.jpg"
            member = tarfile.TarInfo(name)
            member.size = i * 997 % 3000
            member.mtime = (
                i + 0.5 if form == tarfile.PAX_FORMAT else i
            )  # a header of its own for the fraction
            archive.addfile(member, io.BytesIO(bytes([i]) * member.size))
    members, fault = walk(tmp_path / "a.tar")
    assert fault == ""
    assert [(m.name, m.offset, m.size) for m in members] == by_tarfile(tmp_path / "a.tar")
    assert all(m.pax > 0 for m in members) == (form == tarfile.PAX_FORMAT)


def test_sizes_beyond_eight_gigabytes_are_understood(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as stream:
        stream.truncate(9 << 30)  # a hole
    for form in ("gnu", "posix"):
        tar = tmp_path / f"{form}.tar"
        command = f"tar --format={form} -c large | head -c 10240 > {tar}"
        subprocess.run(command, shell=True, cwd=tmp_path, check=True, stderr=subprocess.DEVNULL)
        os.truncate(tar, (9 << 30) + 10240)
        [member], fault = walk(tar)
        assert (member.name, member.size, fault) == ("large", 9 << 30, "")


def made(count: int = 4, size: int = 700) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for i in range(count):
            member = tarfile.TarInfo(f"{i}.jpg")
            member.size = size
            archive.addfile(member, io.BytesIO(b"x" * size))
    return stream.getvalue()


STEP = 512 + 1024  # a member of 700 bytes in a tar


@pytest.mark.parametrize("cut", [*range(0, 4 * STEP + 1, 128), 4 * STEP])
def test_cut_at_any_byte_is_a_fault_that_names_the_last_member(tmp_path: Path, cut: int) -> None:
    (tmp_path / "a.tar").write_bytes(made()[:cut])
    members, fault = walk(tmp_path / "a.tar")
    whole = sum(i * STEP + 512 + 700 <= cut for i in range(4))
    assert [m.name for m in members] == [f"{i}.jpg" for i in range(whole)]
    if cut == 0:
        assert fault == "an empty file"
    elif cut < 512:
        assert fault == "not a tar"
    elif 512 <= cut % STEP < 512 + 700 and whole < 4:
        assert fault.startswith(f"cut inside '{whole}.jpg'")
    else:
        assert fault.startswith(f"cut at byte {cut}, ")
        assert f"after '{whole - 1}.jpg'" in fault


def test_one_block_of_zeros_ends_a_tar(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(made()[: 4 * STEP + 512])
    members, fault = walk(tmp_path / "a.tar")
    assert (len(members), fault) == (4, "")


@pytest.mark.parametrize("position", [0, 99, 124, 148, 156, 257, 300, 511])
def test_changed_byte_of_a_header_is_told_with_its_place(tmp_path: Path, position: int) -> None:
    data = bytearray(made())
    data[2 * STEP + position] ^= 0x15
    (tmp_path / "a.tar").write_bytes(data)
    members, fault = walk(tmp_path / "a.tar")
    assert len(members) == 2
    assert fault.startswith(f"no header at byte {2 * STEP}, after '1.jpg'")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"<!DOCTYPE html>" + bytes(600), "not a tar"),
        (b"short", "not a tar"),
        (b"\x1f\x8b" + bytes(600), "compressed with gzip"),
        (b"\xfd7zXZ\0" + bytes(600), "compressed with xz"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "compressed with zstd"),
    ],
)
def test_what_is_no_plain_tar_is_told(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    assert walk(tmp_path / "a.tar")[1].startswith(fault)


def test_header_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 4 << 30
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT))
    os.truncate(tmp_path / "a.tar", 5 << 30)
    assert walk(tmp_path / "a.tar")[1].startswith("a long name or PAX header of 4294967296 bytes")


def test_what_stands_behind_the_end_is_found(tmp_path: Path) -> None:
    data = made()
    (tmp_path / "a.tar").write_bytes(data + bytes(3000) + b"rest")
    with Tar(open(tmp_path / "a.tar", "rb", buffering=0)) as tar:
        assert len(list(tar.members())) == 4
        assert tar.end == 4 * STEP
        assert tar.beyond() == len(data) + 3000


@pytest.mark.parametrize("size", [10, 5_000, 300_000])
def test_bytes_come_from_where_members_are_whatever_their_size(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.tar").write_bytes(made(60, size))
    with open_tar(str(tmp_path / "a.tar")) as tar:
        for member in tar.members():
            assert tar.read(member.offset, 10) == b"x" * 10
            assert len(tar.read(member.offset, member.size)) == size


@pytest.mark.parametrize(
    ("name", "key", "extension"),
    [
        ("a/b.jpg", "a/b", "jpg"),
        ("a.b/c.d.JPG", "a.b/c", "d.jpg"),
        ("a", "a", ""),
        ("a/.jpg", "a/", "jpg"),
        ("a.b/c", "a.b/c", ""),
    ],
)
def test_names_are_cut_as_webdataset_cuts_them(name: str, key: str, extension: str) -> None:
    from webdataset.tariterators import base_plus_ext

    assert split_name(name) == (key, extension)
    theirs = base_plus_ext(name)
    if theirs[0] is not None:  # what it passes over has no name or no extension
        assert theirs == (key, extension.replace("jpg", name[-3:]))


def test_tars_are_found_by_folder_pattern_and_braces(tmp_path: Path) -> None:
    for name in ("a/000.tar", "a/001.tar", "b/c/000.tar", "a/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    def find(path: str) -> list[str]:
        return [f.removeprefix(f"{tmp_path}/") for f in find_tars(f"{tmp_path}/{path}")]

    assert find("") == ["a/000.tar", "a/001.tar", "b/c/000.tar"]
    assert find("a/*.tar") == find("a/{000..001}.tar") == ["a/000.tar", "a/001.tar"]
