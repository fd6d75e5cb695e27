"""Recipes over manifests as large as ImageNet: python benchmarks/operations.py [--rows N] [--rounds 3] [--only JOB]

Every job plans and builds an overlay in a process of its own, whose peak memory is measured: each shipped recipe that
reads ImageNet (one set of its family), and each kind of operation. Four of them are also done in pandas and in plain
Python, as scripts do them today: read the Parquet manifest, do it, write Parquet; without ledger, digest, exact counts
or an answer that survives another order of rows. With --rows 14197122 the classes are the 21,841 of ImageNet-21k.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from _manifests import write_named

from curate.io.memory import peak_bytes
from curate.wordnet.lists import wnids_of

TOP = Path(__file__).resolve().parents[1]
RECIPES = (
    "huh2016/images-per-class", "huh2016/classes-bottom-up", "huh2016/classes-top-down", "huh2016/budgets",
    "huh2016/pascal-removed", "huh2016/halves", "entezari2023/captions", "entezari2023/noise-size",
    "breeds/subpopulations", "longtail/imagenet-lt",
)  # fmt: skip
OPERATIONS: dict[str, Any] = {
    "per_class 500": {"per_class": {"images": 500, "short": "keep"}},
    "sample, proportional": {"sample": {"fraction": 0.5, "allocation": "proportional"}},
    "split": {"split": {"shares": {"val": 0.05}}},
    "relabel, bottom_up": {"relabel": {"cut": "bottom_up", "level": 9, "parents": "huh2016"}},
    "noise, symmetric": {"noise": {"rate": 0.2}},
    "noise, hierarchy": {"noise": {"kind": "hierarchy", "rate": 0.2}},
    "noise, sibling, per class": {"noise": {"kind": "sibling", "rate": 0.2, "per": "class"}},
    "caption, 80 templates": {"caption": {"templates": "openai-80"}},
    "mix_captions": [{"caption": "x {}"}, {"mix_captions": {"share": 0.5, "templates": "openai-80"}}],
    "shuffle_captions": [{"caption": "x {}"}, {"shuffle_captions": {"rate": 0.3}}],
    "filter": [
        {"caption": "a photo of {}"},
        {"filter": {"min_words": 3, "min_side": 260, "max_aspect": 2.0}},
    ],
    "top": {"top": {"by": "size", "fraction": 0.3}},
    "where": {"where": "width >= 400"},
    "nothing": [],
}
PYTHON_ROWS = 3_000_000  # as dictionaries, 14 million rows take more than 16 GB
PEERS = ("per_class 500", "relabel, bottom_up", "noise, symmetric", "caption, 80 templates")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_281_167)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="jobs whose name contains this")
    parser.add_argument("--work", type=Path, help="a folder to keep the manifest in, for the next time")
    parser.add_argument("--one", nargs=4, metavar=("JOB", "SIDE", "MANIFEST", "OUT"), help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.one:
        print(json.dumps(_one(*told.one)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = (told.work or Path(temporary)).resolve()
        os.environ["CURATE_CACHE"] = str(work / "cache")
        classes = wnids_of("imagenet-1k" if told.rows < 10_000_000 else "imagenet-21k")
        manifest = work / f"named-{told.rows}"
        if not manifest.exists():
            write_named(manifest, list(classes), told.rows)
        names = ("duckdb", "pyarrow", "pandas", "numpy")
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
        print(", ".join(f"{name} {version(name)}" for name in names))
        print(f"{told.rows:,} rows, {len(classes):,} classes, {told.rounds} rounds\n")
        recipes = RECIPES if told.rows < 10_000_000 else ()
        jobs = [j for j in [*recipes, *OPERATIONS] if told.only in j]
        print(
            "| job | plan s | build s | peak GB | rows | pandas | plain Python |\n|---|---:|---:|---:|---:|---:|---:|"
        )
        for job in jobs:
            print(_row(job, manifest, work / "out", told.rounds, told.rows), flush=True)


def _row(job: str, manifest: Path, out: Path, rounds: int, rows: int) -> str:
    ours = [_in_process(job, "ours", manifest, out) for _ in range(rounds)]
    plan, build = (statistics.median(r[key] for r in ours) for key in ("plan", "build"))
    cells = [f"{plan:.2f}", f"{build:.1f}", f"{max(r['peak'] for r in ours):.2f}", f"{ours[0]['rows']:,}"]
    for side in ("pandas", "python"):
        if side == "python" and rows > PYTHON_ROWS:
            cells.append("not tried" if job in PEERS else "")
        elif job in PEERS:
            theirs = [_in_process(job, side, manifest, out) for _ in range(rounds)]
            seconds, peak = statistics.median(r["build"] for r in theirs), max(r["peak"] for r in theirs)
            cells.append(f"{seconds:.1f} s (× {seconds / (plan + build):.1f}), {peak:.1f} GB")
        else:
            cells.append("")
    return f"| {job} | {' | '.join(cells)} |"


def _in_process(job: str, side: str, manifest: Path, out: Path) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, __file__, "--one", job, side, str(manifest), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job} ({side}): {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _one(job: str, side: str, manifest: str, out: str) -> dict[str, Any]:
    began = time.perf_counter()
    if side == "ours":
        measured = _ours(job, manifest, out)
    else:
        rows = {"pandas": _pandas, "python": _python}[side](job, f"{manifest}/manifest.parquet", out)
        measured = {"plan": 0.0, "build": time.perf_counter() - began, "rows": rows}
    return measured | {"peak": peak_bytes() / 1e9}


def _ours(job: str, manifest: str, out: str) -> dict[str, Any]:
    from curate.builds.build import build
    from curate.builds.plan import plan
    from curate.recipes.recipe import load, parse

    if job in OPERATIONS:
        steps = OPERATIONS[job]
        recipe = parse(
            {
                "name": "job",
                "source": {"dataset": manifest},
                "steps": steps if isinstance(steps, list) else [steps],
            }
        )
    else:
        given = {"imagenet": "-"}
        if job.endswith("captions"):
            given["captions"] = _captions(manifest)
        recipe = load(TOP / "recipes" / f"{job}.yaml", given)
        recipe = (recipe.family or (recipe,))[-1].model_copy(update={"source": {"dataset": manifest}})
        if job.startswith("huh2016/budgets"):  # a draw without classes too small
            recipe = (
                load(TOP / "recipes" / f"{job}.yaml", given)
                .family[1]
                .model_copy(update={"source": {"dataset": manifest}})
            )
    began = time.perf_counter()
    plan(recipe)
    planned = time.perf_counter()
    [built] = build(recipe, out, overlay=True)
    return {"plan": planned - began, "build": time.perf_counter() - planned, "rows": len(built.dataset)}


def _captions(manifest: str) -> str:
    """Write ImageNet-Captions' JSON for 463,622 of the files, unless it is there."""
    path = Path(manifest) / "captions.json"
    if not path.exists():
        files = pq.read_table(f"{manifest}/manifest.parquet", columns=["file"])["file"].to_pylist()[::2][
            :463_622
        ]
        with path.open("w") as stream:
            stream.write("[")
            for i, file in enumerate(files):
                told = {
                    "filename": file.rsplit("/", 1)[1],
                    "title": f"title {i}",
                    "tags": ["a", "b"],
                    "description": "c",
                }
                stream.write(("," if i else "") + json.dumps(told))
            stream.write("]")
    return str(path)


