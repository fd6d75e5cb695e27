"""`curate verify` sees every change, and says which file or sample."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.builds.build import build
from curate.datasets.dataset import Dataset, render
from curate.datasets.verification import Problem, verify
from curate.errors import DataError, RecipeError
from curate.io.byte_ranges import ByteRangeReader

STEPS: list[Any] = [{"noise": {"rate": 0.25}}, {"caption": {"templates": ["a photo of a {}."]}}]
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory, pool: Path) -> Path:
    """A dataset with four shards; tests damage copies of it."""
    from curate.recipes.recipe import parse

    recipe = parse({"name": "set", "source": {"folder": str(pool)}, "steps": STEPS, "samples_per_shard": 16})
    folder = tmp_path_factory.mktemp("master") / "set"
    build(recipe, folder)
    return folder


@pytest.fixture
def copy(master: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(master, tmp_path / "set"))


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def test_sound_datasets_pass(copy: Path, built: Callable[..., Dataset], run_curate: Run) -> None:
    overlay = built(STEPS, "over")
    for folder in (copy, overlay.path):
        assert verify(folder) == []
        result = run_curate("verify", folder)
        assert (result.exit_code, result.stdout) == (0, f"{folder}: holds what it says\n")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["manifest.parquet", "shards/000002.tar", "shards/index.parquet"])
def test_one_byte_of_a_file_is_seen_and_the_file_is_named(
    copy: Path, run_curate: Run, name: str, share: float
) -> None:
    flip(copy / name, int((copy / name).stat().st_size * share))
    assert name in {p.where for p in verify(copy)}
    result = run_curate("verify", copy, "--no-images")
    assert result.exit_code == 3
    assert name in result.stdout


def test_byte_of_an_image_in_a_shard_names_shard_and_sample(copy: Path) -> None:
    row = pq.read_table(copy / "shards/index.parquet").to_pylist()[20]
    for position in range(row["offset"], row["offset"] + 2):  # the first two bytes make it a JPEG
        flip(copy / row["file"], position)
    assert verify(copy) == [
        Problem(row["file"], "its bytes changed (sha256 differs)"),
        Problem(row["key"], "not an image"),
    ]


def test_byte_of_a_tar_header_is_seen(copy: Path) -> None:
    row = pq.read_table(copy / "shards/index.parquet").to_pylist()[20]
    flip(copy / row["file"], row["offset"] - 512)  # the member's name
    assert verify(copy) == [Problem(row["file"], "its bytes changed (sha256 differs)")]


CHANGES: dict[str, Callable[[str], str]] = {
    "a digit": lambda text: text.replace('"rows": 60', '"rows": 61', 1),
    "a count of the ledger": lambda text: text.replace('"labels_changed": 15', '"labels_changed": 14', 1),
    "a class name": lambda text: text.replace('"tench"', '"trench"', 1),
    "the seal": lambda text: text.replace('"seal": "sha256:', '"seal": "sha256:0', 1),
    "whitespace": lambda text: text.replace("\n", "\n ", 1),
    "the end of the last line": lambda text: text.rstrip("\n"),
    "a number's form": lambda text: text.replace("0.25", "2.5e-1", 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_the_document_is_seen(copy: Path, run_curate: Run, change: str) -> None:
    file = copy / "dataset.json"
    text = file.read_text()
    file.write_text(CHANGES[change](text))
    assert file.read_text() != text
    assert "dataset.json" in {p.where for p in verify(copy, images=False)}
    assert run_curate("verify", copy, "--no-images").exit_code == 3


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1, "extra": 1}'])
def test_document_beyond_reading_is_a_data_error(copy: Path, run_curate: Run, content: str) -> None:
    (copy / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=r"dataset\.json"):
        verify(copy)
    assert run_curate("verify", copy).exit_code == 3


def test_manifest_exchanged_and_sealed_anew_does_not_fit_its_digest(copy: Path) -> None:
    from curate.datasets.dataset import file_sha256, open_dataset

    table = pq.read_table(copy / "manifest.parquet")
    captions = pa.array(["another", *table["caption"].to_pylist()[1:]], pa.string())
    pq.write_table(
        table.set_column(table.column_names.index("caption"), "caption", captions), copy / "manifest.parquet"
    )
    info = open_dataset(copy).info
    forged = info.model_copy(update={"manifest_sha256": file_sha256(copy / "manifest.parquet")})
    (copy / "dataset.json").write_bytes(render(forged))
    assert verify(copy, images=False) == [
        Problem("dataset.json", "the digest of rows and classes is another")
    ]


@pytest.mark.parametrize("name", ["manifest.parquet", "shards/000001.tar", "shards/index.parquet"])
def test_missing_file_is_named(copy: Path, run_curate: Run, name: str) -> None:
    (copy / name).unlink()
    problems = {p.where: p.what for p in verify(copy)}
    assert problems[name].startswith("cannot be read")
    assert run_curate("verify", copy).exit_code == 3


def test_missing_shard_names_each_of_its_samples(copy: Path) -> None:
    (copy / "shards/000003.tar").unlink()
    index = pq.read_table(copy / "shards/index.parquet").to_pylist()
    lost = [row["key"] for row in index if row["file"] == "shards/000003.tar"]
    assert [p.where for p in verify(copy)] == ["shards/000003.tar", *lost]
    assert len(lost) == 12
    assert all(p.what.startswith("shards/000003.tar: cannot be read") for p in verify(copy)[1:])


def test_of_a_lost_shard_the_first_samples_are_printed_and_json_has_all(copy: Path, run_curate: Run) -> None:
    (copy / "shards/000000.tar").unlink()
    cut = copy / "shards/000003.tar"
    size = cut.stat().st_size
    cut.write_bytes(cut.read_bytes()[: size // 2])
    lines = run_curate("verify", copy).stdout.splitlines()
    assert "… and 6 more\tsamples of shards/000000.tar" in lines
    assert f"shards/000003.tar\t{size // 2:,} bytes where {size:,} were written" in lines
    told = json.loads(run_curate("verify", copy, "--json").stdout)
    assert lines[0] == f"# {copy}: {len(told)} problems"
    assert len(told) == len(lines) - 3 + 6  # without the title, the columns and the line that counts


def test_one_problem_is_one(copy: Path, run_curate: Run) -> None:
    flip(copy / "shards/000000.tar", 700)
    assert run_curate("verify", copy, "--no-images").stdout.startswith(f"# {copy}: 1 problem\n")


def test_folder_of_datasets_is_told_how_to_name_them(copy: Path, run_curate: Run) -> None:
    result = run_curate("verify", copy.parent)
    assert result.exit_code == 2
    assert f"hint: it holds a family of datasets: `curate verify {copy.parent}/*`" in result.stderr


def test_images_are_read_in_parts_of_bounded_size(
    built: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = built([])
    sizes = overlay.table(["size"])["size"].to_pylist()
    asked: list[list[int]] = []
    read = ByteRangeReader.read_many
    monkeypatch.setattr(
        ByteRangeReader, "read_many", lambda self, f, o, s: (asked.append(list(s)), read(self, f, o, s))[1]
    )
    for limit, parts in ((1, 60), (sum(sizes), 1), (max(sizes) * 2, 0)):
        asked.clear()
        monkeypatch.setattr("curate.datasets.verification.BYTES_PER_READ", limit)
        assert verify(overlay.path) == []
        assert sorted(size for part in asked for size in part) == sorted(sizes)
        assert all(sum(part) <= limit or len(part) == 1 for part in asked)
        assert not parts or len(asked) == parts


def seal(folder: Path, changes: dict[str, Any]) -> None:
    """Make `dataset.json` say what stands there now, as a forger would."""
    from curate.datasets.dataset import file_sha256, open_dataset

    info = open_dataset(folder).info
    told = {f"{name}_sha256": file_sha256(folder / file) for name, file in changes.items()}
    (folder / "dataset.json").write_bytes(render(info.model_copy(update=told)))


@pytest.mark.parametrize("change", ["offset", "size", "key", "file", "a row less"])
def test_index_that_does_not_fit_the_headers_of_the_tars_is_seen(copy: Path, change: str) -> None:
    path = copy / "shards/index.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    key, file = rows[20]["key"], rows[20]["file"]
    if change == "a row less":
        rows.pop()
    elif change in ("offset", "size"):
        rows[20][change] += 512
    else:
        rows[20][change] = "shards/000003.tar" if change == "file" else "another"
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    seal(copy, {"index": "shards/index.parquet"})
    [problem] = verify(copy, images=False)
    if change in ("offset", "size"):
        assert problem.where == key
        assert problem.what.startswith(
            f"the index has it at byte {rows[20]['offset']} of {file}, where there is"
        )
    else:
        assert problem.where == "shards/index.parquet"


def test_shard_with_more_samples_than_the_index_is_seen(copy: Path) -> None:
    import io
    import tarfile

    from curate.datasets.dataset import file_sha256, open_dataset

    with tarfile.open(copy / "shards/000001.tar", "a") as archive:
        member = tarfile.TarInfo("more.jpg")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"more"))
    info = open_dataset(copy).info
    shards = list(info.shards or [])
    shards[1] = shards[1].model_copy(update={"sha256": file_sha256(copy / "shards/000001.tar")})
    (copy / "dataset.json").write_bytes(render(info.model_copy(update={"shards": shards})))
    told = "holds 17 samples, the index has 16 of them"
    assert verify(copy, images=False) == [Problem("shards/000001.tar", told)]


def another(data: bytes) -> bytes:
    """Return another image of as many bytes, of the same width and height."""
    changed = bytearray(data)
    scan = data.index(b"\xff\xda") + 14  # behind the header of its pixels
    changed[scan : scan + 8] = bytes(b ^ 1 if b ^ 1 not in (0xFF, 0xFE) else b for b in data[scan : scan + 8])
    return bytes(changed)


def test_image_exchanged_for_one_of_the_same_size_is_seen_where_hashes_were_kept(
    built: Callable[..., Dataset], pool: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(pool, tmp_path / "own"))
    plain = built([], "plain", source={"folder": str(own)})
    hashed = built([{"hashes": {"kinds": ["sha256"]}}], "hashed", source={"folder": str(own)})
    assert verify(hashed.path) == []
    file = own / "n02084071" / "n02084071_4.jpg"
    old = file.read_bytes()
    file.write_bytes(another(old))
    assert file.read_bytes() != old
    told = "other bytes than were indexed (sha256 differs)"
    assert verify(hashed.path) == [Problem("n02084071/n02084071_4", told)]
    assert verify(plain.path) == []  # nothing tells them apart


def test_image_exchanged_for_one_of_another_kind_is_seen(
    built: Callable[..., Dataset], pool: Path, tmp_path: Path
) -> None:
    import io

    from PIL import Image

    own = Path(shutil.copytree(pool, tmp_path / "own"))
    overlay = built([], source={"folder": str(own)})
    file = own / "n02084071" / "n02084071_4.jpg"
    size = file.stat().st_size
    stream = io.BytesIO()
    Image.new("RGB", (40, 32)).save(stream, "PNG")
    assert len(stream.getvalue()) < size
    file.write_bytes(stream.getvalue().ljust(size, b"\0"))
    told = "its bytes are png, the manifest says jpg"
    assert verify(overlay.path) == [Problem("n02084071/n02084071_4", told)]


@pytest.mark.parametrize("damage", ["truncated", "grown", "gone", "exchanged", "resized"])
def test_image_of_the_pool_that_changed_is_named_by_its_key(
    built: Callable[..., Dataset], pool: Path, tmp_path: Path, run_curate: Run, damage: str
) -> None:
    own = Path(shutil.copytree(pool, tmp_path / "own"))
    overlay = built(STEPS, source={"folder": str(own)})
    file = own / "n02084071" / "n02084071_4.jpg"
    old = file.read_bytes()
    height = old.index(b"\xff\xc0") + 5  # where its frame says how high it is
    damaged = {
        "truncated": old[: len(old) // 2],
        "grown": old + b"\0",
        "exchanged": bytes(len(old)),
        "resized": old[:height] + b"\0\x10" + old[height + 2 :],
    }
    file.write_bytes(damaged.get(damage, b""))
    if damage == "gone":
        file.unlink()
    [problem] = verify(overlay.path)
    assert problem.where == "n02084071/n02084071_4"
    result = run_curate("verify", overlay.path)
    assert result.exit_code == 3
    assert "n02084071/n02084071_4" in result.stdout


def test_image_truncated_in_the_pool_is_told_by_its_decoder(
    built: Callable[..., Dataset], pool: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(pool, tmp_path / "own"))
    file = own / "n02084071" / "n02084071_4.jpg"
    file.write_bytes(file.read_bytes()[:-100])
    made = built([], overlay=False, source={"folder": str(own)})  # its header is whole
    assert verify(made.path) == [Problem("n02084071/n02084071_4", "truncated")]
    assert verify(made.path, images=False) == []


def test_path_out_of_the_root_is_refused(built: Callable[..., Dataset]) -> None:
    from curate.datasets.dataset import file_sha256

    overlay = built([])
    table = pq.read_table(overlay.path / "manifest.parquet")
    files = pa.array(["../../etc/hostname", "/etc/hostname", *table["file"].to_pylist()[2:]], pa.string())
    table = table.set_column(table.column_names.index("file"), "file", files)
    pq.write_table(table, overlay.path / "manifest.parquet")
    forged = overlay.info.model_copy(
        update={"manifest_sha256": file_sha256(overlay.path / "manifest.parquet")}
    )
    (overlay.path / "dataset.json").write_bytes(render(forged))
    [told] = [p.what for p in verify(overlay.path) if "leads out" in p.what]
    assert told.startswith("2 rows")


def test_problems_are_told_as_json(copy: Path, run_curate: Run) -> None:
    flip(copy / "shards/000000.tar", 700)
    result = run_curate("verify", copy, "--no-images", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout) == [
        {"where": "shards/000000.tar", "what": "its bytes changed (sha256 differs)"}
    ]


def test_what_is_no_dataset_is_told(tmp_path: Path, run_curate: Run) -> None:
    with pytest.raises(RecipeError, match="not a dataset"):
        verify(tmp_path)
    assert run_curate("verify", tmp_path).exit_code == 2
