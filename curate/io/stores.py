"""Stores: URLs of object stores and of the web, opened through fsspec, with retries."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from curate.errors import CurateError, DataError, MissingError, first_line

ATTEMPTS = 3  # each is one call of the store's own client, which has retries of its own (S3: 4, some seconds)
WAIT_S = 1.0  # before the second attempt, and twice as long before each further one
PART_BYTES = 16 << 20  # of a multipart upload; S3 takes 10,000 parts, so 160 GB a file


# Exceptions of botocore, by name, because it is an optional package. A retry helps against none of them.
NO_CREDENTIALS = {
    "LoginTokenLoadError", "NoAuthTokenError", "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound",
    "SSOTokenLoadError", "UnauthorizedSSOTokenError", "UnknownCredentialError",
}  # fmt: skip

# The protocols that a URL may have: of a store, or of the web, which is only read. fsspec knows others that read
# files of this machine, and some that run what they read as code (`reference://` fills in templates).
STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}
WEB = {"http", "https"}

T = TypeVar("T")


def is_remote(path: object) -> bool:
    """Tell whether a path is a URL."""
    return "://" in str(path)


def url_fault(url: str) -> str | None:
    """Return why a URL is never opened; None if it may be: a single protocol, one of a few."""
    protocol, _, rest = url.partition("://")
    if protocol not in STORES | WEB:
        return f"URLs of {protocol!r} are not opened"
    if "::" in rest:  # fsspec reads one protocol through another, to any file of this machine
        return "URLs with `::` in them are not opened"
    if any(c < " " or c == "\x7f" for c in rest):
        return "a URL has no control characters"
    return None


def is_web(url: str) -> bool:
    """Tell whether a URL is of the web, which is only read."""
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


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it; every URL is opened here.

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
    except ValueError as error:  # fsspec does not know the protocol
        raise DataError(f"{url}: {error}", hint="write s3://BUCKET/PREFIX") from error


def retry(url: str, work: Callable[[], T]) -> T:
    """Call a function that speaks to a store, up to three times if it fails, 1 s and 2 s apart.

    `FileNotFoundError` and `FileExistsError` are raised at once.

    Raises:
        StoreError: every attempt failed, or there are no credentials.
        DataError: the store does not allow it.
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
    raise store_failure(url, last) from last


class StoreError(DataError):
    """A store does not answer, or there are no credentials; finished work is kept, and the same command goes on."""


def lacks_credentials(error: BaseException) -> bool:
    """Tell whether an error of a store's client says that it has no credentials."""
    return type(error).__name__ in NO_CREDENTIALS


def store_failure(url: str, error: BaseException) -> StoreError:
    """Return the error to raise when a store failed."""
    if lacks_credentials(error):
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; then run the same command"
        return StoreError(f"{url}: no credentials for the store ({first_line(error)})", hint=hint)
    return StoreError(
        f"{url}: the store failed {ATTEMPTS} times ({first_line(error)})",
        hint="is it reachable? then run the same command; what is finished is not done again",
    )


def refuse_absent_bucket(url: str) -> None:
    """Refuse an S3 URL whose bucket does not exist.

    Raises:
        DataError: the store says that there is no such bucket.
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
    except Exception:  # some stores do not say
        return
