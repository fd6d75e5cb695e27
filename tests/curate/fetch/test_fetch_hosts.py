"""What a host is spared: too many connections at once, too soon after each other, and what robots.txt forbids."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from campaigns import masses
from webs import SLOW_S, Web, picture

from curate.fetch.http import hosts, robots
from curate.fetch.http.hosts import RobotsFiles, Turns
from curate.fetch.http.robots import RULE_BYTES, RULES, Rules
from curate.fetch.http.transfer import Fetcher
from curate.fetch.limits import FetchLimits
from curate.io.web.addresses import split
from curate.io.web.outcomes import Failure, lasting

A = picture(1)


@pytest.fixture
def web() -> Iterator[Web]:
    with Web({"a.jpg": A}) as web:
        yield web


def fetcher(**changes) -> Fetcher:
    usual = {"loopback": True, "deadline_s": 2.0, "timeout_s": 2.0, "backoff_s": 0.01, "retries": 0}
    return Fetcher(FetchLimits(**{**usual, **changes}))


def told(fetcher: Fetcher, url: str) -> str:
    try:
        fetcher.fetch(url)
    except Failure as failure:
        return str(failure)
    return "ok"


def all_told(fetcher: Fetcher, urls: list[str]) -> set[str]:
    with ThreadPoolExecutor(32) as pool:
        return set(pool.map(lambda url: told(fetcher, url), urls))


@pytest.mark.parametrize(("most", "urls"), [(1, 30), (4, 100)])
def test_no_more_connections_to_a_host_than_allowed(web: Web, most: int, urls: int) -> None:
    assert all_told(
        fetcher(connections_per_host=most), [web.url(f"/slow/a.jpg?{n}") for n in range(urls)]
    ) == {"ok"}
    assert web.most_at_once == most


def test_wait_for_a_turn_is_not_counted_against_the_deadline(web: Web) -> None:
    urls = [web.url(f"/slow/a.jpg?{n}") for n in range(80)]
    begin = time.monotonic()
    assert all_told(fetcher(connections_per_host=1, deadline_s=1.5, robots=False), urls) == {"ok"}
    assert time.monotonic() - begin > 80 * SLOW_S > 1.5, "the last have waited longer than the deadline"


def test_starts_are_apart(web: Web) -> None:
    begin = time.monotonic()
    urls = [web.url(f"/ok/a.jpg?{n}") for n in range(6)]
    assert all_told(fetcher(interval_s=0.1, robots=False), urls) == {"ok"}
    assert time.monotonic() - begin >= 0.5


@pytest.mark.parametrize("count", masses([200, 5000], kept=lambda count: count == 200))
def test_many_urls_of_one_host_come_through(web: Web, count: int) -> None:
    urls = [web.url(f"/ok/a.jpg?{n}") for n in range(count)]
    assert all_told(fetcher(deadline_s=120.0, timeout_s=60.0), urls) == {"ok"}
    assert sum(web.hits.values()) == count + 1, "each once, and robots.txt"


@pytest.mark.parametrize("interval_s", [0.0, 0.01])
def test_hosts_are_forgotten_when_nobody_uses_them(interval_s: float) -> None:
    turns = Turns(1, interval_s)
    for n in range(100):
        with turns.turn(f"host{n}"):
            assert len(turns) >= 1
    time.sleep(0.02)
    with turns.turn("last"):
        assert len(turns) == 1


def test_turn_is_given_back_by_what_fails() -> None:
    turns = Turns(1, 0.0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), turns.turn("host"):
            raise ZeroDivisionError
    assert len(turns) == 0


# robots.txt


def test_robots_txt_is_obeyed_and_can_be_passed_over(web: Web) -> None:
    web.robots = "User-agent: *\nDisallow: /ok/"
    assert told(fetcher(), web.url("/ok/a.jpg")) == "robots.txt"
    assert told(fetcher(), web.url("/slow/a.jpg")) == "ok"
    assert web.hits["/ok/a.jpg"] == 0
    assert told(fetcher(), web.url("/redirect/a.jpg")) == "robots.txt", "where a redirect leads, too"
    assert told(fetcher(robots=False), web.url("/ok/a.jpg")) == "ok"
    assert web.hits["/robots.txt"] == 3


def test_robots_txt_is_fetched_once_by_many(web: Web) -> None:
    web.robots = "User-agent: curate-train\nDisallow: /ok/a.jpg?5"
    ours = fetcher()
    assert all_told(ours, [web.url(f"/ok/a.jpg?{n}") for n in range(32)]) == {"ok", "robots.txt"}
    assert web.hits["/robots.txt"] == 1
    assert sum(count for path, count in web.hits.items() if path.startswith("/ok/a.jpg?5")) == 0


@pytest.mark.parametrize(
    ("status", "expected"),
    [(404, "ok"), (403, "ok"), (503, "http 503: robots.txt"), (429, "http 429: robots.txt")],
)
def test_robots_txt_that_cannot_be_had_forbids_for_now(web: Web, status: int, expected: str) -> None:
    web.robots = status
    ours = fetcher()
    assert told(ours, web.url("/ok/a.jpg")).rstrip(": ") == expected
    assert told(ours, web.url("/slow/a.jpg")).rstrip(": ") == expected
    assert web.hits["/robots.txt"] == 1, "not asked for again at once"
    assert expected == "ok" or not lasting(expected.split(":")[0])


def test_robots_txt_that_failed_is_asked_for_again_later(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_FAILED_FRESH_S", 0.1)
    web.robots = 503
    ours = fetcher()
    assert told(ours, web.url("/ok/a.jpg")).startswith("http 503")
    web.robots = None
    time.sleep(0.15)
    assert told(ours, web.url("/ok/a.jpg")) == "ok"


def test_rules_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_KEPT_HOSTS", 3)
    a_rule = len("/12345678") + RULE_BYTES
    monkeypatch.setattr(hosts, "_KEPT_BYTES", int(2.8 * a_rule))
    asked = []

    def get(url: str) -> bytes:
        asked.append(url)
        return b"User-agent: *\nDisallow: /12345678"

    files = RobotsFiles(get, "curate-train")
    for n in (1, 1, 2, 3, 4, 4, 1):
        files.check(split(f"http://host{n}/"))
    assert [url[11] for url in asked] == ["1", "2", "3", "4", "1"]
    assert len(files._entries) <= 3
    assert files._bytes <= 4 * a_rule
    assert files._bytes == sum(entry.rules.bytes for entry in files._entries.values())


def test_one_slow_robots_txt_keeps_nobody_else_waiting() -> None:
    release = threading.Event()

    def get(url: str) -> bytes:
        if "slow" in url:
            release.wait(60)
        return b""

    files = RobotsFiles(get, "curate-train")
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(files.check, split("http://slow/"))
        pool.submit(files.check, split("http://quick/")).result(timeout=60)
        assert not slow.done()
        release.set()
        slow.result(timeout=60)


# The examples of RFC 9309, section 5, and what it says of each in 2.2.
GROUPS = """
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""


