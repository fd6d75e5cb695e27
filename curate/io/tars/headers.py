"""Headers of tars: names, sizes, kinds and PAX records, of USTAR, V7, GNU, star and PAX."""

from __future__ import annotations

import zlib

from curate.io.tars.archive import BLOCK

FILE, FOLDER, LINK, DEVICE, SPARSE = "file", "folder", "link", "device", "sparse file"
UNKNOWN = "member of an unknown kind"
KINDS = {b"0": FILE, b"\0": FILE, b"7": FILE, b"5": FOLDER, b"D": FOLDER, b"1": LINK, b"2": LINK, b"3": DEVICE,
         b"4": DEVICE, b"6": DEVICE, b"S": SPARSE}  # fmt: skip
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd",
           b"\x04\x22\x4d\x18": "lz4", b"\x1f\x9d": "compress"}  # fmt: skip
MAX_DIGITS = 20  # of a size; Python makes no number of thousands


class BadTar(ValueError):
    """A tar that cannot be read to its end; the message says what is wrong and at which byte."""


def padded(size: int) -> int:
    """Return a size filled up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def is_header(block: bytes) -> bool:
    """Tell whether a block is a header: its checksum is right."""
    try:
        checksum = int(block[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    # The sum of a header's bytes, its own field taken as spaces. Adler-32's lower half is the sum of all bytes
    # plus one, modulo 65,521: it comes from C, and `sum` would take more time than all the rest.
    spaced = block[:148] + b"        " + block[156:]
    if (zlib.adler32(spaced) & 0xFFFF) == (checksum + 1) % 65_521:
        return True
    return checksum == sum(b - 256 if b > 127 else b for b in spaced)  # as some old tars counted


def no_header(block: bytes, at: int, last: str) -> str:
    """Return why a block that should be a header is none."""
    if at:
        return f"no header at byte {at}, after {last!r}: damaged, or a wrong size before"
    for magic, kind in _PACKED.items():
        if block.startswith(magic):
            return f"compressed with {kind}: its members have no byte ranges"
    return "not a tar"


def number(field: bytes, at: int) -> int:
    """Read a number of a header: octal digits, or base 256 after a first byte of 0x80."""
    try:
        if field[0] == 0x80:
            value = int.from_bytes(field[1:], "big")
        elif field[0] == 0xFF:
            value = -1
        else:
            value = int(field.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        raise BadTar(f"a size that is no number at byte {at}: {field!r}") from None
    if value < 0:
        raise BadTar(f"a negative size at byte {at}")
    return value


def header_text(field: bytes) -> str:
    """Return a text up to its NUL; bytes that are no UTF-8 become surrogates."""
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def member_name(block: bytes) -> str:
    """Return the name in a header; a longer name is in a header before it."""
    name = header_text(block[:100])
    if block[345] and block[257:263] == b"ustar\0":  # GNU tar keeps other things at the place of the prefix
        name = f"{header_text(block[345:500])}/{name}"
    return name


def records(text: bytes, at: int) -> dict[str, str]:
    """Read the records of a PAX header: `LENGTH KEYWORD=VALUE` and a line's end, the length that of it all."""
    found = {}
    position = 0
    while position < len(text) and text[position]:
        length, space, _ = text[position : position + 20].partition(b" ")
        end = position + int(length) if space and length.isdigit() else 0
        keyword, equals, value = text[position + len(length) + 1 : end - 1].partition(b"=")
        if end > len(text) or not equals or text[end - 1 : end] != b"\n":
            raise BadTar(f"a damaged PAX header at byte {at}")
        found[keyword.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        position = end
    return found


def changed(pax: dict[str, str], name: str, size: int, kind: str, at: int) -> tuple[str, int, str]:
    """Return name, size and kind as PAX records change them; an empty value changes nothing."""
    name = pax.get("path") or name
    if value := pax.get("size"):
        digits = value.lstrip("0") or "0"
        if not (value.isascii() and value.isdigit() and len(digits) <= MAX_DIGITS):
            raise BadTar(f"a size that is no number at byte {at}: {digits[:MAX_DIGITS]!r}")
        size = int(digits)
    if any(keyword.startswith("GNU.sparse.") for keyword in pax):
        name, kind = pax.get("GNU.sparse.name") or name, SPARSE
    return name, size, kind
