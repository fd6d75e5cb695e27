"""Manifests of the size of ImageNet, made by naming the files: no pixels are needed to plan and build overlays."""

from __future__ import annotations

from pathlib import Path

import duckdb

from curate.datasets.dataset import INFO, MANIFEST, ClassRecord, DatasetInfo, file_sha256, render
from curate.rows.manifest import CORE, Class, content_digest, ordered, rows_digest
from curate.rows.sql import quoted, text
from curate.sources._index_cache import class_list


def write_named(folder: Path, wnids: list[str], rows: int) -> None:
    """Write an overlay of so many rows over these classes, of sizes between 0.57 and 1.02 of the even one.

    ImageNet's own classes have 732 to 1,300 images. The last class takes what the rounding leaves.
    """
    folder.mkdir(parents=True)
    classes = class_list(sorted(wnids))
    with duckdb.connect(str(folder / "rows.duckdb")) as con:
        con.execute("CREATE TABLE w AS SELECT unnest(range(?)) AS label, unnest(?::VARCHAR[]) AS wnid",
                    [len(wnids), sorted(wnids)])  # fmt: skip
        per = rows / len(wnids)
        size = f"CASE WHEN label % 10 = 0 THEN {per} * (0.58 + label % 7 * 0.05) ELSE {per} * 1.03 END"
        con.execute(
            f"CREATE TABLE named AS SELECT wnid || '/' || wnid || '_' || i AS key, label, wnid, i FROM w, "
            f"range(({size})::BIGINT) r(i) LIMIT {rows}"
        )
        chance = "md5_number_lower(key)"
        con.execute(
            f"CREATE TABLE final AS SELECT key, 'train/' || key || '.JPEG' AS file, 0::BIGINT AS \"offset\", "
            f"(60000 + {chance} % 150000)::BIGINT AS size, 'jpg' AS ext, (300 + {chance} % 300)::INTEGER AS width, "
            f"(250 + {chance} % 251)::INTEGER AS height, label::INTEGER AS label, NULL::VARCHAR AS caption, "
            f"'train' AS split, wnid FROM named ORDER BY key"
        )
        columns = ordered([*CORE, "wnid"])
        chosen = ", ".join(map(quoted, columns))
        con.execute(
            f"COPY (SELECT {chosen} FROM final) TO {text(str(folder / MANIFEST))} (FORMAT parquet, COMPRESSION zstd)"
        )
        digest = content_digest(rows_digest(con, "final", "rowid", columns), classes)
        count, size = con.execute("SELECT count(*), sum(size) FROM final").fetchone() or (0, 0)
    (folder / "rows.duckdb").unlink()
    info = DatasetInfo(
        name=folder.name, digest=digest, plan="-", rows=count, bytes=size, root=".", columns=CORE | {"wnid": "VARCHAR"},
        classes=[_record(i, c) for i, c in enumerate(classes)], recipe={}, source={}, ledger=[],
        manifest_sha256=file_sha256(folder / MANIFEST),
    )  # fmt: skip
    (folder / INFO).write_bytes(render(info))


def _record(label: int, one: Class) -> ClassRecord:
    return ClassRecord(index=label, name=one.name, wnid=one.wnid)
