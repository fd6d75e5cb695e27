"""A million of twenty million URLs: python benchmarks/tables.py [--rows N] [--rounds 3] [--spark PYTHON]

A table in LAION-400M's layout is made, and a slice is cut of it: the rows in English with a similarity of
0.28 at least, of those exactly a million by a hash of URL and text, in the order of a hash, as Parquet.
Ours is `curate build --overlay`, once with an empty cache and once with what is known of the files; it also
counts the rows by reason, finds rows that are there twice, hashes files and rows, and syncs. Each run is a
process of its own, ended at --memory-gb (the resident memory of all its processes) or --timeout-s; that is
a result. pyspark comes from another environment, whose Python --spark names.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import _tables

from curate.io.memory import peak_bytes

HERE = Path(__file__).resolve().parent
PARTS = {  # the statements of a build, in order → what they are for
    r"SELECT reason": "rows by reason",
    r"SELECT count\(\*\) FROM step_1": "rows that are left",
    r"CREATE TEMP TABLE kept_\d+ AS SELECT (\*|\w+\.\*)": "the pass: URL and text read, hashed, drawn",
    r"(CREATE TEMP TABLE|SELECT|DELETE) .*(kept_|ranks_|rows_|step_2)": "exactly so many, none twice",
    r"COPY": "order and write",
    r"SELECT sha256": "digest of the rows",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--number", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-rounds", type=int, default=1)
    parser.add_argument("--peers", default=",".join(PEERS), help="which, with commas; empty for none")
    parser.add_argument("--spark", default="", help="a Python that has pyspark")
    parser.add_argument("--memory-gb", type=float, default=16)
    parser.add_argument("--timeout-s", type=float, default=600)
    parser.add_argument("--work", type=Path, help="a folder to keep the table in, for the next time")
    parser.add_argument("--one", nargs=2, metavar=("RECIPE", "OUT"), help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.one:
        print(json.dumps(_ours(*told.one)))
        return
    with tempfile.TemporaryDirectory(prefix="tables-") as temporary:
        work = (told.work or Path(temporary)).resolve()
        table = work / f"table-{told.rows}"
        made = _tables.write_table(table, told.rows)
        size = sum(f.stat().st_size for f in table.iterdir())
        names = ("duckdb", "pyarrow", "numpy")
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
        print(", ".join(f"{name} {version(name)}" for name in names), end="; ")
        print(f"load at the start {os.getloadavg()[0]:.1f}")
        print(
            f"{told.rows:,} rows, {len(list(table.iterdir()))} files, {size / 1e9:.2f} GB, made in {made:.0f} s"
        )
        print(
            f"{told.number:,} rows wanted; medians of {told.rounds} runs, {told.peer_rounds} of the peers\n"
        )
        _compare(told, table, Path(temporary))


def _compare(told: argparse.Namespace, table: Path, temporary: Path) -> None:
    print("| side | wall s | range | CPU s | peak GB | × ours, cold |\n|---|---:|---:|---:|---:|---:|")
    sides = ["cold", "warm"]
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    recipe = temporary / "slice.yaml"
    recipe.write_text(RECIPE.format(table=table, number=told.number))
    for _ in range(told.rounds):
        for side in sides:
            if side == "cold":
                shutil.rmtree(temporary / "cache", ignore_errors=True)
            command = [sys.executable, __file__, "--one", str(recipe), str(temporary / "ours")]
            runs[side].append(_run(command, told, temporary))
    reference = _median(runs["cold"], "seconds")
    for side in sides:
        print(_row(f"ours, {side}", runs[side], reference), flush=True)
    for peer in [p for p in told.peers.split(",") if p]:
        python = told.spark if peer == "pyspark" else sys.executable
        if not python:
            print(f"| {peer} | not tried, --spark names no Python | | | | |")
            continue
        done = []
        for _ in range(told.peer_rounds):
            out = temporary / "theirs"
            command = [python, str(HERE / "_tables.py"), peer, str(table), str(out), str(told.number)]
            done.append(_run(command, told, temporary))
            _check(done[-1], f"{out}.parquet", told.number)
        print(_row(peer, done, reference), flush=True)
    print("\n| part of ours | cold s | CPU s | warm s |\n|---|---:|---:|---:|")
    for part in runs["cold"][0].get("parts", {}):
        cold, warm = (statistics.median(r["parts"].get(part, [0, 0])[0] for r in runs[s]) for s in sides)
        cpu = statistics.median(r["parts"].get(part, [0, 0])[1] for r in runs["cold"])
        print(f"| {part} | {cold:.2f} | {cpu:.2f} | {warm:.2f} |")


def _row(name: str, runs: list[dict[str, Any]], reference: float) -> str:
    failed = [r["failed"] for r in runs if "failed" in r]
    name += f" {runs[0]['version']}" if runs[0].get("version") else ""
    peak = f"{max(r['peak'] for r in runs):.2f}"
    if failed:
        return f"| {name} | {failed[0]} | | | {peak} | |"
    seconds = [r["seconds"] for r in runs]
    middle = statistics.median(seconds)
    spread = f"{min(seconds):.1f}–{max(seconds):.1f}"
    ratio = f"{middle / reference:.2f}"
    return f"| {name} | {middle:.1f} | {spread} | {_median(runs, 'cpu'):.1f} | {peak} | {ratio} |"


def _median(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.median(r[key] for r in runs)


def _run(command: list[str], told: argparse.Namespace, temporary: Path) -> dict[str, Any]:
    for left in ("ours", "theirs.parquet"):
        shutil.rmtree(temporary / left, ignore_errors=True)
        (temporary / left).unlink(missing_ok=True)
    return watched(command, temporary, memory_gb=told.memory_gb, timeout_s=told.timeout_s)


def watched(command: list[str], folder: Path, *, memory_gb: float, timeout_s: float) -> dict[str, Any]:
    """Run a process; return its seconds, CPU seconds and peak memory with its children, or why it was ended.

    What its last line on stdout says as JSON comes on top. Its cache and temporary files are in `folder`.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"CURATE_CACHE": str(folder / "cache"), "TMPDIR": str(folder)}
    environment |= {"SPARK_LOCAL_DIRS": str(folder), "SPARK_LOCAL_IP": "127.0.0.1"}
    with (
        (folder / "said").open("w+") as said,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True, env=environment
        ) as process,
    ):
        watch = _Watch(process.pid, memory_gb, timeout_s)
        answer = process.stdout.read() if process.stdout else ""
        process.wait()
        watch.done.set()
        said.seek(0)
        last = (said.read().strip().splitlines() or [""])[-1][:100]
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    waited = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found: dict[str, Any] = {"seconds": seconds, "cpu": max(waited, watch.cpu), "peak": watch.peak}
    if watch.ended or process.returncode:
        return found | {"failed": watch.ended or f"did not finish: {last}"}
    with contextlib.suppress(ValueError, IndexError):
        found |= json.loads(answer.splitlines()[-1])
    return found | {"peak": max(watch.peak, found.get("own_peak", 0))}