@pytest.mark.parametrize(
    ("agent", "path", "allowed"),
    [
        ("other", "/a.gif", False),
        ("other", "/a.gif?x", True),
        ("other", "/example/a", False),
        ("other", "/publications/a", True),
        ("foobot", "/example/page.html", True),
        ("foobot", "/example/allowed.gif", True),
        ("foobot", "/example/other", False),
        ("barbot", "/example/page.html", False),
        ("bazbot", "/example/page.html", False),
        ("bazbot", "/example/a", True),
        ("quxbot", "/example/page.html", True),
    ],
)
def test_examples_of_the_standard(agent: str, path: str, allowed: bool) -> None:
    assert Rules.parse(GROUPS, agent).allow(path) is allowed


def test_longest_rule_decides_and_escapes_are_equal() -> None:
    rules = Rules.parse("User-agent: *\nAllow: /\nDisallow: /a\nAllow: /a/b\nDisallow: /é*x/$\n", "us")
    assert [rules.allow(path) for path in ("/", "/a/c", "/a/b/c")] == [True, False, True]
    assert [rules.allow(path) for path in ("/%c3%a9/yx/", "/%C3%A9x/z")] == [False, True]
    assert Rules.parse("User-agent: *\nDisallow: /p\nAllow: /p", "us").allow("/p"), "of equals, what allows"
    assert Rules.parse("Disallow: /", "us").allow("/"), "a rule of no group"
    assert Rules.parse("\ufeffUSER-AGENT: Us/1.0 # we\nDISALLOW : /x#y", "us").allow("/x") is False


