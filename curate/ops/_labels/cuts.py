"""The cuts that `relabel` takes: which options each has, and the new class of every old one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from curate.errors import RecipeError
from curate.ops._labels.merges import synsets_of
from curate.ops._labels.options import one_choice, reject_unknown_options
from curate.rows.relation import Rows
from curate.wordnet import Parents, cuts, nouns, tree
from curate.wordnet.breeds import stand_in
from curate.wordnet.lists import wnids_of

Kind = Literal["bottom_up", "top_down", "depth", "synsets"]
TAKES = {
    "bottom_up": ("level", "classes", "over", "parents"),
    "top_down": ("round", "classes", "over", "parents"),
    "depth": ("depth", "parents"),
    "synsets": ("synsets", "parents", "others"),
}


def by_cut(rows: Rows, kind: Kind, parents: Parents, given: Mapping[str, Any]) -> list[str | None]:
    """Return the new class of each old label under a cut through WordNet.

    Args:
        given: the options besides; None for those that the recipe does not give.

    Raises:
        RecipeError: an option is missing, belongs elsewhere or is beyond what there is; a class is no synset.
    """
    reject_unknown_options(f"cut: {kind}", TAKES[kind], given)
    needed = [option for option in TAKES[kind] if option not in ("over", "parents", "others")]
    option = one_choice(f"`cut: {kind}`", {name: given[name] for name in needed})
    if kind == "synsets":
        return _nearest(rows, given["synsets"], parents)
    if parents == "all":
        raise RecipeError(
            f"`parents: all` does not belong to `cut: {kind}`: a depth needs one parent each",
            hint="it takes first, huh2016, breeds",
        )
    hierarchy = tree(parents)
    wnids = synsets_of(rows, hierarchy, _called(parents))
    if kind == "depth":
        cut = _at_depth(wnids, parents, given["depth"])
    else:
        over = _universe(wnids, given["over"])
        all_cuts = cuts.bottom_up(over, hierarchy) if kind == "bottom_up" else cuts.top_down(over, hierarchy)
        word = "level" if kind == "bottom_up" else "round"
        choose = cuts.sized if option == "classes" else cuts.numbered
        cut = choose(all_cuts, given[option], word)
    return [stand_in(cut[wnid]) if parents == "breeds" else cut[wnid] for wnid in wnids]


def _universe(wnids: list[str], name: str | None) -> Sequence[str]:
    """Return the classes that a cut is computed over: those of the source, or of a named list that has them all."""
    if name is None:
        return wnids
    listed = wnids_of(name)
    if strangers := [wnid for wnid in wnids if wnid not in set(listed)]:
        raise RecipeError(
            f"{len(strangers):,} classes are not in {name} (such as {', '.join(strangers[:3])})",
            hint=f"`classes: {{list: {name}, missing: drop}}` leaves them out",
        )
    return listed


def _at_depth(wnids: list[str], parents: Parents, depth: int) -> cuts.Cut:
    assert parents != "all"
    deepest = max(map(tree(parents).depth, wnids), default=depth)
    if depth > deepest:
        raise RecipeError(f"no class is at depth {depth}", hint=f"the deepest is at {deepest}")
    return cuts.depth(wnids, tree(parents), depth)


def _nearest(rows: Rows, synsets: list[str] | str, parents: Parents) -> list[str | None]:
    given = [nouns().resolve(s) for s in ([synsets] if isinstance(synsets, str) else synsets)]
    if not given:
        raise RecipeError("`synsets` is empty", hint="name at least one: `synsets: [dog, cat]`")
    hierarchy = nouns() if parents == "all" else tree(parents)
    if parents != "all":
        tree(parents).require(given)
    wnids = synsets_of(rows, hierarchy, _called(parents))
    found = cuts.synsets(wnids, given, parents)
    return [found[wnid] for wnid in wnids]


def _called(parents: Parents) -> str:
    return "the hierarchy of BREEDS" if parents == "breeds" else "WordNet"
