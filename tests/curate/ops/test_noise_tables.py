"""Noise from tables: confusion matrices, counts of human labels, and rates of single rows."""

from __future__ import annotations

import csv
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import chisquare

from curate.errors import CurateError, DataError, RecipeError
from curate.rows.manifest import Class
from curate.rows.relation import Rows

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
Read = list[dict[str, Any]]
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Of 100 dogs and cats each, and 150 tench: 30 dogs become cats, 10 become cars; 20 cats dogs; tench stay.
TRIPLES = (
    "true,given,weight\ndog,dog,6\ndog,cat,3\ndog,car,1\ncat,dog,0.2\nn02121620,cat,0.8\ntench,tench,1\n"
)
SQUARE = (
    "true,tench,dog,cat,car\n"
    "n02084071,0,60,30,10\n"
    "cat,0,2,8,0\n"
    "tench,5,0,0,0\n"
)  # fmt: skip
LOWEST_P = 1e-4


def pairs(rows: Read) -> Counter[tuple[int, int]]:
    return Counter((r["clean_label"], r["label"]) for r in rows if r["label"] != r["clean_label"])


def by_class(rows: Read) -> Counter[int]:
    return Counter(row["clean_label"] for row in rows if row["label"] != row["clean_label"])


def written(folder: Path, text: str, name: str = "table.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize("table", [TRIPLES, SQUARE])
def test_each_class_is_wrong_as_often_as_in_the_matrix(
    source: Source, apply: Apply, content: Content, tmp_path: Path, table: str
) -> None:
    rows = content(apply("noise", source(), kind="confusion", file=written(tmp_path, table)))
    found = pairs(rows)
    assert by_class(rows) == {2: 40, 3: 20}
    assert set(found) == {(2, 3), (2, 4), (3, 2)}
    # 40 dogs, of which three in four become cats: 30, five standard deviations of 2.7
    assert abs(found[2, 3] - 30) < 14


def test_triples_and_square_give_the_same_rows(
    source: Source, apply: Apply, content: Content, tmp_path: Path
) -> None:
    both = [
        content(apply("noise", source(), kind="confusion", file=written(tmp_path, t)))
        for t in (TRIPLES, SQUARE)
    ]
    assert both[0] == both[1]


def test_targets_follow_the_weights(source: Source, apply: Apply, content: Content, tmp_path: Path) -> None:
    table = "true,given,weight\n" + "".join(
        f"dog,{c},{w}\n" for c, w in (("cat", 5), ("car", 3), ("tench", 2))
    )
    found = pairs(
        content(apply("noise", source(60_000), kind="confusion", file=written(tmp_path, table), rate=1.0))
    )
    assert sum(found.values()) == 10_000  # all dogs; the weight of staying is nothing
    assert chisquare([found[2, 3], found[2, 4], found[2, 0]], [5000, 3000, 2000]).pvalue > LOWEST_P


def test_a_rate_scales_what_is_off_the_diagonal(
    source: Source, apply: Apply, content: Content, tmp_path: Path
) -> None:
    file = written(tmp_path, TRIPLES)
    read = content(apply("noise", source(12_000), kind="confusion", file=file, rate=0.15))
    counts = by_class(read)
    assert sum(counts.values()) == 600  # 15 % of 2,000 dogs and 2,000 cats; tench cannot become another
    # Dogs are wrong twice as often as cats: 400 of 600, five standard deviations of 11.5
    assert abs(counts[2] - 400) < 58
    same = by_class(
        content(apply("noise", source(12_000), kind="confusion", file=file, rate=0.15, per="class"))
    )
    assert same == {2: 300, 3: 300}


def test_confusion_at_a_lower_rate_is_inside_a_higher_one(
    source: Source, apply: Apply, content: Content, tmp_path: Path
) -> None:
    file = written(tmp_path, TRIPLES)
    few, many = (
        {
            (r["key"], r["label"])
            for r in content(apply("noise", source(), kind="confusion", file=file, rate=rate))
            if r["label"] != r["clean_label"]
        }
        for rate in (0.1, 0.6)
    )
    assert few
    assert few < many


@pytest.fixture(scope="module")
def human(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of CIFAR-10N's human labels."""
    with tarfile.open(shared / "data/cifar10n.tar.xz") as tar:
        member = tar.extractfile("cifar10n/human_labels.csv")
        assert member is not None
        path = tmp_path_factory.mktemp("human") / "human_labels.csv"
        path.write_bytes(member.read())
    return path


def test_human_confusion_is_that_of_the_human_labels(
    source: Source, apply: Apply, content: Content, human: Path
) -> None:
    """One row for each of the 4,000 images: every class has as many wrong labels as the people gave it."""
    with human.open() as lines:
        labels = [(int(row["label"]), int(row["worse"])) for row in csv.DictReader(lines)]
    truth = Counter(pair for pair in labels if pair[0] != pair[1])
    assert 0.38 < sum(truth.values()) / len(labels) < 0.43  # published for the whole set: 40.21 %
    rows = source(len(labels))
    rows.con.execute("CREATE TABLE human (i INTEGER, label INTEGER)")
    rows.con.executemany("INSERT INTO human VALUES (?, ?)", [(i, true) for i, (true, _) in enumerate(labels)])
    rows.con.execute("UPDATE source SET label = h.label FROM human h WHERE size = 1000 + h.i")
    rows = replace(rows, known=tuple(Class(name) for name in CIFAR10))
    how = {"kind": "confusion", "file": str(human), "true_label": "label", "given_label": "worse"}
    read = content(apply("noise", rows, **how))
    found = pairs(read)
    assert by_class(read) == Counter(true for true, given in truth.elements())
    assert set(found) <= set(truth)
    for true in range(10):
        expected = {pair: n for pair, n in truth.items() if pair[0] == true}
        often = [pair for pair, n in expected.items() if n >= 5]
        rest = sum(n for n in expected.values() if n < 5)
        counts = [found[pair] for pair in often]
        means = [expected[pair] for pair in often]
        if rest:
            counts.append(sum(expected.values()) - sum(counts))
            means.append(rest)
        assert len(counts) > 2
        assert chisquare(counts, means).pvalue > LOWEST_P


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("true,given,weight\ndgo,cat,1\n", "no class 'dgo'(?s:.*)did you mean 'dog'"),
        ("true,given,weight\ndog,cat,-1\n", "weight of 'dog' given as 'cat' is -1"),
        ("true,given,weight\ndog,cat,many\n", "weight of 'dog' given as 'cat' is None"),
        ("true,given,weight\ndog,cat,1\ndog,cat,2\n", "listed twice"),
        ("true,dog,cat\ndog,1,2\ndog,1,2\n", "a class has two lines"),
        ("true\ndog\ncat\n", "one column"),
        ("true,given,weight\ndog,dog,1\n", "none of the 6 classes can become another"),
        ("true,given,weight\n0,6,1\n", "class 6, but the 6 classes are 0 to 5"),
        ("true,given,weight\n0,dog,1\n", "no class '0'"),
    ],
)
def test_a_bad_matrix_is_refused_while_planning(
    source: Source, apply: Apply, tmp_path: Path, table: str, message: str
) -> None:
    with pytest.raises(RecipeError) as raised:
        apply("noise", source(0, planning=True), kind="confusion", file=written(tmp_path, table))
    assert raised.match(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"true_label": "label"}, "both `true_label` and `given_label`"),
        ({"true_label": "label", "given_label": "worst"}, "no column 'worst'(?s:.*)did you mean 'worse'"),
    ],
)
def test_columns_of_labels_are_checked(
    source: Source, apply: Apply, tmp_path: Path, arguments: dict[str, str], message: str
) -> None:
    file = written(tmp_path, "file,label,worse\na,dog,cat\n")
    with pytest.raises(RecipeError) as raised:
        apply("noise", source(), kind="confusion", file=file, **arguments)
    assert raised.match(message)


