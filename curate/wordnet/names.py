"""Names for classes that people can read and that no two classes share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from curate.errors import RecipeError
from curate.wordnet.hierarchies import nouns


def unique_names(wnids: Sequence[str]) -> list[str]:
    """Return a name for each synset, unique within the list even where case does not count.

    The first lemma where no other synset of the list has it. Where several do, each of them gets
    what tells it from the rest in brackets: another lemma, else a parent's name, else the wnid:
    'crane (wading bird)' and 'crane (lifting device)'. The order of the list plays no part.

    Raises:
        RecipeError: a synset is listed twice, or is unknown.
    """
    twice = [wnid for wnid, count in Counter(wnids).items() if count > 1]
    if twice:
        raise RecipeError(
            f"{twice[0]} is listed twice", hint="two classes cannot share a synset and differ in name"
        )
    sharing: dict[str, list[str]] = {}
    for wnid in wnids:
        sharing.setdefault(nouns().name(wnid).lower(), []).append(wnid)
    names = {}
    for group in sharing.values():
        names.update(_told_apart(group) if len(group) > 1 else {group[0]: nouns().name(group[0])})
    return [names[wnid] for wnid in wnids]


def _told_apart(group: Sequence[str]) -> dict[str, str]:
    """Name synsets that share their first lemma."""
    parts = {wnid: _parts(wnid) for wnid in group}
    shared = Counter(part for those in parts.values() for part in {part.lower() for part in those})
    return {
        wnid: f"{nouns().name(wnid)} ({next(part for part in parts[wnid] if shared[part.lower()] == 1)})"
        for wnid in group
    }


def _parts(wnid: str) -> list[str]:
    """Return what may stand in brackets, best first; the last is unique."""
    first, *others = nouns().lemmas(wnid)
    parts = [*others, *(nouns().name(parent) for parent in nouns().parents(wnid))]
    return [*(part for part in parts if part.lower() != first.lower()), wnid]
