"""The published layouts: small files built as the sets are published give the rows that the sets hold."""

from __future__ import annotations

import csv
import gzip
import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from curate.cli.layouts_page import markdown
from curate.errors import RecipeError
from curate.sources.table.layouts import guessing
from curate.sources.table.layouts.guessing import Guess
from curate.sources.table.layouts.layout import COLUMNS, TableLayout
from curate.sources.table.layouts.published import LAYOUTS

HTTP = "http://example.com/a b,c.jpg?x=1&y=%2C"
QUOTED = 'he said "hello", then left'
OPEN = '"an opened quotation that nobody closed'
UMLAUT = "Käse – 奶酪 🧀"


def read(relation: str, layout: TableLayout, *, where: str = "file") -> list[dict[str, Any]]:
    """Return the rows that a layout makes of a relation, by the SQL that it gives and DuckDB alone."""
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE file AS FROM {relation}")
        there = {name: kind for name, kind, *_ in con.execute("DESCRIBE file").fetchall()}
        unnested = layout.unnesting(there, "file")
        con.execute(f"CREATE TABLE pairs AS {unnested or 'FROM file'}")
        there = {name: kind for name, kind, *_ in con.execute("DESCRIBE pairs").fetchall()}
        picked = ", ".join(
            f'{sql} AS "{column}"' for column, sql in layout.select(there, where=where).items()
        )
        rows = con.execute(f"SELECT {picked} FROM pairs")
        names = [d[0] for d in rows.description or ()]
        return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


def parquet(path: Path, kinds: Mapping[str, str], *rows: Sequence[Any]) -> str:
    """Write a Parquet file of these columns and types; return how DuckDB reads it."""
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE t ({', '.join(f'{name} {kind}' for name, kind in kinds.items())})")
        con.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(kinds))})", rows)
        con.execute(f"COPY t TO '{path}' (FORMAT parquet)")
    return f"read_parquet('{path}')"


def tsv(path: Path, layout: TableLayout, *lines: Sequence[str]) -> str:
    """Write lines as they are, without quoting or header; return how DuckDB reads them as the layout says."""
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    names = list(layout.header(len(lines[0]), where="file"))
    form = "delim = '\t', quote = '', escape = '', header = false, all_varchar = true"
    return f"read_csv('{path}', {form}, names = {names})"


def json_file(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document), encoding="utf-8")
    return f"read_json('{path}', maximum_object_size = {max(path.stat().st_size, 2**24)})"


