"""The superclasses of BREEDS: subpopulation shift made from ImageNet's classes.

Santurkar et al. 2020, https://arxiv.org/abs/2008.04859: nodes at one level of their hierarchy, so many
ImageNet classes of each, and these parted into a source and a target domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from curate.errors import RecipeError
from curate.wordnet.hierarchies import nouns
from curate.wordnet.trees import Tree, tree

Split = Literal["rand", "good", "bad"]
# What BREEDS calls its dummy nodes that stand for several synsets; the others have one child.
DUMMIES = {
    "dummy30": "cycles",
    "dummy34": "facial accessories",
    "dummy38": "soft furnishings",
    "dummy44": "structure, place",
    "dummy63": "paraphernalia",
}


@dataclass(frozen=True)
class Superclass:
    """A node of the hierarchy and the ImageNet classes drawn for it; without a split all are source."""

    node: str
    source: tuple[str, ...]
    target: tuple[str, ...]


def superclasses(
    level: int,
    *,
    ancestor: str | None = None,
    subclasses: int | None = None,
    balanced: bool = True,
    split: Split | None = None,
    random_seed: int = 2,
) -> list[Superclass]:
    """Return the superclasses of a benchmark in its order, which is that of their labels.

    Args:
        level: steps from the root.
        ancestor: only nodes below this one, or itself.
        subclasses: classes that a superclass must have and, where balanced, gets; by default as many as the
            smallest has, made even; 2 where not balanced, 1 without a split.
        balanced: whether all get the same number, or each as many as it has.
        split: rand, good (similar classes on both sides) or bad (similar classes on one side).
        random_seed: of numpy's RandomState, whose stream is the benchmark's own: 2 in all published ones.

    Raises:
        RecipeError: the level has no such nodes, or none with enough classes, or a split does not come out even.
    """
    breeds = tree("breeds")
    nodes = _at_level(breeds, level, ancestor)
    wanted = subclasses or _usual_number([len(leaves(breeds, n)) for n in nodes], balanced, split)
    if split and (wanted < 2 or (balanced and wanted % 2)):
        raise RecipeError(f"{wanted} subclasses cannot be split in two halves", hint="give an even number")
    chosen = [node for node in nodes if len(leaves(breeds, node)) >= wanted]
    if not chosen:
        most = max(len(leaves(breeds, node)) for node in nodes)
        raise RecipeError(f"no superclass has {wanted} classes", hint=f"the largest has {most}")
    # The published benchmarks are this stream's draws, in this order; numpy keeps it unchanged for ever.
    stream = np.random.RandomState(random_seed)
    made = []
    for node in chosen:
        members = leaves(breeds, node)
        number = wanted if balanced else len(members)
        if split is None:
            made.append(Superclass(node, _drawn(stream, members, number), ()))
            continue
        half = max(number // 2, 1)
        if split == "rand":
            drawn = _drawn(stream, members, 2 * half)
            made.append(Superclass(node, drawn[:half], drawn[half:]))
        else:
            made.append(_parted(breeds, node, half, split))
    return made


def stand_in(node: str) -> str:
    """Return what stands for a node where people read: its wnid, for a dummy that of its only child, or a name."""
    breeds = tree("breeds")
    while not node.startswith("n"):
        children = breeds.children(node)
        if len(children) > 1:
            named = [nouns().name(child) if child in nouns() else child for child in children]
            return DUMMIES.get(node) or ", ".join(named)
        [node] = children
    return node


def leaves(breeds: Tree, node: str) -> list[str]:
    """Return the ImageNet classes that are the node or below it, sorted."""
    return sorted(below for below in breeds.below([node]) if not breeds.children(below))


def _at_level(breeds: Tree, level: int, ancestor: str | None) -> list[str]:
    if ancestor is not None and ancestor not in breeds:
        raise RecipeError(
            f"ancestor {ancestor!r} is not in the hierarchy of BREEDS",
            hint="such as n00004258 (living thing) or n00021939 (artifact, here all that does not live)",
        )
    inside = breeds.below([ancestor or "n00001740"])
    nodes = sorted(node for node in inside if breeds.depth(node) == level)
    if not nodes:
        levels = sorted({breeds.depth(node) for node in inside})
        raise RecipeError(
            f"no superclass at level {level}" + (f" below {ancestor}" if ancestor else ""),
            hint=f"levels {levels[0]} to {levels[-1]} have some",
        )
    return nodes


def _usual_number(counts: Sequence[int], balanced: bool, split: Split | None) -> int:
    if not balanced:
        return 2 if split else 1
    return max(min(counts) // 2 * 2, 2)


def _drawn(stream: np.random.RandomState, members: Sequence[str], number: int) -> tuple[str, ...]:
    return tuple(members[i] for i in stream.choice(len(members), number, replace=False))


def _parted(breeds: Tree, node: str, half: int, split: Split) -> Superclass:
    """Part a superclass by the branches below it, the largest first."""
    top = node
    while len(breeds.children(top)) == 1:
        [top] = breeds.children(top)
    branches = sorted((leaves(breeds, child) for child in breeds.children(top)), key=len, reverse=True)
    source, target = _apart(branches, half) if split == "bad" else _across(branches, half)
    if not len(source) == len(target) == half:
        raise RecipeError(
            f"`split: good` does not part {node} ({stand_in(node)}) evenly: "
            f"{len(source)} and {len(target)} of {half} each",
            hint="ask for fewer `subclasses`, or `split: rand`",
        )
    return Superclass(node, tuple(source), tuple(target))


def _apart(branches: Sequence[list[str]], half: int) -> tuple[list[str], list[str]]:
    """Give whole branches to the side that has fewer, as far as there is room; what is over fills up the other."""
    source: list[str] = []
    target: list[str] = []
    spare: list[str] = []
    for branch in branches:
        side = source if len(source) <= len(target) else target
        room = half - len(side)
        if room > 0:
            side += branch[:room]
            spare += branch[room:]
    return source + spare[: half - len(source)], target + spare[: half - len(target)]


def _across(branches: Sequence[list[str]], half: int) -> tuple[list[str], list[str]]:
    """Give the first half of each branch to the source and the rest to the target, as far as there is room."""
    source: list[str] = []
    target: list[str] = []
    for branch in branches:
        cut = min(max(len(branch) // 2, 1), half - len(source))
        room = half - len(target)
        source += branch[:cut]
        target += branch[cut : cut + room]
    return source, target
