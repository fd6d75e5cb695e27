"""Arguments for every operation, which the laws are tested with: a new operation needs an entry here."""

from __future__ import annotations

from typing import Any, NamedTuple


class Example(NamedTuple):
    """Arguments that an operation takes, for the laws.

    Args:
        arguments: as a recipe would give them; a file is looked for beside this one.
        row_wise: whether each row's fate depends on that row alone.
        columns: column → SQL over `i` (the row's number) and the core columns, that the source gets besides.
        before: steps to run first.
    """

    arguments: dict[str, Any]
    row_wise: bool = False
    columns: dict[str, str] = {}  # noqa: RUF012
    before: tuple[tuple[str, dict[str, Any]], ...] = ()


CAPTION = "if(i % 5 = 0, NULL, if(i % 3 = 0, 'a dog ', 'one tench, and ') || i)"
IN_IMAGENET = ("classes", {"names": ["n01440764", "n02012849", "n03126707"]})

# Classes of which four have siblings: tabby and Persian cat, convertible and sports car.
FINE = (
    "relabel",
    {
        "map": {"dog": "n02123045", "cat": "n02123394", "car": "n03100240", "n03126707": "n04285008"},
        "others": "keep",
    },
)
PAIRED = {
    "caption": "if(i % 5 = 0, NULL, if(i % 3 = 0, 'a dog runs on', 'qqq and') || ' ' || i)",
    "language": "if(i % 4 = 0, 'de', 'en')",
    "width": "200 + i::INTEGER",
    "height": "300",
    "similarity": "if(i % 7 = 0, NULL, i % 10 / 10)",
}

HASHES = dict.fromkeys(("phash", "phash_square"), "(18446744069414584320 + i * 2048)::UBIGINT")

