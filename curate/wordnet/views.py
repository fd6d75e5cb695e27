"""The noun hierarchy in SQL: the view `wordnet` and the macros over it.

`wordnet` has one row a synset: wnid, name, lemmas, senses, gloss, parents.

| macro | gives |
|---|---|
| `wn_ancestors(id)` | rows (wnid, distance): `id` itself at 0 and everything above it, over all parents |
| `wn_descendants(id)` | rows (wnid, distance): `id` itself at 0 and everything below it, over all parents |
| `wn_depth(id)` | hops to the root along first parents, the convention of Huh et al. |
| `wn_lca(a, b)` | the common ancestor with the smallest summed distance, the smaller wnid where two tie |
| `wn_name(id)` | the first lemma |

Distance is the smallest number of edges. An unknown id gives no rows, or NULL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from curate.wordnet.tables import table_path

if TYPE_CHECKING:
    import duckdb

# Tables and not views of the file: they still answer once files may no longer be read.
TABLES = """
CREATE OR REPLACE TEMP TABLE wordnet_nouns AS
    SELECT wnid, lemmas[1] AS name, lemmas, senses, gloss, parents FROM read_parquet('{path}');

CREATE OR REPLACE TEMP VIEW wordnet AS FROM wordnet_nouns;

CREATE OR REPLACE TEMP TABLE wordnet_edges AS
    SELECT wnid AS child, unnest(parents) AS parent, generate_subscripts(parents, 1) AS position
    FROM wordnet_nouns;

CREATE OR REPLACE TEMP TABLE wordnet_depths AS
    WITH RECURSIVE walk(wnid, depth) AS (
        SELECT wnid, 0 FROM wordnet_nouns WHERE len(parents) = 0
        UNION ALL
        SELECT child, depth + 1 FROM walk JOIN wordnet_edges ON parent = wnid AND position = 1
    )
    SELECT wnid, depth FROM walk;
"""

# UNION drops what several paths of one length reach; min() keeps the shortest path.
WALK = """
CREATE OR REPLACE TEMP MACRO {name}(id) AS TABLE
    WITH RECURSIVE walk(wnid, distance) AS (
        SELECT wnid, 0 FROM wordnet_nouns WHERE wnid = id
        UNION
        SELECT {after}, distance + 1 FROM walk JOIN wordnet_edges ON {before} = wnid
    )
    SELECT wnid, min(distance) AS distance FROM walk GROUP BY wnid ORDER BY min(distance), wnid;
"""

SCALARS = """
CREATE OR REPLACE TEMP MACRO wn_name(id) AS (SELECT name FROM wordnet_nouns WHERE wnid = id);

CREATE OR REPLACE TEMP MACRO wn_depth(id) AS (SELECT depth FROM wordnet_depths WHERE wnid = id);

CREATE OR REPLACE TEMP MACRO wn_lca(a, b) AS (
    SELECT arg_min(above_a.wnid, (above_a.distance + above_b.distance, above_a.wnid))
    FROM wn_ancestors(a) AS above_a JOIN wn_ancestors(b) AS above_b USING (wnid)
);
"""


def create_views(con: duckdb.DuckDBPyConnection) -> None:
    """Create the view `wordnet` and the `wn_` macros, for this connection only.

    Call it before `SET enable_external_access = false`: it reads the packaged table once, and
    nothing afterwards. Temporary objects belong to a connection, so `con.cursor()` does not see them.
    """
    con.execute(TABLES.format(path=str(table_path()).replace("'", "''")))
    con.execute(WALK.format(name="wn_ancestors", before="child", after="parent"))
    con.execute(WALK.format(name="wn_descendants", before="parent", after="child"))
    con.execute(SCALARS)
