"""The readers of downloads beside torchvision's, and of pickles beside Python's."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from layouts import Opened, open_all, python2

from curate.errors import DataError
from train.transfer import Split
from train.transfer.families import _pickles


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
    found = _pickles.read_pickle(file, hint="")
    assert np.array_equal(found.pop("data"), kept["data"])
    assert found == {"labels": [1, 2], "name": "a"}
    file.write_bytes(pickle.dumps({"data": Loud()}, protocol=protocol))
    with pytest.raises(DataError, match=r"asks for (__builtin__|builtins)\.exec"):
        _pickles.read_pickle(file, hint="")
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
            _pickles.read_pickle(file, hint="")
        except DataError:
            refused += 1
    assert 250 < refused < 500
