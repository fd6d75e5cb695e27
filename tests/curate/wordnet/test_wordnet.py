"""The noun hierarchy against its sources: WordNet's data file, NLTK, ImageNet's and VOC's published lists."""

from __future__ import annotations

import csv
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from curate.errors import DataError, MissingError, RecipeError
from curate.wordnet import create_views, nouns, table_digest, table_path, unique_names
from curate.wordnet.makers import DEBIAN, NEEDED, Noun, digest_of, open_corpus, read_nouns, write_table

ENTITY, DOG, CAT, CARNIVORE, ANIMAL = "n00001740", "n02084071", "n02121620", "n02075296", "n00015388"
ALABAMA = "n09053185"  # two parents: '@i' comes before '@' in the data file
CRANES = ["n02012849", "n03126707"]  # the bird and the machine
SYNSETS = 82_115  # wnstats(7WN)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def imagenet(shared: Path) -> list[str]:
    wnids = [row["wnid"] for row in rows_of(shared / "data/metadata/imagenet1k_classes.csv")]
    assert len(set(wnids)) == 1000
    return wnids


@pytest.fixture(scope="module")
def packaged() -> list[Noun]:
    rows = pq.read_table(table_path()).select(Noun._fields).to_pylist()
    return [Noun(*(tuple(x) if isinstance(x, list) else x for x in row.values())) for row in rows]


@pytest.fixture(scope="module")
def debian() -> Path:
    if not (DEBIAN / "data.noun").is_file():
        pytest.skip("no WordNet 3.0 database: apt-get install wordnet-base")
    return DEBIAN


@pytest.fixture(scope="module")
def data_lines(debian: Path) -> dict[str, str]:
    lines = (debian / "data.noun").read_text(encoding="utf-8").splitlines()
    return {f"n{line[:8]}": line for line in lines if line[0].isdigit()}


@pytest.fixture(scope="module")
def corpus(debian: Path):
    with open_corpus(debian) as corpus:
        yield corpus


@pytest.fixture(scope="module")
def con():
    """Give a connection that may no longer read files."""
    with duckdb.connect() as con:
        create_views(con)
        con.execute("SET enable_external_access = false")
        yield con


def sample() -> list[str]:
    """Return 200 synsets spread over the file, and some with mixed kinds of parents."""
    return [*list(nouns())[::411], ALABAMA, "n09026499", "n09380117", DOG]


def as_synset(corpus, wnid: str):
    return corpus.synset_from_pos_and_offset("n", int(wnid[1:]))


def as_wnid(synset) -> str:
    return f"n{synset.offset():08d}"


def parents_in(line: str) -> list[str]:
    """Read the hypernyms and instance hypernyms off a line of data.noun."""
    return [f"n{offset}" for offset in re.findall(r" @i? (\d{8}) n 0000(?= )", line.split("|")[0])]


# The table


def test_table_holds_every_noun_synset_in_file_order(packaged):
    assert len(packaged) == len(nouns()) == SYNSETS
    wnids = [noun.wnid for noun in packaged]
    assert wnids == sorted(set(wnids)) == list(nouns())
    assert nouns().lemmas(DOG) == ("dog", "domestic dog", "Canis familiaris")
    assert nouns().gloss(DOG).endswith('; occurs in many breeds; "the dog barked all night"')


def test_entity_is_the_only_root(packaged):
    assert [noun.wnid for noun in packaged if not noun.parents] == [ENTITY]
    assert nouns().name(ENTITY) == "entity"
    assert len(nouns().below([ENTITY])) == SYNSETS


def test_stated_digest_is_that_of_the_rows(packaged):
    assert table_digest() == digest_of(packaged)
    assert table_digest() != digest_of([*packaged[:-1], packaged[-1]._replace(parents=())])


@pytest.mark.slow
def test_writing_twice_gives_the_same_bytes(packaged, tmp_path):
    once, twice = tmp_path / "once.parquet", tmp_path / "twice.parquet"
    write_table(packaged, once)
    write_table(packaged, twice)
    assert once.read_bytes() == twice.read_bytes()
    assert pq.read_table(once).equals(pq.read_table(table_path()), check_metadata=True)


