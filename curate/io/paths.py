"""Places: folders and files, on this machine or in an object store, by the verbs of `pathlib.Path`.

`place` gives a `Path` or a `Remote`; the few methods that datasets need are called alike on both, so that the rest
of the code does not ask which it has.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeVar

from curate.errors import CurateError, DataError, MissingError, RecipeError, first_line

ATTEMPTS = 3  # each is one call of the store's own client, which has retries of its own (S3: 4, some seconds)
MAX_PATHS = 100_000  # that braces in a path may stand for
WAIT_S = 1.0  # before the second attempt, and twice as long before each further one
PART_BYTES = 16 << 20  # of a multipart upload; S3 takes 10,000 parts, so 160 GB a file

# Of botocore, by name: only who asks for it has it. To ask again would not help, as it does of a busy store.
NO_CREDENTIALS = {
    "LoginTokenLoadError", "NoAuthTokenError", "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound",
    "SSOTokenLoadError", "UnauthorizedSSOTokenError", "UnknownCredentialError",
}  # fmt: skip

# What may stand before `://`, whoever wrote the URL: a store, or the web, which is read alone. fsspec knows protocols
# that read files of this machine, and some that run what they read as code (`reference://` fills in templates).
STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}
WEB = {"http", "https"}

T = TypeVar("T")


def is_remote(path: object) -> bool:
    """Whether a path is a URL, read through fsspec."""
    return "://" in str(path)


def url_fault(url: str) -> str | None:
    """Return why a URL is never opened, None for one that may be: the protocols are few, and stand alone."""
    protocol, _, rest = url.partition("://")
    if protocol not in STORES | WEB:
        return f"URLs of {protocol!r} are not opened"
    if "::" in rest:  # fsspec reads one protocol through another, to any file of this machine
        return "URLs with `::` in them are not opened"
    if any(c < " " or c == "\x7f" for c in rest):
        return "a URL has no control characters"
    return None


def is_web(url: str) -> bool:
    """Whether a URL is of the web, which is read and not written to."""
    return url.partition("://")[0] in WEB


def refuse_url(url: str) -> None:
    """Refuse a URL that is never opened; see `url_fault`.

    Raises:
        DataError: it is one.
    """
    if fault := url_fault(url):
        known = ", ".join(f"{p}://" for p in sorted(STORES | WEB))
        hint = f"a URL begins with one of {known}; a file of this machine is named by its path alone"
        raise DataError(f"{url}: {fault}", hint=hint)


def place(path: str | Path | Remote) -> Place:
    """Return the place of a path or a URL."""
    if isinstance(path, Path | Remote):
        return path
    return Remote(path) if is_remote(path) else Path(path)


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it: the one place where URLs are opened.

    Raises:
        DataError: such URLs are not opened.
        MissingError: the package that speaks to this store is not installed.
    """
    import fsspec

    refuse_url(url)
    options: dict[str, Any] = {"use_listings_cache": False}
    if is_web(url):
        from curate.io.web.sessions import guarded

        options["get_client"] = guarded
    try:
        return fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        hint = "pip install 'curate-train[s3]'" if url.startswith("s3") else "install what fsspec asks for"
        if is_web(url):
            hint = "pip install 'aiohttp>=3.12'"
        raise MissingError(f"{url}: {error}", hint=hint) from error
    except ValueError as error:  # fsspec's word for a protocol that it does not know
        raise DataError(f"{url}: {error}", hint="write s3://BUCKET/PREFIX") from error


def retried(url: str, work: Callable[[], T]) -> T:
    """Do what speaks to a store, and again where that fails: three attempts, 1 s and 2 s apart.

    What is not there, or is there already, is not tried again, and raised as it is.

    Raises:
        StoreError: the store does not answer, or answers with an error each time; or there are no credentials.
        DataError: it does not allow this.
    """
    for attempt in range(ATTEMPTS):
        try:
            return work()
        except (FileNotFoundError, FileExistsError, CurateError):
            raise
        except PermissionError as error:
            raise DataError(
                f"{url}: not allowed ({error})", hint="are these the right credentials?"
            ) from error
        except Exception as error:  # each store's client has exceptions of its own
            last = error
        if lacks_credentials(last):
            break
        if attempt < ATTEMPTS - 1:
            time.sleep(WAIT_S * 2**attempt)
    raise gone(url, last) from last


