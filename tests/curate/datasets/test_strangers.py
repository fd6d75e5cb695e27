"""What a stranger sends runs nothing, reads images alone, and writes nothing outside of `--out`; seals are right."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from campaigns import masses
from strangers import Change, reseal, setting

from curate.builds.build import build
from curate.builds.sharding import shard
from curate.datasets.contracts import KINDS
from curate.datasets.dataset import Dataset, open_dataset
from curate.datasets.exports import export
from curate.datasets.summary import summarize
from curate.datasets.verification import verify
from curate.errors import CurateError, DataError
from curate.io import stores
from curate.io.byte_ranges import ByteRangeReader
from curate.io.image_headers import probe
from curate.io.paths import RemotePath, find_files
from curate.io.stores import filesystem
from curate.recipes.recipe import parse
from curate.sources import open_source
from train.data.loader import Loader

Run = Callable[..., Any]

NEVER_OPENED = (
    "reference://x::http://a.example/refs.json",
    "s3://bucket/x::file:///etc/passwd",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "local:///etc/passwd",
    " file:///etc/passwd",
    "simplecache::file:///etc/passwd",
    "zip://x::/etc/passwd",
    "memory://x",
    "github://a:b@/x",
    "://x",
    "s3://bucket/\x00x",
)


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where fsspec is asked to open any URL."""
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda *_, **__: pytest.fail("opened"))


