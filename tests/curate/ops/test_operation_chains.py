"""Chains of operations that nobody thought of, made by Hypothesis: what holds for one step holds for any after any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import duckdb
import pytest
from campaigns import examples
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st

from curate import ops
from curate.builds.step import Step, take_step
from curate.errors import CurateError
from curate.rows.relation import Rows, columns_of
from curate.sources._index_cache import class_list

# Classes of two families and one apart, so that siblings, cuts and subtrees mean something.
WNIDS = ("n02123045", "n02123394", "n02123597", "n03100240", "n04285008", "n07747607")
ROWS = 240
WORDS = ["a cat on a mat", "ein Bild", "convertible, red", "orange", "IMG 0042", "our tabby and our orange"]
Content = list[dict[str, Any]]
Arguments = dict[str, Any]


class State(NamedTuple):
    """Rows as Python has them, with the names of their classes."""

    rows: Content
    names: list[str]

    @property
    def per_class(self) -> Counter[str]:
        return Counter(self.names[r["label"]] for r in self.rows if r["label"] is not None)


def half_up(value: float) -> int:
    return int(value + 0.5)


# Operation → its arguments, as a strategy. `seed` is drawn for all that take one.
shares = st.sampled_from([0.0, 0.05, 0.3, 0.5, 1.0])
counts = st.integers(1, 40)
ANY: dict[str, st.SearchStrategy[Arguments]] = {
    "sample": st.one_of(
        st.fixed_dictionaries({"fraction": shares, "allocation": st.sampled_from(["simple", "equal", "proportional"])}),
        st.fixed_dictionaries({"number": counts}),
    ),
    "per_class": st.fixed_dictionaries({"images": counts, "short": st.sampled_from(["keep", "drop"])}),
    "budget": st.fixed_dictionaries(
        {"total": st.integers(1, 60), "classes": st.integers(1, 4), "short": st.just("skip")}
    ),
    "longtail": st.fixed_dictionaries(
        {"kind": st.sampled_from(["exponential", "step"]), "largest": st.integers(4, 40),
         "imbalance": st.just(4), "short": st.just("keep")}
    ),
    "classes": st.fixed_dictionaries({"number": st.integers(1, 6)}),
    "without": st.fixed_dictionaries({"below": st.sampled_from([["domestic_cat"], ["n02958343"]])}),
    "halves": st.fixed_dictionaries(
        {"split": st.sampled_from(["random", "minimal"]), "half": st.sampled_from(["a", "b"])}
    ),
    "noise": st.fixed_dictionaries(
        {"kind": st.sampled_from(["symmetric", "pair", "sibling", "hierarchy"]), "rate": shares}
    ),
    "clean": st.just({}),
    "split": st.fixed_dictionaries({"shares": st.just({"val": 0.2})}),
    "top": st.fixed_dictionaries(
        {"by": st.just("score"), "fraction": shares, "per": st.sampled_from(["set", "class"])}
    ),
    "shuffle_captions": st.fixed_dictionaries({"rate": shares}),
    "mix_captions": st.fixed_dictionaries({"share": shares, "templates": st.just("a {}")}),
    "relabel": st.sampled_from(
        [{"cut": "bottom_up", "level": 2}, {"cut": "top_down", "round": 1}, {"cut": "depth", "depth": 6}]
    ),
    "dedup": st.fixed_dictionaries({"by": st.just("bytes"), "keep": st.sampled_from(["drop", "flag"])}),
}  # fmt: skip
# Each row's fate depends on that row and its class alone.
ROW_WISE: dict[str, st.SearchStrategy[Arguments]] = {
    "where": st.fixed_dictionaries({"condition": st.sampled_from(["width > 40", "split = 'train'", "score < 0.9"])}),
    "compute": st.just({"columns": {"score": "score / 2"}}),
    "caption": st.fixed_dictionaries(
        {"templates": st.just(["a {}", "the {}"]), "names": st.sampled_from(["lemma", "gloss"])}
    ),
    "drop_words": st.fixed_dictionaries({"rate": shares}),
    "truncate": st.fixed_dictionaries({"words": st.integers(1, 3)}),
    "filter": st.fixed_dictionaries({"min_words": st.integers(1, 3), "keep": st.sampled_from(["drop", "flag"])}),
    "caption_from": st.just({"columns": ["split", "caption"]}),
    "relabel": st.just({"map": {"n02123045": "n02121808", "n02123394": "n02121808"}, "others": "keep"}),
}  # fmt: skip


def chains(of: dict[str, st.SearchStrategy[Arguments]]) -> st.SearchStrategy[list[tuple[str, Arguments]]]:
    """Draw one to five operations with their arguments."""

    def one(name: str) -> st.SearchStrategy[tuple[str, Arguments]]:
        seed = st.fixed_dictionaries(
            {"seed": st.integers(0, 3)} if "seed" in ops.find(name).signature.names else {}
        )
        return st.tuples(st.just(name), st.tuples(of[name], seed).map(lambda pair: pair[0] | pair[1]))

    return st.lists(st.sampled_from(sorted(of)).flatmap(one), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def con() -> Iterator[Any]:
    with duckdb.connect() as con:
        con.execute(
            f"CREATE TABLE made AS SELECT 'p/' || printf('%04d', i) AS key, key || '.jpg' AS file, "
            f"0::BIGINT AS \"offset\", 1000 + i AS size, 'jpg' AS ext, (32 + i % 31)::INTEGER AS width, "
            f"48::INTEGER AS height, if(i % 23 = 0, NULL, (i * 7 % 11) % 6)::INTEGER AS label, "
            f"{WORDS!r}[1 + i % {len(WORDS)}] AS caption, if(i % 7 = 0, 'val', 'train') AS split, "
            f"md5((i // 2 * 2)::VARCHAR) AS sha256, (i * 37 % 101) / 101 AS score "
            f"FROM range({ROWS}) r(i)"
        )
        yield con


def walk(con: Any, chain: list[tuple[str, Arguments]], *, rest: str = "", threads: int = 2) -> list[State]:
    """Run a chain as a build does; return the states after each step, as far as no step refuses its rows."""
    con.execute(f"SET threads = {threads}")
    for (table,) in con.execute(
        "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'step_%'"
    ).fetchall():
        con.execute(f"DROP TABLE {table} CASCADE")
    con.execute(f"CREATE OR REPLACE TABLE source AS FROM made {rest}")
    rows = Rows(con, "source", columns_of(con, "source"), class_list(WNIDS))
    states = [state(rows)]
    for number, (name, arguments) in enumerate(chain):
        operation = ops.find(name)
        bound = operation.signature.bind(arguments, where=name)
        try:
            rows, record = take_step(Step(f"step {number}", operation, bound), rows, f"step_{number}")
        except CurateError:
            break  # it may refuse these rows, as each operation's own tests say; anything else is a fault
        states.append(state(rows))
        assert (record.rows_in, record.rows_out) == (len(states[-2].rows), len(states[-1].rows))
    return states


def state(rows: Rows) -> State:
    answer = rows.con.execute(f"FROM {rows} ORDER BY key")
    columns = [d[0] for d in answer.description]
    return State(
        [dict(zip(columns, r, strict=True)) for r in answer.fetchall()], [c.name for c in rows.classes]
    )


ALLOWED = [HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
SETTINGS = examples(12, 1000, ALLOWED)


@given(chain=chains(ANY | ROW_WISE))
@SETTINGS
def test_any_chain_keeps_keys_unique_and_labels_dense(con: Any, chain: list[tuple[str, Arguments]]) -> None:
    states = walk(con, chain)
    for before, after in pairwise(states):
        keys = [r["key"] for r in after.rows]
        assert len(set(keys)) == len(keys)
        assert set(keys) <= {r["key"] for r in before.rows}
        used = {r[c] for r in after.rows for c in ("label", "clean_label") if r.get(c) is not None}
        assert used == set(range(len(after.names)))
        assert len(set(after.names)) == len(after.names)


@given(chain=chains(ANY | ROW_WISE))
@SETTINGS
def test_any_chain_counts_exactly(con: Any, chain: list[tuple[str, Arguments]]) -> None:
    states = walk(con, chain)
    for (name, arguments), before, after in zip(chain, states, states[1:], strict=False):
        if name in COUNTED:
            COUNTED[name](arguments, before, after)


@given(chain=chains(ANY | ROW_WISE))
@SETTINGS
def test_neither_row_order_nor_threads_matter_to_any_chain(
    con: Any, chain: list[tuple[str, Arguments]]
) -> None:
    forward = walk(con, chain, threads=1)
    shuffled = walk(con, chain, rest="ORDER BY md5(key || 'x')", threads=4)
    assert forward == shuffled


@given(chain=chains(ROW_WISE))
@examples(8, 500, ALLOWED)
def test_halves_apart_equal_the_whole_for_row_wise_chains(
    con: Any, chain: list[tuple[str, Arguments]]
) -> None:
    whole = walk(con, chain)
    assume(len(whole) == len(chain) + 1)
    halves = [walk(con, chain, rest=f"WHERE size % 2 = {half}") for half in (0, 1)]
    assume(all(len(half) == len(whole) for half in halves))
    apart = sorted((named(half[-1]) for half in halves), key=len)
    assert sorted(apart[0] + apart[1], key=lambda r: r["key"]) == named(whole[-1])


def named(last: State) -> Content:
    """Return rows with the names of their classes: a half may lack a class, and then numbers differ."""
    return [r | {"label": None if r["label"] is None else last.names[r["label"]]} for r in last.rows]


# What a step must come to, told in plain Python.


def sampled(a: Arguments, before: State, after: State) -> None:
    wanted = a["number"] if "number" in a else half_up(len(before.rows) * a["fraction"])
    assert len(after.rows) == wanted
    if a.get("allocation") == "equal":
        sizes = Counter(r["label"] for r in before.rows)
        got = Counter(
            None if r["label"] is None else before.names.index(after.names[r["label"]]) for r in after.rows
        )
        open_classes = [got[label] for label, size in sizes.items() if got[label] < size]
        assert not open_classes or not got or max(got.values()) - min(open_classes) <= 1


def per_class(a: Arguments, before: State, after: State) -> None:
    fits = {
        n: min(c, a["images"])
        for n, c in before.per_class.items()
        if c >= a["images"] or a["short"] == "keep"
    }
    assert after.per_class == Counter(fits)


def budgeted(a: Arguments, before: State, after: State) -> None:
    sizes = after.per_class
    assert sum(sizes.values()) == a["total"]
    assert len(sizes) == min(a["classes"], a["total"])
    assert max(sizes.values()) - min(sizes.values()) <= 1


def chosen(a: Arguments, before: State, after: State) -> None:
    assert len(after.names) == a["number"]
    assert after.per_class == Counter({n: c for n, c in before.per_class.items() if n in after.names})


def noisy(a: Arguments, before: State, after: State) -> None:
    clean = [before.names[r["label"]] for r in before.rows if r["label"] is not None]
    wrong = [r for r in after.rows if r["label"] is not None and r["label"] != r["clean_label"]]
    if a["kind"] in ("symmetric", "pair", "hierarchy"):
        assert len(wrong) == half_up(len(clean) * a["rate"])
    assert [after.names[r["clean_label"]] for r in after.rows if r["label"] is not None] == clean


def best(a: Arguments, before: State, after: State) -> None:
    if a["per"] == "set":
        scores = sorted((r["score"] for r in before.rows), reverse=True)
        assert (
            sorted((r["score"] for r in after.rows), reverse=True)
            == scores[: half_up(len(scores) * a["fraction"])]
        )
    else:
        assert after.per_class == +Counter(
            {n: half_up(c * a["fraction"]) for n, c in before.per_class.items()}
        )


def shuffled_captions(a: Arguments, before: State, after: State) -> None:
    assert Counter(r["caption"] for r in before.rows) == Counter(r["caption"] for r in after.rows)
    changed = sum(x["caption"] != y["caption"] for x, y in zip(before.rows, after.rows, strict=True))
    assert changed <= half_up(sum(r["caption"] is not None for r in before.rows) * a["rate"])


def once(a: Arguments, before: State, after: State) -> None:
    if a["keep"] == "drop":
        assert len(after.rows) == len({r["sha256"] for r in before.rows})


COUNTED: dict[str, Callable[[Arguments, State, State], None]] = {
    "sample": sampled, "per_class": per_class, "budget": budgeted, "classes": chosen, "noise": noisy, "top": best,
    "shuffle_captions": shuffled_captions, "dedup": once,
}  # fmt: skip


def test_most_chains_are_walked_to_their_end(con: Any) -> None:
    """The laws above would hold for chains that are refused at once: most must not be."""
    ends: list[bool] = []

    @given(chain=chains(ANY | ROW_WISE))
    @examples(20)
    def count(chain: list[tuple[str, Arguments]]) -> None:
        ends.append(len(walk(con, chain)) == len(chain) + 1)

    count()
    assert sum(ends) > len(ends) / 3