class StoreError(DataError):
    """A store failed for now, or nobody is signed in: what was finished is kept for the same command to go on from."""


def lacks_credentials(error: BaseException) -> bool:
    """Whether a store's client finds no credentials, and so asks nobody."""
    return type(error).__name__ in NO_CREDENTIALS


def gone(url: str, error: BaseException) -> StoreError:
    """Return the error that tells that a store failed."""
    if lacks_credentials(error):
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; then run the same command"
        return StoreError(f"{url}: no credentials for the store ({first_line(error)})", hint=hint)
    return StoreError(
        f"{url}: the store failed {ATTEMPTS} times ({first_line(error)})",
        hint="is it reachable? then run the same command; what is finished is not done again",
    )


def refuse_absent_bucket(url: str) -> None:
    """Refuse an S3 URL of which the store says that there is no such bucket.

    Raises:
        DataError: it says so.
    """
    if not url.startswith(("s3://", "s3a://")):
        return
    files, path = filesystem(url)
    bucket = path.split("/")[0]
    try:
        files.call_s3("head_bucket", Bucket=bucket)
    except FileNotFoundError:
        hint = "is its name right, and AWS_ENDPOINT_URL the right store?"
        raise DataError(f"{url}: the bucket {bucket!r} does not exist", hint=hint) from None
    except Exception:  # the store may not tell everybody
        return


def find_files(path: str, endings: tuple[str, ...], what: str, *, hidden: tuple[str, ...] = ()) -> list[str]:
    """Return the files at a path: one, a folder of them, a pattern; local or a URL.

    Args:
        path: `/pool/{000..019}.tar` and `*.tar` are patterns, where nothing is called so.
        endings: what the names of files end in, in a folder.
        what: they are, for messages.
        hidden: what names begin with, of files and folders in a folder, that are passed over.

    Raises:
        RecipeError: nothing stands there.
        DataError: a store does not answer, or has no such bucket.
    """
    found: list[str] = []
    try:
        literal = any(c in path for c in "{*?[") and place(path).exists()
    except OSError:  # no name of a file is as long
        literal = False
    for one in [path] if literal else _expanded(path):
        find = partial(_find, one, endings, what, hidden)
        found += retried(one, find) if is_remote(one) else find()
    return found


def _expanded(path: str) -> list[str]:
    """Return the paths that a pattern with braces stands for.

    Raises:
        RecipeError: they are too many, or its braces do not fit.
    """
    import braceexpand

    shown = path if len(path) <= 200 else f"{path[:60]}…"
    ranges = re.findall(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?\}", path)
    many = any(len(a + b) > 20 or abs(int(b) - int(a)) >= MAX_PATHS for a, b in ranges)
    try:
        paths = [] if many else list(itertools.islice(braceexpand.braceexpand(path), MAX_PATHS + 1))
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{shown}: braces that stand for no paths ({error})") from None
    if many or len(paths) > MAX_PATHS:
        raise RecipeError(
            f"{shown}: braces that stand for more than {MAX_PATHS:,} paths",
            hint="name the folder, or a pattern with `*`",
        )
    return paths


def _find(path: str, endings: tuple[str, ...], what: str, hidden: tuple[str, ...]) -> list[str]:
    """Return the files at one path or pattern without braces."""
    files, place = filesystem(path) if is_remote(path) else _local(path)
    web = is_web(path)  # where to look for a folder means to read all that is there
    if (place.endswith("/") or not web) and files.isdir(place):
        matches = [m for m in files.find(place) if m.lower().endswith(endings)]
        if hidden:
            matches = [m for m in matches if not any(p.startswith(hidden) for p in _below(m, place))]
    else:
        pattern = any(c in place for c in "*?[") and not files.exists(place)
        matches = files.glob(place) if pattern else [place]
        if not matches:
            refuse_absent_bucket(path)
        if missing := [m for m in matches if not files.exists(m)]:
            refuse_absent_bucket(path)
            if web:  # of a server that does not answer, too, it says that nothing exists
                with contextlib.suppress(FileNotFoundError):
                    files.cat_file(missing[0], start=0, end=1)
            raise RecipeError(
                f"{path}: no such {what}", hint="`--set NAME=PATH` fills in a path of the recipe"
            )
    return [files.unstrip_protocol(m) if is_remote(path) else m for m in matches]