def told(rows: Sequence[Mapping[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[c] for c in columns) for row in rows]


def guessed(relation: str) -> str:
    with duckdb.connect() as con:
        return guessing.guess(list(con.sql(f"FROM {relation} LIMIT 0").columns), where="file").layout.name


LAION_400M = {
    "SAMPLE_ID": "DOUBLE", "URL": "VARCHAR", "TEXT": "VARCHAR", "HEIGHT": "DOUBLE", "WIDTH": "DOUBLE",
    "LICENSE": "VARCHAR", "NSFW": "VARCHAR", "similarity": "DOUBLE",
}  # fmt: skip
LAION_JOINED = {
    "URL": "VARCHAR", "TEXT": "VARCHAR", "WIDTH": "BIGINT", "HEIGHT": "BIGINT", "similarity": "DOUBLE",
    "hash": "BIGINT", "punsafe": "FLOAT", "pwatermark": "FLOAT", "LANGUAGE": "VARCHAR",
}  # fmt: skip


def test_laion_400m_has_its_tag_its_score_and_its_sizes(tmp_path: Path) -> None:
    file = parquet(
        tmp_path / "t.parquet", LAION_400M,
        (1.0, HTTP, QUOTED, 480.0, 640.0, "?", "UNLIKELY", 0.31),
        (2.0, HTTP + "2", UMLAUT, float("nan"), 10.0, None, "NSFW", 0.5),
    )  # fmt: skip
    rows = read(file, guessing.find("laion"))
    assert told(rows, "url", "caption", "width", "height", "similarity", "nsfw") == [
        (HTTP, QUOTED, 640, 480, 0.31, "UNLIKELY"),
        (HTTP + "2", UMLAUT, 10, None, 0.5, "NSFW"),
    ]
    assert told(rows, "sample_id", "license") == [(1.0, "?"), (2.0, None)]
    assert "language" not in rows[0]
    assert guessed(file) == "laion"


def test_laion_5b_joined_has_a_probability_and_a_language(tmp_path: Path) -> None:
    file = parquet(tmp_path / "t.parquet", LAION_JOINED, (HTTP, QUOTED, 640, 480, 0.31, -5, 0.25, 0.75, "en"))
    (row,) = read(file, guessing.find("laion"))
    assert (row["width"], row["height"], row["nsfw"], row["language"]) == (640, 480, "0.25", "en")
    assert (row["hash"], row["pwatermark"]) == (-5, 0.75)
    assert guessed(file) == "laion"


def test_laion_as_img2dataset_keeps_it_is_laion_too(tmp_path: Path) -> None:
    kinds = {
        "url": "VARCHAR", "caption": "VARCHAR", "original_width": "BIGINT", "punsafe": "DOUBLE", "pwatermark": "DOUBLE",
        "key": "VARCHAR",
    }  # fmt: skip
    file = parquet(tmp_path / "t.parquet", kinds, (HTTP, QUOTED, 640, 0.1, 0.2, "000001"))
    (row,) = read(file, guessing.find("laion"))
    assert (row["url"], row["caption"], row["width"], row["nsfw"]) == (HTTP, QUOTED, 640, "0.1")
    assert row["table_key"] == "000001"  # `key` is ours
    assert guessed(file) == "laion"


def test_cc3m_has_the_caption_first_and_no_header(tmp_path: Path) -> None:
    lines = [(QUOTED, HTTP), (OPEN, HTTP + "2"), (UMLAUT, HTTP + "3")]
    layout = guessing.find("cc3m")
    file = tsv(tmp_path / "t.tsv", layout, *lines)
    assert told(read(file, layout), "caption", "url") == lines


def test_cc3m_on_the_hub_has_an_image_url_with_or_without_labels(tmp_path: Path) -> None:
    kinds = {"image_url": "VARCHAR", "caption": "VARCHAR"}
    plain = parquet(tmp_path / "plain.parquet", kinds, (HTTP, QUOTED))
    assert told(read(plain, guessing.find("cc3m")), "url", "caption") == [(HTTP, QUOTED)]
    kinds |= {"labels": "VARCHAR[]", "MIDs": "VARCHAR[]", "confidence_scores": "DOUBLE[]"}
    labelled = parquet(tmp_path / "labelled.parquet", kinds, (HTTP, QUOTED, ["cat"], ["/m/01yrx"], [0.9]))
    (row,) = read(labelled, guessing.find("cc3m"))
    assert (row["url"], row["labels"], row["mids"]) == (HTTP, ["cat"], ["/m/01yrx"])
    assert (guessed(plain), guessed(labelled)) == ("auto", "cc3m")


def test_cc12m_has_the_url_first(tmp_path: Path) -> None:
    lines = [(HTTP, QUOTED), (HTTP + "2", OPEN), (HTTP + "3", "<PERSON> on a horse")]
    layout = guessing.find("cc12m")
    assert told(read(tsv(tmp_path / "t.tsv", layout, *lines), layout), "url", "caption") == lines


YFCC_LINE = (
    "7", "6185218911", "4e2f7a26a1dfbf165a7e30bdabf7e72a", "39019111@N00", "nick+name", "2012-02-16 09:56:37.0",
    "1331840483", "Canon+PowerShot", "Caf%C3%A9+%26+C%2B%2B",
    "see+%3Ca+href%3D%22http%3A%2F%2Fx%22%3Ehere%3C%2Fa%3E%0A+100%25",
    "caf%C3%A9,two+words", "", "-81.8", "24.5", "12", "http://www.flickr.com/photos/39019111@N00/6185218911/",
    "http://farm8.staticflickr.com/7205/6185218911_df5d4dcbd3.jpg", "Attribution License",
    "http://creativecommons.org/licenses/by/2.0/", "7205", "8", "df5d4dcbd3", "1c1c1c1c1c", "jpg", "0",
)  # fmt: skip


@pytest.mark.parametrize("cut", [0, 1], ids=["25 columns", "23 columns"])
def test_yfcc_texts_are_decoded_and_joined(cut: int, tmp_path: Path) -> None:
    line = YFCC_LINE if not cut else (YFCC_LINE[1], *YFCC_LINE[3:])
    bare = list(line)
    bare[line.index("Caf%C3%A9+%26+C%2B%2B")] = "%E9t%E9"  # Latin-1, which no decoder of UTF-8 takes
    bare[line.index(YFCC_LINE[9])] = ""
    layout = guessing.find("yfcc15m")
    rows = read(tsv(tmp_path / "t.tsv", layout, line, bare), layout)
    url = "http://farm8.staticflickr.com/7205/6185218911_df5d4dcbd3.jpg"
    assert told(rows, "url", "caption", "title", "description") == [
        (url, "Café & C++ see here 100%", "Café & C++", "see here 100%"),
        (url, "%E9t%E9", "%E9t%E9", None),
    ]
    assert told(rows, "photoid", "licensename", "marker") == [("6185218911", "Attribution License", "0")] * 2
    assert rows[0].get("hash") == (None if cut else YFCC_LINE[2])
    assert "ext" not in rows[0]  # it is ours
    assert rows[0]["table_ext"] == "jpg"


def test_a_yfcc_table_that_others_made_is_not_decoded_twice(tmp_path: Path) -> None:
    kinds = {"photoid": "BIGINT", "title": "VARCHAR", "description": "VARCHAR", "url": "VARCHAR"}
    file = parquet(tmp_path / "t.parquet", kinds, (1, "C++ 100%25", None, HTTP))
    (row,) = read(file, guessing.find("yfcc15m"))
    assert (row["url"], row["caption"], row["photoid"]) == (HTTP, "C++ 100%25", 1)
    assert guessed(file) == "yfcc15m"


def test_yfcc_as_json_lines_takes_the_clean_texts_where_there_are_some(tmp_path: Path) -> None:
    raw = dict(zip(guessing.find("yfcc15m").header(25, where="file"), YFCC_LINE, strict=True))
    path = tmp_path / "t.jsonl"
    lines = [raw | {"key": "ab", "title_clean": "A", "description_clean": ""}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (row,) = read(f"read_json('{path}')", guessing.find("yfcc15m"))
    assert (row["caption"], row["title"], row["table_key"]) == ("A", "A", "ab")
    assert guessed(f"read_json('{path}')") == "yfcc15m"


REDCAPS = {
    "image_id": "5zyxw1", "author": "somebody", "url": "https://i.redd.it/a.jpg",
    "raw_caption": 'My [OC] "Käse", tab\there', "caption": 'my "kase", tab here', "subreddit": "food", "score": 12,
    "created_utc": 1500000000, "permalink": "/r/food/comments/5zyxw1/x/",
}  # fmt: skip


def test_redcaps_rows_are_inside_the_annotations(tmp_path: Path) -> None:
    info = {
        "start_date": "2017-01-01",
        "end_date": "2017-12-31",
        "url": "https://redcaps.xyz",
        "version": "1.0",
    }
    second = REDCAPS | {"image_id": "b", "url": "https://i.imgur.com/b.jpg", "crosspost_parents": ["5abc"]}
    file = json_file(tmp_path / "food_2017.json", {"info": info, "annotations": [REDCAPS, second]})
    rows = read(file, guessing.find("redcaps"))
    assert told(rows, "url", "caption", "raw_caption", "subreddit", "score") == [
        (REDCAPS["url"], REDCAPS["caption"], REDCAPS["raw_caption"], "food", 12),
        ("https://i.imgur.com/b.jpg", REDCAPS["caption"], REDCAPS["raw_caption"], "food", 12),
    ]
    assert told(rows, "crosspost_parents", "image_id") == [(None, "5zyxw1"), (["5abc"], "b")]
    assert guessed(file) == "redcaps"


def test_redcaps_as_a_plain_list_or_on_the_hub_needs_no_unnesting(tmp_path: Path) -> None:
    plain = json_file(tmp_path / "shard.json", [REDCAPS])
    assert told(read(plain, guessing.find("redcaps")), "url", "caption") == [
        (REDCAPS["url"], REDCAPS["caption"])
    ]
    kinds = dict.fromkeys(("image_id", "image_url", "raw_caption", "caption"), "VARCHAR")
    kinds |= {"subreddit": "INTEGER", "permalink": "VARCHAR"}
    hub = parquet(tmp_path / "t.parquet", kinds, ("a", HTTP, QUOTED, UMLAUT, 7, "/r/x"))
    assert told(read(hub, guessing.find("redcaps")), "url", "caption", "subreddit") == [(HTTP, UMLAUT, 7)]
    assert (guessed(plain), guessed(hub)) == ("redcaps", "redcaps")


def test_coco_is_not_taken_for_redcaps(tmp_path: Path) -> None:
    coco = {
        "info": {},
        "licenses": [],
        "images": [{"id": 1}],
        "annotations": [{"image_id": 1, "caption": "a"}],
    }
    file = json_file(tmp_path / "captions_val2017.json", coco)
    with pytest.raises(RecipeError, match="no column looks like the url"):
        guessed(file)


WIT = (
    "language", "page_url", "image_url", "page_title", "section_title", "hierarchical_section_title",
    "caption_reference_description", "caption_attribution_description", "caption_alt_text_description", "mime_type",
    "original_height", "original_width", "is_main_image", "attribution_passes_lang_id", "page_changed_recently",
    "context_page_description", "context_section_description",
)  # fmt: skip


def test_wit_has_the_reference_description_and_the_language(tmp_path: Path) -> None:
    path = tmp_path / "wit_v1.train.all-00000-of-00010.tsv.gz"
    page = "https://en.wikipedia.org/wiki/Cheese"
    first = (
        "en",
        page,
        HTTP,
        "Cheese",
        "",
        "Cheese",
        QUOTED,
        "English: a\ttab",
        UMLAUT,
        "image/jpeg",
        "480",
        "640",
    )
    second = ("de", page, HTTP + "2", "Käse", "", "Käse", " ", "Deutsch: x", "", "image/png", "1", "2")
    with gzip.open(path, "wt", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, delimiter="\t", quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
        writer.writerows(
            [WIT, *((*line, "true", "false", "true", "page", "section") for line in (first, second))]
        )
    layout = guessing.find("wit")
    file = f"read_csv('{path}', delim = '\t', quote = '{layout.quote}', header = true)"
    rows = read(file, layout)
    assert told(rows, "url", "caption", "width", "height", "language") == [
        (HTTP, QUOTED, 640, 480, "en"),
        (HTTP + "2", None, 2, 1, "de"),
    ]
    assert told(rows, "caption_attribution_description", "page_title", "mime_type") == [
        ("English: a\ttab", "Cheese", "image/jpeg"),
        ("Deutsch: x", "Käse", "image/png"),
    ]
    assert guessed(file) == "wit"


@pytest.mark.parametrize(
    "names",
    [
        ("image_url", "description", "image_width"),
        ("url", "caption", "width"),
        ("preview_url", "title", "original_width"),
    ],
)
def test_shutterstock_is_read_by_usual_names(names: tuple[str, ...], tmp_path: Path) -> None:
    kinds = dict.fromkeys(names, "VARCHAR") | {"id": "BIGINT"}
    (row,) = read(
        parquet(tmp_path / "t.parquet", kinds, (HTTP, QUOTED, "640", 5)), guessing.find("shutterstock")
    )
    assert (row["url"], row["caption"], row["width"], row["id"]) == (HTTP, QUOTED, 640, 5)


def test_datacomp_keeps_both_scores_and_the_hash(tmp_path: Path) -> None:
    kinds = {
        "uid": "VARCHAR", "url": "VARCHAR", "text": "VARCHAR", "original_width": "BIGINT", "original_height": "BIGINT",
        "clip_b32_similarity_score": "DOUBLE", "clip_l14_similarity_score": "DOUBLE", "face_bboxes": "DOUBLE[][]",
        "sha256": "VARCHAR",
    }  # fmt: skip
    file = parquet(
        tmp_path / "t.parquet", kinds, ("ab" * 16, HTTP, UMLAUT, 640, 480, 0.29, 0.21, [[0.1] * 4], "f" * 64)
    )
    (row,) = read(file, guessing.find("datacomp"))
    assert (row["url"], row["caption"], row["width"], row["height"]) == (HTTP, UMLAUT, 640, 480)
    assert (row["similarity"], row["clip_l14_similarity_score"]) == (0.29, 0.21)
    assert (row["sha256"], row["uid"], row["face_bboxes"]) == ("f" * 64, "ab" * 16, [[0.1] * 4])
    assert guessed(file) == "datacomp"


def test_imagenet_captions_have_a_text_but_no_url(tmp_path: Path) -> None:
    lines = [
        {
            "filename": "n01440764_1.JPEG",
            "title": "Tench",
            "tags": ["fish", "big catch"],
            "description": QUOTED,
        },
        {"filename": "n01440764_2.JPEG", "title": "", "tags": [], "description": ""},
    ]
    lines = [line | {"wnid": "n01440764"} for line in lines]
    file = json_file(tmp_path / "imagenet_captions.json", lines)
    rows = read(file, guessing.find("imagenet-captions"))
    assert told(rows, "url", "caption", "filename", "wnid") == [
        (None, f"Tench fish big catch {QUOTED}", "n01440764_1.JPEG", "n01440764"),
        (None, None, "n01440764_2.JPEG", "n01440764"),
    ]
    assert told(rows, "title", "tags") == [("Tench", ["fish", "big catch"]), ("", [])]
    assert guessed(file) == "imagenet-captions"


def test_sbu_lists_are_parallel(tmp_path: Path) -> None:
    lists = {
        "image_urls": [HTTP, HTTP + "2"],
        "user_ids": ["47889917@N08", "b"],
        "captions": [QUOTED, UMLAUT],
    }
    file = json_file(tmp_path / "sbu-captions-all.json", lists)
    rows = read(file, guessing.find("sbu"))
    assert told(rows, "url", "caption", "user_ids") == [
        (HTTP, QUOTED, "47889917@N08"),
        (HTTP + "2", UMLAUT, "b"),
    ]
    kinds = {"image_url": "VARCHAR", "user_id": "VARCHAR", "caption": "VARCHAR"}
    hub = parquet(tmp_path / "t.parquet", kinds, (HTTP, "a", QUOTED))
    assert told(read(hub, guessing.find("sbu")), "url", "caption") == [(HTTP, QUOTED)]
    assert (guessed(file), guessed(hub)) == ("sbu", "sbu")


def test_no_signature_is_another_layouts() -> None:
    for layout in LAYOUTS:
        for signature in layout.signatures:
            assert guessing.guess(signature, where="file").layout is layout


@pytest.mark.parametrize(
    "columns", [("url", "text"), ("URL", "TEXT"), ("image_url", "caption"), ("link", "alt")]
)
def test_bare_columns_are_no_published_layout(columns: tuple[str, str]) -> None:
    guess = guessing.guess(columns, where="file")
    assert guess.layout.name == "auto"
    assert tuple(guess.layout.columns[c][0] for c in ("url", "caption")) == columns
    assert [
        guess.layout.select(dict.fromkeys(columns, "VARCHAR"), where="file")[c] for c in ("url", "caption")
    ] == [f'"{c}"' for c in columns]


def test_a_title_that_is_the_caption_is_no_second_column() -> None:
    assert set(guessing.guess(["url", "title", "width"], where="file").layout.columns) == {
        "url",
        "caption",
        "width",
    }


def test_a_table_without_urls_is_refused_with_its_columns() -> None:
    with pytest.raises(
        RecipeError, match=r"t\.csv: no column looks like the url; it has name, caption"
    ) as told_of:
        guessing.guess(["name", "caption"], where="t.csv")
    assert "laion" in str(told_of.value.hint)
    with pytest.raises(RecipeError, match="no column looks like the caption"):
        guessing.guess(["url", "size"], where="t.csv")


def test_a_layout_that_does_not_fit_names_what_it_wanted_and_what_is_there() -> None:
    with pytest.raises(RecipeError, match=r"no column for the url .*image_url or image_urls") as told_of:
        guessing.find("sbu").select({"picture": "VARCHAR", "caption": "VARCHAR"}, where="t.csv")
    assert "picture, caption" in str(told_of.value.hint)


@pytest.mark.parametrize("first", ["url", "caption"])
def test_without_a_header_the_column_of_links_is_the_url(first: str, tmp_path: Path) -> None:
    rows = [(f"{HTTP}{i}", QUOTED if i % 2 else f"http is {i}") for i in range(20)]
    rows[3] = ("", UMLAUT)  # nearly all are enough
    rows[5] = (f"{HTTP}5", "http://example.com/is-my-caption")  # and one is not
    lines = rows if first == "url" else [(caption, url) for url, caption in rows]
    guess = guessing.guess_headerless(lines, where="t.tsv")
    assert guess.layout.names[0] == first
    assert told(read(tsv(tmp_path / "t.tsv", guess.layout, *lines), guess.layout), "caption")[:4] == [
        ("http is 0",), (QUOTED,), ("http is 2",), (UMLAUT,),
    ]  # fmt: skip


def test_without_a_header_yfcc_is_known_by_its_columns() -> None:
    assert guessing.guess_headerless([YFCC_LINE], where="t").layout.name == "yfcc15m"
    assert guessing.guess_headerless([(YFCC_LINE[1], *YFCC_LINE[3:])], where="t").layout.name == "yfcc15m"


@pytest.mark.parametrize(
    ("rows", "told_of"),
    [
        ([("a", "b")], "t.tsv: 2 columns and no header line; none of them holds URLs"),
        ([(HTTP, HTTP)], "URLs stand in columns 1, 2"),
        ([("7", "6185218911", "4e2f")], "3 columns and no header line"),  # CLIP's list of photos
        ([], "0 columns"),
    ],
)
def test_what_cannot_be_told_without_a_header_is_refused(rows: list[tuple[str, ...]], told_of: str) -> None:
    with pytest.raises(RecipeError, match=told_of):
        guessing.guess_headerless(rows, where="t.tsv")


def test_a_width_that_no_release_has_is_refused() -> None:
    with pytest.raises(RecipeError, match="3 columns and no header line; layout 'yfcc15m' has 25 or 23"):
        guessing.find("yfcc15m").header(3, where="subset.tsv")


def test_real_rows_of_laion_are_guessed_by_their_names(shared: Path) -> None:
    file = f"read_parquet('{shared / 'data' / 'tables' / 'laion_precursor_6000.parquet'}')"
    with duckdb.connect() as con:
        guess: Guess = guessing.guess(list(con.sql(f"FROM {file} LIMIT 0").columns), where="file")
    rows = read(file, guess.layout)
    assert (guess.layout.name, len(rows)) == ("auto", 6000)
    assert rows == read(file, guessing.find("laion"))
    assert sum(row["url"].startswith("http") for row in rows) > 5_900
    assert all(row["caption"] for row in rows)


def test_real_rows_of_cc3m_are_known_by_their_content(shared: Path, tmp_path: Path) -> None:
    packed = (shared / "data" / "tables" / "cc3m_validation_8000.tsv.xz").read_bytes()
    text = lzma.decompress(packed).decode()
    lines = [tuple(line.split("\t")) for line in text.splitlines()]
    guess = guessing.guess_headerless(lines[:100], where="file")
    assert guess.layout.names == guessing.find("cc3m").names
    rows = read(tsv(tmp_path / "t.tsv", guess.layout, *lines), guess.layout)
    assert len(lines) == 8000
    assert told(rows, "caption", "url") == lines


def test_every_layout_is_told_of_in_the_docs() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "layouts.md"
    assert page.read_text() == markdown()
    for layout in LAYOUTS:
        assert f"## {layout.name}\n" in page.read_text()
        assert {"url", "caption"} <= set(layout.columns) <= set(COLUMNS)
        assert all((layout.about, layout.origin, layout.terms))