# The tables of RFC 9309, 2.2.2 and 2.2.3, and of Google's documentation of its own parser: rule, path, whether it fits.
FITS = [
    ("/foo/bar?baz=quz", "/foo/bar?baz=quz", True),
    ("/foo/bar?baz=https://foo.bar", "/foo/bar?baz=https://foo.bar", True),
    ("/foo/bar/ツ", "/foo/bar/%E3%83%84", True),
    ("/foo/bar/%E3%83%84", "/foo/bar/%e3%83%84", True),
    ("/foo/bar/%62%61%7A", "/foo/bar/baz", True),
    ("/foo/bar/baz", "/foo/bar/%62%61%7a", True),
    ("/%7Ejoe/index.html", "/~joe/index.html", True),
    ("/~joe/index.html", "/%7ejoe/index.html", True),
    ("/a%2Fb.html", "/a/b.html", False),
    ("/a/b.html", "/a%2fb.html", False),
    ("/a%2fb.html", "/a%2Fb.html", True),
    ("/a%3cd.html", "/a%3Cd.html", True),
    ("/a%3cd.html", "/a<d.html", True),
    ("/path/file-with-a-%2A.html", "/path/file-with-a-*.html", True),
    ("/path/file-with-a-%2A.html", "/path/file-with-a-b.html", False),
    ("/path/foo-%24", "/path/foo-$", True),
    ("/path/foo-%24", "/path/foo-", False),
    ("/a$b", "/a$b/c", True),
    ("/100%a", "/100%25a", False),
    ("/100%", "/100%", True),
    ("/fish", "/fish", True),
    ("/fish", "/fish.html", True),
    ("/fish", "/fishheads/yummy.html", True),
    ("/fish", "/Fish.asp", False),
    ("/fish", "/catfish", False),
    ("/fish*", "/fish.php?id=anything", True),
    ("/fish*", "/catfish", False),
    ("/fish/", "/fish/?id=anything", True),
    ("/fish/", "/fish", False),
    ("/*.php", "/folder/any.php.file.html", True),
    ("/*.php", "/windows.PHP", False),
    ("/*.php$", "/filename.php", True),
    ("/*.php$", "/filename.php?parameters", False),
    ("/*.php$", "/filename.php/", False),
    ("/fish*.php", "/fishheads/catfish.php?parameters", True),
    ("/fish*.php", "/Fish.PHP", False),
    ("/$", "/", True),
    ("/$", "/page.htm", False),
    ("/**a***b", "/xaxb", True),
    ("/a*a$", "/a", False),
    ("*", "/", True),
]


@pytest.mark.parametrize(("rule", "path", "fits"), FITS)
def test_rules_fit_as_the_standard_says(rule: str, path: str, fits: bool) -> None:
    assert Rules.parse(f"User-agent: *\nDisallow: {rule}", "us").allow(path) is not fits


@pytest.mark.parametrize(
    ("lines", "path", "allowed"),
    [
        (["Allow: /p", "Disallow: /"], "/page", True),
        (["Allow: /folder", "Disallow: /folder"], "/folder/page", True),
        (["Allow: /page", "Disallow: /*.htm"], "/page.htm", False),
        (["Allow: /page", "Disallow: /*.ph"], "/page.php5", True),
        (["Allow: /$", "Disallow: /"], "/", True),
        (["Allow: /$", "Disallow: /"], "/page.htm", False),
    ],
)
def test_the_longest_rule_decides_and_of_equals_the_one_that_allows(
    lines: list[str], path: str, allowed: bool
) -> None:
    for order in (lines, lines[::-1]):
        assert Rules.parse("\n".join(["User-agent: *", *order]), "us").allow(path) is allowed


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        (
            "User-agent: us\nDisallow: /a\n\nUser-agent: other\nDisallow: /b\n\nuser-agent: US\nDisallow: /c",
            "ac",
        ),
        ("user-agent: us/2.1\rdisallow: /a\ruser-agent: *\rdisallow: /b", "a"),
        ("User-agent: us bot of ours\r\nDisallow: /a # and /b\r\nDisallow: /c", "ac"),
        ("User-agent: usual\nDisallow: /\nUser-agent: *\nDisallow: /c", "c"),
        ("User-agent: us\nSitemap: http://x/\nUser-agent: other\nDisallow: /a", "a"),
        ("User-agent: us\nCrawl-delay: 5\n# nothing\nDisallow:\nUser-agent: *\nDisallow: /", ""),
        ("\ufeffUser-agent: *\nDisallow: /a\x0cAllow: /\u2028\nDisallow:/b\nnonsense\n:\nDisallow /c", "b"),
    ],
    ids=[
        "merged",
        "version-and-cr",
        "words-and-comment",
        "no-prefix",
        "one-group",
        "nothing-forbidden",
        "odd-lines",
    ],
)
def test_groups_are_ours_or_those_of_all(text: str, forbidden: str) -> None:
    rules = Rules.parse(text, "us")
    assert [letter for letter in "abc" if not rules.allow(f"/{letter}")] == list(forbidden)


