"""robots.txt by RFC 9309: the longest rule that fits decides, and rules have wildcards.

Python's own `urllib.robotparser` takes the first rule that fits and knows no wildcards, so that it would
overlook `Disallow: /*.jpg$`.

What a file costs follows from its bytes alone, whatever it holds: of its groups only ours and that of all are kept.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote

RULES = 5000  # that are kept of a group: each is tried for every URL of the host
RULE_BYTES = 200  # that a rule takes, besides its characters

_EVERYONE = "*"
_END_OF_LINE = re.compile(r"\r\n?|\n")  # no other: a path may hold what Unicode calls a line's end
_LINE = re.compile(r"\s*([A-Za-z-]+)\s*:\s*([^#]*)")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_RESERVED = "%/:=&?+!,;'@()[]"  # and what is percent-encoded already; `*` and `$` are rules' own


class _Rule(NamedTuple):
    pattern: str
    allow: bool


class Rules:
    """The rules of one robots.txt that are for us.

    Where there are more than can be kept, what the first ones say nothing of is forbidden.
    """

    def __init__(self, rules: list[_Rule]) -> None:
        first = dict.fromkeys(rules[:RULES])
        if len(rules) > RULES:
            first[_Rule("/", allow=False)] = None
        # The longest first, and of those as long the one that allows.
        self._rules = sorted(first, key=lambda r: (-len(r.pattern), not r.allow))
        self.bytes = sum(len(rule.pattern) + RULE_BYTES for rule in self._rules)

    @classmethod
    def parse(cls, text: str, token: str) -> Rules:
        """Take from a file's text the groups for `token` (in lower case), or where none is, those for `*`."""
        groups: dict[str, list[_Rule]] = {}  # ours, and that of all
        named: set[str] = set()  # which of the two the lines are about
        in_rules = False  # of a group: the next user agent begins another
        for line in _END_OF_LINE.split(text.removeprefix("\ufeff")):
            match = _LINE.match(line)
            if not match:
                continue
            key, value = match[1].lower(), match[2].strip()
            if key == "user-agent":
                if in_rules:
                    named, in_rules = set(), False
                if who := _who(value, token):
                    named.add(who)
                    groups.setdefault(who, [])
            elif key in ("allow", "disallow"):
                in_rules = True
                # An empty one says nothing. One more than are kept tells that there are more.
                wanting = [groups[who] for who in named if value and len(groups[who]) <= RULES]
                if wanting:
                    rule = _Rule(_pattern(value), key == "allow")
                    for group in wanting:
                        group.append(rule)
        return cls(groups.get(token, groups.get(_EVERYONE, [])))

    def allow(self, path: str) -> bool:
        """Tell whether a path with its query may be fetched."""
        path = _normal(path)
        return next((rule.allow for rule in self._rules if _fits(rule.pattern, path)), True)


ALLOW_ALL = Rules([])


def _who(value: str, token: str) -> str | None:
    """Tell whom a user-agent line is about: us, everyone, or nobody we know; a version and more words say nothing."""
    name = value.split("/", 1)[0].strip().lower()
    names = {name, *name.split()[:1]}
    return next((who for who in (token, _EVERYONE) if who in names), None)


def _pattern(value: str) -> str:
    """Return a rule's path with its escapes written one way; its `*` and a `$` at its end are wildcards."""
    end = "$" if value.endswith("$") else ""
    return "*".join(_normal(piece) for piece in re.split(r"\*+", value.removesuffix("$"))) + end


def _normal(path: str) -> str:
    """Return a path in which equal characters are written alike (RFC 9309, 2.2.2).

    What needs no escape has none (`%7E` is `~`); all else is escaped, in capitals, but for reserved characters, which
    mean one thing as they are and another escaped: `%2F` is not `/`.
    """
    path = quote(path, safe=_RESERVED, errors="surrogateescape")
    return _ESCAPE.sub(_escape, path)


def _escape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else match[0].upper()


def _fits(pattern: str, path: str) -> bool:
    """Tell whether a pattern fits the beginning of a path, or all of it where it ends in `$`.

    By searching its pieces in turn: a regular expression of many wildcards could take hours.
    """
    whole = pattern.endswith("$")
    first, *others = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    if not others:
        return not whole or path == first
    at = len(first)
    last = others.pop() if whole else None
    for piece in others:
        at = path.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return last is None or (path.endswith(last) and len(path) - len(last) >= at)