class _Watch(threading.Thread):
    """Looks at the memory of a session's processes five times a second, and ends all of them at the limit."""

    def __init__(self, session: int, memory_gb: float, timeout_s: float) -> None:
        super().__init__(daemon=True)
        self.session, self.memory_gb, self.timeout_s = session, memory_gb, timeout_s
        self.peak, self.cpu, self.ended, self.done = 0.0, 0.0, "", threading.Event()
        self.start()

    def run(self) -> None:
        """Watch until the process is done."""
        until = time.monotonic() + self.timeout_s
        while not self.done.wait(0.2):
            resident, cpu = used(self.session)
            self.peak, self.cpu = max(self.peak, resident), max(self.cpu, cpu)
            if self.peak > self.memory_gb:
                self.ended = f"more than {self.memory_gb:g} GB"
            elif time.monotonic() > until:
                self.ended = f"did not finish in {self.timeout_s:g} s"
            if self.ended:
                os.killpg(self.session, signal.SIGKILL)
                return


def used(session: int) -> tuple[float, float]:
    """Return the resident memory in GB and the CPU seconds so far of the processes of a session that live."""
    pages, ticks = 0, 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended just now
        if int(fields[3]) == session:
            pages, ticks = pages + int(fields[21]), ticks + int(fields[11]) + int(fields[12])
    return pages * resource.getpagesize() / 1e9, ticks / os.sysconf("SC_CLK_TCK")


def _check(run: dict[str, Any], out: str, number: int) -> None:
    """Fail where a peer's rows are not those that were asked for."""
    import duckdb

    if "failed" in run:
        return
    files = f"{out}/*.parquet" if Path(out).is_dir() else out
    query = 'SELECT count(*), count(DISTINCT "URL"), min(similarity), bool_and("LANGUAGE" = \'en\')'
    found = duckdb.execute(f"{query} FROM read_parquet('{files}')").fetchall()[0]
    wanted = found[:2] == (number, number) and found[2] >= _tables.LEAST and found[3]
    assert wanted, f"{out}: {found}"


RECIPE = """name: slice
source: {{table: "{table}/*.parquet", as: laion}}
steps:
  - filter: {{preset: laion2b}}
  - sample: {{number: {number}}}
"""
PEERS = tuple(_tables.PEERS)


def _ours(recipe: str, out: str) -> dict[str, Any]:
    """Build the overlay, and return the seconds and the CPU's seconds of its parts."""
    import duckdb

    spent: dict[str, list[float]] = {}
    connect = duckdb.connect
    duckdb.connect = lambda *args, **kwargs: _Timed(connect(*args, **kwargs), spent)
    from curate.builds.build import build
    from curate.recipes.recipe import load
    from curate.sources.table import TableSource

    index = TableSource.index

    def timed_index(*args: Any, **kwargs: Any) -> Any:
        with _Clock(spent, "files: hashed, unusable rows found"):
            return index(*args, **kwargs)

    TableSource.index = timed_index  # type: ignore[method-assign]
    whole: dict[str, list[float]] = {}
    with _Clock(whole, "build"):
        build(load(recipe), out, overlay=True)
    spent["the rest"] = [w - sum(p[i] for p in spent.values()) for i, w in enumerate(whole["build"])]
    return {"parts": spent, "own_peak": peak_bytes() / 1e9}


class _Clock:
    """Adds the wall and CPU seconds of a block to what a part took."""

    def __init__(self, spent: dict[str, list[float]], part: str) -> None:
        self.spent, self.part = spent, part

    def __enter__(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        wall, cpu = time.perf_counter() - self.began[0], time.process_time() - self.began[1]
        had = self.spent.get(self.part, [0.0, 0.0])
        self.spent[self.part] = [had[0] + wall, had[1] + cpu]


class _Timed:
    """A connection to DuckDB whose statements are timed, where they belong to a part."""

    def __init__(self, connection: Any, spent: dict[str, list[float]]) -> None:
        self.connection, self.spent = connection, spent

    def __enter__(self) -> _Timed:
        self.connection.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return self.connection.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def execute(self, query: str, *arguments: Any) -> Any:
        """Run a statement."""
        for pattern, part in PARTS.items():
            if re.match(pattern, query):
                with _Clock(self.spent, part):
                    return self.connection.execute(query, *arguments)
        return self.connection.execute(query, *arguments)


if __name__ == "__main__":
    main()
