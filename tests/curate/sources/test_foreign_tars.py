"""Tars of others: as the webdataset library writes them, and as anybody might."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds

from curate.datasets.dataset import Dataset
from curate.datasets.queries import query
from curate.datasets.summary import summarize
from curate.datasets.verification import verify
from curate.errors import DataError, RecipeError

Built = Callable[..., Dataset]
Jpeg = Callable[..., bytes]


def images(dataset: Dataset) -> dict[str, bytes]:
    reader = dataset.reader()
    rows = dataset.table(["key", "file", "offset", "size"]).to_pylist()
    return {row["key"]: reader.read(row["file"], row["offset"], row["size"]) for row in rows}


def names(dataset: Dataset) -> dict[str, str]:
    rows = dataset.table(["key", "label"]).to_pylist()
    return {row["key"]: dataset.classes[row["label"]].name for row in rows}


@pytest.fixture
def others(tmp_path: Path, jpeg: Jpeg) -> Path:
    """Tars as the webdataset library writes them, in two folders."""
    for part in range(2):
        folder = tmp_path / "others" / f"part{part}"
        folder.mkdir(parents=True)
        with wds.ShardWriter(str(folder / "%03d.tar"), maxcount=6, verbose=0) as sink:
            for i in range(10):
                number = part * 10 + i
                sink.write(
                    {
                        "__key__": f"s{number:03d}",
                        "jpg": jpeg(number),
                        "cls": number % 3,
                        "txt": f"caption {number}, with ü",
                        "json": {"similarity": number / 10, "tags": ["a", "b"], "sha256": f"{number:064x}"},
                    }
                )
    return tmp_path / "others"


def test_tars_of_the_webdataset_library_are_read(built_from: Built, others: Path, jpeg: Jpeg) -> None:
    read = built_from({"shards": str(others)}, overlay=True)
    assert images(read) == {f"s{i:03d}": jpeg(i) for i in range(20)}
    rows = {row["key"]: row for row in read.table().to_pylist()}
    row = rows["s013"]
    assert (row["label"], row["caption"], row["similarity"]) == (1, "caption 13, with ü", 1.3)
    assert (row["ext"], row["width"], row["height"]) == ("jpg", 40, 32)
    assert json.loads(row["tags"]) == ["a", "b"]
    assert row["file"] == "part1/000.tar"
    assert [c.name for c in read.classes] == ["0", "1", "2"]


@pytest.mark.parametrize("form", ["pattern", "braces", "list", "relative list"])
def test_tars_may_be_named_in_several_ways(
    built_from: Built, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.chdir("/")  # relative paths start at the recipe
    forms: dict[str, Any] = {
        "pattern": f"{others}/*/*.tar",
        "braces": f"{others}/part{{0..1}}/{{000..001}}.tar",
        "list": [f"{others}/part0", f"{others}/part1/000.tar", f"{others}/part1/001.tar"],
        "relative list": ["others/part0", "others/part1"],
    }
    assert len(built_from({"shards": {"path": forms[form]}}, overlay=True)) == 20


def test_subset_of_foreign_tars_becomes_shards_that_verify(
    built_from: Built, others: Path, jpeg: Jpeg
) -> None:
    made = built_from({"shards": str(others)}, [{"where": "similarity < 0.95"}])
    assert images(made) == {f"s{i:03d}": jpeg(i) for i in range(10)}
    assert verify(made.path) == []


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_samples_that_are_no_row_are_counted_by_reason(built_from: Built, tmp_path: Path, jpeg: Jpeg) -> None:
    tar = write_tar(
        tmp_path / "a.tar",
        [("a.jpg", jpeg(1)), ("a.cls", b"0"), ("b.cls", b"1"), ("c.jpg", b""), ("d.jpg", b"<html>")],
    )
    made = built_from({"shards": str(tar)}, overlay=True)
    assert len(made) == 1
    assert made.info.source["left_out"] == {"without an image": 1, "empty": 1, "not an image": 1}
    notes = made.info.ledger[0].notes
    assert any("without an image" in note and "a.tar: b" in note for note in notes)


def test_class_names_of_others_are_labelled_in_their_order(
    built_from: Built, tmp_path: Path, jpeg: Jpeg
) -> None:
    members = [(f"{i}.{kind}", data) for i, name in enumerate(["dog", "ant", "dog"])
               for kind, data in (("jpg", jpeg(i)), ("cls", name.encode()))]  # fmt: skip
    made = built_from({"shards": str(write_tar(tmp_path / "a.tar", members))}, overlay=True)
    assert [c.name for c in made.classes] == ["ant", "dog"]
    assert names(made) == {"0": "dog", "1": "ant", "2": "dog"}


def test_one_key_in_two_tars_is_refused_with_both_names(
    built_from: Built, tmp_path: Path, jpeg: Jpeg
) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / "tars" / f"{name}.tar", [("same.jpg", jpeg(1)), ("same.cls", b"0")])
    with pytest.raises(DataError, match=r"'same' is a.tar and b.tar"):
        built_from({"shards": str(tmp_path / "tars")}, overlay=True)


@pytest.mark.parametrize("cut", [1024, 512 * 3 + 100, 700])
def test_tar_that_was_cut_is_refused(built_from: Built, tmp_path: Path, jpeg: Jpeg, cut: int) -> None:
    tar = write_tar(tmp_path / "a.tar", [(f"{i}.jpg", jpeg(i)) for i in range(4)])
    tar.write_bytes(tar.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.tar: (not a sound tar|cut at byte)"):
        built_from({"shards": str(tar)}, overlay=True)


def test_compressed_tar_is_refused(built_from: Built, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(RecipeError, match=r"a.tar.gz: not a plain .tar(?s:.*)unpack it"):
        built_from({"shards": str(tmp_path / "a.tar.gz")})


def test_labels_that_leave_out_a_number_become_dense(built_from: Built, tmp_path: Path, jpeg: Jpeg) -> None:
    members = [(f"{i}.{kind}", data) for i, label in enumerate([5, 2, 5])
               for kind, data in (("jpg", jpeg(i)), ("cls", str(label).encode()))]  # fmt: skip
    made = built_from({"shards": str(write_tar(tmp_path / "a.tar", members))}, overlay=True)
    assert [c.name for c in made.classes] == ["2", "5"]
    assert names(made) == {"0": "5", "1": "2", "2": "5"}


def samples(*fields: dict[str, Any], jpeg: Jpeg) -> list[tuple[str, bytes]]:
    """Return members of samples `s0`, `s1`, … that have an image and these fields."""
    members: list[tuple[str, bytes]] = []
    for i, given in enumerate(fields):
        members.append((f"s{i}.jpg", jpeg(i)))
        for extension, value in given.items():
            data = json.dumps(value).encode() if extension == "json" else str(value).encode()
            members.append((f"s{i}.{extension}", data))
    return members


def test_true_labels_beyond_the_given_ones_have_their_classes(
    built_from: Built, tmp_path: Path, jpeg: Jpeg
) -> None:
    members = samples(
        {"cls": 0, "json": {"clean_label": 5}}, {"cls": 1, "json": {"clean_label": 1}}, {"cls": 0}, jpeg=jpeg
    )
    made = built_from({"shards": str(write_tar(tmp_path / "a.tar", members))}, overlay=True)
    assert [c.name for c in made.classes] == ["0", "1", "5"]
    rows = {r["key"]: (r["label"], r["clean_label"]) for r in made.table().to_pylist()}
    assert rows == {"s0": (0, 2), "s1": (1, 1), "s2": (0, None)}
    assert ("5", "0", 1) in summarize(made.path).confusions


def test_true_labels_by_name_follow_the_classes(built_from: Built, tmp_path: Path, jpeg: Jpeg) -> None:
    members = samples({"cls": "dog", "json": {"clean_label": "ant"}}, {"cls": "cat"}, jpeg=jpeg)
    made = built_from({"shards": str(write_tar(tmp_path / "a.tar", members))}, overlay=True)
    assert [c.name for c in made.classes] == ["ant", "cat", "dog"]
    [row] = [r for r in made.table().to_pylist() if r["key"] == "s0"]
    assert (row["label"], row["clean_label"]) == (2, 0)


ODD_JSON: dict[str, list[Any]] = {
    "a caption that is a list": [{"caption": ["a", "b"]}, {"caption": 5}],
    "a split that is a number": [{"split": 1}],
    "half a character": [{"note": "\ud800", "caption": "x\ud800", "k\ud800": 1}],
    "names that differ by case": [{"Width": 9, "url": "a", "URL": "b", "LABEL": 1}],
    "a name of nothing": [{"": 1, '"': 2, "a b": 3, "select": 4}],
    "types that change": [{"x": 1}, {"x": 0.5}, {"x": "a"}, {"x": None}, {"x": [1]}, {"x": True}],
    "numbers too large": [{"x": 2**70}, {"x": -1}, {"clean_label": 2**40}],
    "no number": [{"x": float("nan")}, {"x": float("inf")}],
    "no object": [[1, 2], "text", 3, None],
    "a NUL": [{"x": "a\0b"}],
    "labels of all kinds": [{"label": 1}, {"label": "b"}, {"label": 1.5}, {"label": [1]}, {"label": True}],
    "empty labels": [{"label": ""}, {"label": "a"}],
}


@pytest.mark.parametrize("case", ODD_JSON)
def test_odd_side_fields_never_cost_an_image(
    built_from: Built, tmp_path: Path, jpeg: Jpeg, case: str
) -> None:
    members = samples(*({"json": value} for value in ODD_JSON[case]), jpeg=jpeg)
    made = built_from({"shards": str(write_tar(tmp_path / "tars" / "a.tar", members))})
    assert images(made) == {f"s{i}": jpeg(i) for i in range(len(ODD_JSON[case]))}
    assert verify(made.path) == []
    assert summarize(made.path).rows == len(made)
    assert query("SELECT count(*) AS n FROM derived", tmp_path).to_pylist() == [{"n": len(made)}]


def test_side_fields_that_cannot_be_read_are_counted_and_their_samples_stay(
    built_from: Built, tmp_path: Path, jpeg: Jpeg
) -> None:
    members = [
        ("s0.jpg", jpeg(0)),
        ("s0.json", b"{"),
        ("s1.jpg", jpeg(1)),
        ("s1.txt", b"\xff\xfe"),
        ("s1.cls", b""),
    ]
    made = built_from({"shards": str(write_tar(tmp_path / "a.tar", members))}, overlay=True)
    captions = {r["key"]: (r["caption"], r["label"]) for r in made.table().to_pylist()}
    assert captions == {"s0": (None, None), "s1": (None, None)}
    assert made.info.source["left_out"] == {".json that is no JSON": 1, ".txt not UTF-8": 1}


def test_members_by_any_name_are_rows_or_counted(built_from: Built, tmp_path: Path, jpeg: Jpeg) -> None:
    odd = [
        "./a.jpg",
        "/b.jpg",
        "./c d/e.f.jpg",
        ".jpg",
        "c/.jpg",
        "._a.jpg",
        "i\udce9.txt",
        "h\udce9.jpg",
        "g.JPG",
    ]
    made = built_from(
        {"shards": str(write_tar(tmp_path / "a.tar", [(name, jpeg(i)) for i, name in enumerate(odd)]))},
        overlay=True,
    )
    assert images(made) == {"a": jpeg(0), "b": jpeg(1), "h_xE9": jpeg(7), "g": jpeg(8)}
    assert made.info.source["left_out"] == {"without a name": 3, "without an image": 2}
    assert verify(made.path) == []
