"""From a URL to addresses that may be connected to: nothing but http to the public internet.

What is checked is what is connected to. A name is resolved once, all its addresses are looked at, and the
socket is opened to one of those: a name that answers otherwise the second time gains nothing by it.
"""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple, NoReturn
from urllib.parse import quote, urljoin, urlsplit

from curate.io.web.outcomes import Failure

PORTS = {"http": 80, "https": 443}
_URL_CHARACTERS = 8192  # what servers commonly take
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_KEPT_CHARACTERS = "%/:=&?~+!$,;'@()*[]|"  # a URL's own, and what is percent-encoded already

# Within what `is_global` allows: protocol assignments (Oracle's metadata is there), relays of 6to4, and
# the address at which Azure's machines find their host.
_REFUSED = [ip_network(n) for n in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")]
_LOOPBACK = [ip_network(n) for n in ("127.0.0.0/8", "::1/128")]
_GLOBAL_V6 = ip_network("2000::/3")  # all that has been given out of IPv6
_NAT64 = ip_network("64:ff9b::/96")  # how a network without IPv4 names the addresses of IPv4


class Target(NamedTuple):
    """A URL, taken apart: `host` in ASCII and lower case, without brackets; `path` with its query, encoded."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def netloc(self) -> str:
        """The host as the Host header names it: with brackets and port where they are needed."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port: what one robots.txt is for."""
        return f"{self.scheme}://{self.netloc}"


class Address(NamedTuple):
    """Where a socket connects to."""

    family: int
    place: Any  # what `socket.connect` takes


def split(url: str) -> Target:
    """Take a URL apart.

    International names are encoded by IDNA 2003 (what Python has), paths as UTF-8.

    Raises:
        Failure: "refused scheme", or "bad url" with what is wrong.
    """
    url = url.strip()
    if len(url) > _URL_CHARACTERS or any(c < " " or c == "\x7f" for c in url):
        raise Failure("bad url", "too long" if len(url) > _URL_CHARACTERS else "a control character")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Failure("bad url", str(error)) from None
    if parts.scheme not in PORTS:
        raise Failure("refused scheme" if parts.scheme else "bad url", parts.scheme or "no scheme")
    if "@" in parts.netloc:
        raise Failure("bad url", "a user name before the host")
    if port == 0:
        raise Failure("bad url", "port 0")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        path = quote(path, safe=_KEPT_CHARACTERS)
    except UnicodeEncodeError:
        raise Failure("bad url", "a character that is none") from None
    return Target(parts.scheme, _host(parts.hostname or ""), port or PORTS[parts.scheme], path)


def joined(target: Target, location: str) -> str:
    """Return the URL that a Location header names; headers come as Latin-1 and often are UTF-8.

    Raises:
        Failure: "bad url".
    """
    with suppress(UnicodeError):
        location = location.encode("latin-1").decode()
    try:
        return urljoin(target.origin + target.path, location.strip())
    except ValueError as error:
        raise Failure("bad url", str(error)) from None


def _host(name: str) -> str:
    """Return a host's name in ASCII, as it is asked of the name server."""
    if ":" in name:
        try:
            address = IPv6Address(name)
        except ValueError:
            _bad_host(name)
        if address.scope_id:
            _bad_host(name)
        return str(address)
    try:
        host = name.encode("idna").decode().lower()
    except UnicodeError:  # an empty label, one that is too long, or characters that no name has
        _bad_host(name)
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        _bad_host(name)
    return host


def _bad_host(name: str) -> NoReturn:
    raise Failure("bad url", f"host {name!r}" if name else "no host")


def resolve(target: Target, *, loopback: bool) -> list[Address]:
    """Return the addresses of a target's host, all of them public.

    Args:
        loopback: allow 127.0.0.0/8 and ::1 as well.

    Raises:
        Failure: "refused address" if any is not public, "no such host", or "connection failed" where the
            name server did not say.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        nobody = error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None))
        raise Failure(
            "no such host" if nobody else "connection failed", f"{target.host}: {error.strerror}"
        ) from None
    addresses = []
    for family, _, _, _, place in found:
        if family not in (socket.AF_INET, socket.AF_INET6):
            continue
        ip = ip_address(str(place[0]).split("%")[0])
        if not permitted(ip, loopback=loopback):
            raise Failure("refused address", str(ip) if str(ip) == target.host else f"{target.host} is {ip}")
        addresses.append(Address(family, place))
    if not addresses:
        raise Failure("no such host", target.host)
    return addresses


def permitted(ip: IPv4Address | IPv6Address, *, loopback: bool) -> bool:
    """Tell whether an address may be connected to: a public one, or with `loopback` one of this machine."""
    return public(ip) or (loopback and any(ip in net for net in _LOOPBACK))


def public(ip: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address is on the public internet, and so is every IPv4 address that it stands for."""
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped:
            return public(ip.ipv4_mapped)
        if ip in _NAT64:
            return public(IPv4Address(int(ip) & 0xFFFFFFFF))
        if ip not in _GLOBAL_V6 or (ip.sixtofour and not public(ip.sixtofour)):
            return False
    odd = ip.is_multicast or ip.is_reserved or ip.is_link_local or ip.is_loopback or ip.is_unspecified
    return ip.is_global and not odd and not any(ip in net for net in _REFUSED)
