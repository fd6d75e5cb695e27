"""For Croissant, the description of datasets that search engines and data portals read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from curate.datasets.dataset import MANIFEST, Dataset
from curate.datasets.exports import sidecar
from curate.datasets.exports._contents import contents
from curate.io.files import write_atomic
from curate.io.progress import Quiet

# JSON-LD's words for those of the format, as its specification lists them.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "equivalentProperty": "cr:equivalentProperty",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
TYPES = {
    "VARCHAR": "sc:Text",
    "TINYINT": "sc:Integer",
    "SMALLINT": "sc:Integer",
    "INTEGER": "sc:Integer",
    "BIGINT": "sc:Integer",
    "UBIGINT": "sc:Integer",
    "FLOAT": "sc:Float",
    "DOUBLE": "sc:Float",
    "BOOLEAN": "sc:Boolean",
}
ELSEWHERE = ("file", "offset", "size")  # where the bytes came from, not where they are


@sidecar(use='mlcroissant.Dataset("{out}/croissant.json").records("rows")')
def croissant(dataset: Dataset, out: Path, progress: Quiet) -> list[Path]:
    """Write `croissant.json`: the files with their sha256, and three sets of records.

    `rows` are those of the manifest, `images` the images with their rows, `classes` the labels' names. For `images`
    mlcroissant unpacks the tars into a cache where it knows them by `shards/000000.tar` alone: give each dataset a
    `CROISSANT_CACHE` of its own, or it takes another's images for these.
    """
    columns = {c: TYPES[t] for c, t in dataset.info.columns.items() if t in TYPES and c not in ELSEWHERE}
    document = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": dataset.name,
        "description": f"{len(dataset):,} images in {len(dataset.classes):,} classes. Digest {dataset.digest}.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "version": "1.0.0",
        "distribution": _files(dataset),
        "recordSet": [_rows(columns), _images(columns), *_classes(dataset)],
    }
    path = out / "croissant.json"
    write_atomic(path, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    return [path]


def _files(dataset: Dataset) -> list[dict[str, Any]]:
    manifest = ("manifest", MANIFEST, "application/x-parquet", dataset.info.manifest_sha256)
    tars = [(s.file, s.file, "application/x-tar", s.sha256) for s in dataset.info.shards or []]
    files: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": file, "encodingFormat": kind,
            "sha256": sha256.removeprefix("sha256:"),
        }
        for name, file, kind, sha256 in [manifest, *tars]
    ]  # fmt: skip
    extensions = contents(str(dataset.manifest)).images
    files.append(
        {
            "@type": "cr:FileSet", "@id": "image-files", "name": "image-files",
            "containedIn": [{"@id": tar[0]} for tar in tars],
            "encodingFormat": [f"image/{'jpeg' if e == 'jpg' else e}" for e in extensions],
            "includes": [f"**/*.{e}" for e in extensions],
        }
    )  # fmt: skip
    return files


def _rows(columns: dict[str, str]) -> dict[str, Any]:
    fields = [_field("rows", c, kind, {"fileObject": {"@id": "manifest"}, "extract": {"column": c}})
              for c, kind in columns.items()]  # fmt: skip
    return _set("rows", fields) | {"key": {"@id": "rows/key"}}


def _images(columns: dict[str, str]) -> dict[str, Any]:
    files = {"fileSet": {"@id": "image-files"}}
    name = files | {
        "extract": {"fileProperty": "fullpath"},
        "transform": {"regex": "^([^.]+)"},
    }  # keys have no dots
    fields = [
        _field("images", "key", "sc:Text", name) | {"references": {"field": {"@id": "rows/key"}}},
        _field("images", "image", "sc:ImageObject", files | {"extract": {"fileProperty": "content"}}),
    ]
    row_fields = [
        _field("images", c, kind, {"field": {"@id": f"rows/{c}"}})
        for c, kind in columns.items()
        if c != "key"
    ]
    return _set("images", fields + row_fields)


def _classes(dataset: Dataset) -> list[dict[str, Any]]:
    if not dataset.classes:
        return []
    data = [
        {"classes/index": i, "classes/name": c.name, "classes/wnid": c.wnid}
        for i, c in enumerate(dataset.classes)
    ]
    kinds = {"index": "sc:Integer", "name": "sc:Text", "wnid": "sc:Text"}
    fields = [_field("classes", name, kind) for name, kind in kinds.items()]
    return [_set("classes", fields) | {"key": {"@id": "classes/index"}, "data": data}]


def _set(name: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}


def _field(records: str, name: str, kind: str, source: dict[str, Any] | None = None) -> dict[str, Any]:
    field = {"@type": "cr:Field", "@id": f"{records}/{name}", "name": name, "dataType": kind}
    return field | ({"source": source} if source else {})
