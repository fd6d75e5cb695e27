"""Pools and datasets in an object store: a real S3 server on the loopback, which may go away and come back."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from stores import Store, fetched, moved

from curate.builds.build import build
from curate.builds.sharding import shard
from curate.datasets.dataset import open_dataset
from curate.datasets.verification import verify
from curate.errors import DataError, RecipeError
from curate.io import paths
from curate.io.byte_ranges import ByteRangeReader
from curate.io.paths import RemotePath
from curate.io.progress import Quiet, Stage
from curate.io.tars.archive import BLOCK, TarWriter, header
from curate.recipes.recipe import Recipe

s3fs = pytest.importorskip("s3fs", reason="needs s3fs")

STEPS: list[Any] = [{"noise": {"rate": 0.25}}, {"caption": {"templates": ["a photo of a {}."]}}]
MakeRecipe = Callable[..., Recipe]
Tree = Callable[[Path], dict[str, str]]


def test_build_into_a_store_has_the_bytes_of_a_local_one(
    recipe: MakeRecipe, bucket: str, tmp_path: Path, tree: Tree
) -> None:
    [local] = build(recipe(STEPS), tmp_path / "local")
    [there] = build(recipe(STEPS), f"{bucket}/sets/a", workers=2)
    copy = tree(fetched(f"{bucket}/sets/a", tmp_path / "copy"))
    assert len(copy) == 8
    assert moved(copy) == moved(tree(tmp_path / "local"))
    assert there.dataset.digest == local.dataset.digest
    assert there.dataset.info.shards == local.dataset.info.shards
    assert verify(f"{bucket}/sets/a") == []
    assert build(recipe(STEPS), f"{bucket}/sets/a")[0].unchanged


def test_dataset_in_a_store_is_read_as_a_local_one(
    recipe: MakeRecipe, bucket: str, tmp_path: Path, run_curate: Callable[..., Any]
) -> None:
    [local] = build(recipe(STEPS), tmp_path / "local")
    recipe(STEPS)
    assert run_curate("build", tmp_path / "set.yaml", "--out", f"{bucket}/a").exit_code == 0
    there = open_dataset(f"{bucket}/a")
    assert there.table() == local.dataset.table()
    columns = [there.table()[c].to_pylist() for c in ("file", "offset", "size")]
    images = there.reader().read_many(*columns)
    assert images == local.dataset.reader().read_many(*columns)
    assert {type(image) for image in images} == {bytes}
    shown = run_curate("show", f"{bucket}/a")
    assert shown.exit_code == 0
    assert "60" in shown.stdout
    assert run_curate("verify", f"{bucket}/a").exit_code == 0


def test_pool_of_tars_in_a_store_is_a_source(
    recipe: MakeRecipe, bucket: str, tmp_path: Path, tree: Tree
) -> None:
    build(recipe([]), f"{bucket}/pool")
    build(recipe([]), tmp_path / "pool")
    source = {"shards": f"{bucket}/pool/shards"}
    [overlay] = build(recipe([{"sample": 20}], "over", source=source), tmp_path / "over", overlay=True)
    assert overlay.dataset.byte_root == f"{bucket}/pool/shards"
    shard(tmp_path / "over")
    near = {"shards": str(tmp_path / "pool" / "shards")}
    build(recipe([{"sample": 20}], "over", source=near), tmp_path / "near")
    assert tree(tmp_path / "over" / "shards") == tree(tmp_path / "near" / "shards")
    [derived] = build(recipe([{"sample": 5}], "five", source={"dataset": f"{bucket}/pool"}), f"{bucket}/five")
    assert len(derived.dataset) == 5
    assert verify(f"{bucket}/five") == []


def test_overlay_in_a_store_gets_the_shards_of_a_direct_build(
    recipe: MakeRecipe, bucket: str, tmp_path: Path, tree: Tree
) -> None:
    build(recipe(STEPS), f"{bucket}/late", overlay=True)
    assert not open_dataset(f"{bucket}/late").sharded
    assert shard(f"{bucket}/late").dataset.sharded
    build(recipe(STEPS), f"{bucket}/direct")
    late, direct = (tree(fetched(f"{bucket}/{name}", tmp_path / name)) for name in ("late", "direct"))
    assert late == direct


def test_sets_in_a_store_are_compared_and_exports_into_one_refused(
    recipe: MakeRecipe, bucket: str, run_curate: Callable[..., Any]
) -> None:
    for n in (2, 3):
        build(recipe([{"per_class": n}], f"n{n}"), f"{bucket}/family/n{n}", overlay=True)
    for names in ([f"{bucket}/family/n2", f"{bucket}/family/n3"], [f"{bucket}/family"]):
        shown = run_curate("diff", *names)
        assert shown.exit_code == 0, shown.stderr
        assert shown.stdout.splitlines()[-1] == "n2 (12) ⊂ n3 (18)"
    refused = run_curate("export", f"{bucket}/family/n2", "--to", "parquet", "--out", f"{bucket}/copy")
    assert refused.exit_code == 2
    assert f"--out {bucket}/copy: exports are local files" in refused.stderr


def test_object_that_is_gone_is_told_at_once(bucket: str) -> None:
    for name in ("a", "c"):
        RemotePath(f"{bucket}/{name}").write_bytes(bytes(100))
    found = ByteRangeReader(bucket).read_many(
        ["a", "b", "a", "a", "c"], [0, 0, 90, 0, 200], [100, 5, 20, 99, 9]
    )
    assert found[0] == bytes(100)
    assert [str(e).split(": ")[1].split(" (")[0] for e in found[1:] if isinstance(e, DataError)] == [
        "cannot be read",
        "10 bytes where 20 were indexed\n  hint",
        "100 bytes where 99 were indexed\n  hint",
        "cannot be read",
    ]


def test_ranges_of_one_object_are_fetched_together(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 4096  # 1 MiB
    RemotePath(f"{bucket}/tar").write_bytes(data)
    asked: list[int] = []
    fetch = s3fs.S3FileSystem._cat_file

    async def counted(self: Any, path: str, **span: Any) -> bytes:
        asked.append(span["start"])
        return await fetch(self, path, **span)

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", counted)
    starts = [700_000, 5, 1000, 400_000, 900_000]
    found = ByteRangeReader(bucket).read_many(["tar"] * 5, starts, [100] * 5)
    assert found == [data[s : s + 100] for s in starts]
    assert asked == [5, 400_000, 700_000, 900_000]  # 5 and 1000 lie together


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload in the smallest parts that S3 takes."""
    monkeypatch.setattr("curate.io.tars.archive.PART_BYTES", 5 << 20)