def test_octets_that_are_no_utf8_are_compared_as_octets() -> None:
    files = RobotsFiles(lambda _: b"User-agent: *\nDisallow: /\xe9t\xe9", "us")
    assert told_by(files, "http://host/%E9t%e9/a.jpg") == "robots.txt"
    assert told_by(files, "http://host/%C3%A9t%C3%A9") == "ok"


def told_by(files: RobotsFiles, url: str) -> str:
    try:
        files.check(split(url))
    except Failure as failure:
        return failure.reason
    return "ok"


def test_work_and_memory_of_a_file_follow_from_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three thousand names for one group of three thousand rules: each rule was kept for each name."""
    made = []
    normal = robots._normal
    monkeypatch.setattr(robots, "_normal", lambda path: made.append(path) or normal(path))
    agents = "".join(f"User-agent: a{n}\n" for n in range(3000))
    rules = "".join(f"Disallow: /{n}\n" for n in range(3000))
    tracemalloc.start()
    for text, kept in ((agents + rules, 0), (agents + "User-agent: us\nUser-agent: *\n" + rules, 3000)):
        made.clear()
        tracemalloc.reset_peak()
        found = Rules.parse(text, "us")
        assert tracemalloc.get_traced_memory()[1] < 50 * len(text)
        assert len(found._rules) == len(made) == kept
    tracemalloc.stop()


def test_of_too_many_rules_what_the_first_do_not_allow_is_forbidden() -> None:
    many = "".join(f"Disallow: /{n}\n" for n in range(4 * RULES))
    for allowed, path in ((True, "/open/a"), (False, f"/{3 * RULES}"), (False, "/else")):
        rules = Rules.parse("User-agent: us\nAllow: /open\n" + many, "us")
        assert len(rules._rules) <= RULES + 1
        assert rules.allow(path) is allowed
    just = Rules.parse("User-agent: us\n" + "".join(f"Disallow: /{n}\n" for n in range(RULES)), "us")
    assert just.allow("/else")


def test_a_line_that_was_cut_in_half_says_nothing() -> None:
    head = b"User-agent: *\nDisallow: /\nAllow: /a\n"
    cut = (head + b"#" * hosts.ROBOTS_BYTES)[: hosts.ROBOTS_BYTES - 9] + b"\nAllow: /"
    assert len(cut) == hosts.ROBOTS_BYTES
    files = RobotsFiles(lambda _: cut, "us")
    assert [told_by(files, f"http://host/{path}") for path in ("a", "b")] == ["ok", "robots.txt"]


class Counting(str):
    """A path that counts how often it is searched."""

    searches = 0

    def find(self, *args: Any) -> int:  # type: ignore[override]
        Counting.searches += 1
        return str.find(self, *args)


def test_a_pattern_of_many_wildcards_is_searched_once_a_piece() -> None:
    path = Counting("/" + "a" * 8000)
    for pattern in ("/" + "*a" * 500 + "*b", "/" + "*a" * 500 + "*b$", "/" + "*aa" * 3000 + "c"):
        Counting.searches = 0
        assert not robots._fits(pattern, path)
        assert Counting.searches <= pattern.count("*")
