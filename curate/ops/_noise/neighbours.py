"""Noise among classes that are near in WordNet: siblings only, or the nearer the likelier."""

from __future__ import annotations

from typing import cast

from curate.errors import RecipeError
from curate.ops._noise.alias_sampling import draw, unit_sql
from curate.ops._noise.flips import Flips, Options, weighted
from curate.ops._noise.tree_distances import rings
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
    names = ("noise_label", "noise_family", "noise_place", "noise_size")
    columns = list(zip(*places, strict=True)) or [()] * 4
    table = rows.lookup({c: ("INTEGER", v) for c, v in zip(names, columns, strict=True)})
    # A step of 1..size-1 around the circle of siblings.
    step = f"({chance_sql(options.seed, 'noise/target')} % (noise_size - 1))::INTEGER + 1"

    def give(hit: Rows) -> Rows:
        to = f"CASE WHEN noise_family IS NOT NULL THEN (noise_place + {step}) % noise_size END"
        stepped = hit.sql(
            f"SELECT r.*, noise_family, {to} AS noise_to FROM {hit} r LEFT JOIN {table} ON noise_from = noise_label"
        )
        return hit.sql(
            f"SELECT r.*, t.noise_label AS noise_given FROM {stepped} r LEFT JOIN {table} t "
            f"ON t.noise_family = r.noise_family AND t.noise_place = noise_to"
        )

    return Flips(weighted(rows, able), give)


def hierarchy(options: Options) -> Flips:
    """Any other class, with weight exp(-distance / temperature), distance in edges of the tree."""
    rows = options.rows
    found, nodes = _placed(options)
    over = rings(found, nodes, 1.0 if options.temperature is None else options.temperature)
    ring_kinds = dict.fromkeys(("noise_ring", "ring_first", "ring_size", "ring_gap", "ring_skip"), "INTEGER")
    columns = list(zip(*over.rings, strict=True)) or [()] * 5
    table = rows.lookup({c: (k, v) for (c, k), v in zip(ring_kinds.items(), columns, strict=True)})
    order = rows.lookup(
        {"order_place": ("INTEGER", range(len(nodes))), "noise_given": ("INTEGER", over.order)}
    )
    unit = {salt: unit_sql(options.seed, f"noise/{salt}") for salt in ("turn", "depth", "target")}

    def give(hit: Rows) -> Rows:
        turned = draw(hit, over.turns, group="noise_from", unit=unit["turn"], into="noise_turn")
        ringed = draw(turned, over.depths, group="noise_turn", unit=unit["depth"], into="noise_at_ring")
        at = f"CASE WHEN ring_size IS NOT NULL THEN floor({unit['target']} * ring_size)::INTEGER END"
        placed = hit.sql(
            f"SELECT *, {at} AS noise_at FROM {ringed} LEFT JOIN {table} ON noise_at_ring = noise_ring"
        )
        return hit.sql(
            f"SELECT r.*, noise_given FROM {placed} r LEFT JOIN {order} "
            f"ON ring_first + r.noise_at + CASE WHEN r.noise_at >= ring_gap THEN ring_skip ELSE 0 END = order_place"
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
    found = tree(cast(OneParent, options.parents or "first"))
    found.require(nodes)
    return found, nodes