@pytest.mark.slow
def test_table_made_again_is_the_packaged_one(debian, packaged):
    assert read_nouns(debian) == packaged


def test_rows_agree_with_lines_of_the_data_file(data_lines):
    assert len(data_lines) == SYNSETS
    several = 0
    for wnid in sample():
        fields = data_lines[wnid].split()
        words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        assert nouns().lemmas(wnid) == tuple(word.replace("_", " ") for word in words)
        assert list(nouns().parents(wnid)) == parents_in(data_lines[wnid])
        assert nouns().gloss(wnid) == data_lines[wnid].split("| ")[1].rstrip()
        several += len(nouns().parents(wnid)) > 1
    assert several >= 5


def test_parents_agree_with_nltk(corpus):
    for wnid in sample():
        synset = as_synset(corpus, wnid)
        above = {as_wnid(parent) for parent in synset.hypernyms() + synset.instance_hypernyms()}
        assert set(nouns().parents(wnid)) == above
        assert nouns().resolve(synset.name()) == wnid


def test_lexicographer_files_are_in_their_order(corpus):
    """The numbers are those of the manual page lexnames(5WN)."""
    topics = {
        **{"act": 4, "animal": 5, "artifact": 6, "attribute": 7, "communication": 10, "feeling": 12},
        **{"group": 14, "location": 15, "motive": 16, "person": 18, "plant": 20, "possession": 21},
        **{
            "process": 22,
            "quantity": 23,
            "relation": 24,
            "shape": 25,
            "state": 26,
            "substance": 27,
            "time": 28,
        },
    }
    files = corpus.open("lexnames").read().splitlines()
    assert len(files) == 45
    assert [files[number] for number in topics.values()] == [
        f"{i:02d}\tnoun.{x}\t1" for x, i in topics.items()
    ]
    assert as_synset(corpus, DOG).lexname() == "noun.animal"


def test_parents_keep_the_order_of_the_data_file(corpus):
    assert nouns().parents(ALABAMA) == ("n08655464", "n09050730")  # first '@i', then '@'
    assert nouns().parents(DOG) == ("n02083346", "n01317541")  # canine, domestic animal
    disordered = [
        wnid
        for wnid in list(nouns())[::20]
        if [as_wnid(parent) for parent in as_synset(corpus, wnid).hypernyms()]
        not in ([*nouns().parents(wnid)], [])
    ]
    assert disordered, "NLTK's order by name never differs: this test shows nothing"


def test_a_folder_without_wordnet_is_refused(tmp_path):
    with pytest.raises(MissingError, match="apt-get install wordnet-base"):
        read_nouns(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "curate.wordnet", "--source", tmp_path, "--out", tmp_path / "x.parquet"],
        capture_output=True,
        text=True,
        cwd=table_path().parents[2],
    )
    assert done.returncode == MissingError.code
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "x.parquet").exists()


def test_another_version_of_wordnet_is_refused(debian, tmp_path):
    for name in NEEDED:
        text = (debian / name).read_text(encoding="utf-8") if name == "data.adj" else ""
        (tmp_path / name).write_text(text.replace("WordNet 3.0 Copyright", "WordNet 3.1 Copyright"))
    with pytest.raises(DataError, match=r"WordNet 3\.1, not 3\.0"):
        read_nouns(tmp_path)


# The hierarchy in Python


def test_all_imagenet_classes_reach_entity(imagenet):
    assert all(ENTITY in nouns().ancestors(wnid) for wnid in imagenet)
    assert set(imagenet) <= nouns().below([ENTITY])


def test_published_imagenet_edges_are_among_ours(shared):
    edges = rows_of(shared / "data/metadata/imagenet1k_isa_edges.csv")
    assert len(edges) == 1937
    assert [edge for edge in edges if edge["parent"] not in nouns().parents(edge["child"])] == []
    assert [edge for edge in edges if edge["child"] not in nouns().children(edge["parent"])] == []