def rates(folder: Path, rate: str, count: int = 600, name: str = "rates.csv") -> str:
    """Write rates of so many rows; `rate` is Python over `i`."""
    lines = [f"pool/{i:07d},{eval(rate, {'i': i})}\n" for i in range(count)]
    return written(folder, "key,rate\n" + "".join(lines), name)


def test_as_many_rows_are_wrong_as_their_rates_add_up_to(
    source: Source, apply: Apply, content: Content, tmp_path: Path
) -> None:
    file = rates(tmp_path, "0.1 * (i % 5)")  # 0 to 0.4: 120 rows in all
    read = content(apply("noise", source(), kind="instance", file=file))
    assert sum(by_class(read).values()) == 120
    never = {row["key"] for row in read if int(row["key"][-7:]) % 5 == 0}
    assert never
    assert not [row for row in read if row["key"] in never and row["label"] != row["clean_label"]]


def test_a_row_is_wrong_as_often_as_its_rate_says(
    source: Source, apply: Apply, content: Content, tmp_path: Path
) -> None:
    read = content(
        apply("noise", source(50_000), kind="instance", file=rates(tmp_path, "0.1 * (i % 5)", 50_000))
    )
    found = Counter(int(row["key"][-7:]) % 5 for row in read if row["label"] != row["clean_label"])
    assert sum(found.values()) == 10_000
    for step in range(5):
        expected = 10_000 * 0.1 * step
        # five standard deviations of a binomial, of 10,000 rows each
        assert abs(found[step] - expected) <= 5 * (expected * (1 - 0.1 * step)) ** 0.5
    given = pairs(read)
    counts = [given[0, other] for other in range(1, 6)]
    assert chisquare(counts).pvalue > LOWEST_P


