"""What may be connected to: http on the public internet, whatever a URL, a name server or a redirect says."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from webs import Web, picture

from curate.fetch.http.transfer import Fetcher
from curate.fetch.limits import FetchLimits
from curate.io.web.addresses import Target, joined, public, resolve, split
from curate.io.web.outcomes import Failure

A = picture(1)
PUBLIC = "93.184.215.14"


class Internet:
    """Name servers that answer what a test says, and a public address at which `web` is found.

    Attributes:
        names: name → its answers, one for each time it is asked, and the last from then on.
        asked: the names that were asked for.
        connected: the addresses that sockets were connected to.
        error: what connecting raises.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, web: Web) -> None:
        self.names: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        self.connected: list[str] = []
        self.error: OSError | None = None
        real, internet = socket.getaddrinfo, self

        def getaddrinfo(host, port, *args, **kwargs):
            internet.asked.append(host)
            answers = internet.names.get(host)
            if not answers:
                return real(host, port, *args, **kwargs)
            found = answers.pop(0) if len(answers) > 1 else answers[0]
            return [row for address in found for row in real(address, port, type=socket.SOCK_STREAM)]

        class Recording(socket.socket):
            def connect(self, place):
                internet.connected.append(place[0])
                if internet.error:
                    raise internet.error
                super().connect(("127.0.0.1", web.port))

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr("curate.fetch.http.connections.socket.socket", Recording)

    def reason(self, url: str, **changes) -> str:
        """Fetch a URL with guards as they are for strangers; return the reason, or "ok"."""
        guards = FetchLimits(
            **{"deadline_s": 2.0, "timeout_s": 1.0, "retries": 0, "robots": False, **changes}
        )
        try:
            assert Fetcher(guards).fetch(url) == A
        except Failure as failure:
            return failure.reason
        return "ok"


@pytest.fixture
def web() -> Iterator[Web]:
    with Web({"a.jpg": A}) as web:
        yield web


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch, web: Web) -> Internet:
    found = Internet(monkeypatch, web)
    found.names["photos.example"] = [[PUBLIC]]
    return found


def test_public_host_is_fetched_from(internet: Internet) -> None:
    assert internet.reason("http://photos.example/ok/a.jpg") == "ok"
    assert internet.connected == [PUBLIC]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "FILE:/etc/passwd",
        "ftp://photos.example/a.jpg",
        "gopher://photos.example/_GET",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "unix:///var/run/docker.sock",
    ],
)
def test_nothing_but_http_is_fetched(internet: Internet, url: str) -> None:
    assert internet.reason(url) == "refused scheme"
    assert not internet.connected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/etc/passwd",
        "//photos.example/a.jpg",
        "http://",
        "http:///a.jpg",
        "http://photos.example:0/",
        "http://photos.example:99999/",
        "http://photos.example:x/",
        "http://user:secret@photos.example/",
        "http://photos.example@127.0.0.1/",
        "http://photos.example\\@127.0.0.1/",
        "http://photos example/",
        "http://photos..example/",
        "http://" + "a" * 64 + ".example/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http://[photos.example]/",
        "http://photos.example/a\r\nHost: other",
        "http://photos.example/\ud800",
        "http://photos.example/" + "a" * 9000,
    ],
)
def test_what_is_no_url_of_a_host_is_told(internet: Internet, url: str) -> None:
    assert internet.reason(url) == "bad url"
    assert not internet.connected


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost.",
        "LOCALHOST",
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "0177.0.0.1",
        "2130706433",
        "0",
        "0.0.0.0",
        "127。0。0。1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a00:1]",
        "[fd00:ec2::254]",
        "[fe80::1]",
    ],
)
def test_host_that_is_not_public_is_refused(internet: Internet, host: str) -> None:
    internet.names["localhost."] = [["127.0.0.1"]]  # some name servers know it so, others not at all
    assert internet.reason(f"http://{host}/ok/a.jpg") == "refused address"
    assert not internet.connected


def test_addresses_are_public_or_not() -> None:
    shut = (
        "192.0.0.192 192.88.99.1 198.18.0.1 203.0.113.1 239.255.255.250 240.0.0.1 ::127.0.0.1 64:ff9b::a00:1 "
        "64:ff9b:1::1 2002:a00:1:: 2002:7f00:1:: 2001::1 2001:db8::1 ff02::1 ff0e::1 fec0::1 fc00::1 100::1 5f00::1"
    )
    assert [a for a in shut.split() if public(ip_address(a))] == []
    wide = f"{PUBLIC} 8.8.8.8 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1"
    assert [a for a in wide.split() if not public(ip_address(a))] == []


def test_one_private_address_among_public_ones_is_refused(internet: Internet) -> None:
    internet.names["mixed.example"] = [[PUBLIC, "10.0.0.1"]]
    assert internet.reason("http://mixed.example/ok/a.jpg") == "refused address"
    assert not internet.connected


