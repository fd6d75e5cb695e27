"""A table in LAION-400M's layout, and the slice of it that peers cut, each in its own words.

Every value is a function of the row's number (splitmix64), so that a table is the same table on every
machine. DuckDB writes it, one part at a time: as with LAION's own files, which Spark wrote, its texts are
known to be UTF-8.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

PART_ROWS = 1_000_000
LANGUAGE, LEAST = "en", 0.28  # of the preset laion2b
HOSTS = 60_000
_SAID = """
the of and a in to for with on red blue photo image new free vintage house cat dog car woman man black white
design poster print wedding dress shoes art beach sunset mountain kitchen living room wall decor leather bag
watch ring gold silver baby kids summer winter christmas happy birthday card logo vector stock set large
small old river bridge portrait street garden flower tree bird horse glass wood metal cotton hand made sale
best price size home office school city night light water sky green yellow pink brown modern classic simple
cute funny music guitar book cover phone case laptop camera lens football team player game girl boy family
children food recipe cake chocolate coffee tea wine
"""
WORDS = _SAID.split()


def write_table(folder: Path, rows: int) -> float:
    """Write the parts that are not there yet, two at a time, and return the seconds that it took."""
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    starts = [b for b in range(0, rows, PART_ROWS) if not _part(folder, b).exists()]
    with ProcessPoolExecutor(min(os.cpu_count() or 1, max(1, len(starts)))) as pool:
        for _ in pool.map(_write_part, [folder] * len(starts), starts, [rows] * len(starts)):
            pass
    return time.perf_counter() - began


def _part(folder: Path, start: int) -> Path:
    return folder / f"part-{start // PART_ROWS:05d}.parquet"


def _write_part(folder: Path, start: int, rows: int) -> None:
    import duckdb

    table = part(start, min(rows, start + PART_ROWS))  # noqa: F841 - DuckDB finds it by its name
    out = _part(folder, start)
    beside = out.with_suffix(".tmp")
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute(f"COPY (FROM \"table\") TO '{beside}' (FORMAT parquet, COMPRESSION zstd)")
    os.replace(beside, out)


def part(start: int, stop: int) -> Any:
    """Return the rows of these numbers as an Arrow table: 34 of 100 are wanted."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = np.arange(start, stop, dtype=np.uint64)

    def below(limit: int, salt: int) -> Any:
        return (_mixed(rows * np.uint64(32) + np.uint64(salt)) >> np.uint64(32)).astype(np.int64) % limit

    def one_of(values: list[str], salt: int) -> Any:
        return pa.array(values).take(pa.array(below(len(values), salt)))

    first, last = ["cdn", "i", "images", "static", "img"], [".com", ".org", ".net"]
    hosts = [f"https://{first[n % 5]}{n}.example{last[n % 3]}/" for n in range(HOSTS)]
    pairs = np.array([f"{n:02x}" for n in range(256)], dtype="S2")
    digits = pairs[_mixed(rows * np.uint64(32)).view(np.uint8)].tobytes()  # 16 of a row
    ends = np.arange(len(rows) + 1, dtype=np.int32)
    names = pa.StringArray.from_buffers(len(rows), pa.py_buffer(ends * 16), pa.py_buffer(digits))
    years = [f"{year}/" for year in range(2008, 2023)]
    urls = pc.binary_join_element_wise(one_of(hosts, 1), one_of(years, 2), names, ".jpg", "")

    lengths = 4 + below(12, 3)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    places = np.arange(ends[-1], dtype=np.uint64) - np.repeat(ends[:-1], lengths).astype(np.uint64)
    chosen = _mixed(np.repeat(rows, lengths) * np.uint64(32) + places + np.uint64(1 << 60)) >> np.uint64(32)
    words = pa.array(WORDS).take(pa.array(chosen.astype(np.int64) % len(WORDS)))
    texts = pc.binary_join(pa.ListArray.from_arrays(pa.array(ends, pa.int32()), words), " ")
    return pa.table(
        {
            "SAMPLE_ID": pa.array(rows.astype(np.int64)),
            "URL": urls,
            "TEXT": texts,
            "HEIGHT": pa.array((200 + below(1400, 4)).astype(np.int32)),
            "WIDTH": pa.array((200 + below(1400, 5)).astype(np.int32)),
            "LICENSE": pa.array(["?"]).take(pa.array(np.zeros(len(rows), np.int8))),
            "NSFW": one_of(["UNLIKELY", "UNLIKELY", "UNLIKELY", "UNLIKELY", "UNSURE", "NSFW"], 6),
            "similarity": pa.array(0.2 + below(2_000_000, 7) / 1e7),
            "LANGUAGE": one_of(["en", "en", "en", "en", "de", "fr", "ru"], 8),
        }
    )