def test_imagenet_classes_below_voc_classes_are_as_many_as_published(shared, imagenet):
    """Huh et al. list 230 leaves below the 20 classes of VOC, 229 of them different.

    Their list has 4 below person, where WordNet has 3 (ballplayer, groom, scuba diver). With the 19 other
    counts equal and 229 in all, the fourth can only repeat a leaf, but the list itself is not at hand here.
    """
    voc = {row["voc_class"]: row["wnid"] for row in rows_of(shared / "facts/voc_synsets.csv")}
    counts = {name: len(nouns().below([wnid]) & set(imagenet)) for name, wnid in voc.items()}
    assert counts.pop("person") == 3
    assert counts == {
        **{"aeroplane": 1, "bicycle": 2, "bird": 59, "boat": 6, "bottle": 7, "bus": 3, "car": 10, "cat": 7},
        **{"chair": 4, "cow": 0, "diningtable": 1, "dog": 118, "horse": 1, "motorbike": 1, "pottedplant": 2},
        **{"sheep": 1, "sofa": 1, "train": 1, "tvmonitor": 1},
    }
    assert len(nouns().below(voc.values()) & set(imagenet)) == 229


def test_below_walks_over_every_parent():
    assert DOG in nouns().below(["n02083346"])  # canine, the first parent
    assert DOG in nouns().below(["n01317541"])  # domestic animal, the second
    assert nouns().below([]) == frozenset()
    assert nouns().below([DOG, CAT]) == nouns().below([DOG]) | nouns().below([CAT])
    assert {DOG, CAT} <= nouns().below([CARNIVORE]) < nouns().below([ANIMAL])


def test_children_are_the_synsets_that_have_this_parent(packaged):
    expected = [noun.wnid for noun in packaged if DOG in noun.parents]
    assert len(expected) > 10
    assert list(nouns().children(DOG)) == expected
    assert nouns().children("n02085620") == ()  # Chihuahua


def test_ancestors_and_distances_agree_with_nltk(corpus, con):
    for wnid in sample()[::4]:
        expected: dict[str, int] = {}
        for synset, distance in as_synset(corpus, wnid).hypernym_distances():
            expected[as_wnid(synset)] = min(distance, expected.get(as_wnid(synset), distance))
        found = nouns().ancestors(wnid)
        assert found == expected
        assert list(found.values()) == sorted(found.values())
        assert dict(con.execute("FROM wn_ancestors(?)", [wnid]).fetchall()) == expected


# Names


def test_find_ignores_case_and_underscores_and_wants_the_whole_lemma():
    assert nouns().find("Ice_Cream") == nouns().find("ice cream") == ["n07614500"]
    dogs = nouns().find("dog")
    assert len(dogs) == 7
    assert dogs == sorted(dogs)
    assert all("dog" in (lemma.lower() for lemma in nouns().lemmas(wnid)) for wnid in dogs)
    assert nouns().find("dog.n.01") == [DOG]
    assert nouns().find("domestic_dog.n.01") == [DOG]
    assert nouns().find("dog.n.99") == nouns().find("no such thing") == []


def test_senses_are_numbered_as_in_nltk(corpus):
    for lemma in ("dog", "crane", "bank", "china", "u.s."):
        expected = [as_wnid(synset) for synset in corpus.synsets(lemma, "n")]
        assert expected
        assert [nouns().resolve(f"{lemma}.n.{i:02d}") for i in range(1, len(expected) + 1)] == expected


