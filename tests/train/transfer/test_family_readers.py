"""The readers of downloads beside torchvision's, and of pickles beside Python's."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from layouts import Opened, open_all, python2

from curate.errors import DataError
from train.transfer import Split
from train.transfer.tasks.readers import pickles


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """Every task of a download: where, what was written, and its partitions."""
    return open_all(tmp_path_factory.mktemp("downloads"))


def _known_to_torchvision(opened: Opened, name: str) -> list[tuple[Split, list[tuple[str, int]]]]:
    from torchvision import datasets

    data, _, [task] = opened[name]
    if name == "dtd":
        parts = [[datasets.DTD(data, side) for side in sides] for sides in (("train", "val"), ("test",))]
        files = [[(f, s._labels[i]) for s in part for i, f in enumerate(s._image_files)] for part in parts]
    else:
        sides = [datasets.OxfordIIITPet(data, side) for side in ("trainval", "test")]
        files = [list(zip(side._images, side._labels, strict=True)) for side in sides]
    ours = (task.train, task.test)
    return [(split, [(f.stem, label) for f, label in part]) for split, part in zip(ours, files, strict=True)]


@pytest.mark.parametrize("name", ["dtd", "pets"])
def test_lists_are_read_as_torchvision_reads_them(opened: Opened, name: str) -> None:
    for split, theirs in _known_to_torchvision(opened, name):
        order = sorted({label for _, label in theirs})  # pets of a cut have gaps
        assert [key.rpartition("/")[2] for key in split.keys] == [stem for stem, _ in theirs]
        assert list(split.labels) == [order.index(label) for _, label in theirs]


def test_folders_are_read_as_torchvision_reads_them(opened: Opened) -> None:
    from torchvision.datasets import Caltech101, EuroSAT

    data, _, [task] = opened["eurosat"]
    theirs = {Path(file).stem: label for file, label in EuroSAT(data).samples}
    ours = {
        key.rpartition("/")[2]: label
        for split in (task.train, task.test)
        for key, label in zip(split.keys, split.labels, strict=True)
    }
    assert ours == theirs
    assert len(ours) == 100
    data, _, [task] = opened["caltech101"]
    own = sorted({key.partition("/")[0] for key in task.train.keys})
    assert own == ["BACKGROUND_Google", *Caltech101(data).categories]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_pickles_are_read_as_torchvision_reads_them(opened: Opened, name: str) -> None:
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = CIFAR10 if name == "cifar10" else CIFAR100
    lists = {side: [[file, None] for file, _ in getattr(kind, side)] for side in ("train_list", "test_list")}
    unchecked = type(
        "Unchecked", (kind,), {**lists, "meta": {**kind.meta, "md5": None}}
    )  # no digest of whole files

    data, _, [task] = opened[name]
    for split, train in ((task.train, True), (task.test, False)):
        with np.testing.suppress_warnings() as quiet:  # NumPy's, of pickles that are old
            quiet.filter(category=Warning)
            theirs = unchecked(data, train=train)
        assert list(split.labels) == theirs.targets
        assert np.array_equal(split.images.pixels, theirs.data)
        assert split.images.pixels.flags["C_CONTIGUOUS"]
    assert [name.replace("_", " ") for name in theirs.classes] == list(task.classes)


class Loud:
    """Would tell if it was unpickled."""

    def __reduce__(self) -> tuple:
        return exec, ("import os; os.environ['PICKLE_RAN'] = 'yes'",)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_hold_numbers_and_text_and_nothing_that_runs(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "batch"
    kept = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2], "name": "a"}
    file.write_bytes(pickle.dumps(kept, protocol=protocol))
    found = pickles.read_pickle(file, hint="")
    assert np.array_equal(found.pop("data"), kept["data"])
    assert found == {"labels": [1, 2], "name": "a"}
    file.write_bytes(pickle.dumps({"data": Loud()}, protocol=protocol))
    with pytest.raises(DataError, match=r"asks for (__builtin__|builtins)\.exec"):
        pickles.read_pickle(file, hint="")
    assert "PICKLE_RAN" not in os.environ


def test_pickle_with_any_byte_changed_is_read_or_refused(tmp_path: Path) -> None:
    file, good = tmp_path / "batch", python2({"data": np.zeros((2, 4), np.uint8), "labels": [1, 2], "n": "x"})
    assert pickle.loads(python2({"labels": [1], "n": "x"})) == {"labels": [1], "n": "x"}
    generator, refused = np.random.default_rng(0), 0
    for _ in range(500):
        changed = bytearray(good)
        for place in generator.integers(0, len(good), 2):
            changed[place] = generator.integers(0, 256)
        file.write_bytes(changed)
        try:
            pickles.read_pickle(file, hint="")
        except DataError:
            refused += 1
    assert 250 < refused < 500


def _nested(depth: int, *, twice: bool) -> bytes:
    """Return instructions for a tuple of tuples; with `twice`, each holds the one below two times."""
    one_more = pickle.BINPUT + b"\0" + pickle.BINGET + b"\0" + pickle.TUPLE2 if twice else pickle.TUPLE1
    return pickle.EMPTY_TUPLE + one_more * depth


def _named(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


MEGABYTE = pickle.BINUNICODE + struct.pack("<I", 1 << 20) + b"x" * (1 << 20) + pickle.BINPUT + b"\1"
LATIN1 = pickle.SHORT_BINUNICODE + b"\6latin1"
KIND = _named("numpy", "dtype") + pickle.SHORT_BINUNICODE + b"\2u1" + pickle.TUPLE1 + pickle.REDUCE
HOSTILE = {
    # To hash what is nested deeply ends the process, and what is nested twice never ends.
    "deep-key": pickle.EMPTY_DICT + _nested(500_000, twice=False) + pickle.NONE + pickle.SETITEM,
    "twice-key": pickle.EMPTY_DICT + _nested(200, twice=True) + pickle.NONE + pickle.SETITEM,
    "twice-keys": pickle.EMPTY_DICT + pickle.MARK + _nested(200, twice=True) + pickle.NONE + pickle.SETITEMS,
    "twice-key-of-dict": pickle.MARK + _nested(200, twice=True) + pickle.NONE + pickle.DICT,
    "set": pickle.EMPTY_SET + pickle.MARK + _nested(200, twice=True) + pickle.ADDITEMS,
    "twice-kind": _named("numpy", "dtype") + _nested(200, twice=True) + pickle.TUPLE1 + pickle.REDUCE,
    "twice-order": KIND + pickle.NONE + _nested(200, twice=True) + pickle.TUPLE2 + pickle.BUILD,
    "twice-encoding": _named("_codecs", "encode") + LATIN1 + _nested(200, twice=True) + pickle.TUPLE2 + pickle.REDUCE,
    # A few bytes that make a copy of a megabyte each.
    "copies": MEGABYTE
    + (_named("_codecs", "encode") + pickle.BINGET + b"\1" + LATIN1 + pickle.TUPLE2 + pickle.REDUCE) * 2000,
    "arrays": MEGABYTE
    + (_named("numpy.core.numeric", "_frombuffer") + pickle.MARK + pickle.BINGET + b"\1" + KIND
       + pickle.EMPTY_TUPLE + pickle.SHORT_BINUNICODE + b"\1C" + pickle.TUPLE + pickle.REDUCE) * 2000,
    "huge-shape": _named("numpy.core.multiarray", "_reconstruct") + _named("numpy", "ndarray") + pickle.TUPLE1
    + pickle.REDUCE + pickle.MARK + pickle.NONE + pickle.BININT + b"\xff\xff\xff\x7f" + pickle.TUPLE1 + KIND
    + pickle.NONE + pickle.SHORT_BINUNICODE + b"\1x" + pickle.TUPLE + pickle.BUILD,
    # A byte that makes 64 each.
    "many-lists": pickle.EMPTY_LIST * 2_000_000,
    # Lengths that are not there, and numbers of any length.
    "long-text": pickle.BINUNICODE8 + struct.pack("<Q", 1 << 62) + b"x",
    "long-bytearray": pickle.BYTEARRAY8 + struct.pack("<Q", 1 << 62) + b"x",
    "long-frame": pickle.FRAME + struct.pack("<Q", 1 << 62) + b"x",
    "long4": pickle.LONG4 + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20),
    "decimal": pickle.LONG + b"9" * 100_000 + b"L\n",
    "memo": pickle.NONE + pickle.LONG_BINPUT + b"\xff" * 4 + pickle.LONG_BINGET + b"\xfe" * 4,
    # What would change this process.
    "changes-a-function": _named("_codecs", "encode") + pickle.NONE + pickle.EMPTY_DICT + pickle.TUPLE2 + pickle.BUILD,
    "calls-a-type": _named("numpy", "ndarray") + pickle.EMPTY_TUPLE + pickle.REDUCE,
    "instance": pickle.INST + b"os\nsystem\n",
    "extension": pickle.EXT1 + b"\1",
    "persistent": pickle.NONE + pickle.BINPERSID,
    "long-name": _named("m" * 100_000, "n" * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "many-lists"])
def test_a_hostile_pickle_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "batch"
    file.write_bytes(pickle.PROTO + b"\4" + HOSTILE[name] + pickle.STOP)
    with pytest.raises(DataError) as caught:
        pickles.read_pickle(file, hint="get it again")
    assert str(file) in caught.value.message
    assert len(caught.value.message) < len(str(file)) + 300
    assert caught.value.hint == "get it again"


@pytest.mark.parametrize(
    "name",
    ["copies", "arrays", "huge-shape", "many-lists", "long-text", "long-bytearray", "long-frame", "memo"],
)
def test_a_hostile_pickle_takes_memory_by_its_own_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(pickles, "MAX_INSTRUCTIONS", 20_000)
    file = tmp_path / "batch"
    file.write_bytes(program := pickle.PROTO + b"\4" + HOSTILE[name] + pickle.STOP)
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            pickles.read_pickle(file, hint="")
        assert tracemalloc.get_traced_memory()[1] < 5 * len(program) + 3_000_000
    finally:
        tracemalloc.stop()


def test_what_is_no_pickle_of_that_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(DataError, match="is no file"):
            pickles.read_pickle(odd, hint="")
    monkeypatch.setattr(pickles, "MAX_BYTES", 10)
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(DataError, match="11 bytes, more than 10"):
        pickles.read_pickle(tmp_path / "large", hint="")