def _local(path: str) -> tuple[Any, str]:
    """Return what `filesystem` does for a path, in which no word is a protocol: `reference::x` is a name."""
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem(), os.path.abspath(os.path.expanduser(path))


def _below(path: str, folder: str) -> list[str]:
    """Return the parts of a path below a folder."""
    return path[len(folder.rstrip("/")) :].strip("/").split("/")


class Remote:
    """A URL with the methods of `pathlib.Path` that datasets need. Each retries, as `retried` says.

    Args:
        url: such as `s3://bucket/prefix`.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"Remote({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __truediv__(self, below: str) -> Place:
        absolute = below.startswith("/") or is_remote(below)
        return place(below) if absolute else self if below == "." else Remote(f"{self.url}/{below}")

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    def resolve(self) -> Remote:
        """Return the place itself: a URL is always whole."""
        return self

    def read_bytes(self) -> bytes:
        """Return the whole content."""
        return self._do(lambda fs, path: fs.cat_file(path))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the whole content as text."""
        return self.read_bytes().decode(encoding)

    def state(self) -> str:
        """Return what the store says of the object that changes when it does, such as its ETag."""
        return self._do(lambda fs, path: str(fs.ukey(path)))

    def fetch(self, target: Path) -> None:
        """Copy the whole content into a file of this machine."""
        self._do(lambda fs, path: fs.get_file(path, str(target)))

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open for reading."""
        assert mode == "rb", mode
        return self._do(lambda fs, path: fs.open(path, "rb"))

    def write_bytes(self, data: bytes, *, create: bool = False) -> int:
        """Write the whole content; an object is there wholly or not at all.

        Args:
            create: only where nothing is yet. S3 promises that of two that try, one wins (`If-None-Match`); a
                store whose fsspec driver does not know `mode="create"` may let both.

        Raises:
            FileExistsError: something is there, with `create`.
        """
        self._do(lambda fs, path: fs.pipe_file(path, data, mode="create" if create else "overwrite"))
        return len(data)

    def exists(self) -> bool:
        """Whether there is an object or anything below the prefix."""
        return self._do(lambda fs, path: fs.exists(path))

    def is_file(self) -> bool:
        """Whether there is an object."""
        return self._do(lambda fs, path: fs.isfile(path))

    def is_dir(self) -> bool:
        """Whether there is anything below the prefix."""
        return self._do(lambda fs, path: fs.isdir(path))

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every object below the prefix, by its path from there."""
        found = self._do(lambda fs, path: fs.find(path, detail=True))
        top = len(self._path()) + 1
        return {name[top:]: about["size"] for name, about in found.items() if len(name) > top}

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove an object."""
        try:
            self._do(lambda fs, path: fs.rm_file(path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _path(self) -> str:
        return filesystem(self.url)[1].rstrip("/")

    def _do(self, work: Callable[[Any, str], T]) -> T:
        return retried(self.url, lambda: work(*filesystem(self.url)))


Place: TypeAlias = Path | Remote


def sizes(folder: Place) -> dict[str, int]:
    """Return the bytes of every file below a folder, by its path from there; nothing where there is no folder."""
    if isinstance(folder, Remote):
        return folder.sizes()
    files = (f for f in folder.rglob("*") if f.is_file())
    return {f.relative_to(folder).as_posix(): f.stat().st_size for f in files}


@contextlib.contextmanager
def local_copy(file: Place) -> Iterator[Path]:
    """Give a file of this machine with the content: the file itself, or a copy for as long as it is wanted."""
    if isinstance(file, Path):
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        file.fetch(copy)
        yield copy