EXAMPLES: dict[str, list[Example]] = {
    "compute": [
        Example({"columns": {"pixels": "width * height", "split": "upper(split)"}}, row_wise=True),
        Example({"columns": {"caption": "upper(split)"}}, row_wise=True),
        Example(
            {"columns": {"captions": "['small', if(i % 4 = 0, split, '')]"}},
            row_wise=True,
            columns={"i": "i"},
        ),
    ],
    "decontaminate": [
        Example({"against": "test-set", "by": "bytes"}, row_wise=True, columns={"sha256": "md5(i::VARCHAR)"})
    ],
    "shared": [
        Example(
            {"with": "test-set", "by": "key"},
            row_wise=True,
            columns={"key": "if(i < 300, 't' || i, 'u' || i)"},
        ),
        Example(
            {"with": "test-set", "keep": "flag"},
            row_wise=True,
            columns={"key": "'t' || i", "sha256": "md5(i::VARCHAR)"},
        ),
    ],
    "join": [
        Example({"file": "scores.csv", "missing": "keep"}, row_wise=True),
        Example({"file": "scores.csv", "columns": ["score"], "missing": "drop"}, row_wise=True),
        Example({"file": "texts.jsonl", "missing": "keep"}, row_wise=True),
    ],
    "top": [
        Example({"by": "size", "number": 50}),
        Example({"by": "width", "fraction": 0.3, "order": "lowest", "per": "class"}),
    ],
    "label_from": [
        Example(
            {"column": "human", "keep_clean": True},
            row_wise=True,
            columns={"human": "if(i % 5 = 0, 'cat', 'n02084071')"},
        )
    ],
    "mix": [
        Example({"counts": {"web": 30, "book": 20}}, columns={"source": "if(i % 3 = 0, 'book', 'web')"}),
        Example({"shares": {"web": 0.5, "book": 0.5}}, columns={"source": "if(i % 3 = 0, 'book', 'web')"}),
    ],
    "hashes": [Example({"kinds": ["sha256"]}, row_wise=True, columns={"sha256": "md5(i::VARCHAR)"})],
    "dedup": [
        Example({"by": "bytes"}, columns={"sha256": "(i // 2)::VARCHAR"}),
        Example({"by": "phash", "distance": 1, "keep": "flag"}, columns=HASHES),
    ],
    "caption": [
        Example({"templates": ["a photo of a {}.", "art of the {}"]}, row_wise=True),
        Example({"templates": "openai-80"}, row_wise=True),
        Example({"templates": ["a {}"], "names": "synonyms", "alternatives": True}, row_wise=True),
    ],
    "caption_from": [
        Example(
            {"columns": ["title", "split", "tags"]},
            row_wise=True,
            columns={"title": "if(i % 3 = 0, NULL, ' a ' || i)", "tags": "['x', NULL, i::VARCHAR]"},
        )
    ],
    "mix_captions": [
        Example({"share": 0.3, "templates": "a {}", "missing": "template"}, columns={"caption": CAPTION}),
        Example(
            {"share": 0.9, "templates": "openai-80", "names": "curated", "missing": "template"},
            columns={"caption": CAPTION},
            before=(IN_IMAGENET,),
        ),
    ],
    "match": [
        Example({"classes": ["dog.n.01", "tench"]}, row_wise=True, columns={"caption": CAPTION}),
        Example(
            {"classes": ["dog.n.01"], "columns": ["words"], "keep": "flag"},
            row_wise=True,
            columns={"words": "['a', if(i % 4 = 0, 'Dog', 'my dog')]"},
        ),
    ],
    "shuffle_captions": [
        Example({"rate": 0.3}, columns={"caption": CAPTION}),
        Example({"rate": 0.0}, columns={"caption": CAPTION}),
    ],
    "truncate": [
        Example({"words": 2}, row_wise=True, columns={"caption": CAPTION}),
        Example({"characters": 7}, row_wise=True, columns={"caption": CAPTION, "clean_caption": "'x'"}),
    ],
    "drop_words": [
        Example({"rate": 0.4}, row_wise=True, columns={"caption": CAPTION}),
        Example({"rate": 1.0}, row_wise=True, columns={"caption": CAPTION}),
    ],
    "budget": [
        Example({"total": 149, "classes": 3}),
        Example({"total": 250, "images": 60, "short": "skip"}),
    ],
    "longtail": [
        Example({"kind": "exponential", "largest": 50, "imbalance": 10}),
        Example({"kind": "pareto", "largest": 150, "imbalance": 50, "order": "size"}),
        Example({"kind": "step", "largest": 99, "imbalance": 9, "order": "label", "short": "keep"}),
    ],
    "split": [
        Example({"shares": {"val": 0.1, "test": 0.2}}),
        Example({"images": {"val": 10}}),
    ],
    "classes": [
        Example({"number": 4}, row_wise=True),
        Example({"names": ["dog", "n01440764"]}, row_wise=True),
        Example({"below": ["n00015388"]}, row_wise=True),
        Example({"below": "n00015388", "parents": "huh2016"}, row_wise=True),
        Example({"list": "imagenet-1k", "missing": "drop"}, row_wise=True),
    ],
    "noise": [
        Example({"rate": 0.3}),
        Example({"rate": 0.0}),
        Example({"rate": 1.0}),
        Example({"kind": "symmetric_inclusive", "rate": 0.3, "per": "class"}),
        Example({"kind": "pair", "rate": 0.3, "per": "class"}),
        Example({"kind": "asymmetric", "rate": 0.5, "map": {"dog": "cat", "cat": "dog"}}),
        Example({"kind": "sibling", "rate": 0.5, "parents": "huh2016"}, before=(FINE,)),
        Example({"kind": "hierarchy", "rate": 0.5, "temperature": 0.3}),
        Example({"kind": "confusion", "file": "confusion.csv"}),
        Example({"kind": "confusion", "file": "confusion.csv", "rate": 0.1}),
        Example({"kind": "instance", "file": "scores.csv"}),
    ],
    "clean": [
        Example({}, row_wise=True, columns={"clean_label": "(i % 6)::INTEGER", "clean_caption": "i::VARCHAR"})
    ],
    "filter": [
        Example({"preset": "basic"}, row_wise=True, columns=PAIRED),
        Example({"min_similarity": 0.4, "max_aspect": 1.5, "keep": "flag"}, row_wise=True, columns=PAIRED),
    ],
    "clip_score": [
        Example({"fraction": 0.3}, columns=PAIRED),
        Example({"threshold": 0.4, "keep": "flag"}, row_wise=True, columns=PAIRED),
    ],
    "text_based": [
        Example({}, row_wise=True, columns=PAIRED),
        Example({"language": "any", "keep": "flag"}, row_wise=True, columns=PAIRED),
    ],
    "language": [
        Example(
            {}, row_wise=True, columns={"caption": "if(i % 3 = 0, 'a dog on the grass', 'der Hund im Gras')"}
        )
    ],
    "per_class": [
        Example({"images": 40}),
        Example({"images": 99, "short": "keep"}),
        Example({"images": 99, "short": "drop"}),
    ],
    "relabel": [
        Example(
            {"map": {"n02084071": "n00015388", "n02121620": "n00015388"}, "others": "keep"}, row_wise=True
        ),
        Example({"map": {"dog": "pet", "cat": "pet"}, "others": "drop"}, row_wise=True),
        Example({"cut": "bottom_up", "level": 5}, row_wise=True),
        Example({"cut": "top_down", "round": 1, "parents": "huh2016"}, row_wise=True),
        Example({"cut": "depth", "depth": 6}, row_wise=True),
        Example(
            {"cut": "synsets", "synsets": ["animal.n.01", "dog.n.01"], "parents": "all", "others": "keep"},
            row_wise=True,
        ),
    ],
    "breeds": [
        Example({"level": 2, "balanced": False, "missing": "drop"}, row_wise=True),
        Example({"level": 3, "balanced": False, "split": "rand", "missing": "drop"}, row_wise=True),
    ],
    "halves": [
        Example({"split": "random", "half": "a"}, row_wise=True),
        Example({"split": "minimal", "half": "b"}, row_wise=True),
    ],
    "without": [
        Example({"below": ["dog.n.01", "n02958343"]}, row_wise=True),
        Example({"preset": "voc"}, row_wise=True),
    ],
    "sample": [
        Example({"number": 100}),
        Example({"fraction": 0.25}),
        Example({"number": 100, "allocation": "equal"}),
        Example({"number": 100, "allocation": "proportional"}),
    ],
    "where": [Example({"condition": "width >= 64 AND split = 'train'"}, row_wise=True)],
}
