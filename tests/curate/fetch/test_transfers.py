"""One URL to bytes or to a reason: what servers do wrong, and what must never be done for a stranger's table."""

from __future__ import annotations

import gzip
import io
import json
import socket
import ssl
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from email.utils import formatdate
from pathlib import Path

import pytest
from PIL import Image
from webs import DRIP_S, Web, gzip_bomb, picture

from curate.errors import RecipeError
from curate.fetch.http.connections import Deadline, DeadlineReader
from curate.fetch.http.responses import _seconds
from curate.fetch.http.transfer import Fetcher, _backoff_s, check
from curate.fetch.limits import FetchLimits
from curate.io.memory import MemoryBudget
from curate.io.web.outcomes import OUTCOMES, Failure, lasting, reason_of

A, B = picture(1), picture(2)


@pytest.fixture
def web() -> Iterator[Web]:
    with Web({"a.jpg": A, "b.jpg": B, "photo%20%C3%A9.jpg": A}) as web:
        yield web


def guards(**changes) -> FetchLimits:
    """Return limits for a server on the loopback."""
    usual = {"loopback": True, "deadline_s": 8.0, "timeout_s": 5.0, "backoff_s": 0.01, "max_bytes": 1_000_000}
    return FetchLimits(**{**usual, "robots": False, **changes})


def reason(url: str, **changes) -> str:
    """The reason for which a URL comes to nothing."""
    with pytest.raises(Failure) as caught:
        Fetcher(guards(**changes)).fetch(url)
    assert reason_of(str(caught.value)) == caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize(
    "kind", ["ok", "redirect", "wrong-type", "gzip", "deflate", "noai-other", "500-then-200"]
)
def test_image_comes_through_as_it_is(web: Web, kind: str) -> None:
    assert Fetcher(guards()).fetch(web.url(f"/{kind}/a.jpg")) == A


REASONS = {
    "404": "http 404",
    "410": "http 410",
    "204": "http 204",
    "503": "http 503",
    "html": "not an image",
    "truncated": "damaged image",
    "short": "truncated",
    "short-chunk": "truncated",
    "brotli": "bad encoding",
    "empty": "empty",
    "reset": "connection failed",
    "garbage": "bad answer",
    "noai": "opted out",
    "loop": "too many redirects",
    "private": "refused address",
    "metadata": "refused address",
    "file": "refused scheme",
    "bomb": "too many pixels",
    "gzip-bomb": "too large",
    "endless": "too large",
    "endless-chunks": "too large",
}


@pytest.mark.parametrize("kind", REASONS)
def test_what_a_server_does_wrong_has_its_reason(web: Web, kind: str) -> None:
    assert reason(web.url(f"/{kind}/a.jpg")) == REASONS[kind]


def test_path_outside_ascii_is_encoded(web: Web) -> None:
    assert Fetcher(guards()).fetch(web.url("/ok/photo é.jpg")) == A
    assert web.hits["/ok/photo%20%C3%A9.jpg"] == 1


def test_changed_and_gone_once_time_has_turned(web: Web) -> None:
    fetcher = Fetcher(guards())
    assert fetcher.fetch(web.url("/changed/a.jpg")) == fetcher.fetch(web.url("/gone/a.jpg")) == A
    web.turn()
    assert fetcher.fetch(web.url("/changed/a.jpg")) == B
    assert reason(web.url("/gone/a.jpg")) == "http 404"


# Deadlines


def test_server_that_never_answers_is_left(web: Web) -> None:
    begin = time.monotonic()
    assert reason(web.url("/hang/"), timeout_s=0.3) == "timeout"
    assert time.monotonic() - begin > 0.25
    assert web.hits["/hang/"] == 1


def test_redirects_share_the_deadline(web: Web) -> None:
    assert reason(web.url("/slow-loop/"), deadline_s=0.6, max_redirects=9) == "timeout"
    assert 1 <= web.hits["/slow-loop/"] <= 3


