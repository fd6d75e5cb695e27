"""The noun hierarchy of WordNet 3.0 in memory.

Only the edges are read at first; lemmas, glosses and senses are read when first asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property

from curate.errors import RecipeError, did_you_mean
from curate.wordnet.tables import table_path

WNID = re.compile(r"n?\d{1,8}")
SENSE = re.compile(r"(?P<lemma>.+)\.n\.(?P<number>\d+)")  # dog.n.01
RUDE = re.compile("offensive|slur|obscene|disparag|derogatory|insult")
CANDIDATES = 5  # how many an error message shows


@cache
def nouns() -> Nouns:
    """Return the noun hierarchy, read once."""
    return Nouns()


class Nouns:
    """The 82,115 noun synsets of WordNet 3.0, by wnid ('n02084071', the id that ImageNet uses).

    A synset may have several parents: hypernyms and instance hypernyms alike. Walks go over all
    of them. Each method raises RecipeError for an unknown wnid, with the nearest known one.
    """

    def __init__(self) -> None:
        self._parents = _column("array_to_string(parents, ' ')")

    def __contains__(self, wnid: object) -> bool:
        return wnid in self._parents

    def __iter__(self) -> Iterator[str]:
        return iter(self._parents)

    def __len__(self) -> int:
        return len(self._parents)

    def lemmas(self, wnid: str) -> tuple[str, ...]:
        """Return the words for the synset, in data-file order, with spaces: ('dog', 'domestic dog', ...)."""
        self._check(wnid)
        return tuple(self._lemmas[wnid].split("\t"))

    def name(self, wnid: str) -> str:
        """Return the first lemma. Two synsets may share it: see `unique_names`."""
        return self.lemmas(wnid)[0]

    def gloss(self, wnid: str) -> str:
        """Return the definition, followed by examples in quotes."""
        self._check(wnid)
        return self._glosses[wnid]

    def parents(self, wnid: str) -> tuple[str, ...]:
        """Return the hypernyms and instance hypernyms, in data-file order; the root has none."""
        self._check(wnid)
        return tuple(self._parents[wnid].split())

    def first_parents(self) -> dict[str, str]:
        """Return the first parent, in data-file order, of every synset but the root."""
        return {wnid: parents[:9] for wnid, parents in self._parents.items() if parents}

    def children(self, wnid: str) -> tuple[str, ...]:
        """Return the synsets that have this one among their parents, by wnid."""
        self._check(wnid)
        return tuple(self._children.get(wnid, ()))

    def below(self, wnids: Iterable[str]) -> frozenset[str]:
        """Return the synsets themselves and everything below them, over all parents."""
        todo = list(wnids)
        self._check(*todo)
        found = set(todo)
        while todo:
            new = set(self._children.get(todo.pop(), ())) - found
            found |= new
            todo.extend(new)
        return frozenset(found)

    def ancestors(self, wnid: str) -> dict[str, int]:
        """Return the synset itself, at 0, and everything above it, with the smallest number of edges to it.

        Nearest first, over all parents.
        """
        self._check(wnid)
        distances = {wnid: 0}
        todo = [wnid]
        for at in todo:  # grows while it is walked: breadth first
            for parent in self._parents[at].split():
                if parent not in distances:
                    distances[parent] = distances[at] + 1
                    todo.append(parent)
        return distances

    def find(self, text: str) -> list[str]:
        """Return the synsets that `text` names, in data-file order; none is an empty list.

        `text` is a whole lemma ('dog', 'ice cream') or a lemma and its sense ('dog.n.01'). Case does not
        count, and an underscore is a space.
        """
        text = _plain(text)
        if named := SENSE.fullmatch(text):
            senses = self._by_lemma.get(named["lemma"], {})
            return [wnid for wnid, number in senses.items() if number == int(named["number"])]
        return list(self._by_lemma.get(text, ()))

    def resolve(self, text: str) -> str:
        """Return the one synset that `text` names: a wnid, a lemma and its sense, or a lemma with one sense.

        Raises:
            RecipeError: it names none, or several, which the hint lists in the order of their senses.
        """
        if text in self:
            return text
        found = self.find(text)
        if len(found) == 1:
            return found[0]
        if found:
            hint = f"write one of them:\n{self._senses_of(_plain(text))}"
            raise RecipeError(f"{text!r} names {len(found)} noun synsets of WordNet", hint=hint)
        raise self._unknown(text) if WNID.fullmatch(text) else self._unnamed(text)

    def _check(self, *wnids: str) -> None:
        for wnid in wnids:
            if wnid not in self._parents:
                raise self._unknown(wnid)

    def _unknown(self, wnid: str) -> RecipeError:
        hint = "an id is 'n' and eight digits; only WordNet 3.0 has the ids of ImageNet"
        if WNID.fullmatch(wnid):
            digits = wnid.removeprefix("n").zfill(8)
            near = (f"n{typo}" for typo in (digits, *_typos(digits, "0123456789")))
            found = next((near for near in near if near in self), None)
            hint = f"did you mean {found!r} ({self.name(found)})?" if found else hint
        elif _plain(wnid) in self._by_lemma:
            hint = f"that is a name, of:\n{self._senses_of(_plain(wnid))}"
        return RecipeError(f"no noun synset {wnid!r} in WordNet 3.0", hint=hint)

    def _unnamed(self, text: str) -> RecipeError:
        lemma = _plain(text)
        if named := SENSE.fullmatch(lemma):
            lemma = named["lemma"]
        if lemma in self._by_lemma:
            hint = f"{lemma!r} has these senses:\n{self._senses_of(lemma)}"
        else:
            hint = (
                self._nearest(lemma)
                or "write a lemma ('dog'), a sense of it ('dog.n.01') or a wnid ('n02084071')"
            )
        return RecipeError(f"no noun {text!r} in WordNet 3.0", hint=hint)

    def _nearest(self, lemma: str) -> str | None:
        typos = (lemma.removesuffix("s"), *_typos(lemma, "abcdefghijklmnopqrstuvwxyz -"))
        typo = next(filter(self._decent, typos), None) if len(lemma) > 2 else None
        # Comparing with all 118,000 lemmas would take seconds: a typo rarely has another first letter.
        near = (x for x in self._by_lemma if x[:1] == lemma[:1] and abs(len(x) - len(lemma)) <= 2)
        return f"did you mean {typo!r}?" if typo else did_you_mean(lemma, filter(self._decent, near))

    def _decent(self, lemma: str) -> bool:
        """Tell whether a message may put this lemma into somebody's mouth: WordNet marks its slurs."""
        senses = self._by_lemma.get(lemma, {})
        return bool(senses) and not RUDE.search(self._glosses[min(senses, key=senses.__getitem__)])

    def _senses_of(self, lemma: str) -> str:
        senses = sorted(self._by_lemma[lemma].items(), key=lambda item: item[1])
        name = lemma.replace(" ", "_")
        lines = [
            f"    {name}.n.{number:02d} = {wnid}: {self._glosses[wnid].partition('; ')[0]}"
            for wnid, number in senses[:CANDIDATES]
        ]
        more = len(senses) - CANDIDATES
        return "\n".join([*lines, f"    and {more} more"] if more > 0 else lines)

    @cached_property
    def _children(self) -> dict[str, list[str]]:
        children: dict[str, list[str]] = {}
        for wnid, parents in self._parents.items():
            for parent in parents.split():
                children.setdefault(parent, []).append(wnid)
        return children

    @cached_property
    def _lemmas(self) -> dict[str, str]:
        return _column("array_to_string(lemmas, chr(9))")

    @cached_property
    def _glosses(self) -> dict[str, str]:
        return _column("gloss")

    @cached_property
    def _by_lemma(self) -> Mapping[str, dict[str, int]]:
        """Lemma in lower case to its synsets, in data-file order, each with the number of the sense."""
        by_lemma: dict[str, dict[str, int]] = {}
        senses = _column("array_to_string(senses, ' ')")
        for wnid, lemmas in self._lemmas.items():
            for lemma, number in zip(lemmas.lower().split("\t"), senses[wnid].split(), strict=True):
                by_lemma.setdefault(lemma, {})[wnid] = int(number)
        return by_lemma


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").lower().split())


def _typos(word: str, alphabet: str) -> Iterator[str]:
    """Give what may have been meant, likeliest first: two swapped, one lost, one too many, one wrong."""
    splits = [(word[:i], word[i:]) for i in range(len(word), -1, -1)]
    yield from (left + right[1] + right[0] + right[2:] for left, right in splits if len(right) > 1)
    yield from (left + other + right for left, right in splits for other in alphabet)
    yield from (left + right[1:] for left, right in splits if right)
    yield from (left + other + right[1:] for left, right in splits if right for other in alphabet)


def _column(expression: str) -> dict[str, str]:
    """Return wnid to text, in data-file order.

    One long text and not 82,115 values: DuckDB hands that over in half the time. Sorting costs
    nothing where the rows come in order, and DuckDB does not promise that they do.
    """
    import duckdb

    with duckdb.connect() as con:
        # Of an empty list DuckDB 1.3 makes NULL and not '', which would lose the root.
        query = f"SELECT string_agg(wnid || coalesce({expression}, ''), chr(10)) FROM read_parquet(?)"
        row = con.execute(query, [str(table_path())]).fetchone()
    assert row
    return {line[:9]: line[9:] for line in sorted(row[0].split("\n"))}