def test_a_rate_keeps_the_rows_relative_likelihoods(
    source: Source, apply: Apply, content: Content, tmp_path: Path
) -> None:
    file = rates(tmp_path, "0.01 * (1 + i % 2)", 20_000)
    few, many = (
        {
            row["key"]: row["label"]
            for row in content(apply("noise", source(20_000), kind="instance", file=file, rate=rate))
            if row["label"] != row["clean_label"]
        }
        for rate in (0.1, 0.2)
    )
    assert (len(few), len(many)) == (2000, 4000)
    assert few.items() < many.items()
    odd = sum(int(key[-7:]) % 2 for key in few)
    # two in three: 1,333 of 2,000, five standard deviations of 21
    assert abs(odd - 1333) < 106


def test_sum_of_rates_does_not_depend_on_the_order_of_the_file(
    source: Source, apply: Apply, content: Content, tmp_path: Path
) -> None:
    file = rates(tmp_path, "0.1 + (i % 3) * 1e-7")
    lines = Path(file).read_text().splitlines()
    other = written(tmp_path, "\n".join([lines[0], *reversed(lines[1:])]), "other.csv")
    assert content(apply("noise", source(), kind="instance", file=file)) == content(
        apply("noise", source(), kind="instance", file=other)
    )


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ("key,rate\npool/0000000,0.1\n", DataError, r"599 rows are not in .*pool/0000001, pool/0000002"),
        ("rate,name\n0.1,a\n", RecipeError, "no column 'key'"),
        ("key,probability\na,0.1\n", RecipeError, "no column 'rate'"),
        ("key,rate\na,0.1\na,0.2\n", DataError, r"1 keys are listed twice \(such as a\)"),
    ],
)
def test_a_table_of_rates_must_have_every_row_once(
    source: Source, apply: Apply, tmp_path: Path, table: str, error: type[CurateError], message: str
) -> None:
    with pytest.raises(error, match=message):
        apply("noise", source(), kind="instance", file=written(tmp_path, table))


@pytest.mark.parametrize(
    ("rate", "shown"), [("1.5", "1.5"), ("-0.1", "-0.1"), ("'nan'", "nan"), ("'x'", "none")]
)
def test_rates_outside_0_to_1_are_refused_with_examples(
    source: Source, apply: Apply, tmp_path: Path, rate: str, shown: str
) -> None:
    file = rates(tmp_path, f"{rate} if i in (7, 9) else 0.5")
    with pytest.raises(
        DataError, match=rf"2 rows have no rate in \[0, 1\].*pool/0000007: {shown}, pool/0000009"
    ):
        apply("noise", source(), kind="instance", file=file)


def test_rows_without_a_label_need_no_rate(
    source: Source, apply: Apply, content: Content, tmp_path: Path
) -> None:
    rows = source()
    rows.con.execute("UPDATE source SET label = NULL WHERE size >= 1300")
    file = rates(tmp_path, "0.5", 300)
    read = content(apply("noise", rows, kind="instance", file=file))
    assert sum(by_class(read).values()) == 150
