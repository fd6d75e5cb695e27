"""Sidecars, each opened by the library that it is for."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import struct
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from curate.builds.build import build
from curate.datasets import exports
from curate.datasets.dataset import Dataset
from curate.datasets.exports import export
from curate.datasets.staging import OURS
from curate.datasets.verification import verify
from curate.errors import DataError, RecipeError

STEPS: list[Any] = [{"noise": {"rate": 0.25}}, {"caption": {"templates": ["a photo of a {}.", "ünïcode {}"]}}]
SIDECARS = [name for name in exports.names() if exports.find(name).kind == "sidecar"]


@pytest.fixture
def sharded(built: Callable[..., Dataset]) -> Dataset:
    return built(STEPS, overlay=False)


@pytest.fixture
def mixed(built_from: Callable[..., Dataset], jpeg: Callable[..., bytes], tmp_path: Path) -> Dataset:
    """JPEGs and PNGs, with a label, a caption, both or neither; one key too long for a plain header."""
    png = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(png, "PNG")
    members = {"a/0.jpg": jpeg(0), "a/0.cls": b"0", "b/1.png": png.getvalue(), "b/1.cls": b"1",
               "c/2.jpg": jpeg(2), "c/2.txt": "ein Bär".encode(), "d/3.png": png.getvalue(),
               f"e/{'long' * 30}.jpg": jpeg(4), f"e/{'long' * 30}.cls": b"1"}  # fmt: skip
    with tarfile.open(tmp_path / "pool.tar", "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return built_from({"shards": str(tmp_path / "pool.tar")}, name="mixed")


def manifest(dataset: Dataset) -> list[dict[str, Any]]:
    return pq.read_table(dataset.path / "manifest.parquet").to_pylist()


def images(dataset: Dataset) -> dict[str, bytes]:
    """Return key → the bytes of its image, by Python's tarfile."""
    extensions = {row["key"]: row["ext"] for row in manifest(dataset)}
    found = {}
    for record in dataset.info.shards or []:
        with tarfile.open(dataset.path / record.file) as archive:
            for member in archive:
                key, _, ext = member.name.partition(".")
                if extensions[key] == ext:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    found[key] = stream.read()
    assert len(found) == len(dataset) > 0
    return found


def opened(dataset: Dataset, name: str, **library: Any) -> Any:
    """Write a sidecar, and do what the answer says opens it."""
    [done] = export(dataset.path, [name])
    return eval(done.use, library)


def test_every_format_is_one_or_the_other() -> None:
    assert SIDECARS == ["croissant", "dali", "energon", "huggingface", "webdataset", "wids"]
    assert sorted(set(exports.names()) - set(SIDECARS)) == ["folder", "parquet"]


def test_webdataset_finds_every_sample_and_its_counts(sharded: Dataset) -> None:
    wds = pytest.importorskip("webdataset")
    keys = [sample["__key__"] for sample in opened(sharded, "webdataset", webdataset=wds)]
    assert keys == [row["key"] for row in manifest(sharded)]
    told = json.loads((sharded.path / "shards/sizes.json").read_text())
    tars = {p.name: sum(1 for _ in wds.WebDataset(str(p), shardshuffle=False))
            for p in sharded.path.glob("shards/*.tar")}  # fmt: skip
    assert told == tars
    assert len(tars) == 4