def _coarse() -> Callable[[str], str]:
    from curate.wordnet import cuts, tree

    cut: dict[str, str] = {}
    for name in ("imagenet-21k", "imagenet-1k"):
        cut |= cuts.bottom_up(wnids_of(name), tree("huh2016"))[8]
    return cut.__getitem__


def _pandas(job: str, manifest: str, out: str) -> int:
    import numpy as np
    import pandas as pd

    rows = pd.read_parquet(manifest)
    generator = np.random.default_rng(0)
    if job.startswith("per_class"):
        rows = rows.sample(frac=1, random_state=0).groupby("label").head(500)
    elif job.startswith("relabel"):
        rows["coarse"] = rows["wnid"].map(_coarse())
        rows["label"] = rows["coarse"].astype("category").cat.codes
    elif job.startswith("noise"):
        hit = generator.random(len(rows)) < 0.2
        classes = rows["label"].max() + 1
        step = generator.integers(1, classes, len(rows))
        rows["clean_label"] = rows["label"]
        rows["label"] = np.where(hit, (rows["label"] + step) % classes, rows["label"])
    else:
        from curate.captions.templates import named
        from curate.wordnet import nouns

        templates = np.array(named("openai-80"), dtype=object)
        drawn = templates[generator.integers(0, len(templates), len(rows))]
        called = rows["wnid"].map(nouns().name)
        rows["caption"] = [t.replace("{}", n) for t, n in zip(drawn, called, strict=True)]
    rows.sample(frac=1, random_state=1).to_parquet(f"{out}.parquet", compression="zstd")
    return len(rows)


def _python(job: str, manifest: str, out: str) -> int:
    rows = pq.read_table(manifest).to_pylist()
    generator = random.Random(0)
    if job.startswith("per_class"):
        groups: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault(row["label"], []).append(row)
        rows = [r for group in groups.values() for r in generator.sample(group, min(500, len(group)))]
    elif job.startswith("relabel"):
        coarse = _coarse()
        index: dict[str, int] = {}
        for row in rows:
            row["label"] = index.setdefault(coarse(row["wnid"]), len(index))
    elif job.startswith("noise"):
        classes = max(row["label"] for row in rows) + 1
        for row in rows:
            row["clean_label"] = row["label"]
            if generator.random() < 0.2:
                row["label"] = (row["label"] + generator.randrange(1, classes)) % classes
    else:
        from curate.captions.templates import named
        from curate.wordnet import nouns

        templates = named("openai-80")
        for row in rows:
            row["caption"] = generator.choice(templates).replace("{}", nouns().name(row["wnid"]))
    generator.shuffle(rows)
    pq.write_table(pa.Table.from_pylist(rows), f"{out}.parquet", compression="zstd")
    return len(rows)


if __name__ == "__main__":
    main()
