"""Names of any bytes and headers that say anything: every command ends in words, and in nothing else."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from handmade_tars import write_tar

from curate.datasets.dataset import Dataset
from curate.datasets.lint.tars import lint
from curate.errors import CurateError, DataError
from curate.io.tars.headers import BadTar
from curate.io.tars.scan import Tar, open_tar

Built = Callable[..., Dataset]
Jpeg = Callable[..., bytes]
Run = Callable[..., Any]

ODD = "\udce9"  # a byte 0xE9, é in Latin-1, as Python carries it


@pytest.mark.parametrize(
    "name",
    [
        f"Mr. Caf{ODD}.jpg",
        f"caf{ODD}.jpg",
        f"a.{ODD}",
        f"{ODD}/a.jpg",
        f"a.{ODD}.jpg",
        f"{ODD}.{ODD}",
        f"a {ODD}.j g",
    ],
)
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_names_that_are_not_utf8_hide_nothing(
    built_from: Built, run_curate: Run, tmp_path: Path, jpeg: Jpeg, name: str, form: int
) -> None:
    members = [("0001.jpg", jpeg(1)), (name, jpeg(2)), (name, jpeg(3)), ("0002.jpg", b"no image")]
    tar = write_tar(tmp_path / "s/one.tar", members, form)
    report = lint([str(tar)])
    assert report.counts["name is not UTF-8"] == 2
    assert report.counts["undecodable image"] == 1  # of what stands behind it
    for options in ([], ["--json"]):
        result = run_curate("verify", tar, *options)
        assert result.exit_code == 3, result.output
        result.stdout.encode()
    document = json.loads(run_curate("verify", tar, "--json").stdout)
    assert document["counts"]["name is not UTF-8"] == 2
    made = built_from({"shards": str(tar)}, overlay=True)
    reader = made.reader()
    found = [reader.read(r["file"], r["offset"], r["size"]) for r in made.table().to_pylist()]
    assert jpeg(1) in found
    assert len(made) + sum(made.info.source["left_out"].values()) == 4


def test_verify_of_a_single_image_with_a_latin_name_says_that_it_is_lost(
    run_curate: Run, tmp_path: Path, jpeg: Jpeg
) -> None:
    members = [(n, jpeg(1)) for n in ("0001.jpg", f"Mr. Caf{ODD}.jpg", "0002.jpg")]
    result = run_curate("verify", write_tar(tmp_path / "one.tar", members), "--no-images")
    assert result.exit_code == 3
    assert "cut name" in result.stdout


@pytest.mark.parametrize("place", [f"caf{ODD}/0.tar", f"caf{ODD}.tar"])
def test_tar_whose_own_name_is_not_utf8_is_verified_and_refused_by_name(
    run_curate: Run, tmp_path: Path, jpeg: Jpeg, place: str
) -> None:
    try:
        write_tar(tmp_path / "s" / place, [("a.jpg", jpeg(1)), ("b.jpg", b"none")])
    except OSError:
        pytest.skip("this file system takes no such names")
    result = run_curate("verify", tmp_path / "s")
    assert result.exit_code == 3, result.output
    assert "undecodable image" in result.stdout
    json.loads(run_curate("verify", tmp_path / "s", "--json").stdout)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "c", "source": {"shards": "s"}}))
    result = run_curate("build", recipe, "--out", tmp_path / "out", "--overlay")
    assert result.exit_code == 2
    assert "name is not UTF-8" in result.output


def header(size: bytes, kind: bytes = b"0", name: str = "a.jpg") -> bytes:
    """Return a header with any bytes as its size, and a right checksum."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[156:157] = size.ljust(12, b"\0"), kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: dict[str, str]) -> bytes:
    return tarfile.TarInfo._create_pax_generic_header(records, b"x", "utf-8")  # type: ignore[attr-defined]


