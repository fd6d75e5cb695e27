"""Copies of a dataset in another form: Parquet with images in it, and class folders of files."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from curate.datasets.dataset import Dataset
from curate.datasets.exports import export
from curate.errors import DataError, RecipeError

CAPTIONS: list[Any] = [{"caption": {"templates": ["a photo of a {}.", 'ünïcode "{}"\nof two lines']}}]
SPLIT: list[Any] = [{"split": {"shares": {"val": 0.5}}}]


@pytest.fixture
def tar_of(
    built_from: Callable[..., Dataset], jpeg: Callable[..., bytes], tmp_path: Path
) -> Callable[..., Dataset]:
    """Build from a tar of twelve JPEGs, `0.jpg` to `11.jpg`, with these members besides."""

    def make(more: dict[str, bytes], name: str = "tarred") -> Dataset:
        members = {f"{i}.jpg": jpeg(i) for i in range(12)} | more
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            for file in sorted(members, key=lambda file: int(file.split(".")[0])):
                member = tarfile.TarInfo(file)
                member.size = len(members[file])
                archive.addfile(member, io.BytesIO(members[file]))
        return built_from({"shards": str(tmp_path / f"{name}.tar")}, name=name, overlay=True)

    return make


def rows_of(dataset: Dataset) -> list[dict[str, Any]]:
    return pq.read_table(dataset.path / "manifest.parquet").to_pylist()


def original(pool: Path, row: dict[str, Any]) -> bytes:
    return (pool / row["file"]).read_bytes()


@pytest.mark.parametrize("overlay", [False, True])
def test_parquet_loads_as_images_and_classes(
    overlay: bool, built: Callable[..., Dataset], pool: Path, hugging: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("curate.datasets.exports._images.ROWS_AT_ONCE", 7)
    dataset = built(CAPTIONS, overlay=overlay)
    [done] = export(dataset.path, ["parquet"], tmp_path / "out")
    data = eval(done.use, {"datasets": hugging})["train"]
    assert data.features["image"] == hugging.Image()
    assert data.features["label"] == hugging.ClassLabel(names=[c.name for c in dataset.classes])
    assert data[0]["image"].size == (40, 32)
    rows = rows_of(dataset)
    assert len(rows) == 60
    for row, sample in zip(rows, data.cast_column("image", hugging.Image(decode=False)), strict=True):
        assert sample["image"] == {"bytes": original(pool, row), "path": f"{row['key']}.jpg"}
        kept = {name: row[name] for name in row if name not in ("file", "offset", "size", "ext")}
        assert {name: sample[name] for name in sample if name != "image"} == kept


def test_parquet_is_a_file_a_split_and_cut_by_bytes(
    built: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hugging: Any
) -> None:
    dataset = built(SPLIT)
    sizes = {row["key"]: row["size"] for row in rows_of(dataset)}
    limit = sum(sizes.values()) // 6
    monkeypatch.setattr("curate.datasets.exports.parquet.BYTES_PER_FILE", limit)
    export(dataset.path, ["parquet"], tmp_path / "out")
    files = sorted(f.name for f in (tmp_path / "out/data").iterdir())
    assert {f.split("-")[0] for f in files} == {"train", "val"}
    assert len(files) == 7
    for file in files:
        keys = pq.read_table(tmp_path / "out/data" / file)["key"].to_pylist()
        assert 0 < sum(sizes[k] for k in keys) <= limit + max(sizes.values())
    for name, data in hugging.load_dataset(str(tmp_path / "out")).items():
        assert data["key"] == [r["key"] for r in rows_of(dataset) if r["split"] == name]


def test_duckdb_reads_the_parquet(built: Callable[..., Dataset], tmp_path: Path) -> None:
    export(built(CAPTIONS).path, ["parquet"], tmp_path / "out")
    with duckdb.connect() as con:
        [(rows, magic)] = con.execute(
            "SELECT count(*), list(DISTINCT hex(image.bytes[:2])) FROM read_parquet(?)",
            [str(tmp_path / "out/data/*.parquet")],
        ).fetchall()
    assert (rows, magic) == (60, ["FFD8"])


@pytest.mark.parametrize("overlay", [False, True])
def test_folders_number_their_classes_as_the_labels(
    overlay: bool, built: Callable[..., Dataset], pool: Path, tmp_path: Path, hugging: Any
) -> None:
    dataset = built([], overlay=overlay)
    export(dataset.path, ["folder"], tmp_path / "out")
    data = hugging.load_dataset("imagefolder", data_dir=str(tmp_path / "out"))["train"]
    rows = {f"{row['key'].replace('/', '+')}.jpg": row for row in rows_of(dataset)}
    assert len(data) == len(rows) == 60
    for sample in data.cast_column("image", hugging.Image(decode=False)):
        path = Path(sample["image"]["path"])
        assert sample["label"] == rows[path.name]["label"]
        assert path.read_bytes() == original(pool, rows[path.name])


def test_captions_stand_beside_the_files(built: Callable[..., Dataset], tmp_path: Path, hugging: Any) -> None:
    dataset = built(CAPTIONS)
    export(dataset.path, ["folder"], tmp_path / "out")
    data = hugging.load_dataset("imagefolder", data_dir=str(tmp_path / "out"))["train"]
    told = {s["image"].filename.rpartition("/")[2]: (s["caption"], s["label"]) for s in data}
    assert told == {
        f"{row['key'].replace('/', '+')}.jpg": (row["caption"], dataset.classes[row["label"]].name)
        for row in rows_of(dataset)
    }


def test_a_copy_is_made_once(
    built: Callable[..., Dataset], tmp_path: Path, tree: Callable[[Path], dict[str, str]]
) -> None:
    dataset, out = built(CAPTIONS), tmp_path / "out"
    assert not export(dataset.path, ["folder"], out)[0].unchanged
    first = tree(out)
    assert export(dataset.path, ["folder"], out)[0].unchanged
    assert tree(out) == first
    smaller = built([{"per_class": 2}])
    assert not export(smaller.path, ["folder"], out)[0].unchanged
    assert sum(name.endswith(".jpg") for name in tree(out)) == 12


def test_a_copy_of_another_kind_or_dataset_is_not_replaced(
    built: Callable[..., Dataset], tmp_path: Path, tree: Callable[[Path], dict[str, str]]
) -> None:
    dataset, other, out = built(CAPTIONS), built(CAPTIONS, name="other"), tmp_path / "out"
    export(dataset.path, ["folder"], out)
    before = tree(out)
    told = json.loads((out / ".export.json").read_bytes())
    assert (told["format"], told["dataset"], told["digest"]) == ("folder", "set", dataset.digest)
    for path, name, said in [
        (dataset.path, "parquet", "holds the export 'folder' of 'set', not 'parquet' of 'set'"),
        (other.path, "folder", "holds the export 'folder' of 'set', not 'folder' of 'other'"),
    ]:
        with pytest.raises(RecipeError, match=f"{said}; nothing was touched\n.*remove it first, or choose"):
            export(path, [name], out)
    assert tree(out) == before
    (out / ".export.json").write_text("sha256:0123")
    with pytest.raises(RecipeError, match="holds an unknown export, not 'folder' of 'set'"):
        export(dataset.path, ["folder"], out)


@pytest.mark.parametrize("name", ["folder", "parquet"])
def test_a_file_that_changed_leaves_the_old_copy(
    name: str, make_pool: Callable[..., Path], built_from: Callable[..., Dataset], tmp_path: Path,
    tree: Callable[[Path], dict[str, str]],
) -> None:  # fmt: skip
    pool = make_pool(tmp_path / "pool")
    smaller = built_from({"folder": str(pool)}, [{"per_class": 2}], overlay=True)
    export(smaller.path, [name], tmp_path / "out")
    before = tree(tmp_path / "out")
    dataset = built_from({"folder": str(pool)}, overlay=True)
    (pool / "n03126707/n03126707_9.jpg").write_bytes(b"another")
    with pytest.raises(DataError, match=r"n03126707_9\.jpg: .* bytes where .* were indexed"):
        export(dataset.path, [name], tmp_path / "out")
    assert tree(tmp_path / "out") == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_somebody_elses_folder_is_left_alone(
    built: Callable[..., Dataset], pool: Path, tmp_path: Path
) -> None:
    dataset = built(CAPTIONS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    for out, said in [
        (tmp_path / "mine", "is no export .*'thesis.txt'.*; nothing was touched"),
        (tmp_path / "mine/thesis.txt", "is a file"),
        (dataset.path / "copy", "is inside the dataset"),
        (pool, "holds 6 things"),
    ]:
        with pytest.raises(RecipeError, match=said):
            export(dataset.path, ["folder"], out)
    assert (tmp_path / "mine/thesis.txt").read_text() == "all of it"
    (tmp_path / ".export.json").write_text("as if it were a copy")
    with pytest.raises(RecipeError, match="would replace its own source"):
        export(dataset.path, ["folder"], tmp_path)


def test_folders_of_numbered_classes_are_in_the_order_of_the_numbers(
    tar_of: Callable[..., Dataset], tmp_path: Path, hugging: Any
) -> None:
    dataset = tar_of({f"{i}.cls": str(i).encode() for i in range(12)})
    assert [c.name for c in dataset.classes][:3] == ["0", "1", "2"]
    export(dataset.path, ["folder"], tmp_path / "out")
    data = hugging.load_dataset("imagefolder", data_dir=str(tmp_path / "out"))["train"]
    assert sorted((Path(s["image"].filename).stem, s["label"]) for s in data) == sorted(
        (str(i), i) for i in range(12)
    )


def test_rows_without_a_label_are_not_lost_in_folders(tar_of: Callable[..., Dataset], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="7 of 12 rows have no label"):
        export(tar_of({f"{i}.cls": b"0" for i in range(5)}).path, ["folder"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export(tar_of({}, "none").path, ["folder"], tmp_path / "out")
    files = {str(f.relative_to(tmp_path / "out")) for f in (tmp_path / "out").rglob("*.jpg")}
    assert files == {f"train/images/{i}.jpg" for i in range(12)}


@pytest.mark.parametrize("name", ["held out", "../up", "work"])
def test_splits_that_no_folder_can_be_called_are_refused(
    name: str, built: Callable[..., Dataset], tmp_path: Path
) -> None:
    dataset = built([{"split": {"shares": {name: 0.5}}}])
    with pytest.raises(DataError, match=f"the split '{name}' cannot be a folder's name"):
        export(dataset.path, ["folder"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_copies(
    built: Callable[..., Dataset], run_curate: Callable[..., Any], tmp_path: Path
) -> None:
    dataset = built(CAPTIONS)
    result = run_curate("export", dataset.path, "--to", "parquet", "--out", tmp_path / "out", "--json", "-q")
    assert result.exit_code == 0, result.stderr
    [done] = json.loads(result.stdout)
    assert (done["format"], done["unchanged"]) == ("parquet", False)
    again = run_curate("export", dataset.path, "--to", "parquet", "--out", tmp_path / "out", "-q")
    assert "unchanged, nothing to do" in again.stdout