def _mixed(numbers: Any) -> Any:
    """Return splitmix64 of each number; products are modulo 2**64."""
    import numpy as np

    with np.errstate(over="ignore"):
        z = numbers + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def pandas(folder: str, out: str, number: int) -> str:
    """All files into one frame, rows chosen while reading; SipHash under pandas' fixed key."""
    import pandas as pd

    rows = pd.read_parquet(folder, filters=[("LANGUAGE", "==", LANGUAGE), ("similarity", ">=", LEAST)])
    rows["hash"] = pd.util.hash_pandas_object(rows["URL"] + "\n" + rows["TEXT"], index=False)
    rows.nsmallest(number, "hash").to_parquet(f"{out}.parquet", compression="zstd")
    return pd.__version__


def polars(folder: str, out: str, number: int) -> str:
    """Lazy and streaming; polars promises its hash within a version only."""
    import polars as pl

    key = pl.concat_str(["URL", "TEXT"], separator="\n").hash(seed=0)
    kept = pl.scan_parquet(folder).filter((pl.col("LANGUAGE") == LANGUAGE) & (pl.col("similarity") >= LEAST))
    drawn = kept.with_columns(hash=key).sort("hash").head(number)
    drawn.sink_parquet(f"{out}.parquet", compression="zstd", engine="streaming")
    return pl.__version__


def polars_two(folder: str, out: str, number: int) -> str:
    """The hash's limit first, from two columns; then the rows below it: two passes, and less to sort."""
    import polars as pl

    key = pl.concat_str(["URL", "TEXT"], separator="\n").hash(seed=0)
    kept = pl.scan_parquet(folder).filter((pl.col("LANGUAGE") == LANGUAGE) & (pl.col("similarity") >= LEAST))
    hashes = kept.select(hash=key).collect(engine="streaming")["hash"]
    limit = hashes.bottom_k(number).max()
    below = kept.with_columns(hash=key).filter(pl.col("hash") <= limit)
    below.sort("hash").head(number).sink_parquet(f"{out}.parquet", compression="zstd", engine="streaming")
    return pl.__version__


def pyspark(folder: str, out: str, number: int) -> str:
    """local[2] and a driver of 4 GB; xxhash64."""
    import pyspark
    from pyspark.sql import SparkSession, functions

    options = {"spark.driver.memory": "4g", "spark.sql.parquet.compression.codec": "zstd"}
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    for name, value in options.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    rows = session.read.parquet(folder).where(f"LANGUAGE = '{LANGUAGE}' AND similarity >= {LEAST}")
    hashed = rows.withColumn("hash", functions.xxhash64(functions.concat_ws("\n", "URL", "TEXT")))
    hashed.orderBy("hash").limit(number).write.parquet(f"{out}.parquet")
    session.stop()
    return pyspark.__version__


PEERS = {"pandas": pandas, "polars": polars, "polars-two-passes": polars_two, "pyspark": pyspark}


if __name__ == "__main__":
    side, folder, out, number = sys.argv[1:]
    print(json.dumps({"version": PEERS[side](folder, out, int(number))}))