def test_resolve_takes_a_wnid_a_sense_or_an_unambiguous_lemma():
    assert nouns().resolve(DOG) == nouns().resolve("Dog.n.01") == nouns().resolve("canis familiaris") == DOG
    assert nouns().resolve("Norfolk_terrier") == "n02094114"
    assert nouns().resolve("100") == "n13750415"  # a lemma though it looks like an id


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dog", "'dog' names 7 noun synsets"),
        ("dog", r"dog\.n\.01 = n02084071: a member of the genus Canis"),
        ("dog", "and 2 more"),
        ("dog.n.08", "'dog' has these senses"),
        ("dgo", "did you mean 'dog'"),
        ("cars", "did you mean 'car'"),  # and not 'cards'
        ("tools", "did you mean 'tool'"),
        ("terier", "did you mean 'terrier'"),
        ("terier.n.01", "did you mean 'terrier'"),
        ("computr keybord", "did you mean 'computer keyboard'"),
        ("n02084072", r"did you mean 'n02084071' \(dog\)"),
        ("n1740", r"did you mean 'n00001740' \(entity\)"),
        ("n99999999", "only WordNet 3.0 has the ids of ImageNet"),
        ("xqzzzz", "write a lemma"),
        ("", "write a lemma"),
    ],
)
def test_resolve_says_what_is_wrong_and_what_to_write(text, says):
    with pytest.raises(RecipeError, match=says):
        nouns().resolve(text)


def test_no_message_suggests_a_slur():
    assert "disparaging" in nouns().gloss(nouns().resolve("gringo"))
    with pytest.raises(RecipeError) as caught:
        nouns().resolve("gringoo")
    assert "gringo'" not in str(caught.value)


@pytest.mark.parametrize("method", ["lemmas", "name", "gloss", "parents", "children", "ancestors"])
def test_an_unknown_wnid_is_an_error_with_a_hint(method):
    with pytest.raises(RecipeError, match=r"no noun synset 'n02084072'.*\n.*did you mean 'n02084071'"):
        getattr(nouns(), method)("n02084072")
    assert "n02084072" not in nouns()


def test_below_refuses_an_unknown_wnid_and_explains_a_name():
    with pytest.raises(RecipeError, match="did you mean 'n02084071'"):
        nouns().below([CAT, "n02084072"])
    with pytest.raises(RecipeError, match=r"that is a name(.|\n)*dog\.n\.01 = n02084071"):
        nouns().below(["dog"])


def test_imagenet_classes_get_1000_distinct_names(imagenet):
    names = unique_names(imagenet)
    first = [nouns().name(wnid) for wnid in imagenet]
    assert len(set(first)) < 1000, "no two classes share a name: this test shows nothing"
    assert len({name.lower() for name in names}) == 1000
    count = Counter(name.lower() for name in first)
    for wnid, name in zip(imagenet, names, strict=True):
        plain = nouns().name(wnid)
        assert name == plain if count[plain.lower()] == 1 else name.startswith(f"{plain} (")


def test_names_do_not_depend_on_the_order_of_the_list(imagenet):
    names = dict(zip(imagenet, unique_names(imagenet), strict=True))
    shuffled = random.Random(0).sample(imagenet, len(imagenet))
    assert shuffled != imagenet
    assert dict(zip(shuffled, unique_names(shuffled), strict=True)) == names


def test_names_are_told_apart_by_lemma_then_parent_then_wnid():
    assert unique_names(CRANES) == ["crane (wading bird)", "crane (lifting device)"]
    assert unique_names(["n03710637", "n03710721"]) == ["maillot (tights)", "maillot (tank suit)"]
    assert unique_names(CRANES[:1]) == ["crane"]
    assert unique_names([]) == []
    everything = unique_names(list(nouns()))
    assert len({name.lower() for name in everything}) == SYNSETS
    assert any(re.search(r" \(n\d{8}\)$", name) for name in everything)


def test_names_refuse_a_synset_listed_twice():
    with pytest.raises(RecipeError, match="n02084071 is listed twice"):
        unique_names([DOG, CAT, DOG])


# The hierarchy in SQL


def test_view_answers_after_external_access_is_off(con):
    with pytest.raises(duckdb.PermissionException):
        con.execute(f"FROM read_parquet('{table_path()}')")
    assert con.execute("SELECT count(*) FROM wordnet").fetchone() == (SYNSETS,)
    row = con.execute("SELECT name, lemmas, parents FROM wordnet WHERE wnid = ?", [DOG]).fetchone()
    assert row == ("dog", list(nouns().lemmas(DOG)), list(nouns().parents(DOG)))


