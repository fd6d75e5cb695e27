"""Make the packaged table of WordNet 3.0's nouns.

One row a synset, in the order of the data file, which is the order of `wnid`. NLTK reads the
corpus; what it loses comes from the lines themselves: the order of the hypernyms (NLTK keeps
a set and sorts by name) and the whole gloss (NLTK takes the examples out).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from curate.errors import DataError, MissingError

DEBIAN = Path("/usr/share/wordnet")  # where Debian's wordnet-base puts WordNet 3.0
PARENTS = ("@", "@i")  # hypernym, instance hypernym
NEEDED = (
    *(f"{kind}.{pos}" for kind in ("data", "index") for pos in ("noun", "verb", "adj", "adv")),
    *(f"{pos}.exc" for pos in ("noun", "verb", "adj", "adv")),
)
# The 45 lexicographer files of lexnames(5WN), in their order.
LEXNAMES = (
    ("adj", "all pert"),
    ("adv", "all"),
    (
        "noun",
        "Tops act animal artifact attribute body cognition communication event feeling food group location",
    ),
    (
        "noun",
        "motive object person phenomenon plant possession process quantity relation shape state substance",
    ),
    ("noun", "time"),
    ("verb", "body change cognition communication competition consumption contact creation emotion motion"),
    ("verb", "perception possession social stative weather"),
    ("adj", "ppl"),
)
CATEGORIES = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}


class Noun(NamedTuple):
    """A noun synset, one row of the table.

    Args:
        wnid: "n" and the eight digits of the offset in WordNet 3.0's data.noun, as ImageNet writes it.
        lemmas: in data-file order, with spaces.
        senses: for each lemma, which of its noun senses this is, from 1: "dog.n.01" is sense 1 of "dog".
        gloss: definition and examples.
        parents: hypernyms and instance hypernyms, in data-file order.
    """

    wnid: str
    lemmas: tuple[str, ...]
    senses: tuple[int, ...]
    gloss: str
    parents: tuple[str, ...]


def digest_of(nouns: Iterable[Noun]) -> str:
    """Return the sha256 of the rows: one JSON array a line, in the order given."""
    sha256 = hashlib.sha256()
    for noun in nouns:
        sha256.update(json.dumps(noun, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    return sha256.hexdigest()


def write_table(nouns: list[Noun], path: Path) -> None:
    """Write the table as Parquet, with its digest in the metadata; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts, numbers = pa.list_(pa.string()), pa.list_(pa.int32())
    schema = pa.schema(
        [
            ("wnid", pa.string()),
            ("lemmas", texts),
            ("senses", numbers),
            ("gloss", pa.string()),
            ("parents", texts),
        ],
        metadata={"digest": digest_of(nouns), "source": "WordNet 3.0, Princeton University"},
    )
    columns = [
        pa.array(column, field.type) for column, field in zip(zip(*nouns, strict=True), schema, strict=True)
    ]
    beside = path.with_name(path.name + ".partial")
    table = pa.Table.from_arrays(columns, schema=schema)
    pq.write_table(table, beside, compression="zstd", compression_level=19, use_dictionary=["parents"])
    os.replace(beside, path)


def read_nouns(source: Path) -> list[Noun]:
    """Read the noun synsets of WordNet 3.0 from a folder with `data.noun` and its fellows, through NLTK."""
    with open_corpus(source) as corpus:
        senses = _sense_numbers(source)
        data = (source / "data.noun").read_bytes()
        return [_noun(synset, data, senses) for synset in corpus.all_synsets("n")]


@contextmanager
def open_corpus(source: Path) -> Iterator[Any]:
    """Open a folder of WordNet 3.0's database files as NLTK's WordNetCorpusReader.

    NLTK reads only below its own search path, follows no links out of it, and wants `lexnames`,
    which Debian leaves out: it gets a temporary copy of the files with `lexnames` added.
    """
    absent = [name for name in NEEDED if not (source / name).is_file()]
    if absent:
        hint = "`apt-get install wordnet-base` puts them in /usr/share/wordnet"
        raise MissingError(f"{source} lacks {', '.join(absent)} of WordNet 3.0", hint=hint)

    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class ByteRangeReader(WordNetCorpusReader):  # type: ignore[misc,unused-ignore]
        def map_wn(self, version: str = "wordnet") -> dict[str, str]:
            """Map nothing: the map serves other languages, and wants `index.sense` and an installed copy."""
            return {}

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        for name in NEEDED:
            shutil.copyfile(source / name, Path(folder, name))
        Path(folder, "lexnames").write_text(_lexnames())
        warnings.filterwarnings("ignore", message="The multilingual functions")
        nltk.data.path.append(folder)
        try:
            corpus = ByteRangeReader(folder, None)
            if (version := corpus.get_version()) != "3.0":
                hint = "ImageNet's ids are offsets in WordNet 3.0; other versions have other offsets"
                raise DataError(f"{source} holds WordNet {version}, not 3.0", hint=hint)
            yield corpus
        finally:
            nltk.data.path.remove(folder)


def _lexnames() -> str:
    named = [(f"{pos}.{topic}", CATEGORIES[pos]) for pos, topics in LEXNAMES for topic in topics.split()]
    return "".join(f"{i:02d}\t{name}\t{category}\n" for i, (name, category) in enumerate(named))


def _sense_numbers(source: Path) -> dict[tuple[str, str], int]:
    """Number the senses of each lemma, as index.noun orders them: (lemma, wnid) to 1, 2, ..."""
    numbers = {}
    for line in (source / "index.noun").read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            lemma, _, count, *rest = line.split()
            for number, offset in enumerate(rest[-int(count) :], start=1):
                numbers[lemma, f"n{offset}"] = number
    return numbers


def _noun(synset: Any, data: bytes, senses: dict[tuple[str, str], int]) -> Noun:
    start = synset.offset()
    pointers, _, gloss = data[start : data.index(b"\n", start)].decode().partition("|")
    # offset, lexicographer file, type, lemma count (hex), lemma and id each, pointer count, four fields each
    offset, _, _, lemma_count, *fields = pointers.split()
    symbols = fields[2 * int(lemma_count, 16) + 1 :: 4]
    targets = fields[2 * int(lemma_count, 16) + 2 :: 4]
    parents = tuple(
        f"n{target}" for symbol, target in zip(symbols, targets, strict=True) if symbol in PARENTS
    )
    above = {f"n{parent.offset():08d}" for parent in synset.hypernyms() + synset.instance_hypernyms()}
    assert sorted(parents) == sorted(above), f"n{offset}: {parents}, but NLTK says {above}"

    wnid, lemmas = f"n{offset}", synset.lemma_names()
    numbers = tuple(senses[lemma.lower(), wnid] for lemma in lemmas)
    assert synset.name().endswith(f".n.{numbers[0]:02d}"), (
        f"{wnid}: sense {numbers[0]}, NLTK says {synset.name()}"
    )
    return Noun(wnid, tuple(lemma.replace("_", " ") for lemma in lemmas), numbers, gloss.strip(), parents)
