"""What strangers' tars would lose: each is read right, refused, or counted by its reason, as `verify` says it."""

from __future__ import annotations

import gzip
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds
from handmade_tars import Members, write_tar

from curate.datasets.dataset import Dataset
from curate.datasets.lint.tars import lint
from curate.errors import DataError, RecipeError
from curate.io.tars.findings import KINDS

Built = Callable[..., Dataset]
Jpeg = Callable[..., bytes]


@pytest.fixture
def sound(jpeg: Jpeg) -> Members:
    """Members of three sound samples."""
    return [m for i in range(3) for m in ((f"s{i}.jpg", jpeg(i)), (f"s{i}.txt", f"text {i}".encode()))]


def captions(made: Dataset) -> dict[str, str | None]:
    return {r["key"]: r["caption"] for r in made.table(["key", "caption"]).to_pylist()}


def left_out(made: Dataset) -> dict[str, int]:
    return made.info.source["left_out"]


def bytes_of(made: Dataset) -> dict[str, bytes]:
    reader = made.reader()
    rows = made.table(["key", "file", "offset", "size"]).to_pylist()
    return {r["key"]: reader.read(r["file"], r["offset"], r["size"]) for r in rows}


def refused(build: Callable[[], Any]) -> str:
    with pytest.raises((DataError, RecipeError)) as caught:
        build()
    return str(caught.value)


# Of each kind of error that `verify` knows: what makes it, and what a build does about it.


def behind_the_end(folder: Path, sound: Members, jpeg: Jpeg) -> Any:
    first = write_tar(folder / "a.tar", sound)
    more = write_tar(folder.parent / "b.tar", [("x.jpg", jpeg(8)), ("y.jpg", jpeg(9)), ("y.txt", b"y")])
    first.write_bytes(first.read_bytes() + more.read_bytes())
    return {"samples behind the end-of-archive marker": 2}


def cut(folder: Path, sound: Members, jpeg: Jpeg) -> Any:
    tar = write_tar(folder / "a.tar", sound)
    tar.write_bytes(tar.read_bytes()[:2000])
    return "a.tar: not a sound tar"


def not_to_be_read(folder: Path, sound: Members, jpeg: Jpeg) -> Any:
    write_tar(folder / "a.tar", sound)
    (folder / "b.tar").mkdir()
    (folder / "c.tar").symlink_to("/dev/null")
    return "c.tar: "


def empty(folder: Path, sound: Members, jpeg: Jpeg) -> Any:
    write_tar(folder / "a.tar", sound)
    write_tar(folder / "b.tar", [])
    return {"tars without a sample": 1}


def merged(folder: Path, sound: Members, jpeg: Jpeg) -> Any:
    more = [("x.y.jpg", jpeg(8)), ("x.z.jpg", jpeg(9)), ("cat.jpg", jpeg(5)), ("cat.2.jpg", jpeg(6))]
    write_tar(folder / "a.tar", [*sound, *more])
    return {"without an image": 1, "images after the first of their sample": 2}


def cut_name(folder: Path, sound: Members, jpeg: Jpeg) -> Any:
    write_tar(folder / "a.tar", [*sound, ("Mr. X.jpg", jpeg(8))])
    return {"without an image": 1}


def apart(folder: Path, sound: Members, jpeg: Jpeg) -> Any:
    write_tar(folder / "a.tar", [("x.jpg", jpeg(8)), *sound, ("x.txt", b"far away")])
    return {}


def twice(folder: Path, sound: Members, jpeg: Jpeg) -> Any:
    write_tar(folder / "a.tar", [*sound, ("s0.jpg", jpeg(8))])
    return "'s0' is twice in a.tar"


def member_twice(folder: Path, sound: Members, jpeg: Jpeg) -> Any:
    write_tar(folder / "a.tar", [*sound, ("x.jpg", jpeg(8)), ("x.jpg", jpeg(9))])
    return {"members that their sample has already": 1}


def undecodable(folder: Path, sound: Members, jpeg: Jpeg) -> Any:
    write_tar(folder / "a.tar", [*sound, ("x.jpg", b"<html>"), ("y.jpg", b"")])
    return {"not an image": 1, "empty": 1}


def oversize(folder: Path, sound: Members, jpeg: Jpeg) -> Any:
    import struct
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    write_tar(folder / "a.tar", [*sound, ("x.png", png)])
    return {}  # a row like others, with its real size: who decodes it counts it


def escaping(folder: Path, sound: Members, jpeg: Jpeg) -> Any:
    write_tar(folder / "a.tar", [*sound, ("../x.jpg", jpeg(8))])
    return {}


