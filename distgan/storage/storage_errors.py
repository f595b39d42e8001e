"""Storage errors, one line each.

`translate_errors` turns what fsspec, botocore, aiohttp and the system raise into a `UserError`. `_explain` finds its
text, by S3 error code, HTTP status, errno or kind of exception; `_is_temporary` says whether a retry may help.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ssl import SSLError

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from distgan.errors import UserError


class StorageError(UserError):
    """The store, the network or the disk refuses or fails."""


class NotFoundError(StorageError):
    """The file or local folder does not exist; the store answered, and its bucket exists."""


class UnavailableError(StorageError):
    """The store is unreachable, overloaded or full, and may work later. See `storage.retry`."""


_PERMISSION = "access denied; check the permissions of these credentials"

_REGION = "the bucket is in another region; set AWS_DEFAULT_REGION to the bucket's region"

_BUSY = "the server is overloaded or failing; try again later"

_FULL = "no space left in the bucket, or its quota is used up; free some"

_INTERNAL = "the server has an internal error, as some have when they are full; free space there, or try again later"

_CLOCK = "the clock of this machine is wrong; set it"

# The code for a session token that has expired.
EXPIRED = "ExpiredToken"

# What huggingface_hub raises, by the names of its classes: it is an extra, and not imported here.
_BY_HUB_ERROR = {
    "GatedRepoError": (
        "the repository is gated; accept its terms on its page, then log in with `hf auth login` or set HF_TOKEN"
    ),
    "RepositoryNotFoundError": (
        "no such repository, or a private one; check the name, or log in with `hf auth login` or set HF_TOKEN"
    ),
    "RevisionNotFoundError": "the repository has no such revision; check what follows the @",
    "HFValidationError": "not an address in the hub; write hf://datasets/USER/NAME or hf://USER/NAME",
    "HfUriError": "not an address in the hub; write hf://datasets/USER/NAME or hf://USER/NAME",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE forbids to contact the hub; unset it",
}

_ENDPOINT = "AWS_ENDPOINT_URL is not a URL; write http://HOST:PORT"

NOT_S3 = "what answers there is not an S3 server; check AWS_ENDPOINT_URL"

_BY_S3_CODE = {
    "NoSuchBucket": "the bucket does not exist; create it or check the name",
    "InvalidBucketName": "not a valid bucket name; use 3 to 63 lower-case letters, digits and hyphens",
    "InvalidAccessKeyId": "the access key is not known; check AWS_ACCESS_KEY_ID and the endpoint",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
    EXPIRED: "the credentials have expired; renew them",
    "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": _CLOCK,
    "AccessDenied": _PERMISSION,
    "AllAccessDisabled": _PERMISSION,
    "403": _PERMISSION,
    "BucketAlreadyExists": "the bucket name is taken by another account; choose another name",
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "PermanentRedirect": _REGION,
    "301": _REGION,
    **dict.fromkeys(("InternalError", "500"), _INTERNAL),
    **dict.fromkeys(("ServiceUnavailable", "SlowDown", "RequestTimeout", "Throttling", "TooManyRequests"), _BUSY),
    **dict.fromkeys(("429", "502", "503", "504"), _BUSY),
    **dict.fromkeys(("QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"), _FULL),
    "XMinioAdminBucketQuotaExceeded": _FULL,
}

# What may pass, or be mended while a run waits.
_TEMPORARY_LINES = (_BUSY, _INTERNAL, _FULL, _CLOCK)

_BY_ERRNO = {
    errno.EACCES: "permission denied; check who owns it and its mode",
    errno.EPERM: "permission denied; check who owns it and its mode",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOSPC: "no space left on the disk; free some or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another place",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another place",
    errno.EEXIST: "a file is where a folder should be; choose another place",
    errno.EISDIR: "this is a folder, not a file",
    errno.ENAMETOOLONG: "the name is too long",
}

_BY_KIND: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (
            boto.NoCredentialsError,
            boto.PartialCredentialsError,
            boto.CredentialRetrievalError,
            boto.ProfileNotFound,
            boto.TokenRetrievalError,
            boto.UnauthorizedSSOTokenError,
        ),
        "no usable credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; "
        "for a public bucket set FSSPEC_S3_ANON=true",
    ),
    ((boto.ParamValidationError,), _BY_S3_CODE["InvalidBucketName"]),
    ((boto.ReadTimeoutError,), "the server did not answer in time; check the network"),
    ((boto.InvalidRegionError,), "AWS_DEFAULT_REGION is not a region; write one such as us-east-1"),
    ((boto.EndpointResolutionError,), _ENDPOINT),
    (
        (boto.ConfigParseError,),
        "an AWS configuration or credentials file is damaged; correct ~/.aws, or the variable that names it",
    ),
    (
        (boto.SSLError, aiohttp.ClientSSLError, SSLError),
        "no secure connection with the server; check {address}, and whether it is http:// or https://",
    ),
    (
        (boto.ConnectionError, boto.ConnectionClosedError, aiohttp.ClientConnectionError, ConnectionError),
        "the server cannot be reached; check {address} and the network",
    ),
    ((boto.HTTPClientError, ResponseParserError), NOT_S3),
    ((TimeoutError,), "the server did not answer in time; check the network"),
    ((NotImplementedError,), "this kind of storage cannot do that; use a local path, s3:// or gs://"),
)


_TEMPORARY = (
    boto.ReadTimeoutError, boto.ConnectionError, boto.ConnectionClosedError, boto.IncompleteReadError,
    boto.ResponseStreamingError, aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError,
    TimeoutError,
)  # fmt: skip

_PERMANENT = (boto.SSLError, aiohttp.ClientSSLError)

# Codes of errors whose answer had no body.
_WITHOUT_BODY = {"", "400", "403", "404"}

_TEMPORARY_ERRNO = {
    errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH,
}  # fmt: skip


def s3_code(error: BaseException | None) -> str:
    """The S3 error code behind an exception, such as `NoSuchKey`, or the HTTP status of a HEAD request.

    Empty if no S3 server answered.
    """
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def http_status(error: BaseException) -> int | None:
    """The HTTP status behind an error of aiohttp, requests, httpx, urllib or a cloud's library, or None."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "status_code", "code"):
            status = getattr(holder, name, None)
            if isinstance(status, int) and 400 <= status < 600:
                return int(status)
    return None


