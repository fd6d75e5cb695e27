"""`language`: which language captions are in, by real captions and a detector trained here."""

from __future__ import annotations

import csv
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curate.errors import DataError, MissingError, RecipeError
from curate.rows.relation import Rows, columns_of

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
GERMAN = [
    "Ein Hund läuft über die grüne Wiese und bellt.",
    "Zwei Kinder spielen am Strand mit einem roten Ball.",
    "Die alte Brücke über den Fluss wurde im letzten Jahr erneuert.",
    "Eine Frau mit Regenschirm wartet auf den Bus.",
]
FRENCH = [
    "Un chien court dans l'herbe verte du jardin.",
    "Deux enfants jouent sur la plage avec un ballon rouge.",
    "Le vieux pont au-dessus de la rivière a été rénové l'année dernière.",
    "Une femme avec un parapluie attend l'autobus sous la pluie.",
]


@pytest.fixture
def captioned(source: Source) -> Callable[[list[str | None]], Rows]:
    """Make one row a caption."""

    def make(captions: list[str | None]) -> Rows:
        con = source(0).con
        con.execute("CREATE OR REPLACE TABLE captioned AS FROM source")
        keyed = [(f"{i:05d}", caption) for i, caption in enumerate(captions)]
        con.executemany("INSERT INTO captioned (key, caption) VALUES (?, ?)", keyed)
        return Rows(con, "captioned", columns_of(con, "captioned"), ())

    return make


def detected(content: Content, rows: Rows) -> list[str | None]:
    return [row["language"] for row in content(rows)]


def test_real_captions_are_english(shared: Path, captioned: Source, apply: Apply, content: Content) -> None:
    pytest.importorskip("py3langid")
    with tarfile.open(shared / "data/flickr8k.tar") as tar:
        member = tar.extractfile("flickr8k/captions.txt")
        assert member is not None
        captions: list[str | None] = [row[1] for row in csv.reader(member.read().decode().splitlines()[1:])]
    found = Counter(detected(content, apply("language", captioned(captions))))
    assert sum(found.values()) == 1500
    assert found["en"] > 0.95 * 1500  # short ones go wrong now and then


def test_german_and_french_are_told_from_english(captioned: Source, apply: Apply, content: Content) -> None:
    pytest.importorskip("py3langid")
    rows = apply("language", captioned([*GERMAN, *FRENCH, None, " \n", GERMAN[0]]))
    assert detected(content, rows) == [*["de"] * 4, *["fr"] * 4, None, None, "de"]
    assert rows.columns["language"] == "VARCHAR"


def test_equal_captions_are_looked_at_once(
    captioned: Source, apply: Apply, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    langid = pytest.importorskip("py3langid")
    monkeypatch.setattr(langid, "classify", lambda text: (seen.append(text), ("en", 0.0))[1])
    assert detected(content, apply("language", captioned(["a\nb"] * 5000 + ["c", None]))) == ["en"] * 5001 + [
        None
    ]
    assert sorted(seen) == ["a b", "c"]  # and a line break is a space, for detectors that take one line


def test_an_old_column_is_replaced(captioned: Source, apply: Apply, content: Content) -> None:
    pytest.importorskip("py3langid")
    rows = captioned(list(FRENCH)).with_columns(language="'xx'")
    assert detected(content, apply("language", rows)) == ["fr"] * 4


def test_fasttext_reads_its_model(captioned: Source, apply: Apply, content: Content, tmp_path: Path) -> None:
    fasttext = pytest.importorskip("fasttext")
    lines = [
        f"__label__{code} {text}\n" for code, texts in (("de", GERMAN), ("fr", FRENCH)) for text in texts
    ]
    (tmp_path / "train.txt").write_text("".join(lines * 20))
    how = {
        "epoch": 300,
        "lr": 0.05,
        "minn": 2,
        "maxn": 3,
        "dim": 8,
        "bucket": 2000,
        "thread": 1,
        "verbose": 0,
    }
    try:
        trained = fasttext.train_supervised(str(tmp_path / "train.txt"), **how)
    except (
        RuntimeError
    ) as error:  # fasttext 0.9.3 meets a NaN now and then, with the same data and one thread
        pytest.skip(f"fasttext could not train a model to test with: {error}")
    trained.save_model(str(tmp_path / "lid.bin"))
    rows = apply(
        "language", captioned([*GERMAN, *FRENCH]), detector="fasttext", model=str(tmp_path / "lid.bin")
    )
    assert detected(content, rows) == [*["de"] * 4, *["fr"] * 4]
    (tmp_path / "lid.bin").write_bytes(b"no model")
    with pytest.raises(DataError, match="not a fastText model"):
        apply("language", captioned(["x"]), detector="fasttext", model=str(tmp_path / "lid.bin"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"detector": "fasttext"}, "fasttext needs a `model`"),
        ({"model": "lid.bin"}, "py3langid takes no `model`"),
        ({"detector": "langdetect"}, "detector"),
    ],
)
def test_language_refuses(source: Source, apply: Apply, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        apply("language", source(), **arguments)


@pytest.mark.parametrize(
    ("detector", "hint"),
    [("py3langid", r"pip install 'curate-train\[language\]'"), ("gcld3", "pip install 'gcld3'")],
)
def test_a_detector_that_is_not_installed_says_how_to_install_it(
    source: Source, apply: Apply, monkeypatch: pytest.MonkeyPatch, detector: str, hint: str
) -> None:
    monkeypatch.delitem(sys.modules, detector, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match=rf"{detector} is not installed(?s:.*){hint}"):
        apply("language", source(), detector=detector)
