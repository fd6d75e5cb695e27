"""Tars without an index, read from end to end."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import picture
from PIL import Image

from curate.errors import DataError, RecipeError
from train.data.tar_stream import Stream


def write_tar(path: Path, numbers: range, broken: tuple[int, ...] = ()) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for i in numbers:
            data = b"no image" if i in broken else picture(i, i % 4, (40, 32), "JPEG")
            for extension, content in (
                ("cls", b"%d" % (i % 4)),
                ("jpg", data),
                ("txt", f"number {i}".encode()),
            ):
                member = tarfile.TarInfo(f"all/{i:04d}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def tars(tmp_path: Path) -> str:
    for number in range(4):
        write_tar(tmp_path / f"{number}.tar", range(number * 20, number * 20 + 20))
    return str(tmp_path / "{0..3}.tar")


def stream(tars: str, **options) -> Stream:
    standard = {
        "batch_size": 16,
        "image_size": 16,
        "seed": 0,
        "augment": True,
        "workers": 0,
        "buffer_samples": 30,
    }
    return Stream(tars, **{**standard, **options})


def test_every_sample_comes_once_with_its_label_and_caption(tars: str) -> None:
    batches = list(stream(tars).epoch(0))
    assert [len(batch) for batch in batches] == [16] * 5
    keys = [key for batch in batches for key in batch.keys]
    assert sorted(keys) == [f"all/{i:04d}" for i in range(80)]
    assert keys != sorted(keys)
    for batch in batches:
        numbers = [int(key[4:]) for key in batch.keys]
        assert batch.labels.tolist() == [n % 4 for n in numbers]
        assert batch.captions == [f"number {n}" for n in numbers]


def test_batches_repeat_for_any_workers_and_differ_by_epoch_and_seed(tars: str) -> None:
    first = list(stream(tars).epoch(1))
    for workers in (1, 3):
        for a, b in zip(first, stream(tars, workers=workers).epoch(1), strict=True):
            assert a.keys == b.keys
            assert torch.equal(a.images, b.images)
            assert a.fingerprint == b.fingerprint
    for other in (stream(tars).epoch(2), stream(tars, seed=1).epoch(1)):
        assert [b.keys for b in other] != [b.keys for b in first]
    entered = list(stream(tars).epoch(1, start_step=3))
    assert [b.keys for b in entered] == [b.keys for b in first[3:]]
    assert [b.fingerprint for b in entered] == [b.fingerprint for b in first[3:]]


def test_without_a_buffer_the_order_is_that_of_the_tars(tars: str) -> None:
    (batch,) = stream(tars, buffer_samples=0, augment=False, batch_size=80, image_size=112).epoch(0)
    assert batch.keys == [f"all/{i:04d}" for i in range(80)]
    assert batch.images.shape == (80, 3, 112, 112)
    (small,) = stream(tars, buffer_samples=0, augment=False, batch_size=80, image_size=28).epoch(0)
    original = Image.open(io.BytesIO(picture(7, 3, (40, 32), "JPEG"))).convert("RGB")
    middle = np.asarray(original.crop((4, 0, 36, 32)))[2:30, 2:30].astype(int)
    assert np.abs(small.images[7].permute(1, 2, 0).numpy() - middle).max() <= 1


def test_ranks_share_the_tars(tars: str) -> None:
    parts = [stream(tars, rank=rank, world_size=2) for rank in (0, 1)]
    keys = [{key for batch in part.epoch(0) for key in batch.keys} for part in parts]
    assert (len(keys[0]), len(keys[1]), len(keys[0] | keys[1])) == (40, 40, 80)
    with pytest.raises(RecipeError, match="4 tars"):
        stream(tars, rank=0, world_size=5)


def test_a_broken_image_is_named_and_its_neighbour_takes_its_place(tmp_path: Path) -> None:
    write_tar(tmp_path / "one.tar", range(32), broken=(5, 31))
    one = stream(str(tmp_path / "one.tar"), buffer_samples=0)
    keys = [key for batch in one.epoch(0) for key in batch.keys]
    assert [int(key[4:]) for key in keys] == [*range(5), 6, *range(6, 31), 30]
    assert sorted(one.unreadable) == ["all/0005", "all/0031"]
    write_tar(tmp_path / "bad.tar", range(32), broken=tuple(range(12)))
    with pytest.raises(DataError, match="12 of 16 images cannot be read"):
        list(stream(str(tmp_path / "bad.tar"), buffer_samples=0).epoch(0))


@pytest.mark.parametrize("at", ["in a member", "between members"])
def test_a_tar_that_is_cut_is_an_error_with_its_name(tmp_path: Path, at: str) -> None:
    path = tmp_path / "one.tar"
    write_tar(path, range(32))
    with tarfile.open(path) as tar:
        member = tar.getmember("all/0016.jpg")
    cut = member.offset_data + 700 if at == "in a member" else member.offset
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"one\.tar: cannot be read to its end"):
        list(stream(str(path)).epoch(0))


def test_what_webdataset_merges_or_lacks_is_counted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        for name in ("a.0.jpg", "a.1.jpg", "a.2.jpg", "b.txt", "c.jpg"):
            member = tarfile.TarInfo(name)
            data = picture(0, 0, (20, 20), "JPEG")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    one = stream(str(tmp_path / "one.tar"))
    assert sorted(key for batch in one.epoch(0) for key in batch.keys) == ["a", "c"]
    assert one.left_out == {"images after the first of a sample": 2, "samples without an image": 1}


def test_paths_without_tars_are_refused(tmp_path: Path) -> None:
    for nothing in ([], str(tmp_path / "*.tar"), str(tmp_path / "nowhere")):
        with pytest.raises(RecipeError):
            stream(nothing)


def put(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_what_a_sample_loses_is_counted(tmp_path: Path) -> None:
    image = picture(1, 1, (40, 32), "JPEG")
    members = [
        *(("a.jpg", image), ("a.txt", "caf\u00e9".encode("latin-1")), ("a.cls", b"dog")),
        *(("b.jpg", image), ("b.txt", b"w " * (1 << 20)), ("b.cls", b"9" * 30)),
        *(("c.jpg", image), ("d.jpg", image), ("c.txt", b"far away")),
        *(("\udce9.jpg", image), ("\udce9.txt", b"sound"), ("\udce9.cls", b"-1")),
    ]
    put(tmp_path / "0.tar", members)
    one = stream(str(tmp_path), buffer_samples=0, augment=False)
    (batch,) = one.epoch(0)
    assert batch.keys == ["a", "b", "c", "d", "\\udce9"]
    assert batch.captions == [None, None, None, None, "sound"]
    assert batch.labels.tolist() == [-1] * 5
    assert one.left_out == {
        "texts not UTF-8": 1,
        "texts over 1 MiB": 1,
        "labels that are no number": 2,
        "samples whose key came before in their tar": 1,
        "samples without an image": 1,
    }


@pytest.mark.parametrize("count", [1, 40])
def test_tars_laid_end_to_end_are_counted(tmp_path: Path, count: int) -> None:
    parts = []
    for number in range(2):
        write_tar(tmp_path / "in.tar", range(number * count, number * count + count))
        parts.append((tmp_path / "in.tar").read_bytes().rstrip(b"\0"))
        parts[-1] += bytes(-len(parts[-1]) % 512 + 1024)
    (tmp_path / "in.tar").unlink()
    (tmp_path / "0.tar").write_bytes(b"".join(parts))
    one = stream(str(tmp_path), buffer_samples=0)
    assert sum(len(batch) for batch in one.epoch(0)) == count
    assert one.left_out == {"tars with bytes behind their end": 1}


def test_compressed_tars_of_a_folder_are_read_too(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", range(5))
    write_tar(tmp_path / "1.tar", range(5, 10))
    (tmp_path / "1.tar.gz").write_bytes(gzip.compress((tmp_path / "1.tar").read_bytes()))
    (tmp_path / "1.tar").unlink()
    (batch,) = stream(str(tmp_path), buffer_samples=0).epoch(0)
    assert batch.keys == [f"all/{i:04d}" for i in range(10)]
