"""Published maps and lists of classes that have a name: CIFAR-100's superclasses, ImageNet's releases."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from curate.errors import RecipeError
from curate.rows.relation import Rows
from curate.wordnet.lists import LISTS, wnids_of

Apply = Callable[..., Rows]
Listed = Callable[[Sequence[str]], Rows]

# Superclass of each of the 100 classes in alphabetical order, superclasses in alphabetical order, as the labels
# of CIFAR-100's own archive pair them.
CIFAR = """4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 5 19 8 8 15
13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15 13 16 19 2 4 6 19 5 5 8 19
18 1 2 15 6 0 17 8 14 13"""


def test_superclasses_of_cifar100_are_its_own(shared: Path, listed: Listed, apply: Apply) -> None:
    with tarfile.open(shared / "data/cifar100.tar.xz") as tar:
        names = sorted({member.name.split("/")[2] for member in tar if member.isfile()})
    assert len(names) == 100
    after = apply("relabel", listed(names), map="cifar100-20")
    coarse = sorted(c.name for c in after.classes)
    of = {fine: coarse.index(c.name) for c in after.classes for fine in c.fine}
    assert [of[name] for name in names] == list(map(int, CIFAR.split()))
    assert Counter(of.values()) == dict.fromkeys(range(20), 5)


@pytest.mark.parametrize("name", ["aquarium_fish", "aquarium fish", "Aquarium Fish"])
def test_names_of_cifar100_may_have_spaces(listed: Listed, apply: Apply, name: str) -> None:
    after = apply("relabel", listed([name, "whale", "unicorn"]), map="cifar100-20", others="keep")
    assert [c.name for c in after.classes] == ["fish", "aquatic_mammals", "unicorn"]
    with pytest.raises(
        RecipeError, match=r"the map 'cifar100-20' leaves out 1 of 3 classes \(such as unicorn\)"
    ):
        apply("relabel", listed([name, "whale", "unicorn"]), map="cifar100-20")


def test_named_lists_have_their_published_sizes() -> None:
    sizes = {name: len(set(wnids_of(name))) for name in LISTS}
    assert sizes == {
        "imagenet-1k": 1000,
        "imagenet-12k": 11_821,
        "imagenet-21k": 21_841,
        "imagenet-21k-p": 11_221,
        "imagenet-21k-p-winter21": 10_450,
        "imagenet-a": 200,
        "imagenet-r": 200,
        "mini-imagenet": 100,
    }
    assert set(wnids_of("imagenet-a")) < set(wnids_of("imagenet-1k")) > set(wnids_of("imagenet-r"))
