"""Noise that knows no more of the classes than their number: at one rate, or at a rate of each row's own."""

from __future__ import annotations

from curate.errors import DataError, RecipeError
from curate.ops._noise.flips import Flips, Options
from curate.rows.chance import chance_sql
from curate.rows.relation import Rows, columns_of


def symmetric(options: Options) -> Flips:
    """Any other class alike: a step of 1..classes-1 around the circle never comes back to the start."""
    others = max(len(options.rows.classes) - 1, 1)
    return _shifted(options, f"({chance_sql(options.seed, 'noise/target')} % {others})::INTEGER + 1")


def symmetric_inclusive(options: Options) -> Flips:
    """Any class alike, the true one too."""
    classes = max(len(options.rows.classes), 1)
    return _shifted(options, f"({chance_sql(options.seed, 'noise/target')} % {classes})::INTEGER")


def pair(options: Options) -> Flips:
    """The next class; the first follows the last."""
    return _shifted(options, "1")


def _shifted(options: Options, step: str) -> Flips:
    """Return flips that give a row the label so many steps further around the circle of labels."""

    def give(hit: Rows) -> Rows:
        to = f"((_noise_from + {step}) % {max(len(hit.classes), 1)})::INTEGER"
        return hit.sql(
            f"SELECT *, CASE WHEN _noise_from IS NOT NULL THEN {to} END AS _noise_given FROM {hit}"
        )

    return Flips(options.rows, give)


def instance(options: Options) -> Flips:
    """Any other class alike, for the rows that the table makes likely to be wrong."""
    rows = options.rows
    if options.file is None:
        raise RecipeError("instance noise needs a `file`", hint="a table with the columns key and rate")
    table = _rates(rows, options.file)
    joined = rows.sql(
        f"SELECT r.*, _noise_weight FROM {rows} r LEFT JOIN (SELECT _noise_key, _noise_weight FROM {table}) "
        f"ON key = _noise_key"
    )
    hint = "every labelled row needs its key and a rate in [0, 1]"
    joined.refuse(
        f"label IS NOT NULL AND key NOT IN (SELECT _noise_key FROM {table} WHERE _noise_key IS NOT NULL)",
        f"are not in {options.file}",
        hint=hint,
    )
    joined.refuse(
        "label IS NOT NULL AND (_noise_weight BETWEEN 0 AND 1) IS NOT TRUE",
        f"have no rate in [0, 1] in {options.file}",
        hint=hint,
        show="key || ': ' || coalesce(_noise_weight::VARCHAR, 'none')",
    )
    return Flips(joined, symmetric(options).give, own="overall")


def _rates(rows: Rows, file: str) -> str:
    """Return a view of the table's keys and rates."""
    columns = columns_of(rows.con, rows.read(file, columns=()))
    for column in ("key", "rate"):
        if column not in columns:
            raise RecipeError(f"{file}: no column {column!r}", hint=f"it has {', '.join(columns)}")
    table = rows.read(file, columns=(), texts=columns)
    # Without the trim DuckDB 2.0 moves the cast into the reading of the CSV, where what is no number is an error.
    rate = "try_cast(trim(rate::VARCHAR) AS DOUBLE)"
    view = rows.sql(f"SELECT key::VARCHAR AS _noise_key, {rate} AS _noise_weight FROM {table}").name
    if not rows.planning:
        twice = rows.con.execute(
            f"SELECT count(*) OVER (), _noise_key FROM {view} GROUP BY _noise_key HAVING count(*) > 1 "
            f"ORDER BY _noise_key LIMIT 3"
        ).fetchall()
        if twice:
            examples = ", ".join(str(key) for _, key in twice)
            raise DataError(f"{file}: {twice[0][0]:,} keys are listed twice (such as {examples})")
    return view