def sparse(folder: Path, sound: Members, jpeg: Jpeg) -> Any:
    tar = write_tar(folder / "a.tar", sound)
    with tarfile.open(tar, "a") as archive:
        member = tarfile.TarInfo("x.jpg")
        member.type = tarfile.GNUTYPE_SPARSE
        archive.addfile(member)
    return {"not a plain file in its tar": 1}


MADE = {
    "unreadable": not_to_be_read,
    "not a sound tar": cut,
    "members after the end": behind_the_end,
    "empty shard": empty,
    "merged samples": merged,
    "cut name": cut_name,
    "split sample": apart,
    "duplicate key": twice,
    "duplicate member": member_twice,
    "undecodable image": undecodable,
    "oversize image": oversize,
    "escaping name": escaping,
    "sparse file": sparse,
}
READ = {
    "split sample": "x",
    "oversize image": "x",
    "escaping name": "_x2E_x2E/x",
}  # the key of what is read right


@pytest.mark.parametrize("kind", [kind for kind, severity in KINDS.items() if severity == "error"])
def test_each_error_of_verify_is_read_right_refused_or_counted_by_build(
    built_from: Built, tmp_path: Path, sound: Members, jpeg: Jpeg, kind: str
) -> None:
    folder = tmp_path / "tars"
    expected = MADE[kind](folder, sound, jpeg)
    assert lint([str(folder)]).counts[kind] >= 1
    source = {"shards": str(folder)}
    if isinstance(expected, str):
        assert expected in refused(lambda: built_from(source, overlay=True))
        return
    made = built_from(source, overlay=True)
    assert left_out(made) == expected
    assert {"s0": "text 0", "s1": "text 1", "s2": "text 2"}.items() <= captions(made).items()
    if kind in READ:
        assert READ[kind] in captions(made)
    notes = made.info.ledger[0].notes
    assert all(any(reason in note for note in notes) for reason in expected)


def test_members_that_stand_apart_are_joined_and_noted(built_from: Built, tmp_path: Path, jpeg: Jpeg) -> None:
    members = [("a.jpg", jpeg(0)), ("b.jpg", jpeg(1)), ("a.txt", b"A"), ("b.txt", b"B"), ("a.cls", b"7")]
    tar = write_tar(tmp_path / "s/0.tar", members)
    made = built_from({"shards": str(tar)}, overlay=True)
    assert captions(made) == {"a": "A", "b": "B"}
    assert bytes_of(made) == {"a": jpeg(0), "b": jpeg(1)}
    assert left_out(made) == {}
    assert "2 samples put together whose members stand apart in their tar" in made.info.ledger[0].notes
    halves = [s["__key__"] for s in wds.WebDataset(str(tar), shardshuffle=False, empty_check=False)]
    assert halves == ["a", "b", "a", "b", "a"]  # what others make of it


def test_what_stands_behind_the_end_is_what_gnu_tar_reads_with_ignore_zeros(
    built_from: Built, tmp_path: Path, sound: Members, jpeg: Jpeg
) -> None:
    parts = [
        write_tar(tmp_path / f"in/{n}.tar", [(f"{n}{name}", data) for name, data in sound]).read_bytes()
        for n in range(3)
    ]
    tar = tmp_path / "s/0.tar"
    tar.parent.mkdir()
    tar.write_bytes(b"".join(parts))
    listed = [
        subprocess.run(["tar", *flags, "-tf", tar], capture_output=True, text=True, check=True).stdout.split()
        for flags in ([], ["-i"])
    ]
    made = built_from({"shards": str(tar)}, overlay=True)
    assert len(made) == len({n.split(".")[0] for n in listed[0]}) == 3
    assert left_out(made) == {"samples behind the end-of-archive marker": 6}
    assert len({n.split(".")[0] for n in listed[1]}) == 9


@pytest.mark.parametrize("name", ["0.tar.gz", "0.TGZ", "0.tar.zst", "0.txz"])
def test_compressed_tar_among_tars_is_refused_by_name_and_the_hint_works(
    built_from: Built, tmp_path: Path, sound: Members, name: str
) -> None:
    write_tar(tmp_path / "s/1.tar", sound)
    (tmp_path / "s" / name).write_bytes(gzip.compress(b"x"))
    said = refused(lambda: built_from({"shards": str(tmp_path / "s")}, overlay=True))
    assert f"s/{name}: not a plain .tar" in said
    assert "`*.tar`" in said
    assert len(built_from({"shards": f"{tmp_path}/s/*.tar"}, overlay=True)) == 3