@pytest.fixture(scope="module")
def original(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An overlay over the pool, to be copied."""
    recipe = parse({"name": "set", "source": {"folder": str(pool)}, "steps": []})
    return build(recipe, tmp_path_factory.mktemp("original") / "set", overlay=True)[0].dataset.path


@pytest.fixture
def sent(original: Path, tmp_path: Path) -> Path:
    """A copy of the overlay, as deep as itself, so that its root leads to the pool."""
    return Path(shutil.copytree(original, tmp_path / "set"))


@pytest.fixture(scope="module")
def packed(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shard(shutil.copytree(original, tmp_path_factory.mktemp("packed") / "set")).dataset.path


@pytest.fixture
def sent_shards(packed: Path, tmp_path: Path) -> Dataset:
    """A copy of the overlay with shards of its own."""
    return open_dataset(shutil.copytree(packed, tmp_path / "shards-set"))


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("url", NEVER_OPENED)
def test_urls_of_other_protocols_are_never_opened(url: str, tmp_path: Path) -> None:
    for touch in (
        lambda: filesystem(url),
        lambda: RemotePath(url).read_bytes(),
        lambda: find_files(url, (".tar",), "tar"),
        lambda: ByteRangeReader(url if "://" in url else tmp_path).read(url, 0, 4),
        lambda: open_dataset(url),
        *(lambda kind=kind: open_source({kind: url}) for kind in ("shards", "table", "dataset", "folder")),
    ):
        with pytest.raises(CurateError) as told:
            touch()
        assert "Traceback" not in str(told.value)


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize(
    "url", masses(NEVER_OPENED, kept=lambda url: url.startswith(("reference", "file", "s3://bucket/x::")))
)
def test_urls_of_other_protocols_in_a_dataset_are_never_opened(url: str, tmp_path: Path, sent: Path) -> None:
    folder = reseal(sent, setting("file", url))
    for use in (
        shard,
        summarize,
        lambda p: open_dataset(p).table(),
        lambda p: export(p, ["folder"], tmp_path / "o"),
    ):
        with pytest.raises(DataError, match=r"never opened|leads out|cannot be read"):
            use(folder)
    if "://" in url:
        with pytest.raises(DataError, match="root"):
            open_dataset(reseal(folder, root=url))


@pytest.mark.usefixtures("unopened")
def test_a_word_before_two_colons_is_no_protocol_of_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reference::x.tar").write_bytes(b"")
    assert find_files("reference::x.tar", (".tar",), "tar") == [str(tmp_path / "reference::x.tar")]
    assert find_files("*.tar", (".tar",), "tar") == [str(tmp_path / "reference::x.tar")]


@pytest.mark.usefixtures("unopened")
def test_a_plan_opens_no_url_of_another_protocol(write_recipe: Callable[..., Path], run_curate: Run) -> None:
    for source in ({"table": NEVER_OPENED[0]}, {"shards": NEVER_OPENED[0]}, {"dataset": NEVER_OPENED[0]}):
        result = run_curate("build", write_recipe({"source": source, "steps": []}, "plan"), "--plan")
        assert result.exit_code in (2, 3)
        assert "'reference' are not opened" in result.stderr
    assert run_curate("verify", NEVER_OPENED[0]).exit_code == 3


def test_each_store_that_is_named_is_one_that_fsspec_knows() -> None:
    from fsspec.registry import known_implementations

    unknown = (stores.STORES | stores.WEB) - known_implementations.keys()
    assert unknown == {"abfss"}  # which adlfs itself brings


KEYS = (".", "", "/etc/x", "a/../b", "../x", "x/", "a.b", "a b", "ä", "x" * 201, None, "a\x00", "a\n")
ROWS: list[Change] = [
    *(setting("key", key) for key in KEYS),
    lambda rows: rows[0].update(key=rows[1]["key"]),
    *(setting("ext", ext) for ext in ("/../../home/.bashrc", "sh", "jpeg", "", None)),
    *(setting("file", file) for file in ("/etc/hostname", "../x", "a/../../x", "..", "", "a\x00b")),
    setting("offset", -1), setting("size", -1), setting("size", 2**63 - 1), setting("offset", 2**63 - 1),
    setting("width", -1), setting("height", -1), setting("label", -1), setting("label", 6),
]  # fmt: skip


@pytest.mark.parametrize("change", ROWS)
def test_rows_are_held_to_the_contract(change: Change, sent: Path) -> None:
    folder = reseal(sent, change)
    with pytest.raises(DataError, match=r"manifest\.parquet: "):
        open_dataset(folder).table(["label"])
    assert [p.where for p in verify(folder)] == ["manifest.parquet"]


@pytest.mark.parametrize("number", masses(range(len(ROWS)), kept=lambda n: n in (3, 14, 20)))
def test_rows_are_held_to_the_contract_by_all_who_read_them(number: int, sent: Path, tmp_path: Path) -> None:
    folder = reseal(sent, ROWS[number])
    before = sorted(tmp_path.rglob("*"))
    derived = parse({"name": "b", "source": {"dataset": str(folder)}})
    for use in (
        lambda: shard(folder),
        lambda: export(folder, ["folder"], tmp_path / "out"),
        lambda: export(folder, ["parquet"], tmp_path / "out"),
        lambda: build(derived, tmp_path / "derived"),
        lambda: Loader(open_dataset(folder), batch_size=4, image_size=16, seed=0, augment=False, workers=0),
        lambda: summarize(folder),
    ):
        with pytest.raises(DataError, match=r"manifest\.parquet: "):
            use()
    assert sorted(p for p in tmp_path.rglob("*") if not p.name.startswith(".")) == before


def test_columns_are_held_to_their_types(built: Callable[..., Dataset]) -> None:
    for drop in ("key", "label"):
        folder = built([], out=None, name=f"no-{drop}").path
        pq.write_table(pq.read_table(folder / "manifest.parquet").drop([drop]), folder / "manifest.parquet")
        with pytest.raises(DataError, match=f"its column '{drop}' is not there"):
            open_dataset(folder).table()
    folder = built([], name="text").path
    table = pq.read_table(folder / "manifest.parquet")
    place = table.column_names.index("size")
    pq.write_table(table.set_column(place, "size", table["key"]), folder / "manifest.parquet")
    with pytest.raises(DataError, match="'size' is VARCHAR, not BIGINT"):
        open_dataset(folder).table()


@pytest.mark.parametrize(
    "change",
    [setting("file", "/etc/hostname"), setting("file", "http://127.0.0.1/"), setting("file", None),
     setting("offset", -1), setting("offset", 0), setting("size", None)],
)  # fmt: skip
def test_the_index_of_shards_names_nothing_but_shards(change: Change, sent_shards: Dataset) -> None:
    folder = reseal(sent_shards.path, index=change)
    with pytest.raises(DataError, match=r"shards/index\.parquet: 1 rows are of no image in a shard"):
        open_dataset(folder).table()


@pytest.mark.parametrize("said", [
    {"name": "../x"}, {"name": "/etc"}, {"name": ".."}, {"name": ""}, {"root": "file:///etc"}, {"root": "a\0b"},
    {"digest": "x"},
])  # fmt: skip
def test_names_in_a_document_lead_nowhere(said: dict[str, Any], sent: Path) -> None:
    folder = reseal(sent, **said)
    with pytest.raises(DataError, match=f"dataset.json: {next(iter(said))}"):
        open_dataset(folder)


@pytest.mark.parametrize(
    "file", ["/etc/passwd", "../x.tar", "pipe:id", "shards/000001.tar", "http://127.0.0.1/x"]
)
def test_shards_have_the_names_of_shards(file: str, sent_shards: Dataset) -> None:
    listed = sent_shards.info.shards or []
    shards = [s.model_copy(update={"file": file} if i == 0 else {}) for i, s in enumerate(listed)]
    with pytest.raises(DataError, match="shard 0 is called"):
        open_dataset(reseal(sent_shards.path, shards=shards))


@pytest.fixture
def secrets(tmp_path: Path, jpeg: Callable[..., bytes]) -> Path:
    """A folder of somebody's own: a text, and a photograph."""
    folder = tmp_path / "home" / "secrets"
    folder.mkdir(parents=True)
    (folder / "key.txt").write_text("PRIVATE" * 40)
    (folder / "photo.jpg").write_bytes(jpeg(99))
    return folder


def pointing(dataset: Dataset, file: Path, below: str = "home/secrets") -> Path:
    """Have the first row of an overlay read a file of somebody else."""
    change = {"file": file.name, "offset": 0, "size": file.stat().st_size}

    def rows(found: list[dict[str, Any]]) -> None:
        del found[1:]
        found[0] |= change

    return reseal(dataset.path, rows, root=f"../{below}")


@pytest.mark.parametrize("ext", ["jpg", "png", "tiff", "ppm"])
def test_what_is_no_image_is_not_copied(
    ext: str, built: Callable[..., Dataset], secrets: Path, tmp_path: Path, run_curate: Run
) -> None:
    folder = reseal(pointing(built([]), secrets / "key.txt"), setting("ext", ext))
    derived = parse({"name": "b", "source": {"dataset": str(folder)}})
    for use in (
        lambda: shard(folder),
        lambda: build(derived, tmp_path / "derived"),
        lambda: export(folder, ["folder"], tmp_path / "copy"),
        lambda: export(folder, ["parquet"], tmp_path / "copy"),
    ):
        with pytest.raises(DataError, match=r"key\.txt: not the image that the manifest says"):
            use()
    for made in (folder / "shards", tmp_path / "derived", tmp_path / "copy"):
        assert not made.exists()


def test_an_image_of_another_kind_is_not_copied(built: Callable[..., Dataset], secrets: Path) -> None:
    folder = reseal(pointing(built([]), secrets / "photo.jpg"), setting("ext", "png"))
    with pytest.raises(DataError, match=r"its bytes are jpg, the manifest says png"):
        shard(folder)


def test_kinds_are_those_that_headers_tell(odd_files: Path) -> None:
    found = set()
    for file in (odd_files / "images").iterdir():
        try:
            found.add(probe(file.read_bytes()).ext)
        except Exception:
            continue
    assert found == set(KINDS)


def test_a_root_elsewhere_is_named_before_anything_else(
    built: Callable[..., Dataset], secrets: Path, tmp_path: Path, write_recipe: Callable[..., Path],
    run_curate: Run, pool: Path,
) -> None:  # fmt: skip
    folder = pointing(built([]), secrets / "photo.jpg")
    told = f"{folder}: its images lie outside of its folder, in {secrets}"
    recipe = write_recipe({"source": {"dataset": str(folder)}, "steps": []}, "derived")
    for command in (
        ("export", folder, "--to", "folder", "--out", tmp_path / "copy"),
        ("build", recipe, "--out", tmp_path / "derived"),
        ("build", recipe, "--out", tmp_path / "quiet", "-q"),
        ("shard", folder),
    ):
        result = run_curate(*command)
        assert (result.exit_code, result.stderr.splitlines()[0]) == (0, told), command
    plain = run_curate(
        "build",
        write_recipe({"source": {"folder": str(pool)}, "steps": []}, "plain"),
        "--out",
        tmp_path / "p",
    )
    assert "lie outside" not in plain.stderr
    assert "lie outside" not in run_curate("show", tmp_path / "p").stdout  # it has shards
    over = built([], "over")
    assert run_curate("show", over.path).stdout.splitlines()[0] == told.replace(
        str(folder), str(over.path)
    ).replace(str(secrets), str(pool.resolve()))


def test_links_out_of_a_folder_are_named(
    built: Callable[..., Dataset], secrets: Path, tmp_path: Path
) -> None:
    dataset = built([])
    inner = dataset.path / "images"
    inner.mkdir()
    (inner / "photo.jpg").symlink_to(secrets / "photo.jpg")
    folder = reseal(pointing(dataset, secrets / "photo.jpg"), root="images")
    assert summarize(folder).outside == [
        f"{folder}: its images lie outside of its folder, in {secrets / 'photo.jpg'}"
    ]
    (inner / "photo.jpg").unlink()
    shutil.copy(secrets / "photo.jpg", inner)
    (inner / "again.jpg").symlink_to("photo.jpg")  # which leads nowhere else
    assert summarize(folder).outside == []


def test_shards_that_lie_elsewhere_are_named(built: Callable[..., Dataset], tmp_path: Path) -> None:
    dataset = built([], overlay=False)
    shutil.move(dataset.path / "shards", tmp_path / "elsewhere")
    (dataset.path / "shards").symlink_to(tmp_path / "elsewhere")
    told = f"{dataset.path}: its images lie outside of its folder, in {tmp_path / 'elsewhere'}"
    assert summarize(dataset.path).outside == [told]
    assert verify(dataset.path) == []  # it may well be the user's own
    with pytest.raises(DataError, match="a link leads out"):
        export(dataset.path, ["webdataset"])
    assert not (tmp_path / "elsewhere" / "sizes.json").exists()


def test_a_pipe_is_not_waited_for(built: Callable[..., Dataset], tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    os.mkfifo(folder / "pipe.jpg")
    path = reseal(pointing(built([]), folder / "pipe.jpg", "home"), setting("size", 1 << 32))
    with pytest.raises(DataError, match=r"pipe\.jpg"):
        shard(path)  # which would wait for ever


def test_nothing_is_cleared_through_a_link_where_a_build_works(
    built: Callable[..., Dataset], secrets: Path, tmp_path: Path
) -> None:
    folder = built([]).path
    (tmp_path / ".set.building").symlink_to(secrets)
    with pytest.raises(CurateError, match="is a link"):
        shard(folder)
    assert len(list(secrets.iterdir())) == 2
    (tmp_path / ".set.building").unlink()
    (tmp_path / ".set.building").mkdir()
    (tmp_path / ".set.building" / "shards").symlink_to(secrets)
    assert shard(folder).dataset.sharded
    assert sorted(p.name for p in secrets.iterdir()) == ["key.txt", "photo.jpg"]


def test_what_held_is_not_looked_at_again_and_a_change_is(
    built: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = built([]).path
    assert open_dataset(folder).table().num_rows == 60
    with monkeypatch.context() as patch:
        patch.setattr("curate.datasets.contracts.faults", lambda _: pytest.fail("looked at again"))
        open_dataset(folder).table()
    reseal(folder, setting("key", "../x"))
    with pytest.raises(DataError, match="a key that is none"):
        open_dataset(folder).table()


def test_gnu_tar_unpacks_shards_of_a_dataset_that_was_sent(
    built: Callable[..., Dataset], tmp_path: Path
) -> None:
    folder = built([]).path
    shutil.copytree(folder, tmp_path / "sent")  # beside, so that its root leads to the same pool
    shard(tmp_path / "sent")
    names = subprocess.run(
        ["tar", "tf", str(tmp_path / "sent/shards/000000.tar")], capture_output=True, text=True, check=True
    ).stdout.split()
    assert names
    assert not [n for n in names if n.startswith("/") or ".." in n]


def test_classes_and_keys_that_differ_in_case_alone_get_names_of_their_own(
    make_pool: Callable[..., Path], built_from: Callable[..., Dataset], tmp_path: Path
) -> None:
    classes = ("A", "a", "\u00e9t\u00e9", "e\u0301te\u0301", "con", "NUL.x", "aux", "metadata.jsonl", "end. ")
    make_pool(tmp_path / "pool", classes=classes, images=2)
    for folder in (tmp_path / "pool" / "A",):
        shutil.copy(folder / "A_0.jpg", folder / "a_0.jpg")
        shutil.copy(folder / "A_1.jpg", folder / "con.jpg")
    dataset = built_from(
        {"folder": str(tmp_path / "pool")}, [{"caption": {"templates": ["{}"]}}], overlay=True
    )
    out = tmp_path / "out"
    export(dataset.path, ["folder"], out)
    files = [f for f in (out / "train").rglob("*") if f.name != "metadata.jsonl"]
    import unicodedata

    seen = {unicodedata.normalize("NFC", str(f.relative_to(out))).casefold() for f in files}
    assert len(seen) == len(files) == len(classes) + 2 * len(classes) + 2
    lines = [json.loads(line) for line in (out / "train" / "metadata.jsonl").read_text().splitlines()]
    assert {line["file_name"] for line in lines} == {
        str(f.relative_to(out / "train")) for f in files if f.is_file()
    }
    assert len(lines) == len(dataset)
    stems = {part.partition(".")[0].lower() for f in files for part in f.relative_to(out).parts}
    assert not stems & {"con", "nul", "aux"}


def test_splits_that_differ_in_case_alone_are_refused(built: Callable[..., Dataset], tmp_path: Path) -> None:
    steps: list[Any] = [{"split": {"shares": {"Val": 0.2, "val": 0.2}}}]
    dataset = built(steps)
    for form in ("folder", "parquet"):
        with pytest.raises(DataError, match="differ in case alone"):
            export(dataset.path, [form], tmp_path / "out")
    assert not (tmp_path / "out").exists()
