"""Cuts through the noun hierarchy: which coarser synset each class of a set goes to.

A cut is a mapping from the class's wnid to the coarse one, for every class that was given. The
algorithms are those behind the label sets of Huh et al. 2016, https://arxiv.org/abs/1608.08614.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from curate.errors import RecipeError
from curate.wordnet.hierarchies import nouns
from curate.wordnet.trees import Parents, Tree, tree

Cut = dict[str, str]


def bottom_up(wnids: Iterable[str], tree: Tree) -> list[Cut]:
    """Return the cuts of merging upwards: at each level the deepest classes of all go to their parents.

    It starts from the greatest depth among the classes given, so a subset of ImageNet that lacks the deepest
    ones has fewer levels, and its level 1 is not that of the whole. The last level is the root alone.

    Returns:
        The cuts of levels 1, 2, …
    """
    paths = {wnid: tree.path(wnid) for wnid in wnids}
    deepest = max(map(len, paths.values()), default=1) - 1
    return [_cut_at(paths, depth) for depth in range(deepest - 1, -1, -1)]


def top_down(wnids: Iterable[str], tree: Tree) -> list[Cut]:
    """Return the cuts of walking down: in each round every class goes to its parent, then to the highest of
    the others' new classes that is above it.

    The rounds end before the first class would come to the root, which would take in all the others.

    Returns:
        The cuts of rounds 1, 2, …
    """
    paths = {wnid: tree.path(wnid) for wnid in wnids}
    at = dict.fromkeys(paths, 0)  # where on its path each class has come to
    cuts = []
    for _ in range(min(map(len, paths.values()), default=2) - 2):
        at = {wnid: position + 1 for wnid, position in at.items()}
        taken = {paths[wnid][position] for wnid, position in at.items()}
        for wnid, path in paths.items():
            at[wnid] = max(i for i in range(at[wnid], len(path)) if path[i] in taken)
        cuts.append({wnid: path[at[wnid]] for wnid, path in paths.items()})
    return cuts


def depth(wnids: Iterable[str], tree: Tree, depth: int) -> Cut:
    """Return the cut at a depth: each class that is deeper goes to its ancestor there, the others stay."""
    return _cut_at({wnid: tree.path(wnid) for wnid in wnids}, depth)


def synsets(wnids: Iterable[str], given: Iterable[str], parents: Parents) -> dict[str, str | None]:
    """Return for each class the nearest of the given synsets that is itself or above it, None where none is.

    Over all parents the nearest is the one with the fewest edges between, the smaller wnid where two tie.
    """
    wanted = frozenset(given)
    if parents == "all":
        return {wnid: _nearest(nouns().ancestors(wnid), wanted) for wnid in wnids}
    chosen = tree(parents)
    chosen.require(wanted)
    return {wnid: next((node for node in chosen.path(wnid) if node in wanted), None) for wnid in wnids}


def sizes(cuts: Iterable[Mapping[str, str]]) -> list[int]:
    """Return how many classes each cut leaves."""
    return [len(set(cut.values())) for cut in cuts]


def numbered(cuts: Sequence[Cut], number: int, word: str) -> Cut:
    """Return the cut of a level or round, by its number from 1.

    Raises:
        RecipeError: there are not so many.
    """
    if not 1 <= number <= len(cuts):
        raise RecipeError(
            f"no {word} {number}: these classes have {len(cuts)}",
            hint=f"{word}s 1 to {len(cuts)} leave {', '.join(map(str, sizes(cuts)))} classes"
            if cuts
            else None,
        )
    return cuts[number - 1]


def sized(cuts: Sequence[Cut], classes: int, word: str) -> Cut:
    """Return the first cut that leaves exactly so many classes.

    Raises:
        RecipeError: none does; the hint names the nearest ones.
    """
    found = sizes(cuts)
    if classes in found:
        return cuts[found.index(classes)]
    more = [i for i, size in enumerate(found) if size > classes]
    fewer = [i for i, size in enumerate(found) if size < classes]
    near = [f"{word} {i + 1} has {found[i]}" for i in (*more[-1:], *fewer[:1])]
    raise RecipeError(f"no {word} has {classes} classes", hint=", ".join(near) or "there are no classes")


def _cut_at(paths: Mapping[str, Sequence[str]], depth: int) -> Cut:
    return {wnid: path[max(len(path) - 1 - depth, 0)] for wnid, path in paths.items()}


def _nearest(distances: Mapping[str, int], wanted: frozenset[str]) -> str | None:
    return min(((far, wnid) for wnid, far in distances.items() if wnid in wanted), default=(0, None))[1]