@pytest.mark.parametrize("kind", ["drip", "drip-to-the-end", "drip-headers"])
def test_server_that_drips_ends_at_the_deadline(web: Web, kind: str) -> None:
    begin = time.monotonic()
    assert reason(web.url(f"/{kind}/"), deadline_s=0.8, timeout_s=1.4 * DRIP_S, retries=2) == "timeout"
    assert time.monotonic() - begin > 0.75, "not the first wait for a byte"
    assert web.hits[f"/{kind}/"] == 1, "no second attempt"


def test_handshake_that_drips_ends_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def serve() -> None:
            client, _ = server.accept()
            with client, suppress(OSError):
                client.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 kB is to come
                while not done.wait(0.1):
                    client.send(b"\x02")

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}/"
        assert reason(url, deadline_s=0.7, timeout_s=600.0) == "timeout"
        assert not done.is_set()
        done.set()
        thread.join()


def test_many_that_drip_end_together(web: Web) -> None:
    fetcher = Fetcher(guards(connections_per_host=20, deadline_s=1.0))
    begin = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        told = list(pool.map(lambda n: _told(fetcher, web.url(f"/drip/{n}")), range(20)))
    assert set(told) == {"timeout"}
    assert time.monotonic() - begin < 20 * 1.0, "not one after the other"


def _told(fetcher: Fetcher, url: str) -> str:
    try:
        fetcher.fetch(url)
    except Failure as failure:
        return failure.reason
    return "ok"


def test_reader_of_a_closed_socket_reads_on_and_lends_its_number_to_nobody() -> None:
    ours, theirs = socket.socketpair()
    reader = DeadlineReader(ours, Deadline(time.monotonic() + 60, 60.0))
    number = ours.fileno()
    ours.close()  # as http.client does once it has read the headers
    others = socket.socketpair()
    assert number not in [sock.fileno() for sock in others]
    theirs.sendall(b"x")
    assert reader.read(1) == b"x"
    reader.close()
    theirs.settimeout(5)
    assert theirs.recv(1) == b"", "closed with its reader"
    for sock in (theirs, *others):
        sock.close()


def test_nothing_is_read_after_the_deadline_though_bytes_are_there() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"x")
        with pytest.raises(TimeoutError):
            DeadlineReader(ours, Deadline(time.monotonic() - 1, 60.0)).read(1)


# Sizes