@contextmanager
def translate_errors(url: str, probe: Callable[[], object] | None = None) -> Iterator[None]:
    """Turns what an operation on `url` raises into a `UserError` that names the URL and says what to do.

    Args:
        url: the file or folder that the block works on.
        probe: sends a request about the bucket. It is called when the answer had no body (to HEAD), to tell a missing
            bucket, a wrong secret or an expired token from a missing file.

    Raises:
        NotFoundError: the file does not exist.
        UnavailableError: the same may work later.
        StorageError: any other circumstance. Bugs of our own pass unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = _probed(probe, error) if probe is not None and s3_code(error) in _WITHOUT_BODY else error
        explained = _explain(url, cause)
        if explained is None:
            raise
        if _is_temporary(cause):
            explained = UnavailableError(str(explained))
        elif not isinstance(explained, StorageError):
            explained = StorageError(str(explained))
        raise explained from cause


def _probed(probe: Callable[[], object], error: Exception) -> Exception:
    """The probe's error if it says more than `error`, which is a missing file or a bare refusal."""
    if not isinstance(error, FileNotFoundError | PermissionError) and s3_code(error) != "400":
        return error
    try:
        probe()
    except Exception as precise:  # noqa: BLE001 - whatever it is, it is only used to explain `error`
        if s3_code(precise) not in {*_WITHOUT_BODY, "AccessDenied"}:
            return precise
    return error


def from_environment() -> bool:
    """Whether S3 credentials are variables of this process, which nobody else can renew."""
    return "AWS_ACCESS_KEY_ID" in os.environ


def _is_temporary(error: Exception) -> bool:
    """Whether the same operation may work later."""
    code = s3_code(error)
    if code == EXPIRED:
        return not from_environment()
    if code:
        return _BY_S3_CODE.get(code) in _TEMPORARY_LINES or (code.isdigit() and int(code) >= 500)
    if (status := http_status(error)) is not None:
        return status == 429 or status >= 500
    if isinstance(error, OSError) and error.errno in _TEMPORARY_ERRNO:
        return True
    if hub_line(error) is not None:
        return False
    if _is_of_transport(error):
        return _untrusted_certificate(error) is None
    return isinstance(error, _TEMPORARY) and not isinstance(error, _PERMANENT)


