"""The S3 session of this package's file systems, which travels to other processes with them."""

from __future__ import annotations

from aiobotocore.session import AioSession
from botocore.handlers import add_expect_header


class S3Session(AioSession):  # type: ignore[misc]
    """A session that does not ask for leave (`Expect: 100-continue`) to send: aiohttp waits for it without end.

    Pickled, it is made anew: credentials come from the environment of the process that unpickles it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unregister("before-call.s3", add_expect_header)

    def __reduce__(self) -> tuple[type[S3Session], tuple[()]]:
        return S3Session, ()