def test_name_that_answers_otherwise_the_second_time_gains_nothing(internet: Internet) -> None:
    internet.names["rebinding.example"] = [[PUBLIC], ["127.0.0.1"]]
    assert internet.reason("http://rebinding.example/ok/a.jpg") == "ok"
    assert internet.asked == ["rebinding.example"], "resolved once: what was checked is connected to"
    assert internet.reason("http://rebinding.example/ok/a.jpg") == "refused address"
    assert internet.connected == [PUBLIC]


@pytest.mark.parametrize("kind", ["private", "metadata", "file"])
def test_redirect_is_checked_like_a_url_of_the_table(internet: Internet, kind: str) -> None:
    reason = internet.reason(f"http://photos.example/{kind}/a.jpg")
    assert reason == ("refused scheme" if kind == "file" else "refused address")
    assert internet.connected == [PUBLIC]


def test_redirect_to_another_name_is_resolved_and_checked(internet: Internet, web: Web) -> None:
    internet.names["photos.example"] = [[PUBLIC], ["192.168.0.1"]]
    assert internet.reason("http://photos.example/redirect/a.jpg") == "refused address"
    assert internet.asked == ["photos.example"] * 2
    assert internet.connected == [PUBLIC]
    assert web.hits["/ok/a.jpg"] == 0


def test_robots_txt_is_fetched_under_the_same_guards(internet: Internet, web: Web) -> None:
    assert internet.reason("http://10.0.0.1/ok/a.jpg", robots=True) == "refused address"
    assert not internet.connected


def test_loopback_allows_the_loopback_only(internet: Internet) -> None:
    assert internet.reason("http://127.0.0.1/ok/a.jpg", loopback=True) == "ok"
    for host in ("10.0.0.1", "0.0.0.0", "169.254.169.254", "[::ffff:127.0.0.1]", "[fe80::1]"):
        assert internet.reason(f"http://{host}/ok/a.jpg", loopback=True) == "refused address", host


def test_next_address_is_tried_where_the_first_does_not_answer(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        rows = [
            (socket.AF_INET, 1, 6, "", ("127.0.0.1", port)) for port in (closed.getsockname()[1], web.port)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows)
        fetcher = Fetcher(FetchLimits(loopback=True, robots=False, retries=0))
        assert fetcher.fetch("http://two.example/ok/a.jpg") == A
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows[:1])
        with pytest.raises(Failure, match="connection failed"):
            fetcher.fetch("http://two.example/ok/a.jpg")


@pytest.mark.parametrize(
    ("error", "reason", "times"),
    [
        (TimeoutError("timed out"), "timeout", 3),
        (ConnectionResetError(), "connection failed", 3),
        (ConnectionRefusedError(), "connection failed", 1),
        (OSError(101, "Network is unreachable"), "connection failed", 1),
    ],
)
def test_connection_that_cannot_be_made_is_tried_again_where_that_may_help(
    internet: Internet, error: OSError, reason: str, times: int
) -> None:
    internet.error = error
    assert internet.reason("http://photos.example/ok/a.jpg", retries=2, backoff_s=0.01) == reason
    assert internet.connected == [PUBLIC] * times


@pytest.mark.parametrize(
    ("code", "reason"), [(socket.EAI_NONAME, "no such host"), (socket.EAI_AGAIN, "connection failed")]
)
def test_name_without_address_is_told_from_a_busy_name_server(
    monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    def getaddrinfo(*_, **__):
        raise socket.gaierror(code, "so it is")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(Failure, match=f"{reason}: nowhere.example: so it is"):
        resolve(split("http://nowhere.example/"), loopback=False)


def test_host_of_ipv6_alone_is_fetched_from() -> None:
    try:
        web = Web({"a.jpg": A}, host="::1")
    except OSError as error:
        pytest.skip(f"no ::1 here: {error}")
    with web:
        assert Fetcher(FetchLimits(loopback=True)).fetch(web.url("/redirect/a.jpg")) == A
        with pytest.raises(Failure, match="refused address"):
            Fetcher(FetchLimits(robots=False)).fetch(web.url("/ok/a.jpg"))


def test_urls_are_taken_apart_and_encoded() -> None:
    assert split(" HTTP://Bücher.Example/é b%20c?q=ü#part\n") == Target(
        "http", "xn--bcher-kva.example", 80, "/%C3%A9%20b%20c?q=%C3%BC"
    )
    assert split("https://[2606:4700:0::1]:8443").origin == "https://[2606:4700::1]:8443"
    assert split("https://a_b.example:443?x").netloc == "a_b.example"
    assert split("https://a.example:80/").netloc == "a.example:80"


def test_locations_are_joined_to_where_they_come_from() -> None:
    at = split("https://a.example/x/y?z")
    assert joined(at, "w") == "https://a.example/x/w"
    assert joined(at, "//b.example/") == "https://b.example/"
    assert joined(at, "/é".encode().decode("latin-1")) == joined(at, "/\xe9") == "https://a.example/é"
    with pytest.raises(Failure, match="bad url"):
        joined(at, "http://[bad/")
