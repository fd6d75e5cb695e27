"""Our tars in the hands of others: GNU tar, Python's tarfile, the webdataset library."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from hypothesis import example, given
from hypothesis import strategies as st

from curate.builds.build import build
from curate.builds.shards.slices import boundaries
from curate.builds.shards.writing import Layout, write_shards
from curate.datasets.dataset import Dataset
from curate.datasets.staging import Staging
from curate.datasets.verification import verify
from curate.errors import DataError
from curate.io.tars.archive import MAX_MEMBER_BYTES, TarWriter, header, headers
from curate.sources._index_cache import make_key

STEPS: list[Any] = [{"noise": {"rate": 0.25}}, {"caption": {"templates": ["a photo of a {}.", "ünïcode {}"]}}]


@pytest.fixture
def sharded(built: Callable[..., Dataset]) -> Dataset:
    return built(STEPS, overlay=False)


def gnu_tar(*arguments: object) -> str:
    if shutil.which("tar") is None:
        pytest.skip("no tar command")
    return subprocess.run(["tar", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def test_gnu_tar_lists_samples_whole_and_in_the_manifests_order(sharded: Dataset) -> None:
    listed = [gnu_tar("tf", sharded.path / s.file).split("\n")[:-1] for s in sharded.info.shards or []]
    assert [len(names) for names in listed] == [64, 64, 64, 48]
    members = [name for names in listed for name in names]
    keys = pq.read_table(sharded.path / "manifest.parquet")["key"].to_pylist()
    assert members == [f"{key}.{ext}" for key in keys for ext in ("cls", "jpg", "json", "txt")]


def test_gnu_tar_extracts_the_original_bytes(sharded: Dataset, pool: Path, tmp_path: Path) -> None:
    for record in sharded.info.shards or []:
        gnu_tar("xf", sharded.path / record.file, "-C", tmp_path)
    found = {str(f.relative_to(tmp_path)): f.read_bytes() for f in tmp_path.glob("n*/*.jpg")}
    assert found == {str(f.relative_to(pool)): f.read_bytes() for f in pool.rglob("*.jpg")}


def test_members_are_plain_and_say_nothing_of_the_writer(sharded: Dataset) -> None:
    with tarfile.open(sharded.path / "shards/000000.tar") as archive:
        members = archive.getmembers()
    assert {(m.type, m.mode, m.uid, m.gid, m.mtime, m.uname, m.gname) for m in members} == {
        (tarfile.REGTYPE, 0o644, 0, 0, 0, "", "")
    }


def test_webdataset_reads_every_sample(sharded: Dataset) -> None:
    files = [str(sharded.path / s.file) for s in sharded.info.shards or []]
    samples = list(wds.WebDataset(files, shardshuffle=False).decode("rgb8"))
    rows = pq.read_table(sharded.path / "manifest.parquet").to_pylist()
    assert [s["__key__"] for s in samples] == [row["key"] for row in rows]
    for sample, row in zip(samples, rows, strict=True):
        assert sample["cls"] == row["label"]
        assert sample["txt"] == row["caption"]
        assert sample["json"] == {name: value for name, value in row.items() if value is not None}
        assert sample["jpg"].shape == (row["height"], row["width"], 3)


def test_index_points_at_the_images_inside_the_tars(sharded: Dataset, pool: Path) -> None:
    for row in pq.read_table(sharded.path / "shards/index.parquet").to_pylist():
        with open(sharded.path / row["file"], "rb") as stream:
            stream.seek(row["offset"])
            assert stream.read(row["size"]) == (pool / f"{row['key']}.jpg").read_bytes()


def test_records_say_samples_bytes_and_digest(sharded: Dataset) -> None:
    records = sharded.info.shards or []
    assert [r.samples for r in records] == [16, 16, 16, 12]
    for record in records:
        data = (sharded.path / record.file).read_bytes()
        assert (record.bytes, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_sample_without_label_and_caption_has_two_members(
    jpeg: Callable[..., bytes], built: Callable[..., Dataset], tmp_path: Path
) -> None:
    (tmp_path / "plain").mkdir()
    for i in range(3):
        (tmp_path / "plain" / f"{i}.jpg").write_bytes(jpeg(i))
    made = built([], overlay=False, source={"folder": str(tmp_path / "plain")})
    names = gnu_tar("tf", made.path / "shards/000000.tar").split()
    assert sorted(n.rpartition(".")[2] for n in names) == ["jpg", "jpg", "jpg", "json", "json", "json"]


NAMES = st.from_regex(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+){0,4}\.(cls|jpg|json|txt)", fullmatch=True)
LONG = st.builds(lambda parts, ext: "/".join(parts) + ext,
                 st.lists(st.text("abcXYZ019_-", min_size=1, max_size=180), min_size=1, max_size=3),
                 st.sampled_from([".jpg", ".json"]))  # fmt: skip


@given(st.one_of(NAMES, LONG), st.one_of(st.integers(0, 70_000), st.integers(0, MAX_MEMBER_BYTES)))
@example("a" * 96 + ".jpg", 5)  # just fits
@example("a" * 97 + ".jpg", 5)  # no slash to cut at
@example("d/" + "a" * 96 + ".jpg", 5)
@example("d" * 155 + "/" + "a" * 96 + ".jpg", 5)
@example("d" * 156 + "/" + "a" * 20 + ".jpg", 5)
@example("ä" * 60 + ".jpg", 5)
def test_header_is_that_of_python_and_read_back_by_it(name: str, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    try:
        expected = member.tobuf(tarfile.USTAR_FORMAT)
    except ValueError:
        expected = member.tobuf(tarfile.GNU_FORMAT)
    assert header(name, size) == expected
    back = tarfile.TarInfo.frombuf(header(name, size)[-512:], "utf-8", "strict")
    assert back.size == size


def test_member_too_large_for_a_tar_is_refused() -> None:
    header("a.jpg", MAX_MEMBER_BYTES)
    with pytest.raises(DataError, match="do not fit into a tar member"):
        header("a.jpg", MAX_MEMBER_BYTES + 1)


@given(
    st.lists(
        st.tuples(st.text("ab/é漢", min_size=1, max_size=30), st.integers(0, MAX_MEMBER_BYTES)), max_size=5
    )
)
def test_headers_in_bulk_are_those_made_one_by_one(named: list[tuple[str, int]]) -> None:
    found = headers([name.encode() for name, _ in named], np.array([size for _, size in named], np.int64))
    assert found.tobytes() == b"".join(header(name, size) for name, size in named)


@pytest.mark.parametrize("sizes", [[], [0], [1], [511, 512, 513], [10_240 - 1024], [5000] * 3])
def test_archive_is_that_of_python(tmp_path: Path, sizes: list[int]) -> None:
    data = {f"k{i}.jpg": bytes([i + 1]) * size for i, size in enumerate(sizes)}
    writer = TarWriter(tmp_path / "ours.tar")
    for name, content in data.items():
        writer.put(header(name, len(content)) + content + bytes(-len(content) % 512))
    sha256 = writer.close()
    with tarfile.open(tmp_path / "theirs.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in data.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            (tmp_path / "member").write_bytes(content)
            with open(tmp_path / "member", "rb") as stream:
                archive.addfile(member, stream)
    ours = (tmp_path / "ours.tar").read_bytes()
    assert ours == (tmp_path / "theirs.tar").read_bytes()
    assert sha256 == hashlib.sha256(ours).hexdigest()


def test_aborted_archive_leaves_nothing(tmp_path: Path) -> None:
    writer = TarWriter(tmp_path / "a.tar")
    writer.put(bytes(9_000_448))
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_writer_that_was_given_up_leaves_nothing_in_the_result(tmp_path: Path) -> None:
    with Staging(tmp_path / "set") as staging:
        for folder in ("shards", "parts"):
            (staging.path / folder).mkdir()
        lost = TarWriter(staging.path / "shards" / "0.tar", staging.path / "parts")
        lost.put(bytes(512))
        staging.publish()
    assert [f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*")] == ["set", "set/shards"]
    with pytest.raises(FileNotFoundError):
        lost.close()
    lost.abort()


def test_keys_of_any_length_come_back_through_gnu_tar(
    jpeg: Callable[..., bytes], built: Callable[..., Dataset], tmp_path: Path
) -> None:
    folder = tmp_path / "long"
    files = [f"c/{'x' * n}.jpg" for n in (1, 92, 93, 94, 95, 96, 150, 190, 230)]
    files += [f"{'d' * 120}/{'x' * 70}.jpg", f"{'d' * 150}/{'y' * 90}.jpg", "ü ü/漢字.jpg"]
    for i, file in enumerate(files):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(jpeg(i))
    made = built([], overlay=False, source={"folder": str(folder)}, order="key")
    names = gnu_tar("tf", made.path / "shards/000000.tar").split()
    keys = {make_key(file.removesuffix(".jpg")): file for file in files}
    assert len(keys) == len(files)
    assert [n for n in names if n.endswith(".jpg")] == [f"{key}.jpg" for key in sorted(keys)]
    gnu_tar("xf", made.path / "shards/000000.tar", "-C", tmp_path)
    assert verify(made.path) == []  # the index finds them behind headers of any length
    for key, file in keys.items():
        assert (tmp_path / f"{key}.jpg").read_bytes() == (folder / file).read_bytes()
        assert json.loads((tmp_path / f"{key}.json").read_text())["file"] == file


def test_samples_per_shard_changes_shards_and_not_the_rows(
    recipe: Callable[..., Any], tmp_path: Path
) -> None:
    sets = [build(recipe([], samples_per_shard=n), tmp_path / f"s{n}")[0].dataset for n in (7, 60, 1000)]
    assert [len(s.info.shards or []) for s in sets] == [9, 1, 1]
    assert len({s.digest for s in sets}) == 1


@example([5, 5, 5], 20, 10)  # just fits
@given(
    st.lists(st.integers(0, 100), max_size=60), st.integers(1, 20), st.one_of(st.none(), st.integers(1, 300))
)
def test_shards_hold_as_much_as_they_may_and_no_more(
    sizes: list[int], samples: int, limit: int | None
) -> None:
    found = boundaries(np.array(sizes, np.int64), samples_per_shard=samples, bytes_per_shard=limit)
    assert (found[0], found[-1]) == (0, len(sizes))
    for first, end in pairwise(found):
        assert 0 < end - first <= samples
        if limit is not None:
            assert sum(sizes[first:end]) <= limit or end - first == 1
            full = end < len(sizes) and sum(sizes[first : end + 1]) > limit
            assert full or end - first == samples or end == len(sizes)


def test_bytes_per_shard_bounds_the_images_of_a_tar(built: Callable[..., Dataset], run_curate: Any) -> None:
    made = built([], overlay=False, bytes_per_shard=3000, samples_per_shard=5)
    sizes = made.table(["size"])["size"].to_pylist()
    assert max(sizes) < 3000
    at = 0
    for record in made.info.shards or []:
        assert record.samples <= 5
        assert sum(sizes[at : at + record.samples]) <= 3000
        at += record.samples
    assert at == len(made)
    assert len({r.samples for r in made.info.shards or []} | {5, 0}) > 2
    assert verify(made.path) == []
    planned = run_curate("build", made.path.parent / "set.yaml", "--plan").stdout
    assert "5 samples or 3,000 bytes of images a shard" in planned


def test_limit_of_bytes_changes_the_plan_and_not_the_digest(built: Callable[..., Dataset]) -> None:
    plain, limited = built([], "set"), built([], "set", bytes_per_shard=3000)
    assert plain.digest == limited.digest
    assert plain.info.plan != limited.info.plan


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_shard_that_is_not_what_its_record_says_is_written_again(
    built: Callable[..., Dataset], tmp_path: Path, damage: str
) -> None:
    overlay = built([])
    for name in ("whole", "again"):
        (tmp_path / name).mkdir()
        with overlay.reader() as reader:
            write_shards(overlay.table(), reader, tmp_path / name, Layout(samples_per_shard=16), workers=1)
    tar = tmp_path / "again/shards/000002.tar"
    tar.unlink() if damage == "gone" else os.truncate(tar, 1024)
    with overlay.reader() as reader:
        write_shards(overlay.table(), reader, tmp_path / "again", Layout(samples_per_shard=16), workers=1)
    assert tar.read_bytes() == (tmp_path / "whole/shards/000002.tar").read_bytes()
