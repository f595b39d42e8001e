"""Files of a plain web server, `http://` and `https://`: what fsspec's file system takes as read is checked here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from fsspec.implementations.http import HTTPFileSystem

from distgan.errors import UserError

_MOST_BYTES = 2**31
_MOST_FILE_BYTES = 2**34  # of a file that goes to the disk
_MOST_PAGE_BYTES = 2**24  # of a folder's page
_CHUNK_BYTES = 2**20
_LINK = re.compile(r"<a\s[^<>]{0,500}?\bhref\s?=\s?[\"']([^\"'<>\s]{1,1000})", re.IGNORECASE)


class WebFileSystem(HTTPFileSystem):  # type: ignore[misc]
    """fsspec's, without three surprises.

    A server that ignores `Range` answers with the whole file, which would be taken for the part that was asked for. A
    server that never stops sending would fill the memory or the disk. A server that refuses or fails counted as one
    that does not have the file.
    """

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        if start is None and end is None:
            return await self._read(url, 0, _MOST_BYTES, **kwargs)
        if start is None or end is None or not 0 <= start < end:
            raise NotImplementedError(f"bytes {start} to {end}")
        headers = {"Range": f"bytes={start}-{end - 1}", **kwargs.pop("headers", {})}
        return (await self._read(url, start, end, headers=headers, **kwargs))[: end - start]

    async def _read(self, url: str, start: int, end: int, **options: Any) -> bytes:
        """Bytes `[start, end)`, or a few more; fewer where the file ends before."""
        session = await self.set_session()
        async with session.get(self.encode_url(url), **self.kwargs, **options) as answer:
            if answer.status == 416:  # begins behind the end
                return b""
            self._raise_not_found_for_status(answer, url)
            if start > 0 and answer.status != 206:
                raise UserError(
                    f"{url}: the server sends only whole files, not parts of them (HTTP ranges); "
                    "use a server that does, or copy the data to a disk"
                )
            found = bytearray()
            while len(found) < end - start and (chunk := await answer.content.read(_CHUNK_BYTES)):
                found += chunk
            if len(found) >= _MOST_BYTES:
                raise UserError(f"{url}: more than {_MOST_BYTES // 2**30} GiB; too large to be read at once")
            return bytes(found)

    async def _get_file(self, rpath: str, lpath: str, **kwargs: Any) -> None:
        session = await self.set_session()
        async with session.get(self.encode_url(rpath), **self.kwargs) as answer:
            self._raise_not_found_for_status(answer, rpath)
            found = 0
            with Path(lpath).open("wb") as file:
                while chunk := await answer.content.read(_CHUNK_BYTES):
                    found += len(chunk)
                    if found > _MOST_FILE_BYTES:
                        raise UserError(f"{rpath}: more than {_MOST_FILE_BYTES // 2**30} GiB; give a smaller file")
                    file.write(chunk)

    async def _ls_real(self, url: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """What the folder's page links to below it."""
        page = await self._read(url, 0, _MOST_PAGE_BYTES + 1)
        if len(page) > _MOST_PAGE_BYTES:
            raise UserError(f"{url}: the list of its files has more than {_MOST_PAGE_BYTES // 2**20} MiB")
        folder = f"{url.rstrip('/')}/"
        links = {urljoin(folder, link) for link in _LINK.findall(page.decode(errors="ignore"))}
        names = sorted(link for link in links if link.startswith(folder) and link != folder)
        if not detail:
            return names
        return [{"name": name, "size": None, "type": "directory" if name.endswith("/") else "file"} for name in names]

    async def _info(self, url: str, **kwargs: Any) -> dict[str, Any]:
        session = await self.set_session()
        options = {"allow_redirects": True, "headers": {"Accept-Encoding": "identity"}, **self.kwargs}
        async with session.head(self.encode_url(url), **options) as answer:
            size = answer.content_length if answer.ok else None
        if size is None:  # not every server knows HEAD, or says by it how large a file is
            async with session.get(self.encode_url(url), **options) as answer:
                self._raise_not_found_for_status(answer, url)
                size = answer.content_length
        return {"name": url, "type": "file", "size": size}

    async def _exists(self, path: str, strict: bool = False, **kwargs: Any) -> bool:
        session = await self.set_session()
        async with session.get(self.encode_url(path), **self.kwargs, **kwargs) as answer:
            if answer.status in {404, 410}:
                return False
            answer.raise_for_status()
            return True
