"""Noise among classes that are near in WordNet: siblings only, or the nearer the likelier."""

from __future__ import annotations

from typing import cast

from curate.errors import RecipeError
from curate.ops._noise.alias_sampling import alias_draw, unit_sql
from curate.ops._noise.flips import Flips, Options, weighted
from curate.ops._noise.tree_distances import tree_distances
from curate.rows.chance import chance_sql
from curate.rows.relation import Rows
from curate.wordnet.trees import OneParent, Tree, tree


def sibling(options: Options) -> Flips:
    """Any other class with the same parent alike; a class without siblings stays as it is."""
    rows = options.rows
    hierarchy, nodes = _placed(options)
    families: dict[str | None, list[int]] = {}
    for label, node in enumerate(nodes):
        families.setdefault(hierarchy.parent(node), []).append(label)
    members = [family for family in families.values() if len(family) > 1]
    able = {label: 1.0 for family in members for label in family}
    places = [
        (label, f, i, len(family)) for f, family in enumerate(members) for i, label in enumerate(family)
    ]
    names = ("_noise_label", "_noise_family", "_noise_place", "_noise_size")
    columns = list(zip(*places, strict=True)) or [()] * 4
    table = rows.lookup({c: ("INTEGER", v) for c, v in zip(names, columns, strict=True)})
    # A step of 1..size-1 around the circle of siblings.
    step = f"({chance_sql(options.seed, 'noise/target')} % (_noise_size - 1))::INTEGER + 1"

    def give(hit: Rows) -> Rows:
        to = f"CASE WHEN _noise_family IS NOT NULL THEN (_noise_place + {step}) % _noise_size END"
        stepped = hit.sql(
            f"SELECT r.*, _noise_family, {to} AS _noise_to FROM {hit} r LEFT JOIN {table} ON _noise_from = _noise_label"
        )
        return hit.sql(
            f"SELECT r.*, t._noise_label AS _noise_given FROM {stepped} r LEFT JOIN {table} t "
            f"ON t._noise_family = r._noise_family AND t._noise_place = _noise_to"
        )

    return Flips(weighted(rows, able), give)


def hierarchy(options: Options) -> Flips:
    """Any other class, with weight exp(-distance / temperature), distance in edges of the tree."""
    rows = options.rows
    wordnet_tree, nodes = _placed(options)
    distances = tree_distances(
        wordnet_tree, nodes, 1.0 if options.temperature is None else options.temperature
    )
    ring_kinds = dict.fromkeys(
        ("_noise_ring", "_ring_first", "_ring_size", "_ring_gap", "_ring_skip"), "INTEGER"
    )
    columns = list(zip(*distances.rings, strict=True)) or [()] * 5
    table = rows.lookup({c: (k, v) for (c, k), v in zip(ring_kinds.items(), columns, strict=True)})
    order = rows.lookup(
        {"_order_place": ("INTEGER", range(len(nodes))), "_noise_given": ("INTEGER", distances.order)}
    )
    unit = {salt: unit_sql(options.seed, f"noise/{salt}") for salt in ("turn", "depth", "target")}

    def give(hit: Rows) -> Rows:
        turned = alias_draw(hit, distances.turns, group="_noise_from", unit=unit["turn"], into="_noise_turn")
        ringed = alias_draw(
            turned, distances.depths, group="_noise_turn", unit=unit["depth"], into="_noise_at_ring"
        )
        at = f"CASE WHEN _ring_size IS NOT NULL THEN floor({unit['target']} * _ring_size)::INTEGER END"
        placed = hit.sql(
            f"SELECT *, {at} AS _noise_at FROM {ringed} LEFT JOIN {table} ON _noise_at_ring = _noise_ring"
        )
        return hit.sql(
            f"SELECT r.*, _noise_given FROM {placed} r LEFT JOIN {order} "
            f"ON _ring_first + _noise_at + CASE WHEN _noise_at >= _ring_gap THEN _ring_skip ELSE 0 END = _order_place"
        )

    return Flips(rows, give)


def _placed(options: Options) -> tuple[Tree, list[str]]:
    """Return the tree and each class's node in it."""
    classes = options.rows.classes
    without = [c.name for c in classes if c.wnid is None]
    if without:
        raise RecipeError(
            f"{len(without):,} of {len(classes):,} classes are no WordNet synsets (such as {', '.join(without[:3])})",
            hint="`relabel` can map them to wnids",
        )
    nodes = [cast(str, c.wnid) for c in classes]
    if len(set(nodes)) < len(nodes):
        twice = next(node for i, node in enumerate(nodes) if node in nodes[:i])
        raise RecipeError(f"two classes are the synset {twice}", hint="`relabel` can merge them")
    wordnet_tree = tree(cast(OneParent, options.parents or "first"))
    wordnet_tree.require(nodes)
    return wordnet_tree, nodes
