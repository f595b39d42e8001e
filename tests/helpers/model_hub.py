"""A stand-in for the Hugging Face hub: the requests of its library for models, over HTTP, kept in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from huggingface_hub import constants

from served import JsonHandler, served

WRITE, READ = "hf_writes", "hf_reads"


class ModelHub:
    """Models with one branch, `main`; tokens that write and that read; a status that all requests get, if set."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {}
        self.created: list[dict[str, Any]] = []
        self.commits: list[list[dict[str, Any]]] = []
        self.requests: list[str] = []
        self.blobs: dict[str, bytes] = {}
        self.status: int | None = None
        self.url = ""

    def commit_of(self, name: str) -> str:
        content = "".join(f"{path} {hashlib.sha256(data).hexdigest()} " for path, data in self.models[name].items())
        return hashlib.sha1(content.encode()).hexdigest()

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        self.commits.append(lines)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.models[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.models[name][value["path"]] = self.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del self.models[name][value["path"]]


class _Handler(JsonHandler):
    hub: ModelHub

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.hub.status is not None:
            self.answer(self.hub.status)
        elif token not in ("", WRITE, READ):
            self.answer(401, X_Error_Message="Invalid credentials in Authorization header")
        elif self.command in ("HEAD", "GET"):
            self._read(path)
        elif token != WRITE and not path.startswith(("/api/validate-yaml", "/blobs/")):
            self.answer(403 if token else 401, X_Error_Message="no right to write")
        else:
            self._write(path, body)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815 - names of http.server

    def _read(self, path: str) -> None:
        found = re.fullmatch(r"/(?:api/models/)?([^/]+/[^/]+)(?:/(resolve|tree|revision)/([^/]+)/?(.*))?", path)
        assert found, path
        name, kind, revision, file = found.groups()
        files = self.hub.models.get(name)
        if files is None:
            self.answer(404, X_Error_Code="RepoNotFound")
            return
        commit = self.hub.commit_of(name)
        if revision not in (None, "main", commit):
            self.answer(404, X_Error_Code="RevisionNotFound")
        elif kind == "resolve" and file not in files:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        elif kind == "resolve":
            etag = hashlib.sha256(files[file]).hexdigest()
            self.answer(200, files[file], ETag=f'"{etag}"', X_Repo_Commit=commit)
        elif kind == "tree":
            rows = [{"type": "file", "path": path, "size": len(data), "oid": "0"} for path, data in files.items()]
            self.answer(200, json.dumps(rows).encode())
        else:
            rows = [{"rfilename": path} for path in files]
            self.answer(200, {"id": name, "sha": commit, "siblings": rows})

    def _write(self, path: str, body: bytes) -> None:
        if path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            status = 409 if name in self.hub.models else 200
            if status == 200:
                self.hub.created.append(asked)
                self.hub.models[name] = {".gitattributes": b""}
            self.answer(status, {"url": f"{self.hub.url}/{name}"})
        elif path.endswith("/preupload/main"):
            files = [
                {"path": file["path"], "uploadMode": _mode(file["path"]), "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            actions = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/blobs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self.answer(200, {"objects": actions})
        elif path.startswith("/blobs/"):
            self.hub.blobs[hashlib.sha256(body).hexdigest()] = body
            self.answer(200)
        else:
            found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path)
            assert found, path
            self.hub.commit(found[1], [json.loads(line) for line in body.splitlines()])
            url = f"{self.hub.url}/{found[1]}/commit/{self.hub.commit_of(found[1])}"
            self.answer(200, {"commitUrl": url, "commitOid": self.hub.commit_of(found[1])})


def _mode(path: str) -> str:
    return "lfs" if path.endswith((".safetensors", ".onnx", ".pt2")) else "regular"


@contextmanager
def model_hub(patch: pytest.MonkeyPatch, cache: str) -> Iterator[ModelHub]:
    """A running hub that this process uses, with an empty cache and no token; large files go by LFS, not by Xet."""
    hub = ModelHub()
    with served(type("Handler", (_Handler,), {"hub": hub})) as url:
        hub.url = url
        # The library reads the variables once, when it is imported.
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HF_HUB_CACHE", cache)
        patch.setattr(constants, "HF_TOKEN_PATH", f"{cache}/token")
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            patch.delenv(variable, raising=False)
        yield hub