ODD_FIELDS: dict[str, tuple[str, bytes, str]] = {
    "a text in Latin-1": ("txt", "café".encode("latin-1"), ".txt not UTF-8"),
    "a class in Latin-1": ("cls", "café".encode("latin-1"), ".cls not UTF-8"),
    "JSON in Latin-1": ("json", '{"a": "café"}'.encode("latin-1"), ".json not UTF-8"),
    "a long text": ("txt", b"word " * 250_000, ".txt over 1 MiB"),
    "a long JSON": ("json", b'{"a": "' + b"x" * (1 << 20) + b'"}', ".json over 1 MiB"),
    "no JSON": ("json", b"{", ".json that is no JSON"),
    "deep JSON": ("json", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", ".json that is no JSON"),
    "a number of 5,000 digits": ("json", b'{"a": ' + b"1" * 5000 + b"}", ".json that is no JSON"),
    "a list": ("json", b"[1]", ".json that is no object"),
    "NaN": ("json", b'{"a": NaN, "b": [Infinity]}', ".json with a number that is none"),
    "an infinite number": ("json", b'{"a": 1e999}', ".json with a number that is none"),
    "a name twice": ("json", b'{"a": 1, "a": 2}', ".json with a name twice"),
    "a name in two cases": ("json", b'{"a": 1, "A": 2}', ".json with a name twice"),
    "half a character": ("json", b'{"a": "x\\ud800"}', ".json with half a character"),
    "half a character in a list": ("json", b'{"a": ["x\\ud800"]}', ".json with half a character"),
    "a caption that is a number": ("json", b'{"caption": 5}', ".json whose caption is no text"),
    "a caption that is an object": ("json", b'{"caption": {"en": "a"}}', ".json whose caption is no text"),
    "captions that are numbers": ("json", b'{"captions": [1, 2]}', ".json whose captions are no texts"),
    "captions that are objects": (
        "json", b'{"captions": [{"text": "a"}]}', ".json whose captions are no texts",
    ),
    "a label that is a list": ("json", b'{"label": [1]}', ".json whose label is no number or name"),
    "a split that is a list": ("json", b'{"split": ["train"]}', ".json whose split is no text"),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD_FIELDS)
def test_field_that_cannot_be_read_is_counted_and_its_sample_stays_without(
    built_from: Built, tmp_path: Path, jpeg: Jpeg, case: str
) -> None:
    extension, data, reason = ODD_FIELDS[case]
    members = [("a.jpg", jpeg(0)), (f"a.{extension}", data), ("b.jpg", jpeg(1)), ("b.txt", b"sound")]
    tar = write_tar(tmp_path / "s/0.tar", members)
    made = built_from({"shards": str(tar)}, overlay=True)
    assert left_out(made) == {reason: 1}
    assert captions(made) == {"a": None, "b": "sound"}
    assert {r["label"] for r in made.table(["label"]).to_pylist()} == {None}
    if "whose" not in reason:  # that is for us to say, and not of the tar
        kinds = {"unreadable field", "oversize field"} & lint([str(tar)]).counts.keys()
        assert len(kinds) == 1


def test_byte_order_mark_is_no_part_of_a_text(built_from: Built, tmp_path: Path, jpeg: Jpeg) -> None:
    members = [("a.jpg", jpeg(0)), ("a.txt", "\ufeffcafé".encode()), ("a.cls", "\ufeff3".encode())]
    made = built_from({"shards": str(write_tar(tmp_path / "0.tar", members))}, overlay=True)
    assert captions(made) == {"a": "café"}
    assert [c.name for c in made.classes] == ["3"]


CAPTIONS: dict[str, tuple[dict[str, Any], str | None, list[str] | None, str | None]] = {
    "a list": ({"captions": ["", "a", "b"]}, None, ["", "a", "b"], "a"),
    "a list beside a text": ({"captions": ["a", "b"]}, "t", ["t", "a", "b"], "t"),
    "a list under caption": ({"caption": ["a", "b"]}, None, ["a", "b"], "a"),
    "one text": ({"captions": "a"}, None, ["a"], "a"),
    "a caption and a list": ({"caption": "c", "captions": ["a", "b"]}, None, ["c", "a", "b"], "c"),
    "a hole": ({"captions": ["a", None]}, None, ["a"], "a"),
}


@pytest.mark.parametrize("case", CAPTIONS)
def test_captions_are_a_list_of_texts(built_from: Built, tmp_path: Path, jpeg: Jpeg, case: str) -> None:
    document, text, expected, first = CAPTIONS[case]
    members = [("a.jpg", jpeg(0)), ("a.json", json.dumps(document).encode())]
    members += [("a.txt", text.encode())] if text else []
    made = built_from({"shards": str(write_tar(tmp_path / "0.tar", members))}, overlay=True)
    [row] = made.table(["caption", "captions"]).to_pylist()
    assert made.info.columns["captions"] == "VARCHAR[]"
    assert (row["captions"], row["caption"]) == (expected, first)
    assert left_out(made) == {}