@pytest.mark.filterwarnings("ignore:String specifications")
def test_wids_reads_any_sample_where_it_stands(sharded: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    wids = pytest.importorskip("wids")
    monkeypatch.setenv("WIDS_CACHE", str(sharded.path / "no cache"))
    data = opened(sharded, "wids", wids=wids)
    raw = wids.ShardListDataset(f"{sharded.path}/wids.json", localname=str, transformations=[])
    rows, expected = manifest(sharded), images(sharded)
    assert len(data) == len(rows)
    for i in (59, 0, 17):
        sample = data[i]
        assert sample["__key__"] == rows[i]["key"]
        assert sample[".cls"] == rows[i]["label"]
        assert sample[".jpg"].size == (rows[i]["width"], rows[i]["height"])
        assert raw[i][".jpg"].read() == expected[rows[i]["key"]]
    assert not (sharded.path / "no cache").exists()


def test_wids_in_another_folder_leads_to_the_shards(sharded: Dataset, tmp_path: Path) -> None:
    [done] = export(sharded.path, ["wids"], tmp_path / "elsewhere")
    urls = [s["url"] for s in json.loads(done.files[0].read_text())["shardlist"]]
    assert [(tmp_path / "elsewhere" / url).resolve() for url in urls] == sorted(
        sharded.path.glob("shards/*.tar")
    )


def test_wids_is_refused_for_names_that_it_would_mix_up(mixed: Dataset) -> None:
    with pytest.raises(DataError, match=r"wids cannot read keys of more than 94 characters \('e/long"):
        export(mixed.path, ["wids"])
    assert not (mixed.path / "wids.json").exists()


@pytest.mark.parametrize("name", ["sharded", "mixed"])
def test_dalis_index_is_that_of_the_tars(name: str, request: pytest.FixtureRequest) -> None:
    dataset: Dataset = request.getfixturevalue(name)
    export(dataset.path, ["dali"])
    for tar in dataset.path.glob("shards/*.tar"):
        with tarfile.open(tar) as archive:
            members = [(m.name, m.offset_data, m.size) for m in archive]
        version, *lines = tar.with_suffix(".idx").read_text().splitlines()
        assert version == f"v1.2 {len(lines)}"
        words = [line.split(" ") for line in lines]
        parts = [line[i : i + 4] for line in words for i in range(0, len(line), 4)]
        assert [(p[3], int(p[1]), int(p[2])) for p in parts] == members
        assert all(p[3].split(".", 1)[1] == p[0] for p in parts)
        assert [w[3].split(".")[0] for w in words] == list(dict.fromkeys(m[0].split(".")[0] for m in members))


def test_dali_reads_labels_and_images(sharded: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("nvidia.dali")
    script = """
import sys
from glob import glob
from braceexpand import braceexpand
from nvidia.dali import fn, pipeline_def
@pipeline_def(batch_size=60, num_threads=1, device_id=None)
def pipe():
    image, label = eval(sys.argv[1])
    return fn.decoders.image(image), label
p = pipe(); p.build(); image, label = p.run()
print([int(bytes(label.at(i))) for i in range(60)], image.at(0).shape)
"""
    [done] = export(sharded.path, ["dali"])
    answer = subprocess.run(
        [sys.executable, "-c", script, done.use], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == f"{[row['label'] for row in manifest(sharded)]} (32, 40, 3)"


@pytest.mark.parametrize("name", ["sharded", "mixed"])
def test_energons_index_is_that_of_the_tars(name: str, request: pytest.FixtureRequest) -> None:
    dataset: Dataset = request.getfixturevalue(name)
    export(dataset.path, ["energon"])
    meta = dataset.path / ".nv-meta"
    counts = json.loads((meta / ".info.json").read_text())["shard_counts"]
    assert sum(counts.values()) == len(dataset) > 0
    samples, parts = [], []
    for number, file in enumerate(counts):
        with tarfile.open(dataset.path / file) as archive:
            members = list(archive)
            end = archive.offset
        starts = {m.name.split(".")[0]: m.offset for m in reversed(members)}
        keys = list(dict.fromkeys(m.name.split(".")[0] for m in members))
        bounds = [*(starts[k] for k in keys), end]
        raw = (dataset.path / f"{file}.idx").read_bytes()
        assert list(struct.unpack(f"{len(raw) // 8}Q", raw)) == bounds
        sizes = [b - a for a, b in pairwise(bounds)]
        samples += [(number, k, i, bounds[i], sizes[i]) for i, k in enumerate(keys)]
        parts += [(number, keys.index(k), ext, m.offset_data, m.size) for m in members
                  for k, _, ext in [m.name.partition(".")]]  # fmt: skip
    con = sqlite3.connect(meta / "index.sqlite")
    assert con.execute("SELECT * FROM samples").fetchall() == samples
    assert con.execute("SELECT * FROM sample_parts").fetchall() == parts
    con.close()


def test_energon_reads_captions_and_images(sharded: Dataset) -> None:
    pytest.importorskip("megatron.energon")
    script = """
import json, sys
from megatron.energon import WorkerConfig, get_loader, get_train_dataset
data = get_train_dataset(sys.argv[1], worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0), batch_size=None,
                         shuffle_buffer_size=None, max_samples_per_sequence=None, repeat=False)
print(json.dumps({s.__key__: [s.caption, list(s.image.shape)] for s in get_loader(data)}))
"""
    export(sharded.path, ["energon"])
    command = [sys.executable, "-W", "ignore", "-c", script, str(sharded.path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = {row["key"]: [row["caption"], [3, 32, 40]] for row in manifest(sharded)}
    assert json.loads(answer.stdout.splitlines()[-1]) == expected


def test_energon_takes_plain_samples_where_some_lack_a_label(mixed: Dataset) -> None:
    export(mixed.path, ["energon"])
    told = yaml.safe_load((mixed.path / ".nv-meta/dataset.yaml").read_text())
    assert told == {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}


@pytest.mark.parametrize("name", ["sharded", "mixed"])
def test_load_dataset_knows_classes_and_images(
    name: str, hugging: Any, request: pytest.FixtureRequest
) -> None:
    dataset: Dataset = request.getfixturevalue(name)
    data = opened(dataset, "huggingface", datasets=hugging)
    rows, expected = manifest(dataset), images(dataset)
    kinds = {row["ext"] for row in rows}
    assert data.features["cls"] == hugging.ClassLabel(names=[c.name for c in dataset.classes])
    assert all(data.features[kind] == hugging.Image() for kind in kinds)
    data = data.cast_column("jpg", hugging.Image(decode=False))
    data = data.cast_column("png", hugging.Image(decode=False)) if "png" in kinds else data
    for row, sample in zip(rows, data, strict=True):
        assert sample["__key__"] == row["key"]
        assert (sample["cls"], sample["txt"]) == (row["label"], row["caption"])
        assert sample[row["ext"]]["bytes"] == expected[row["key"]]
        assert sample["json"] == row


def test_the_card_names_fields_as_datasets_does(sharded: Dataset, hugging: Any) -> None:
    export(sharded.path, ["huggingface"])
    card = (sharded.path / "README.md").read_text().split("---\n")[1]
    fields = yaml.safe_load(card)["dataset_info"]["features"]
    assert hugging.Features._from_yaml_list(fields)._to_yaml_list() == fields


@pytest.mark.parametrize("overlay", [False, True])
def test_the_card_of_a_build_loads_as_it_is(
    overlay: bool, built: Callable[..., Dataset], hugging: Any
) -> None:
    dataset = built(STEPS, overlay=overlay)
    data = hugging.load_dataset(str(dataset.path), split="train")
    keys = data["key"] if overlay else data["__key__"]
    assert list(keys) == [row["key"] for row in manifest(dataset)]
    card = pytest.importorskip("huggingface_hub").DatasetCard.load(dataset.path / "README.md")
    assert card.data.size_categories == ["n<1K"]
    assert "image-classification" in card.data.task_categories


@pytest.mark.parametrize("name", ["sharded", "mixed"])
def test_croissant_joins_images_with_their_rows(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pytest.importorskip("mlcroissant")
    script = """
import json, os, sys
import mlcroissant
told = eval(sys.argv[1])
data = told.dataset
assert not data.metadata.ctx.issues.errors
images = {r["images/key"].decode(): [list(r["images/image"].size), r["images/label"]] for r in data.records("images")}
classes = [r["classes/name"] for r in data.records("classes")]
print(json.dumps([len(list(told)), images, classes], default=str), flush=True)
os._exit(0)  # at Python's end a thread of pyarrow may still free a buffer of pandas', and abort
"""
    dataset: Dataset = request.getfixturevalue(name)
    [done] = export(dataset.path, ["croissant"])
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, done.use],
        capture_output=True, text=True, check=True, env={**os.environ, "CROISSANT_CACHE": str(tmp_path / "croissant")},
    )  # fmt: skip
    rows, images, classes = json.loads(answer.stdout)
    assert rows == len(dataset) > 0
    assert classes == [c.name for c in dataset.classes]
    assert images == {row["key"]: [[row["width"], row["height"]], row["label"]] for row in manifest(dataset)}


def test_sidecars_leave_the_dataset_whole_and_go_with_it(
    sharded: Dataset, recipe: Callable[..., Any], tree: Callable[[Path], dict[str, str]]
) -> None:
    before = tree(sharded.path)
    export(sharded.path, SIDECARS)
    after = tree(sharded.path)
    assert len(after) >= len(before) + 9
    assert {name for name in before if before[name] != after[name]} <= {"README.md"}
    assert verify(sharded.path) == []
    assert {entry.name for entry in sharded.path.iterdir()} <= OURS
    [again] = build(recipe(STEPS), sharded.path)
    assert again.unchanged
    [other] = build(recipe([*STEPS, {"per_class": 2}]), sharded.path)
    assert not other.unchanged
    assert tree(sharded.path).keys() == {n for n in before if n != "shards/000001.tar"} - {
        "shards/000002.tar", "shards/000003.tar"}  # fmt: skip


def test_sidecars_are_the_same_bytes_again(sharded: Dataset, tree: Callable[[Path], dict[str, str]]) -> None:
    export(sharded.path, SIDECARS)
    first = tree(sharded.path)
    export(sharded.path, SIDECARS)
    assert tree(sharded.path) == first


@pytest.mark.parametrize("name", ["dali", "energon"])
def test_shards_that_are_not_the_indexed_ones_are_refused(name: str, sharded: Dataset) -> None:
    shards = sharded.path / "shards"
    (shards / "000000.tar").write_bytes((shards / "000001.tar").read_bytes())
    with pytest.raises(DataError, match=r"000000\.tar: is not what shards/index\.parquet describes"):
        export(sharded.path, [name])
    (shards / "000000.tar").write_bytes(b"no tar at all")
    with pytest.raises(DataError, match=r"000000\.tar: "):
        export(sharded.path, [name])
    assert not (sharded.path / ".nv-meta/index.sqlite").exists()
    assert not [p for p in sharded.path.rglob("*") if p.name.endswith(".tmp")]


def test_what_cannot_be_is_refused_with_a_hint(
    built: Callable[..., Dataset], sharded: Dataset, tmp_path: Path
) -> None:
    overlay = built(STEPS, name="over")
    for path, to, out, said in [
        (overlay.path, ["dali"], None, f"is an overlay.*\n.*curate shard {overlay.path}"),
        (sharded.path, ["walli"], None, "no format 'walli'\n  hint: did you mean 'dali'"),
        (sharded.path, ["parquet"], None, "--out is missing"),
        (sharded.path, ["energon"], tmp_path / "x", "go beside the shards"),
        (sharded.path, ["dali", "wids"], tmp_path / "x", "takes one format, got 2"),
        (sharded.path, ["parquet"], "s3://bucket/copy", "--out s3://bucket/copy: exports are local files"),
        (sharded.path, ["wids"], Path("s3://bucket/copy"), "--out s3:/bucket/copy: exports are local files"),
        (tmp_path, ["dali"], None, "not a dataset"),
    ]:
        with pytest.raises(RecipeError, match=said):
            export(path, to, out)
    assert not (tmp_path / "x").exists()


def test_shards_that_mix_splits_are_told(
    built: Callable[..., Dataset], sharded: Dataset, run_curate: Callable[..., Any]
) -> None:
    split: list[Any] = [{"split": {"shares": {"val": 0.25}}}]
    dataset, overlay = built(split, "halves", overlay=False), built(split, "over")
    rows = Counter(row["split"] or "train" for row in manifest(dataset))
    assert min(rows["train"], rows["val"]) > 0
    shown = run_curate("export", dataset.path, "--to", "webdataset,huggingface", "-q").stdout
    said = f"holds {rows['train']} rows of train and {rows['val']} rows of val; its shards mix them: `--to parquet`"
    assert shown.count(said) == 1
    [one] = json.loads(run_curate("export", dataset.path, "--to", "wids", "--json", "-q").stdout)
    assert said in one["note"]
    for path in (dataset.path, overlay.path):
        card = f"the rows of all splits (train {rows['train']}, val {rows['val']}): filter by `split`"
        assert (path / "README.md").read_text().count(card) == 1
    assert export(sharded.path, ["huggingface"])[0].note is None
    assert "all splits" not in (sharded.path / "README.md").read_text()


def test_a_manifest_that_is_gone_is_told(sharded: Dataset) -> None:
    (sharded.path / "manifest.parquet").unlink()
    with pytest.raises(DataError, match=r"manifest\.parquet: cannot be read"):
        export(sharded.path, ["webdataset"])


def test_help_names_the_sidecars_that_out_may_move(run_curate: Callable[..., Any]) -> None:
    assert [name for name in SIDECARS if exports.find(name).movable] == ["dali", "wids"]
    assert "those of dali and wids may" in " ".join(run_curate("export", "--help").stdout.split())


def test_the_command_says_how_to_open_what_it_wrote(sharded: Dataset, run_curate: Callable[..., Any]) -> None:
    result = run_curate("export", sharded.path, "--to", "webdataset,wids", "-q")
    assert result.exit_code == 0
    assert f'wids.ShardListDataset("{sharded.path}/wids.json", localname=str)' in result.stdout
    [one] = json.loads(run_curate("export", sharded.path, "--to", "wids", "--json", "-q").stdout)
    assert one["files"] == [f"{sharded.path}/wids.json"]
    assert run_curate("export", sharded.path, "--to", "walli").exit_code == 2
