"""Answers as tables on a terminal, or as JSON for a machine."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from curate.builds.build import Built
from curate.builds.plan import Plan
from curate.datasets.diffs import Diff
from curate.datasets.exports import Exported
from curate.datasets.summary import Balance, Summary, gain, notes
from curate.datasets.verification import Problem, Verdict
from curate.errors import printable
from curate.fetch.drift import Drift
from curate.fetch.fetching import Fetched
from curate.io.tars.findings import Report

CLASSES_SHOWN = 20
FINDINGS_SHOWN = 20  # of a kind; JSON has more
SAMPLES_SHOWN = 10  # of a shard that is at fault itself; JSON has all
FIRST_WIDTH = 24  # characters up to which a first column is not folded: it says what a row is


def _say(line: str) -> None:
    """Print a line; what strangers wrote in it cannot command the terminal."""
    print(printable(line))


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    document = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in document))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Print rows under their columns: a drawn table on a terminal, tab-separated text in a pipe."""
    rows = [[_cell(v) for v in row] for row in rows]
    columns = [_cell(column) for column in columns]
    if not columns:  # a statement that answers nothing
        return
    if not sys.stdout.isatty():
        if title:
            _say(f"# {title}")
        _say("\t".join(columns))
        for row in rows:
            _say("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=title and printable(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    width = max(len(line[0]) for line in [list(columns), *rows])
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    for i, (column, number) in enumerate(zip(columns, numeric, strict=True)):
        whole = i == 0 and width <= FIRST_WIDTH
        table.add_column(column, justify="right" if number else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*row)
    Console(markup=False, emoji=False).print(table)


def print_plan(plan: Plan) -> None:
    """Print a plan: source, steps with their arguments, and the columns that come out."""
    recipe, source = plan.recipe, plan.source
    known = f"{source.rows:,} rows" if source.rows is not None else "rows are counted when it is read"
    classes = (
        "classes are found when it is read" if source.classes is None else f"{len(source.classes):,} classes"
    )
    shards = f"{recipe.samples_per_shard:,} samples"
    shards += f" or {recipe.bytes_per_shard:,} bytes of images" if recipe.bytes_per_shard else ""
    _say(f"{recipe.name}: seed {recipe.seed}, {recipe.order}, {shards} a shard")
    if recipe.resize:
        _say(f"  resize to a short side of {recipe.resize.short} px, JPEG quality {recipe.resize.quality}")
    _say(f"  source {json.dumps(recipe.source, default=str)}: {known}, {classes}")
    if source.why:
        _say(f"  read as: {source.why}")
    for number, step in enumerate(plan.steps, start=1):
        unbound = "" if number <= plan.bound else "  (checked against the rows when they have been read)"
        arguments = ", ".join(f"{k}={_short(v)}" for k, v in step.arguments.items() if v is not None)
        _say(f"  {number}. {step.operation.name}({arguments}){unbound}")
    count = "?" if plan.classes is None else f"{len(plan.classes):,}"
    _say(f"  result: {count} classes, columns {', '.join(plan.columns)}")
    promises = recipe.expect.model_dump(exclude_defaults=True)
    if promises:
        _say(f"  expect: {', '.join(f'{k} {v}' for k, v in promises.items())}")


def print_summary(summary: Summary) -> None:
    """Print a dataset's summary; where images lie outside of its folder, that is the first line."""
    for line in summary.outside:
        _say(line)
    kind = "overlay" if summary.shards is None else _counted(summary.shards, "shard")
    _say(f"{summary.name}: {summary.rows:,} rows, {len(summary.counts):,} classes, {kind}")
    _say(f"  bytes of images {summary.bytes:,} below {summary.root}")
    _say(f"  digest {summary.digest}")
    for side, (low, middle, high) in summary.pixels.items():
        _say(f"  {side} {low}–{high} px, median {middle}")
    if summary.splits:
        _say("  splits " + ", ".join(f"{k} {v:,}" for k, v in summary.splits.items()))
    if summary.majority is not None:
        _say(f"  largest class {summary.majority:.2%} of the labels: what guessing it would score")
    if summary.balance is not None:
        _say(f"  balance: {_balance(summary.balance)}")
    if summary.resize is not None:
        _say(f"  resize: {gain(summary.resize)}")
    if summary.noise_rate is not None:
        _say(f"  wrong labels {summary.noise_rate:.4%}")
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
                _say(f"  {what} in {d.b}: {'; '.join(examples)}")
        if d.other_resize:
            _say(f"  {d.a} and {d.b}: {'equal rows, ' if d.relation == '=' else ''}other `resize`")
    sizes = [f"{diffs[0].a} ({diffs[0].rows_a:,})"] + [f"{d.relation} {d.b} ({d.rows_b:,})" for d in diffs]
    _say(" ".join(sizes))


def print_exports(done: Sequence[Exported], *, json: bool) -> None:
    """Print what each export wrote, and the Python that opens it."""
    if json:
        print_json([vars(e) | {"files": [str(f) for f in e.files]} for e in done])
        return
    for e in done:
        count = f"{e.files[0]}" if len(e.files) == 1 else f"{len(e.files):,} files, such as {e.files[0]}"
        _say(f"{e.format}: {count}{', unchanged, nothing to do' if e.unchanged else ''}\n  {e.use}")
    for note in {e.note: None for e in done if e.note}:
        _say(f"note: {note}")


def _short(value: Any) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return printable(str(value).replace("\n", " ").replace("\t", " "))
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
        kind = "overlay"
        if shards is not None:
            kind = f"{_counted(len(shards), 'shard')}, {sum(s.bytes for s in shards):,} bytes"
        state = "unchanged, nothing to do" if b.unchanged else "built"
        what = f"{len(b.dataset):,} rows, {len(b.dataset.classes):,} classes, {kind}"
        _say(f"{b.dataset.path}: {what}; {state} in {b.seconds:.1f} s; {b.dataset.digest[:19]}…")
        if resize := b.dataset.build_record().get("resize"):
            _say(f"  resize: {gain(resize)}")
    same: dict[str, list[str]] = {}
    for b in built:
        same.setdefault(b.dataset.digest, []).append(b.dataset.name)
    for names in same.values():
        if len(names) > 1:
            _say(f"note: {len(names)} sets of this family are the same: {', '.join(names)}")


def _document(built: Built) -> dict[str, Any]:
    data = built.dataset
    named = {"name": data.name, "path": str(data.path), "digest": data.digest}
    shards = data.info.shards
    counted = {
        "rows": len(data),
        "classes": len(data.classes),
        "shards": None if shards is None else len(shards),
        "shard_bytes": None if shards is None else sum(s.bytes for s in shards),
        "resize": data.build_record().get("resize"),
    }
    return named | counted | {"unchanged": built.unchanged, "seconds": round(built.seconds, 3)}


def print_checked(verdict: Verdict | Report, *, json: bool) -> None:
    """Print what checking datasets or linting tars came to."""
    if isinstance(verdict, Report):
        print_json(verdict.document()) if json else _print_findings(verdict)
    elif json:
        print_json([{"where": p.where, "what": p.what} for p in verdict.problems])
    elif verdict.problems:
        title = f"{', '.join(verdict.paths)}: {_counted(len(verdict.problems), 'problem')}"
        print_table(["where", "what"], _problems(verdict.problems), title=title)
    else:
        for path in verdict.paths:
            _say(f"{path}: holds what it says")


def _problems(problems: Sequence[Problem]) -> Iterator[tuple[str, str]]:
    """Yield where and what; of a shard that is at fault itself only its first samples."""
    faulty = {p.where for p in problems}
    for shard, group in itertools.groupby(problems, lambda p: p.shard if p.shard in faulty else ""):
        problems_of_shard = [(p.where, p.what) for p in group]
        yield from problems_of_shard[:SAMPLES_SHOWN] if shard else problems_of_shard
        if shard and len(problems_of_shard) > SAMPLES_SHOWN:
            yield f"… and {len(problems_of_shard) - SAMPLES_SHOWN:,} more", f"samples of {shard}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _print_findings(report: Report) -> None:
    rows = [[f.severity, f.kind, f.shard, f.member, f.what] for f in report.first(FINDINGS_SHOWN)]
    if rows:
        print_table(["severity", "kind", "shard", "member", "what"], rows)
    for kind, count in report.counts.items():
        if count > FINDINGS_SHOWN:
            _say(f"{kind}: {count:,} in all")
    images = ", ".join(f"{n:,} {kind}" for kind, n in report.images.most_common())
    numbers = {"shard": report.shards, "sample": report.samples, "byte": report.bytes}
    counted = ", ".join(_counted(number, what) for what, number in numbers.items())
    grave = ", ".join(_counted(report.count(s), s) for s in ("error", "warning", "note"))
    _say(f"{counted}{f'; {images}' if images else ''}: {grave}")


def print_fetched(fetched: Fetched, *, json: bool) -> None:
    """Print what a fetch came to: the pool, and what became of each row."""
    data, ok = fetched.dataset, fetched.outcomes.get("ok", 0)
    if json:
        print_json({
            "path": str(data.path), "name": data.name, "digest": data.digest, "rows": fetched.rows, "ok": ok,
            "bytes": data.info.bytes, "outcomes": fetched.outcomes, "tried": fetched.tried,
            "unchanged": fetched.unchanged, "seconds": round(fetched.seconds, 3),
        })  # fmt: skip
        return
    done = "unchanged" if fetched.unchanged else f"URLs tried: {fetched.tried:,} in {fetched.seconds:,.1f} s"
    if fetched.tried:
        done += f", {fetched.tried / fetched.seconds:,.0f} a second"
    share = f"{ok / fetched.rows:.1%}" if fetched.rows else "none"
    _say(f"{data.path}: {ok:,} of {fetched.rows:,} rows fetched ({share}), {data.info.bytes:,} bytes; {done}")
    print_table(
        ["outcome", "rows", "share"],
        [
            [outcome, f"{count:,}", f"{count / fetched.rows:.2%}"]
            for outcome, count in fetched.outcomes.items()
        ],
    )


def print_drift(drift: Drift, *, json: bool) -> None:
    """Print what became of a pool's URLs."""
    if json:
        print_json(vars(drift) | {"intervals": {s: drift.interval(s) for s in drift.states}})
        return
    part = "" if drift.asked == drift.rows else f" of {drift.rows:,}"
    urls = "" if drift.urls == drift.asked else f" ({drift.urls:,} URLs)"
    _say(
        f"{drift.pool}: {drift.asked:,}{part} rows{urls} asked again in {drift.seconds:,.1f} s; {drift.table}"
    )
    rows = []
    for state, count in drift.states.items():
        low, high = drift.interval(state)
        between = "" if drift.asked == drift.rows else f"{low:.1%} to {high:.1%}"
        rows.append([state, f"{count:,}", f"{count / drift.asked:.1%}", between])
    print_table(["state", "rows", "share", "95 % interval of the pool"], rows)
    if drift.reasons:
        print_table(["reason", "rows"], [[r, f"{n:,}"] for r, n in drift.reasons.items()])
