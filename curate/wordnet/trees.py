"""The noun hierarchy as a tree: every synset with one parent, by one of the published choices.

WordNet gives a synset several parents, and what is above it depends on which of them is followed.

| parents | chooses |
|---|---|
| `first` | the first hypernym, as WordNet's data file orders them |
| `huh2016` | the choice behind the label sets of Huh et al. 2016: at 29 synsets another than the first |
| `breeds` | the hierarchy of BREEDS: its own tree over 890 of the 1,000 ImageNet classes, with 46 dummy nodes |

Packaged data: `huh2016_parents.csv`, the choice at 73 synsets with several parents, was worked out from the
label sets that Huh et al. released (https://github.com/minyoungg/wmigftl). `breeds_hierarchy.csv` holds the edges
of `class_hierarchy.txt` in https://github.com/MadryLab/BREEDS-Benchmarks (MIT licence). `voc_synsets.csv` holds
the synsets that Huh et al. take for the 20 classes of PASCAL VOC.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from typing import Literal

from curate.errors import RecipeError
from curate.wordnet.hierarchies import nouns
from curate.wordnet.tables import data_path

OneParent = Literal["first", "huh2016", "breeds"]
Parents = Literal["all", "first", "huh2016", "breeds"]
ROOT = "n00001740"  # entity


class Tree:
    """Synsets under one root, each with one parent. A node is a wnid, or a dummy of BREEDS ('dummy63').

    Methods raise RecipeError for a node that is not in the tree.

    Args:
        name: which choice of parents this is, for messages.
        parents: the parent of every node but the root.
    """

    def __init__(self, name: str, parents: Mapping[str, str]) -> None:
        self.name = name
        self._parents = parents

    def __contains__(self, node: object) -> bool:
        return node in self._parents or node == ROOT

    def parent(self, node: str) -> str | None:
        """Return the parent; the root has none."""
        self.require([node])
        return self._parents.get(node)

    def path(self, node: str) -> list[str]:
        """Return the node itself, its parent, and so on up to the root."""
        self.require([node])
        path = [node]
        while (above := self._parents.get(path[-1])) is not None:
            path.append(above)
        return path

    def depth(self, node: str) -> int:
        """Return how many steps it is up to the root."""
        return len(self.path(node)) - 1

    def children(self, node: str) -> tuple[str, ...]:
        """Return the nodes that have this one as their parent, sorted."""
        self.require([node])
        return tuple(sorted(self._children.get(node, ())))

    def below(self, nodes: Iterable[str]) -> frozenset[str]:
        """Return the nodes themselves and everything below them."""
        todo = list(nodes)
        self.require(todo)
        found = set(todo)
        while todo:
            new = set(self._children.get(todo.pop(), ())) - found
            found |= new
            todo.extend(new)
        return frozenset(found)

    def require(self, nodes: Iterable[str]) -> None:
        """Refuse nodes that are not in the tree, with their count and three examples.

        Raises:
            RecipeError: there are such nodes.
        """
        absent = sorted({node for node in nodes if node not in self})
        if absent:
            what = "is 1 synset" if len(absent) == 1 else f"are {len(absent):,} synsets"
            raise RecipeError(
                f"there {what} that the hierarchy {self.name!r} does not have (such as {', '.join(absent[:3])})",
                hint="it has 890 of the 1,000 ImageNet classes; `parents: first` has every noun of WordNet 3.0"
                if self.name == "breeds"
                else "only WordNet 3.0 has the ids of ImageNet",
            )

    @cached_property
    def _children(self) -> dict[str, list[str]]:
        children: dict[str, list[str]] = {}
        for node, parent in self._parents.items():
            children.setdefault(parent, []).append(node)
        return children


@cache
def tree(parents: OneParent) -> Tree:
    """Return the hierarchy under a choice of parents, read once."""
    if parents == "breeds":
        return Tree(parents, {row["child"]: row["parent"] for row in rows_of("breeds_hierarchy.csv")})
    chosen = nouns().first_parents()
    if parents == "huh2016":
        chosen |= {row["wnid"]: row["parent"] for row in rows_of("huh2016_parents.csv")}
    return Tree(parents, chosen)


def below(synsets: Iterable[str], parents: Parents) -> frozenset[str]:
    """Return the synsets and everything below them, over all parents or along one tree."""
    return nouns().below(synsets) if parents == "all" else tree(parents).below(synsets)


def voc_synsets() -> dict[str, str]:
    """Return the synset of each of the 20 classes of PASCAL VOC."""
    return {row["voc_class"]: row["wnid"] for row in rows_of("voc_synsets.csv")}


def rows_of(name: str) -> list[dict[str, str]]:
    """Return the rows of a packaged table."""
    with data_path(name).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
