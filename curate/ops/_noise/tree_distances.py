"""Classes around each class by distance in a tree, laid out so that a draw among them takes three small steps.

The way from one class to another goes up to a node, turns, and goes down elsewhere. Its length depends on the turn
and on the depth of the other class alone, so: draw the turn, then the depth, then one of the classes alike. Those
below one node at one depth stand side by side in one order of all classes (by depth, then depth first), with a gap
for the branch that the way came from. So 21,841 classes need some 200,000 weights and not 477 million.

All weights are logarithms until they are drawn from: at a low temperature exp(-distance / temperature) is 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from curate.wordnet.trees import Tree

Weighted = dict[int, list[tuple[int, float]]]
NEVER = -math.inf


class EqualDistance(NamedTuple):
    """Classes at one distance: places first..first+size in the order, where those from `gap` on are `skip` further."""

    number: int
    first: int
    size: int
    gap: int
    skip: int


@dataclass
class TreeDistances:
    """What to draw from.

    Args:
        order: the labels by depth, then depth first.
        turns: label → (turn, weight): the node to turn at, named by the branch that the way came from.
        depths: turn → (ring, weight).
        rings: the classes alike.
    """

    order: list[int]
    turns: Weighted = field(default_factory=dict)
    depths: Weighted = field(default_factory=dict)
    rings: list[EqualDistance] = field(default_factory=list)


@dataclass
class _Node:
    """A node of the tree that is a class or above one.

    Args:
        number: in depth-first order; the turn at this node from itself is -1 - number.
        spans: depth → first and past-the-last place in the order of the classes below.
        weight: log of the sum of exp(-edges below this node / temperature) over the classes below.
        others: the same, seen from the parent, of the parent's classes that are not below this node.
    """

    number: int
    name: str
    depth: int
    parent: _Node | None
    label: int | None
    children: list[_Node] = field(default_factory=list)
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    weight: float = NEVER
    others: float = NEVER


def tree_distances(tree: Tree, nodes: Sequence[str], temperature: float) -> TreeDistances:
    """Lay the classes out; `nodes` are theirs in label order, each in the tree and each another."""
    step = 1 / temperature
    walked = _walk(tree, nodes)
    classes = sorted((n for n in walked if n.label is not None), key=lambda n: (n.depth, n.number))
    for place, node in enumerate(classes):
        node.spans[node.depth] = (place, place + 1)
        node.weight = 0.0
    for node in reversed(walked):  # children before parents
        _gather(node, step)
    distances = TreeDistances([n.label for n in classes if n.label is not None])
    for node in walked:
        _add_depths(distances, node, step)
    for node in classes:
        _add_turns(distances, node, step)
    return distances


def _walk(tree: Tree, nodes: Sequence[str]) -> list[_Node]:
    """Return the classes' nodes and those above, depth first, siblings by name."""
    labels = {node: label for label, node in enumerate(nodes)}
    branches: dict[str | None, list[str]] = {}  # parent → children; None is above the root
    seen: set[str] = set()
    for node in nodes:
        at: str | None = node
        while at is not None and at not in seen:
            seen.add(at)
            above = tree.parent(at)
            branches.setdefault(above, []).append(at)
            at = above
    walked: list[_Node] = []
    todo: list[tuple[str, _Node | None]] = [(root, None) for root in branches.get(None, ())]
    while todo:
        name, parent = todo.pop()
        depth = 0 if parent is None else parent.depth + 1
        made = _Node(len(walked), name, depth, parent, labels.get(name))
        walked.append(made)
        if parent is not None:
            parent.children.append(made)
        todo += [(child, made) for child in sorted(branches.get(name, ()), reverse=True)]
    return walked


def _gather(node: _Node, step: float) -> None:
    """Sum up what is below a node, and for each child what is not below it."""
    own = node.weight
    weights = [child.weight - step for child in node.children]
    before = [own]
    for weight in weights[:-1]:
        before.append(_sum([before[-1], weight]))
    after = NEVER  # no difference of sums, which would lose a small remainder
    for child, weight, earlier in zip(
        reversed(node.children), reversed(weights), reversed(before), strict=False
    ):
        child.others = _sum([earlier, after])
        after = _sum([weight, after])
        for depth, (first, last) in child.spans.items():
            low, high = node.spans.get(depth, (first, last))
            node.spans[depth] = (min(low, first), max(high, last))
    node.weight = _sum([own, after])


def _add_depths(distances: TreeDistances, node: _Node, step: float) -> None:
    """Add the rings of the turn at the parent from this node, and of the turn at this node from itself."""
    if node.parent is not None:
        _add_rings(distances, node.number, node.parent, node.spans, step)
    if node.label is not None and node.children:
        _add_rings(distances, -1 - node.number, node, {node.depth: node.spans[node.depth]}, step)


def _add_rings(
    distances: TreeDistances, turn: int, at: _Node, gaps: dict[int, tuple[int, int]], step: float
) -> None:
    weights = {}
    for depth, (first, last) in at.spans.items():
        low, high = gaps.get(depth, (last, last))
        size = (last - first) - (high - low)
        if size:
            weights[len(distances.rings)] = math.log(size) - (depth - at.depth) * step
            distances.rings.append(EqualDistance(len(distances.rings), first, size, low - first, high - low))
    if weights:
        distances.depths[turn] = _scaled(weights.items())


def _add_turns(distances: TreeDistances, node: _Node, step: float) -> None:
    below = _sum(child.weight - step for child in node.children)
    weights = {-1 - node.number: below} if node.children else {}
    at = node
    while at.parent is not None:
        weights[at.number] = at.others - (node.depth - at.parent.depth) * step
        at = at.parent
    assert node.label is not None
    distances.turns[node.label] = _scaled(weights.items())


def _sum(logs: Iterable[float]) -> float:
    """Return the log of a sum of weights given by their logs."""
    logs = list(logs)
    most = max(logs, default=NEVER)
    return most if most == NEVER else most + math.log(math.fsum(math.exp(x - most) for x in logs))


def _scaled(logs: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return weights given by their logs, the largest as 1, without those that are 0."""
    logs = list(logs)
    most = max(x for _, x in logs)
    return [(outcome, w) for outcome, x in logs if x > NEVER and (w := math.exp(x - most)) > 0]
