"""A stand-in for the Hugging Face hub: what its library asks to list and read data sets, over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from urllib.parse import unquote

import pytest
from huggingface_hub import constants

from distgan.storage import urls
from served import JsonHandler, served

REVISION = "1" * 40


class DatasetHub:
    """Data sets as files by path; gated ones; a status that all requests get, if set."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.status: int | None = None
        self.requests: list[str] = []


class _Handler(JsonHandler):
    hub: DatasetHub

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.hub.requests.append(path)
        found = re.fullmatch(
            r"(?:/api)?/datasets/([^/]+/[^/]+)(?:/(revision|tree|resolve)/([^/]+)/?(.*))?", unquote(path)
        )
        if found is None:
            self.answer(404)
            return
        name, kind, revision, inner = found.groups()
        files = self.hub.files.get(name)
        if self.hub.status is not None:
            self.answer(self.hub.status)
        elif files is None:
            self.answer(401, X_Error_Code="RepoNotFound")  # so too for a private one, to those without a token
        elif name in self.hub.gated:
            self.answer(403, X_Error_Code="GatedRepo")
        elif revision not in (None, "main"):
            self.answer(404, X_Error_Code="RevisionNotFound")
        elif kind == "tree":
            self._tree(files, f"{inner}/" if inner else "", "recursive=true" in query.lower())
        elif kind == "resolve":
            self._file(files.get(inner))
        else:
            self.answer(200, {"id": name, "sha": REVISION, "siblings": []})

    do_HEAD = do_GET  # noqa: N815 - a name of http.server

    def _tree(self, files: dict[str, bytes], folder: str, below: bool) -> None:
        inside = {path.removeprefix(folder): data for path, data in files.items() if path.startswith(folder)}
        if not inside:
            self.answer(404, X_Error_Code="EntryNotFound")
            return
        folders = sorted({str(parent) for path in inside for parent in PurePosixPath(path).parents} - {"."})
        self.answer(
            200,
            [
                {"type": "directory", "path": f"{folder}{path}", "oid": "0"}
                for path in folders
                if below or "/" not in path
            ]
            + [
                {"type": "file", "path": f"{folder}{path}", "size": len(data), "oid": "0"}
                for path, data in inside.items()
                if below or "/" not in path
            ],
        )

    def _file(self, data: bytes | None) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        headers = {"ETag": '"0"', "X_Repo_Commit": REVISION}
        if data is None:
            self.answer(404, X_Error_Code="EntryNotFound")
        elif wanted:
            start, end = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
            self.answer(206, data[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(data)}", **headers)
        else:
            self.answer(200, data, **headers)


@contextmanager
def dataset_hub(patch: pytest.MonkeyPatch) -> Iterator[DatasetHub]:
    """A running hub that this process uses, without a token."""
    hub = DatasetHub()
    with served(type("Handler", (_Handler,), {"hub": hub})) as url:
        # The library reads the variables once, when it is imported.
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "ENDPOINT", url)
        patch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent/token")
        patch.setattr(urls, "_filesystems", {})
        for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            patch.delenv(variable, raising=False)
        yield hub
