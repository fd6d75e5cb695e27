"""Answers as tables on a terminal, or as JSON for a machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from curate.builds import Built
from curate.checks import Problem
from curate.diffs import Diff
from curate.plans import Plan
from curate.shows import Balance, Summary, notes

CLASSES_SHOWN = 20
FIRST_WIDTH = 24  # characters up to which a first column is not folded: it says what a row is


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Print rows under their columns: a drawn table on a terminal, tab-separated text in a pipe."""
    rows = [[_cell(v) for v in row] for row in rows]
    if not columns:  # a statement that answers nothing
        return
    if not sys.stdout.isatty():
        if title:
            print(f"# {title}")
        print("\t".join(columns))
        for row in rows:
            print("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    width = max(len(line[0]) for line in [list(columns), *rows])
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    for i, (column, number) in enumerate(zip(columns, numeric, strict=True)):
        whole = i == 0 and width <= FIRST_WIDTH
        table.add_column(column, justify="right" if number else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)


def print_plan(plan: Plan) -> None:
    """Print a plan: source, steps with their arguments, and the columns that come out."""
    recipe, source = plan.recipe, plan.source
    known = f"{source.rows:,} rows" if source.rows is not None else "rows counted when it is read"
    classes = (
        "classes found when it is read" if source.classes is None else f"{len(source.classes):,} classes"
    )
    print(f"{recipe.name}: seed {recipe.seed}, {recipe.order}, {recipe.samples_per_shard:,} samples a shard")
    print(f"  source {json.dumps(recipe.source, default=str)}: {known}, {classes}")
    for number, step in enumerate(plan.steps, start=1):
        unbound = "" if number <= plan.bound else "  (checked against the rows when they have been read)"
        told = ", ".join(f"{k}={_short(v)}" for k, v in step.arguments.items() if v is not None)
        print(f"  {number}. {step.operation.name}({told}){unbound}")
    count = "?" if plan.classes is None else f"{len(plan.classes):,}"
    print(f"  result: {count} classes, columns {', '.join(plan.columns)}")
    promises = recipe.expect.model_dump(exclude_none=True)
    if promises:
        print(f"  expect: {', '.join(f'{k} {v}' for k, v in promises.items())}")


def print_summary(summary: Summary) -> None:
    """Print a dataset's summary."""
    kind = "overlay" if summary.shards is None else f"{summary.shards:,} shards"
    print(f"{summary.name}: {summary.rows:,} rows, {len(summary.counts):,} classes, {kind}")
    print(f"  bytes of images {summary.bytes:,} below {summary.root}")
    print(f"  digest {summary.digest}")
    for side, (low, middle, high) in summary.pixels.items():
        print(f"  {side} {low}–{high} px, median {middle}")
    if summary.splits:
        print("  splits " + ", ".join(f"{k} {v:,}" for k, v in summary.splits.items()))
    if summary.majority is not None:
        print(f"  largest class {summary.majority:.2%} of the labels: what guessing it would score")
    if summary.balance is not None:
        print(f"  balance: {_balance(summary.balance)}")
    if summary.noise_rate is not None:
        print(f"  wrong labels {summary.noise_rate:.4%}")
    print_table(
        ["step", "arguments", "rows", "classes", "labels changed", "captions changed", "notes"],
        [
            [s["step"], _short(s["arguments"]), s["rows_out"], s["classes_out"], s["labels_changed"],
             s["captions_changed"], notes(s)]
            for s in summary.ledger
        ],
        title="what each step did",
    )  # fmt: skip
    ranked = sorted(summary.counts.items(), key=lambda c: -c[1])
    shown = ranked[:CLASSES_SHOWN]
    more = f", the {CLASSES_SHOWN} largest of {len(ranked)}" if len(ranked) > CLASSES_SHOWN else ""
    if shown:
        total = max(sum(summary.counts.values()), 1)
        print_table(
            ["class", "rows", "share", "fine classes"],
            [[name, rows, f"{rows / total:.2%}", summary.fine[name]] for name, rows in shown],
            title=f"classes{more}",
        )
    if summary.confusions:
        print_table(
            ["true class", "given class", "rows"], summary.confusions, title="most frequent wrong labels"
        )
    if summary.captions:
        print_table(
            ["caption"], [[c] for c in summary.captions], title=f"captions ({summary.captioned:,} rows)"
        )


def _balance(b: Balance) -> str:
    rows = f"{b.smallest:,} to {b.largest:,} rows a class (median {b.median:,.10g}, ratio {b.ratio:,.4g})"
    fine = f", {b.singletons:,} of one fine class, at most {b.most_fine:,} in one" if b.most_fine > 1 else ""
    return f"{rows}, as even as {b.effective:,.1f} equal classes{fine}"


def print_diffs(diffs: Sequence[Diff]) -> None:
    """Print each step of a chain of datasets, and the chain in one line."""
    print_table(
        ["A", "B", "relation", "kept", "added", "dropped", "relabelled", "re-captioned"],
        [[d.a, d.b, d.relation, d.kept, d.added, d.dropped, d.relabelled, d.recaptioned] for d in diffs],
    )
    for d in diffs:
        for what, examples in d.examples.items():
            if examples:
                print(f"  {what} in {d.b}: {'; '.join(examples)}")
    sizes = [f"{diffs[0].a} ({diffs[0].rows_a:,})"] + [f"{d.relation} {d.b} ({d.rows_b:,})" for d in diffs]
    print(" ".join(sizes))


def _short(value: Any) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).replace("\n", " ").replace("\t", " ")
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _is_number(cell: str) -> bool:
    return cell == "" or cell.replace(",", "").replace(".", "", 1).lstrip("-").isdigit()


def print_built(built: Sequence[Built], *, json: bool) -> None:
    """Print where each built dataset is, and what is in it."""
    if json:
        print_json([_document(b) for b in built])
        return
    for b in built:
        shards = b.dataset.info.shards
        kind = (
            "overlay" if shards is None else f"{len(shards):,} shards, {sum(s.bytes for s in shards):,} bytes"
        )
        state = "unchanged, nothing to do" if b.unchanged else "built"
        what = f"{len(b.dataset):,} rows, {len(b.dataset.classes):,} classes, {kind}"
        print(f"{b.dataset.path}: {what}; {state} in {b.seconds:.1f} s; {b.dataset.digest[:19]}…")
    same: dict[str, list[str]] = {}
    for b in built:
        same.setdefault(b.dataset.digest, []).append(b.dataset.name)
    for names in same.values():
        if len(names) > 1:
            print(f"note: {len(names)} sets of this family are the same: {', '.join(names)}")


def _document(built: Built) -> dict[str, Any]:
    data = built.dataset
    named = {"name": data.name, "path": str(data.path), "digest": data.digest}
    counted = {"rows": len(data), "classes": len(data.classes)}
    return named | counted | {"unchanged": built.unchanged, "seconds": round(built.seconds, 3)}


def print_problems(path: Any, problems: Sequence[Problem], *, json: bool) -> None:
    """Print what is wrong with a dataset, or that nothing is."""
    if json:
        print_json([vars(p) for p in problems])
    elif not problems:
        print(f"{path}: holds what it says")
    else:
        print_table(
            ["where", "what"],
            [[p.where, p.what] for p in problems],
            title=f"{path}: {len(problems)} problems",
        )