@pytest.mark.usefixtures("small_parts")
def test_aborted_upload_leaves_no_object(bucket: str) -> None:
    writer = TarWriter(RemotePath(f"{bucket}/a.tar"))
    writer.put(header("x", 12 << 20) + bytes(12 << 20))  # more than two parts
    writer.abort()
    del writer
    files = fsspec.filesystem("s3", use_listings_cache=False)
    assert files.find(bucket) == []
    assert files.list_multipart_uploads(bucket.removeprefix("s3://")) == []


@pytest.mark.usefixtures("small_parts")
def test_large_tar_is_uploaded_in_parts(bucket: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * (32 << 10)  # 8 MiB
    for path in (RemotePath(f"{bucket}/a.tar"), tmp_path / "a.tar"):
        writer = TarWriter(path)
        for _ in range(2):
            writer.put(header("x", len(content)) + content + bytes(-len(content) % BLOCK))
        writer.close()
    found = RemotePath(f"{bucket}/a.tar").read_bytes()
    assert found == (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert [m.size for m in archive] == [len(content)] * 2


def test_two_builds_of_one_url_do_not_mix(
    recipe: MakeRecipe, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    class Meanwhile(Quiet):
        @contextmanager
        def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
            if title == "writing shards" and not refused:
                with pytest.raises(RecipeError, match="another build is writing it") as here:
                    build(recipe(STEPS), f"{bucket}/a")
                with pytest.MonkeyPatch.context() as patch:  # as from another machine
                    patch.setenv("CURATE_CACHE", str(tmp_path / "elsewhere"))
                    with pytest.raises(RecipeError, match=r"a build on .* is writing it") as there:
                        build(recipe(STEPS), f"{bucket}/a")
                refused.extend([str(here.value), str(there.value)])
            yield Stage()

    build(recipe(STEPS), f"{bucket}/a", progress=Meanwhile())
    assert len(refused) == 2
    assert f"remove {bucket}/a/lock" in refused[1]
    assert verify(f"{bucket}/a") == []
    assert "lock" not in paths.sizes(RemotePath(f"{bucket}/a"))


def test_lock_of_a_killed_build_of_this_machine_is_taken_over(recipe: MakeRecipe, bucket: str) -> None:
    from curate.datasets.staging import RemoteStaging

    killed = RemoteStaging(RemotePath(f"{bucket}/a")).__enter__()
    killed._held.close()  # as the kernel does with the files of a process that was killed
    assert (RemotePath(f"{bucket}/a") / "lock").exists()
    assert len(build(recipe(STEPS), f"{bucket}/a")[0].dataset) == 60
    assert not (RemotePath(f"{bucket}/a") / "lock").exists()


def test_bucket_that_is_not_there_is_told(
    store: Store, recipe: MakeRecipe, tmp_path: Path, run_curate: Callable[..., Any]
) -> None:
    recipe([])
    result = run_curate("build", tmp_path / "set.yaml", "--out", "s3://no-such-bucket/set")
    assert result.exit_code == 3, result.output
    assert "bucket does not exist" in result.stderr


@pytest.mark.parametrize("path", ["s3://no-such-bucket/set", "s3://no-such-bucket/*.tar"])
def test_verification_in_a_bucket_that_is_not_there_says_so(
    store: Store, run_curate: Callable[..., Any], path: str
) -> None:
    result = run_curate("verify", path)
    assert result.exit_code == 3, result.output
    assert "the bucket 'no-such-bucket' does not exist" in result.stderr


def test_tar_that_is_not_in_its_bucket_is_told(bucket: str, run_curate: Callable[..., Any]) -> None:
    result = run_curate("verify", f"{bucket}/a.tar")
    assert result.exit_code == 2
    assert "no such tar" in result.stderr


def test_prefix_of_somebody_else_is_refused_untouched(recipe: MakeRecipe, bucket: str) -> None:
    RemotePath(f"{bucket}/home/thesis.tex").write_bytes(b"years")
    with pytest.raises(RecipeError, match="nothing was touched"):
        build(recipe(STEPS), f"{bucket}/home", replace=True)
    assert paths.sizes(RemotePath(f"{bucket}/home")) == {"thesis.tex": 5}


def test_fewer_shards_leave_none_of_the_old(
    recipe: MakeRecipe, bucket: str, tmp_path: Path, tree: Tree
) -> None:
    build(recipe(STEPS, samples_per_shard=4), f"{bucket}/a")
    build(recipe(STEPS), f"{bucket}/a")
    build(recipe(STEPS), tmp_path / "fresh")
    assert moved(tree(fetched(f"{bucket}/a", tmp_path / "copy"))) == moved(tree(tmp_path / "fresh"))


@pytest.mark.parametrize(
    ("source", "told"),
    [({"folder": "s3://nowhere/x"}, "hint"), ({"shards": "s3://nowhere/x.tar"}, "nowhere"),
     ({"dataset": "s3://nowhere/x"}, "not a dataset")],
)  # fmt: skip
def test_url_with_nothing_there_is_told(
    store: Store,
    recipe: MakeRecipe,
    tmp_path: Path,
    run_curate: Callable[..., Any],
    source: dict[str, str],
    told: str,
) -> None:
    recipe([], source=source)
    result = run_curate("build", tmp_path / "set.yaml", "--out", tmp_path / "set")
    assert result.exit_code in (2, 3), result.output
    assert told in result.stderr