HUGE = [
    header(b"\x80" + b"\xff" * 11),
    header(b"\x80" + (1 << 31).to_bytes(11, "big")),
    header(b"\x80" + (1 << 63).to_bytes(11, "big")),
    header(b"\xff" * 12),
    header(b"\xff" + bytes(11)),
    header(b"77777777777"),
    header(b"777777777777"),
    header(b"-0000000001"),
    header(b"no number"),
    header(b"\x80" + b"\xff" * 11, b"5", "folder/"),
    header(b"\x80" + b"\xff" * 11, b"1"),
    header(b"\x80" + b"\xff" * 11, b"S"),
    header(b"\x80" + b"\xff" * 11, b"L"),
    header(b"\x80" + b"\xff" * 11, b"x"),
    header(b"\x80" + b"\xff" * 11, b"?"),
    pax({"size": "9" * 19}) + header(b"00000000010"),
    pax({"size": "9" * 5000}) + header(b"00000000010"),
    pax({"size": "-1"}) + header(b"00000000010"),
    pax({"size": "1e9"}) + header(b"00000000010"),
    pax({"size": "²"}) + header(b"00000000010"),
    pax({"GNU.sparse.size": "9" * 5000, "GNU.sparse.name": "x.jpg"}) + header(b"00000000010"),
]


@pytest.mark.parametrize("number", range(len(HUGE)))
def test_sizes_past_all_bounds_end_in_words(
    built_from: Built, run_curate: Run, tmp_path: Path, jpeg: Jpeg, number: int
) -> None:
    sound = write_tar(tmp_path / "in.tar", [("s.jpg", jpeg(0))]).read_bytes()
    tar = tmp_path / "s" / "0.tar"
    tar.parent.mkdir()
    tar.write_bytes(sound[: -(-(512 + len(jpeg(0))) // 512) * 512] + HUGE[number] + bytes(2048))
    result = run_curate("verify", tar)
    assert result.exit_code in (0, 3), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    with suppress(CurateError):
        made = built_from({"shards": str(tar)}, overlay=True)
        assert [r["key"] for r in made.table(["key"]).to_pylist()] == ["s"]
        return
    assert result.exit_code == 3
    with pytest.raises(DataError, match=r"0\.tar: not a sound tar"):
        built_from({"shards": str(tar)}, overlay=True)


def test_headers_with_any_byte_changed_end_in_words(tmp_path: Path, jpeg: Jpeg) -> None:
    chance = random.Random(0)
    forms = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    members = [(f"{'d/' * 60}é{i}.jpg", b"x" * 100) for i in range(2)]
    tars = [write_tar(tmp_path / f"{form}.tar", members, form).read_bytes() for form in forms]
    places = [*range(40), *range(124, 136), *[156] * 20]  # names and records, sizes, kinds
    ended = 0
    for _ in range(1500):
        data = bytearray(chance.choice(tars))
        start = chance.randrange(0, 6) * 512
        for _ in range(chance.randint(1, 4)):
            data[start + chance.choice(places)] = chance.choice(b"\x00\x01\x80\xff0179 =\n-.")
        block = data[start : start + 512]
        block[148:156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(block)  # a checksum that is right
        tar = Tar(io.BytesIO(bytes(data)))
        try:
            for member in tar.members():
                assert 0 <= member.offset <= len(data)
            list(tar.behind())
        except BadTar:
            ended += 1
    assert 100 < ended < 1500


def test_member_whose_size_is_in_base_256_is_read_wherever_it_is_read(
    built_from: Built, tmp_path: Path, jpeg: Jpeg
) -> None:
    data = jpeg(3)
    size = b"\x80" + len(data).to_bytes(11, "big")
    tar = tmp_path / "0.tar"
    tar.write_bytes(header(size) + data + bytes(-len(data) % 512) + bytes(1024))
    with tarfile.open(tar) as archive:
        assert archive.getmembers()[0].size == len(data)
    made = built_from({"shards": str(tar)}, overlay=True)
    [row] = made.table().to_pylist()
    view = bytearray(len(data))
    made.reader().read_all_into([row["file"]], [row["offset"]], [memoryview(view)])
    assert bytes(view) == data


def test_pipe_called_as_a_tar_is_not_waited_for(run_curate: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.tar")
    with pytest.raises(OSError, match="not a plain file"):
        open_tar(str(tmp_path / "0.tar"))
    assert run_curate("verify", tmp_path / "0.tar").exit_code == 3
