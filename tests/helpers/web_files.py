"""A web server for the files of a folder, with ETags and usually with ranges."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

from served import served


class FileHandler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, asked: list[str], lists: bool, ranges: bool, **options: Any) -> None:
        self._asked, self._lists, self._ranges = asked, lists, ranges
        super().__init__(*arguments, **options)

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self._asked.append(f"{self.command} {self.path}")
        path = Path(self.translate_path(self.path))
        if path.is_dir() and self._lists:
            super().do_GET()
            return
        if not path.is_file():
            self.send_error(404)
            return
        data = body = path.read_bytes()
        wanted = self.headers.get("Range") if self._ranges else None
        if wanted:
            start, end = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
            body = data[start : end + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()[:16]}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextmanager
def web_server(folder: Path, *, lists: bool = False, ranges: bool = True) -> Iterator[tuple[str, list[str]]]:
    """The server's URL, and a list of the requests that it gets; with `lists` a folder is a page of links."""
    asked: list[str] = []
    with served(partial(FileHandler, directory=str(folder), asked=asked, lists=lists, ranges=ranges)) as url:
        yield url, asked
