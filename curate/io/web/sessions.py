"""Sessions of aiohttp, with which fsspec reads http and https: they connect to no address that `fetch` would not."""

from __future__ import annotations

import os
import re
import socket
from ipaddress import ip_address
from typing import Any

from curate.errors import DataError, MissingError
from curate.io.web.addresses import permitted

LOOPBACK = "CURATE_ALLOW_LOOPBACK"  # in the environment, also of workers: 1 permits servers of this machine
MAX_BODY_BYTES = 1 << 30  # of what is read at once, such as a manifest; tables and tars are read in parts
_RANGE = re.compile(r"bytes=(\d+)-(\d+)").fullmatch


def refuse_address(address: str, host: str) -> None:
    """Refuse an address that is not on the public internet, but for this machine's own where that is permitted.

    Raises:
        DataError: it is not.
    """
    if permitted(ip_address(address.split("%")[0]), loopback=os.environ.get(LOOPBACK) == "1"):
        return
    told = address if host == address else f"{host} is {address}"
    raise DataError(
        f"refused address: {told}, which is not on the public internet",
        hint=f"for a server of your own on this machine use --allow-loopback, or set {LOOPBACK}=1",
    )


async def guarded(*, loop: Any, **options: Any) -> Any:  # -> aiohttp.ClientSession
    """Return a session whose every connection is to a permitted address, also after redirects and of names.

    Names are looked at when they are resolved, and each address again when its socket is made: what is checked is
    what is connected to. Proxies that the environment names are not used.

    Raises:
        MissingError: this aiohttp cannot be held to that.
    """
    import aiohttp
    from aiohttp.abc import AbstractResolver
    from aiohttp.resolver import ThreadedResolver

    class Resolver(AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
            found = await ThreadedResolver().resolve(host, port, family)
            for one in found:
                refuse_address(one["host"], host)
            return found

        async def close(self) -> None:
            """Hold nothing."""

    def connected(place: Any) -> socket.socket:
        family, kind, protocol, _, address = place
        refuse_address(address[0], address[0])
        return socket.socket(family, kind, protocol)

    class Response(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            """Read the body, of which a server may send more than it was asked for, without end."""
            if self._body is None:
                wanted = _RANGE(self.request_info.headers.get("Range", ""))
                most = int(wanted[2]) - int(wanted[1]) + 1 if wanted else MAX_BODY_BYTES
                body = bytearray()
                async for piece in self.content.iter_any():
                    body += piece
                    if len(body) > most and self.status < 400:
                        self.close()
                        told = (
                            f"{self.url}: the server sends more than the {most:,} bytes that were asked for"
                        )
                        raise DataError(
                            told, hint="does it know byte ranges? else fetch the file, and name its path"
                        )
                self._body = bytes(body)
            return self._body

    try:
        connector = aiohttp.TCPConnector(resolver=Resolver(), socket_factory=connected)
    except TypeError as error:
        hint = "pip install 'aiohttp>=3.12'"
        raise MissingError(
            f"aiohttp {aiohttp.__version__} is too old to read http safely", hint=hint
        ) from error
    options |= {"connector": connector, "response_class": Response, "trust_env": False}
    return aiohttp.ClientSession(loop=loop, **options)
