"""What is in a dataset: its ledger, classes, sizes, captions and noise."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from curate.datasets.contracts import outside
from curate.datasets.dataset import open_dataset

CONFUSIONS = 10
CAPTIONS = 5


@dataclass(frozen=True)
class Balance:
    """How evenly the labelled rows lie over the classes.

    Args:
        smallest, median, largest: rows of such a class.
        ratio: largest over smallest, the imbalance ratio; 1 is balanced.
        effective: how many classes of equal size would have the same entropy.
        singletons: coarse classes that took in one fine class only; of all classes where none was merged.
        most_fine: fine classes in the class that took in most.
    """

    smallest: int
    median: float
    largest: int
    ratio: float
    effective: float
    singletons: int
    most_fine: int


@dataclass(frozen=True)
class Summary:
    """A dataset in numbers.

    Args:
        counts: class name → rows, in label order; of all classes.
        fine: class name → fine classes merged into it; 1 for one that is itself.
        balance: of the labelled rows over the classes; None without labels.
        majority: share of the labelled rows in the largest class: what guessing it would score.
        pixels: smallest, median and largest width and height.
        splits: split → rows.
        noise_rate: share of labels that are not the true ones; None without `clean_label`.
        confusions: the most frequent wrong labels: true class, given class, rows.
        captions: rows with one, and examples.
        outside: in words, where images lie outside of the dataset's folder.
        resize: what resizing came to, as `build.json` has it.
    """

    name: str
    path: str
    digest: str
    rows: int
    bytes: int
    shards: int | None
    root: str
    ledger: list[dict[str, Any]]
    left_out: dict[str, int]
    counts: dict[str, int]
    fine: dict[str, int]
    balance: Balance | None
    majority: float | None
    pixels: dict[str, list[int]]
    splits: dict[str, int]
    noise_rate: float | None
    confusions: list[tuple[str, str, int]]
    captioned: int
    captions: list[str]
    resize: dict[str, Any] | None = None
    outside: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def summarize(path: str | Path) -> Summary:
    """Read a dataset and return its summary.

    Raises:
        RecipeError: there is no dataset.
        DataError: its manifest cannot be read.
    """
    dataset = open_dataset(path)
    info = dataset.info
    wanted = ["key", "label", "caption", "split", "width", "height", "clean_label"]
    with duckdb.connect() as con:
        con.register("rows", dataset.table([c for c in wanted if c in info.columns]))
        names = [c.name for c in dataset.classes]
        counted = dict(
            con.execute("SELECT label, count(*) FROM rows WHERE label IS NOT NULL GROUP BY 1").fetchall()
        )
        labelled = sum(counted.values())
        rate, confusions = _noise(con, names) if "clean_label" in info.columns else (None, [])
        captions = [r[0] for r in con.execute(
            f"SELECT caption FROM rows WHERE caption IS NOT NULL LIMIT {CAPTIONS}").fetchall()]  # fmt: skip
        return Summary(
            name=dataset.name,
            path=str(path),
            digest=dataset.digest,
            rows=info.rows,
            bytes=info.bytes,
            shards=None if info.shards is None else len(info.shards),
            root=dataset.byte_root,
            outside=outside(dataset),
            ledger=[s.model_dump() for s in info.ledger],
            left_out=info.source.get("left_out", {}),
            counts={name: counted.get(i, 0) for i, name in enumerate(names)},
            fine={c.name: len(c.fine) or 1 for c in dataset.classes},
            balance=_balance(sorted(counted.values()), [len(c.fine) or 1 for c in dataset.classes]),
            majority=max(counted.values()) / labelled if labelled else None,
            pixels=_pixels(con),
            splits=dict(con.execute(
                "SELECT split, count(*) FROM rows WHERE split IS NOT NULL GROUP BY 1 ORDER BY 1").fetchall()),
            noise_rate=rate,
            confusions=confusions,
            captioned=_one(con, "SELECT count(caption) FROM rows")[0],
            captions=captions,
            resize=dataset.build_record().get("resize"),
        )  # fmt: skip


def gain(resize: dict[str, Any]) -> str:
    """Return in words what resizing came to."""
    gains = f"{resize['shrunk']:,} of {resize['images']:,} images made smaller"
    gains += f": {resize['bytes_ratio']:.2f} of the bytes"
    ratio = resize["decode_time_ratio"]
    return gains + (f", {ratio:.2f} of the time to decode those" if ratio is not None else "")


def notes(step: dict[str, Any]) -> str:
    """Return in words what a step of the ledger noted: why it dropped rows, and what else."""
    return "; ".join([f"{count:,} {reason}" for reason, count in step["refused"].items()] + step["notes"])


def _balance(counts: list[int], fine: list[int]) -> Balance | None:
    if not counts:
        return None
    total = sum(counts)
    entropy = -sum(n / total * math.log(n / total) for n in counts)
    return Balance(
        smallest=counts[0],
        median=statistics.median(counts),
        largest=counts[-1],
        ratio=counts[-1] / counts[0],
        effective=math.exp(entropy),
        singletons=fine.count(1),
        most_fine=max(fine),
    )


def _one(con: Any, query: str) -> tuple[Any, ...]:
    return con.execute(query).fetchall()[0]


def _pixels(con: Any) -> dict[str, list[int]]:
    pixels = {}
    for side in ("width", "height"):
        low, middle, high = _one(con, f"SELECT min({side}), median({side})::INTEGER, max({side}) FROM rows")
        if low is not None:
            pixels[side] = [low, middle, high]
    return pixels


def _noise(con: Any, names: list[str]) -> tuple[float, list[tuple[str, str, int]]]:
    wrong, labelled = _one(
        con, "SELECT count(*) FILTER (label IS DISTINCT FROM clean_label), count(label) FROM rows"
    )
    pairs = con.execute(
        "SELECT clean_label, label, count(*) AS n FROM rows WHERE label IS DISTINCT FROM clean_label "
        f"GROUP BY ALL ORDER BY n DESC, 1, 2 LIMIT {CONFUSIONS}"
    ).fetchall()
    named = [tuple("none" if i is None else names[i] for i in pair) for *pair, _ in pairs]
    return wrong / max(labelled, 1), [(t, g, n) for (t, g), (_, _, n) in zip(named, pairs, strict=True)]
