"""Noise by the sample: each row has its own rate, from a table."""

from __future__ import annotations

from curate.errors import DataError, RecipeError
from curate.ops._noise.flips import Flips, Options
from curate.ops._noise.symmetric import symmetric
from curate.rows.relation import Rows, columns_of


def instance(options: Options) -> Flips:
    """Any other class alike, for the rows that the table makes likely to be wrong."""
    rows = options.rows
    if options.file is None:
        raise RecipeError("instance noise needs a `file`", hint="a table with the columns key and rate")
    table = _rates(rows, options.file)
    joined = rows.sql(
        f"SELECT r.*, noise_weight FROM {rows} r LEFT JOIN (SELECT noise_key, noise_weight FROM {table}) "
        f"ON key = noise_key"
    )
    hint = "every labelled row needs its key and a rate in [0, 1]"
    joined.refuse(
        f"label IS NOT NULL AND key NOT IN (SELECT noise_key FROM {table} WHERE noise_key IS NOT NULL)",
        f"are not in {options.file}",
        hint=hint,
    )
    joined.refuse(
        "label IS NOT NULL AND (noise_weight BETWEEN 0 AND 1) IS NOT TRUE",
        f"have no rate in [0, 1] in {options.file}",
        hint=hint,
        show="key || ': ' || coalesce(noise_weight::VARCHAR, 'none')",
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
    view = rows.sql(f"SELECT key::VARCHAR AS noise_key, {rate} AS noise_weight FROM {table}").name
    if not rows.planning:
        twice = rows.con.execute(
            f"SELECT count(*) OVER (), noise_key FROM {view} GROUP BY noise_key HAVING count(*) > 1 "
            f"ORDER BY noise_key LIMIT 3"
        ).fetchall()
        if twice:
            shown = ", ".join(str(key) for _, key in twice)
            raise DataError(f"{file}: {twice[0][0]:,} keys are listed twice (such as {shown})")
    return view