def _explain(url: str, error: Exception) -> UserError | None:
    """The user's line for `error`; None if it may be a bug of our own."""
    code = s3_code(error)
    where = _endpoint(url)
    untrusted = _untrusted_certificate(error)
    if untrusted is not None:
        variable = "AWS_CA_BUNDLE" if _is_s3(url) else "SSL_CERT_FILE"
        reason = f"the server's certificate is not trusted ({untrusted})"
        return UserError(f"{url}: {reason}; name a file with its authority's certificate in {variable}{where}")
    if code in _BY_S3_CODE:
        return UserError(f"{_bucket(url) if code == 'NoSuchBucket' else url}: {_BY_S3_CODE[code]}{where}")
    if (line := hub_line(error)) is not None:
        return UserError(f"{url}: {line}")
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"{url}: not found; check the name{where}")
    status = (int(code) if code.isdigit() else None) if _is_s3(url) else http_status(error)
    if status is not None:
        explained = _by_status(url, status)
        return type(explained)(f"{explained}{where}")
    of_network = isinstance(error, aiohttp.ClientError | SSLError)  # TLS error numbers look like those of the system
    if isinstance(error, OSError) and error.errno in _BY_ERRNO and not code and not of_network:
        return UserError(f"{url}: {_BY_ERRNO[error.errno]}")
    for kinds, line in _BY_KIND:
        if isinstance(error, kinds):
            address = "AWS_ENDPOINT_URL" if _is_s3(url) else "the URL"
            return UserError(f"{url}: {line.format(address=address)}{where}")
    if _is_s3(url):
        if isinstance(error, ValueError) and ("Invalid endpoint" in str(error) or "Invalid IPv6" in str(error)):
            return UserError(f"{url}: {_ENDPOINT}{where}")
        if isinstance(error, RecursionError) or "error occurred ()" in str(error):  # redirects, or web pages
            return UserError(f"{url}: {NOT_S3}{where}")
    if isinstance(error, OSError | boto.BotoCoreError | boto.ClientError | aiohttp.ClientError):
        reason = code or getattr(error, "strerror", None) or type(error).__name__
        return UserError(f"{url}: the store or the disk failed ({reason}); try again{where}")
    if _is_of_transport(error):
        address = "HF_ENDPOINT" if url.startswith("hf://") and "HF_ENDPOINT" in os.environ else "the URL"
        return UserError(f"{url}: the server cannot be reached; check {address} and the network")
    protocol = url.partition("://")[0]
    if protocol != url and _is_of_a_library(error):
        line = re.sub(r"\S+://\S+", "…", " ".join(str(error).split()))
        reason = f"{type(error).__name__}: {line:.200}".rstrip(": ")
        return UserError(f"{url}: the library behind {protocol}:// failed ({reason}); check the URL and the network")
    return None


def _untrusted_certificate(error: BaseException | None) -> str | None:
    """Why TLS does not trust the server; None for another error. Every library wraps it in errors of its own."""
    while error is not None:
        found = re.search("certificate verify failed(?:: ([^(]*))?", str(error))
        if found:
            return (found[1] or "verification failed").strip(" '\"")
        error = error.__cause__ or error.__context__
    return None


def hub_line(error: BaseException | None) -> str | None:
    """The line for an error of huggingface_hub, also one behind the error that fsspec asks for; None for others."""
    while error is not None:
        for kind in type(error).__mro__:
            if kind.__name__ in _BY_HUB_ERROR:
                return _BY_HUB_ERROR[kind.__name__]
        error = error.__cause__
    return None


def _is_of_transport(error: BaseException) -> bool:
    """Whether httpx, which huggingface_hub uses, could not reach the server or lost it."""
    return any(kind.__name__ == "TransportError" and "httpx" in kind.__module__ for kind in type(error).__mro__)


def _by_status(url: str, status: int) -> UserError:
    if status in {404, 410}:
        return NotFoundError(f"{url}: not found (HTTP {status}); check the name")
    if status in {401, 403}:
        way = ", or log in with `hf auth login` or set HF_TOKEN" if url.startswith("hf://") else " and the credentials"
        return UserError(f"{url}: access denied (HTTP {status}); check the name{way}")
    if status == 429 or status >= 500:
        return UserError(f"{url}: the server is overloaded or failing (HTTP {status}); try again later")
    return UserError(f"{url}: the server refuses (HTTP {status}); check the URL")


def _is_of_a_library(error: Exception) -> bool:
    """Whether a library that we called raised the error, and not our own code by a bug."""
    if type(error).__module__ == "builtins" and not isinstance(error, ValueError | RuntimeError | LookupError):
        return False
    called = ""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package == "distgan":
            break
        called = package
    return called not in {"", *sys.stdlib_module_names}


def _bucket(url: str) -> str:
    scheme, _, path = url.partition("://")
    return f"{scheme}://{path.split('/')[0]}"


def _endpoint(url: str) -> str:
    """` (endpoint …)`, without user name and password, for an S3 URL with a configured endpoint; else empty."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint or not _is_s3(url):
        return ""
    scheme, separator, rest = endpoint.rpartition("://")
    return f" (endpoint {scheme}{separator}{re.split('[?#]', rest.rpartition('@')[2])[0]})"


def _is_s3(url: str) -> bool:
    return url.startswith(("s3://", "s3a://"))