def test_views_may_be_created_again():
    with duckdb.connect() as con:
        create_views(con)
        create_views(con)
        assert con.execute(f"SELECT wn_name('{DOG}')").fetchone() == ("dog",)


def test_descendants_are_each_given_once(con):
    for wnid in (DOG, CARNIVORE, ENTITY, "n02085620"):
        found = con.execute("SELECT wnid FROM wn_descendants(?)", [wnid]).fetchall()
        assert len(found) == len(set(found))
        assert {wnid for (wnid,) in found} == nouns().below([wnid])
    distances = dict(con.execute("FROM wn_descendants(?)", [CARNIVORE]).fetchall())
    assert distances == {wnid: nouns().ancestors(wnid)[CARNIVORE] for wnid in nouns().below([CARNIVORE])}


def test_depth_counts_hops_along_first_parents(con, data_lines):
    depths = dict(con.execute("SELECT wnid, wn_depth(wnid) FROM wordnet").fetchall())
    assert len(depths) == SYNSETS
    for wnid in sample():
        hops, at = 0, wnid
        while above := parents_in(data_lines[at]):
            hops, at = hops + 1, above[0]
        assert depths[wnid] == hops
    shortest = {wnid: nouns().ancestors(wnid)[ENTITY] for wnid in sample()}
    assert any(depths[wnid] > shortest[wnid] for wnid in shortest), "first parents are never the longer way"


def test_lca_lies_on_the_shortest_way_between_two(con, corpus):
    assert con.execute(f"SELECT wn_lca('{DOG}', '{CAT}')").fetchone() == (CARNIVORE,)
    assert con.execute(f"SELECT wn_lca('{DOG}', '{CARNIVORE}')").fetchone() == (CARNIVORE,)
    pairs = list(zip(sample()[:60], reversed(sample()[60:120]), strict=True))
    con.execute("CREATE OR REPLACE TEMP TABLE pairs (a TEXT, b TEXT)")
    con.executemany("INSERT INTO pairs VALUES (?, ?)", pairs)
    found = con.execute("SELECT a, b, wn_lca(a, b), wn_lca(b, a) FROM pairs").fetchall()
    assert len(found) == 60
    for a, b, lca, mirrored in found:
        above_a, above_b = nouns().ancestors(a), nouns().ancestors(b)
        total = as_synset(corpus, a).shortest_path_distance(as_synset(corpus, b))
        assert above_a[lca] + above_b[lca] == total
        assert lca == mirrored == min(x for x in above_a if above_a[x] + above_b.get(x, 99) == total)


def test_macros_give_nothing_for_an_unknown_wnid(con):
    assert con.execute("FROM wn_ancestors('n02084072')").fetchall() == []
    assert con.execute("FROM wn_descendants('n02084072')").fetchall() == []
    query = f"SELECT wn_name('x'), wn_depth('x'), wn_lca('x', '{DOG}')"
    assert con.execute(query).fetchone() == (None, None, None)


# Cost


def test_loading_is_quick_and_brings_no_heavy_library():
    code = """
import sys, time
start = time.perf_counter()
import curate.wordnet
imported = time.perf_counter() - start
assert not {"torch", "nltk", "pyarrow", "pandas", "numpy", "duckdb"} & set(sys.modules), sys.modules.keys()
import duckdb
start = time.perf_counter()
assert "n02084071" in curate.wordnet.nouns()
print(imported, time.perf_counter() - start)
assert not {"torch", "nltk", "pandas"} & set(sys.modules)
"""
    root = table_path().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    imported_s, loaded_s = map(float, done.stdout.split())
    print(f"import {imported_s:.3f} s, load {loaded_s:.3f} s")
    assert imported_s < 0.2
    assert loaded_s < 0.5  # about 0.07 s on a quiet machine, twice that on a busy one
