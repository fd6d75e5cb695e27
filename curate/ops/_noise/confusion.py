"""Noise by a confusion matrix: published, or counted in a table of human labels."""

from __future__ import annotations

from collections.abc import Iterable

from curate.errors import RecipeError, reject_unknown
from curate.ops._noise.alias_sampling import alias_draw, unit_sql
from curate.ops._noise.flips import Flips, Options, weighted
from curate.rows.relation import Rows, class_ids
from curate.rows.sql import quoted

Triple = tuple[str, str, float]  # true class, given class, weight
TRIPLES = ("true", "given", "weight")


def confusion(options: Options) -> Flips:
    """Turn a class into others as often as the matrix does; one that it leaves out stays as it is."""
    rows = options.rows
    if options.file is None:
        raise RecipeError("confusion noise needs a `file`", hint="a matrix, or a table of human labels")
    if (options.true_label is None) != (options.given_label is None):
        raise RecipeError("confusion takes both `true_label` and `given_label`, or neither")
    triples = _counted(options) if options.true_label is not None else _matrix(rows, options.file)
    named = sorted({name for true, given, _ in triples for name in (true, given)})
    label = dict(zip(named, _labels(rows, named, options.file), strict=True))
    all_of: dict[int, float] = {}
    wrong: dict[int, dict[int, float]] = {}
    for true, given, weight in triples:
        i, j = label[true], label[given]
        all_of[i] = all_of.get(i, 0.0) + weight
        if i != j and weight > 0:
            wrong.setdefault(i, {})
            wrong[i][j] = wrong[i].get(j, 0.0) + weight
    rates = {i: sum(wrong[i].values()) / all_of[i] for i in sorted(wrong)}
    targets = {i: sorted(wrong[i].items()) for i in sorted(wrong)}
    unit = unit_sql(options.seed, "noise/target")
    return Flips(
        weighted(rows, rates),
        lambda hit: alias_draw(hit, targets, group="_noise_from", unit=unit, into="_noise_given"),
        own="class",
    )


def _labels(rows: Rows, named: list[str], file: str) -> list[int]:
    """Return the labels of classes given by name or wnid, or all by number, where no class is called so."""
    known = {name for c in rows.classes for name in (c.name, c.id)}
    if named and not known & set(named) and all(name.isdecimal() for name in named):
        numbers = [int(name) for name in named]
        if max(numbers) >= len(rows.classes):
            raise RecipeError(
                f"{file}: class {max(numbers)}, but the {len(rows.classes)} classes are 0 to {len(rows.classes) - 1}",
                hint="numbers count the classes as they are at this step; names or wnids are safer",
            )
        return numbers
    return class_ids(rows, named, where=file)


def _counted(options: Options) -> list[Triple]:
    """Count pairs of labels in a table that has one of each in every row; rows that lack one do not count."""
    rows, file = options.rows, options.file or ""
    wanted = [options.true_label or "", options.given_label or ""]
    columns = _columns(rows, rows.read(file, columns=()))
    for column in wanted:
        hint = f"it has {', '.join(columns)}"
        reject_unknown(column, columns, f"{file}: no column {column!r}", hint=hint)
    table = rows.read(file, columns=(), texts=wanted)
    true, given = (f"{quoted(c)}::VARCHAR" for c in wanted)
    return rows.con.execute(
        f"SELECT {true}, {given}, count(*) FROM {table} WHERE {true} IS NOT NULL AND {given} IS NOT NULL "
        f"GROUP BY ALL ORDER BY ALL"
    ).fetchall()


def _matrix(rows: Rows, file: str) -> list[Triple]:
    """Read triples by their header, or else a square with the given classes on top and the true ones first."""
    columns = _columns(rows, rows.read(file, columns=()))
    if set(TRIPLES) <= set(columns):
        table = rows.read(file, columns=(), texts=TRIPLES)
        query = f'SELECT "true"::VARCHAR, given::VARCHAR, {_number("weight")} FROM {table} ORDER BY ALL'
        return _checked(rows.con.execute(query).fetchall(), file)
    first, *given = columns
    table = rows.read(file, columns=(), texts=columns)
    cells = ", ".join(map(_number, given))
    if not given:
        raise RecipeError(
            f"{file}: one column, {first!r}",
            hint="a matrix has the columns true, given, weight, or is square",
        )
    lines = rows.con.execute(f"SELECT {quoted(first)}::VARCHAR, {cells} FROM {table}").fetchall()
    if len({line[0] for line in lines}) < len(lines):
        raise RecipeError(f"{file}: a class has two lines")
    triples = [
        (line[0], name, weight) for line in lines for name, weight in zip(given, line[1:], strict=True)
    ]
    return _checked(triples, file)


def _number(column: str) -> str:
    """Return SQL: a column as a number, NULL where it is none; `trim` keeps DuckDB from casting as it reads the CSV."""
    return f"try_cast(trim({quoted(column)}::VARCHAR) AS DOUBLE)"


def _checked(triples: Iterable[Triple], file: str) -> list[Triple]:
    triples = list(triples)
    for true, given, weight in triples:
        if true is None or given is None or weight is None or not 0 <= weight < float("inf"):
            raise RecipeError(
                f"{file}: the weight of {true!r} given as {given!r} is {weight}",
                hint="weights are counts or shares",
            )
    if len({(true, given) for true, given, _ in triples}) < len(triples):
        raise RecipeError(f"{file}: a pair of classes is listed twice")
    return triples


def _columns(rows: Rows, table: str) -> list[str]:
    return [c[0] for c in rows.con.execute(f"DESCRIBE {table}").fetchall()]
