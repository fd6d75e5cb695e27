"""robots.txt by RFC 9309: the longest rule that fits decides, and rules have wildcards.

Python's own `urllib.robotparser` takes the first rule that fits and knows no wildcards, so that it would
overlook `Disallow: /*.jpg$`.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote

_LINE = re.compile(r"\s*([A-Za-z-]+)\s*:\s*([^#]*)")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_RULES = 2000  # of a file are kept: each is tried for every URL of the host


class _Rule(NamedTuple):
    pattern: str
    allow: bool


class Rules:
    """The rules of one robots.txt that are for us."""

    def __init__(self, rules: list[_Rule]) -> None:
        # The longest first, and of those as long the one that allows.
        self._rules = sorted(rules[:_RULES], key=lambda r: (-len(r.pattern), not r.allow))
        self.characters = sum(len(rule.pattern) for rule in self._rules)

    @classmethod
    def parse(cls, text: str, token: str) -> Rules:
        """Take from a file's text the groups for `token` (in lower case), or where none is, those for `*`."""
        groups: dict[str, list[_Rule]] = {}
        agents: list[str] = []
        in_rules = False  # of a group: the next user agent begins another
        for line in text.removeprefix("\ufeff").splitlines():
            match = _LINE.match(line)
            if not match:
                continue
            key, value = match[1].lower(), match[2].strip()
            if key == "user-agent":
                agents = [] if in_rules else agents
                in_rules = False
                agents.append(value.split("/", 1)[0].strip().lower())
                groups.setdefault(agents[-1], [])
            elif key in ("allow", "disallow"):
                in_rules = True
                if value:  # an empty one says nothing
                    for agent in agents:
                        groups[agent].append(_Rule(_normal(value), key == "allow"))
        return cls(groups.get(token, groups.get("*", [])))

    def allow(self, path: str) -> bool:
        """Tell whether a path with its query may be fetched."""
        path = _normal(path)
        return next((rule.allow for rule in self._rules if _fits(rule.pattern, path)), True)


ALLOW_ALL = Rules([])


def _normal(path: str) -> str:
    """Return a path with its escapes written one way."""
    path = quote(path, safe="%/:=&?~+!$,;'@()*[]|")
    return _ESCAPE.sub(lambda match: match[0].upper(), path)


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