def test_length_over_the_cap_is_refused_before_reading() -> None:
    with Web({"a.jpg": A + bytes(5_000_000)}) as web:
        tracemalloc.start()
        with pytest.raises(Failure, match=rf"too large: {len(A) + 5_000_000} bytes"):
            Fetcher(guards(max_bytes=len(A))).fetch(web.url("/ok/a.jpg"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1_000_000


def test_image_of_just_the_cap_is_taken(web: Web) -> None:
    assert Fetcher(guards(max_bytes=len(A))).fetch(web.url("/ok/a.jpg")) == A
    assert Fetcher(guards(max_bytes=len(A))).fetch(web.url("/gzip/a.jpg")) == A
    assert reason(web.url("/ok/a.jpg"), max_bytes=len(A) - 1) == "too large"
    assert reason(web.url("/gzip/a.jpg"), max_bytes=len(A) - 1) == "too large"


@pytest.mark.parametrize("kind", ["gzip-bomb", "endless", "endless-chunks"])
def test_memory_stays_within_the_cap(web: Web, kind: str) -> None:
    gzip_bomb()  # made once, before memory is counted
    tracemalloc.start()
    assert reason(web.url(f"/{kind}/"), max_bytes=500_000) == "too large"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


def test_pixels_are_counted_before_anything_is_decoded(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.fetch.http.transfer.decode", lambda *_, **__: pytest.fail("decoded"))
    assert reason(web.url("/bomb/")) == "too many pixels"
    assert reason(web.url("/ok/a.jpg"), max_pixels=160 * 120 - 1) == "too many pixels"
    assert Fetcher(guards(decode=False, max_pixels=160 * 120)).fetch(web.url("/ok/a.jpg")) == A


def test_frame_of_a_gif_counts_where_it_is_larger_than_the_screen() -> None:
    stream = io.BytesIO()
    Image.new("P", (50, 30)).save(stream, "GIF")
    data = stream.getvalue()[:6] + struct.pack("<HH", 1, 1) + stream.getvalue()[10:]
    check(data, guards(max_pixels=1500))
    for decode in (True, False):
        with pytest.raises(Failure, match=r"^too many pixels: 50 x 30$"):
            check(data, guards(max_pixels=1499, decode=decode))


@contextmanager
def one_body(body: bytes, *headers: str) -> Iterator[tuple[str, threading.Event]]:
    """A server that answers everyone with this body; the event is set when a first one is asked for."""
    asked = threading.Event()
    head = "\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode()

    def serve(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                with client, suppress(OSError):
                    client.recv(65536)
                    asked.set()
                    client.sendall(head + body)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/", asked
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


LARGE = A + bytes(2_000_000)
LARGE_BODIES = {
    "announced": (LARGE, [f"Content-Length: {len(LARGE)}"], len(LARGE)),
    "to-the-end": (LARGE, [], 3_000_000),
    "packed": (gzip.compress(LARGE), ["Content-Encoding: gzip"], 6_000_000 + len(gzip.compress(LARGE))),
}


@pytest.mark.parametrize("name", LARGE_BODIES)
def test_large_body_waits_for_room_until_its_deadline(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body, headers, needed = LARGE_BODIES[name]
    budget = MemoryBudget(needed + 10)
    monkeypatch.setattr("curate.io.memory._bodies", budget)
    fetcher = Fetcher(guards(max_bytes=3_000_000, deadline_s=60.0))
    with one_body(body, *headers) as (url, asked), ThreadPoolExecutor(1) as pool:
        with budget.reserved(10):
            assert fetcher.fetch(url) == LARGE, "just so much is needed"
        with budget.reserved(11):
            assert reason(url, max_bytes=3_000_000, deadline_s=0.4) == "timeout"
            asked.clear()
            waiting = pool.submit(fetcher.fetch, url)
            asked.wait(60)
            time.sleep(0.2)
            assert not waiting.done()
        assert waiting.result(timeout=60) == LARGE


def test_small_body_needs_no_room_and_a_failed_one_gives_it_back(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = MemoryBudget(3_000_000)
    monkeypatch.setattr("curate.io.memory._bodies", budget)
    with budget.reserved(3_000_000):
        for kind in ("ok", "gzip"):
            assert Fetcher(guards(max_bytes=20_000_000)).fetch(web.url(f"/{kind}/a.jpg")) == A
    with one_body(LARGE[:-1], f"Content-Length: {len(LARGE)}") as (url, _):
        assert reason(url, max_bytes=3_000_000) == "truncated"
    assert reason(web.url("/endless/"), max_bytes=3_000_000) == "too large"
    with budget.reserved(3_000_000, until=time.monotonic()):
        pass


def test_body_is_held_until_its_image_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = MemoryBudget(len(LARGE))
    monkeypatch.setattr("curate.io.memory._bodies", budget)
    held = []

    def look(*_: object, **__: object) -> None:
        with suppress(TimeoutError), budget.reserved(1, until=time.monotonic()):
            held.append("nothing")
        held.append("looked")

    monkeypatch.setattr("curate.fetch.http.transfer.decode", look)
    with one_body(LARGE, f"Content-Length: {len(LARGE)}") as (url, _):
        assert Fetcher(guards(max_bytes=3_000_000)).fetch(url) == LARGE
    assert held == ["looked"]


def test_body_is_there_once_while_it_is_read() -> None:
    body = A + bytes(8_000_000)
    with one_body(body, f"Content-Length: {len(body)}") as (url, _):
        fetcher = Fetcher(guards(max_bytes=20_000_000, decode=False))
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        fetcher.fetch(url)
        peak = tracemalloc.get_traced_memory()[1] - before - len(body)  # less what the server sends
        tracemalloc.stop()
    assert peak < 1.4 * len(body)


# Bytes


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_half_an_image_is_damaged(kind: str) -> None:
    data = picture(3, kind=kind, size=(300, 200))
    check(data, guards())
    with pytest.raises(Failure, match=r"damaged image|not an image") as caught:
        check(data[: len(data) // 2], guards())
    assert kind in ("TIFF", "BMP") or caught.value.reason == "damaged image"


def test_bytes_that_are_no_sound_image_are_told_apart() -> None:
    bomb = bytearray(picture(0, kind="BMP"))
    bomb[18:26] = struct.pack("<ii", 50_000, 50_000)
    known = {b"": "empty", b"<svg/>": "not an image", A[:3]: "damaged image", bytes(bomb): "too many pixels"}
    for data, expected in known.items():
        with pytest.raises(Failure) as caught:
            check(data, guards())
        assert caught.value.reason == expected


# Attempts


def test_lasting_answers_are_asked_for_once(web: Web) -> None:
    for kind in ("404", "410", "noai", "html", "truncated", "private"):
        reason(web.url(f"/{kind}/a.jpg"), retries=3)
        assert web.hits[f"/{kind}/a.jpg"] == 1, kind


@pytest.mark.parametrize("kind", ["500", "502", "503", "504", "429", "reset"])
def test_passing_answers_are_asked_for_again(web: Web, kind: str) -> None:
    path = "/reset/" if kind == "reset" else f"/{kind}/none"
    if kind == "429":
        web.images["none"] = A
        assert Fetcher(guards(retries=1)).fetch(web.url(path)) == A
        assert web.hits[path] == 2
    else:
        reason(web.url(path), retries=2)
        assert web.hits[path] == 3


def test_retry_after_is_waited_for(web: Web) -> None:
    begin = time.monotonic()
    assert Fetcher(guards(deadline_s=0.9)).fetch(web.url("/429/a.jpg")) == A
    assert time.monotonic() - begin >= 1.0
    assert reason(web.url("/429/b.jpg"), max_wait_s=0.9) == "http 429"
    assert reason(web.url("/429-long/a.jpg")) == "http 429"  # which says to come back in an hour
    assert web.hits["/429-long/a.jpg"] == 1


def test_retry_after_is_a_number_or_a_date() -> None:
    assert _seconds("120") == 120
    assert 110 < (_seconds(formatdate(time.time() + 120, usegmt=True)) or 0) <= 120
    assert _seconds(formatdate(time.time() - 120, usegmt=True)) == 0
    assert [_seconds(text) for text in (None, "", "soon", "-3", "1e9", "9" * 400)] == [None] * 6


def test_waits_grow_and_differ_from_url_to_url_but_not_from_run_to_run() -> None:
    waits = [[_backoff_s(url, n, FetchLimits()) for n in range(8)] for url in ("http://a/", "http://b/")]
    assert waits[0] != waits[1]
    assert waits[0] == [_backoff_s("http://a/", n, FetchLimits()) for n in range(8)]
    assert all(0.5 * 2**n <= waits[0][n] <= 1.5 * 2**n for n in range(4))
    assert max(waits[0]) == 30.0


# Names, certificates, guards


def test_user_agent_names_the_tool(web: Web) -> None:
    Fetcher(guards()).fetch(web.url("/ok/a.jpg"))
    Fetcher(guards(robots=True)).fetch(web.url("/ok/a.jpg"))
    [agent] = web.agents
    assert agent.startswith("curate-train/")
    assert FetchLimits().token == "curate-train"


def test_opt_out_for_others_or_not_heeded_lets_the_image_through(web: Web) -> None:
    assert Fetcher(guards(opt_outs=())).fetch(web.url("/noai/a.jpg")) == A
    assert reason(web.url("/noai-other/a.jpg"), user_agent="otherbot/2") == "opted out"


def test_proxies_of_the_environment_are_not_used(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    assert Fetcher(guards()).fetch(web.url("/ok/a.jpg")) == A


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `localhost` that signs itself, with its key."""
    pytest.importorskip("cryptography")
    from datetime import datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    begin = datetime(2020, 1, 1)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(begin).not_valid_after(begin + timedelta(days=36500))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    signed = made.sign(key, hashes.SHA256())
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(secret + signed.public_bytes(serialization.Encoding.PEM))
    return file


def test_certificates_are_verified_for_the_name(certificate: Path) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with Web({"a.jpg": A}) as web:
        web.server.socket = serving.wrap_socket(web.server.socket, server_side=True)
        port = web.port
        assert Fetcher(guards(), context=trusting).fetch(f"https://localhost:{port}/ok/a.jpg") == A
        with pytest.raises(Failure, match=r"tls: .*(self-signed|self signed)"):
            Fetcher(guards()).fetch(f"https://localhost:{port}/ok/a.jpg")
        with pytest.raises(Failure, match=r"tls: .*mismatch"):
            Fetcher(guards(), context=trusting).fetch(f"https://127.0.0.1:{port}/ok/a.jpg")
        assert web.hits == {"/ok/a.jpg": 1}


def test_connection_that_breaks_in_the_handshake_says_nothing_of_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(65536)  # what is left unread would make it a reset

        thread = threading.Thread(target=serve)
        thread.start()
        assert reason(f"https://127.0.0.1:{server.getsockname()[1]}/") == "connection failed"
        thread.join()


def test_guards_are_json_and_back() -> None:
    ours = FetchLimits(opt_outs=("NoAI",), timeout_s=3)
    assert FetchLimits(**json.loads(json.dumps(asdict(ours)))) == ours
    assert ours.opt_outs == ("noai",)
    for wrong in ({"timeout_s": 0}, {"retries": -1}, {"connections_per_host": 0}, {"user_agent": " /1"}):
        with pytest.raises(RecipeError):
            FetchLimits(**wrong)


@pytest.mark.parametrize(
    "agent", ["me/1\r\nHost: other", "me/1\n", "me/1\x00", "me\t/1", "me/1 \u4f60", "me\x7f/1"]
)
def test_user_agent_that_no_header_can_hold_is_refused(agent: str) -> None:
    with pytest.raises(RecipeError, match="no user agent") as caught:
        FetchLimits(user_agent=agent)
    assert "Latin-1" in str(caught.value.hint)
    assert FetchLimits(user_agent="Jos\xe9's tool/1.0 (+https://example.org)").token == "jos\xe9's tool"


def test_large_bodies_are_not_fetched_unasked() -> None:
    assert FetchLimits().max_bytes == 20_000_000


def test_message_of_a_stranger_is_kept_as_one_short_line() -> None:
    failure = Failure("other", f"ValueError: {chr(27)}[31m\r\n\udc80" + "x" * 500)
    assert str(failure).isprintable()
    assert str(failure).startswith("other: ValueError:  [31m   x")
    assert len(str(failure)) < 220
    assert reason_of(str(failure)) == "other"


def test_reasons_are_read_back_from_text_and_last_or_pass() -> None:
    for known in (*OUTCOMES, "http 404", "http 503"):
        failure = Failure(known, "what\nexactly: this")
        assert str(failure) == f"{known}: what exactly: this"
        assert reason_of(str(failure)) == reason_of(known) == known
        assert isinstance(lasting(known), bool)
    assert reason_of("HTTP Error 404: Not Found") == reason_of("http 4040") == reason_of("") == "other"
    passing = [
        "timeout",
        "connection failed",
        "truncated",
        "hung",
        "no record",
        "http 429",
        "http 503",
        "other",
    ]
    assert not any(lasting(known) for known in passing)
    assert all(lasting(known) for known in ("ok", "http 404", "http 301", "opted out", "not an image", "tls"))


def test_image_opens_after_all(web: Web) -> None:
    data = Fetcher(guards()).fetch(web.url("/ok/b.jpg"))
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (160, 120)
