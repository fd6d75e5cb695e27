"""Findings of linting: kinds and severities, the first findings of each kind, and counts of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEPT = 100  # findings of a kind, in full; the rest are counted
NAME_CHARACTERS = 200  # of a name, shown; a tar may have names of a megabyte

# Error: a sample is lost, merged with another or unreadable. Warning: it is read otherwise than expected.
KINDS = {
    "unreadable": "error",
    "not a sound tar": "error",
    "members after the end": "error",
    "empty shard": "error",
    "merged samples": "error",
    "cut name": "error",
    "split sample": "error",
    "duplicate key": "error",
    "duplicate member": "error",
    "undecodable image": "error",
    "oversize image": "error",
    "escaping name": "error",
    "sparse file": "error",
    "bytes after the end": "warning",
    "link": "warning",
    "device": "warning",
    "member of an unknown kind": "warning",
    "no key": "warning",
    "no image": "warning",
    "several images": "warning",
    "mixed extensions": "warning",
    "wrong extension": "warning",
    "unreadable field": "warning",
    "oversize field": "warning",
    "name is not UTF-8": "warning",
    "PAX headers": "warning",
    "animated": "note",
    "CMYK": "note",
    "16 bits a channel": "note",
}
# Kind of finding → reason by which `build` counts a lost member or sample. With other findings it loses nothing, or
# refuses the tar.
LEFT_OUT = {
    "link": "not a plain file in its tar",
    "device": "not a plain file in its tar",
    "member of an unknown kind": "not a plain file in its tar",
    "sparse file": "not a plain file in its tar",
    "duplicate member": "members that their sample has already",
    "no image": "without an image",
    "several images": "images after the first of their sample",
    "cut name": "without an image",
    "merged samples": "images after the first of their sample",
    "members after the end": "samples behind the end-of-archive marker",
    "empty shard": "tars without a sample",
}
NO_NAME, NO_EXTENSION = "without a name", "without an extension"  # of "no key"


@dataclass(frozen=True)
class Finding:
    """A finding about a tar.

    Args:
        severity: "error", "warning" or "note".
        member: a member's name or a sample's key; empty for the whole shard.
    """

    severity: str
    kind: str
    shard: str
    member: str
    what: str


@dataclass
class Report:
    """The result of linting some tars.

    Args:
        counts: kind → number of findings; `findings` has the first 100 of each kind.
        bytes: of the tars.
        images: kind of image → number of decoded images.
    """

    shards: int = 0
    members: int = 0
    samples: int = 0
    bytes: int = 0
    images: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    kept: dict[str, list[Finding]] = field(default_factory=dict)

    def add(self, kind: str, shard: str, member: str, what: str) -> None:
        """Count a finding, and keep it if it is among the first of its kind."""
        self.counts[kind] += 1
        kept = self.kept.setdefault(kind, [])
        if len(kept) < KEPT:
            kept.append(Finding(KINDS[kind], kind, shown(shard), shown(member), plain(what)))

    def raise_to(self, kind: str, count: int) -> None:
        """Set the count of a kind of which only the first findings were added."""
        if count:
            self.counts[kind] = count

    @property
    def findings(self) -> list[Finding]:
        """The first findings of each kind, most severe kinds first."""
        return self.first(KEPT)

    def first(self, count: int) -> list[Finding]:
        """Return the first `count` findings of each kind, most severe kinds first."""
        return [finding for kind in KINDS for finding in self.kept.get(kind, [])[:count]]

    def count(self, severity: str) -> int:
        """Return the number of findings of a severity."""
        return sum(n for kind, n in self.counts.items() if KINDS[kind] == severity)

    @property
    def failed(self) -> bool:
        """Whether there are errors."""
        return self.count("error") > 0

    def document(self) -> Mapping[str, Any]:
        """Return the report as a JSON document."""
        numbers = {n: getattr(self, n) for n in ("shards", "samples", "members", "bytes", "images", "counts")}
        severities = {f"{s}s": self.count(s) for s in ("error", "warning", "note")}
        return numbers | severities | {"findings": [vars(f) for f in self.findings]}


def plain(name: str) -> str:
    """Return a name with all unprintable characters escaped."""
    return name if name.isprintable() else name.encode("unicode_escape").decode()


def shown(name: str) -> str:
    """Return a name for people: printable and not too long."""
    name = plain(name)
    return name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 1]}…"
