"""A page in headless Chromium, through the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = Path("/usr/bin/chromium")


class Page:
    """An open page.

    Attributes:
        problems: errors and warnings of its console, and requests other than for its own file.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self._loaded = asyncio.Event()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.problems: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        return await self._answers[number]

    async def open(self, path: Path) -> None:
        """Loads a file, without a network."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
        )
        await self.call("Page.navigate", url=path.as_uri())
        await self._loaded.wait()

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript; a promise is waited for."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def screenshot(self, path: Path, width: int, *, dark: bool = False) -> None:
        """Writes the whole page at a width as a PNG file."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", features=scheme)
        await self.set_width(width)
        await self.evaluate("new Promise(done => setTimeout(done, 500))")
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": width, "height": size["height"], "scale": 1}
        found = await self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    async def set_width(self, width: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )

    async def _read(self) -> None:
        async for message in self._socket:
            content = json.loads(message.data)
            if "id" in content:
                self._answers.pop(content["id"]).set_result(content.get("result", content.get("error", {})))
                continue
            method, found = content["method"], content["params"]
            if method == "Page.loadEventFired":
                self._loaded.set()
            elif method == "Runtime.exceptionThrown":
                self.problems.append(str(found["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and found["type"] in {"error", "warning"}:
                self.problems.append(str(found["args"]))
            elif method == "Log.entryAdded" and found["entry"]["level"] in {"error", "warning"}:
                self.problems.append(str(found["entry"]))
            elif method == "Network.requestWillBeSent" and not found["request"]["url"].startswith(("file:", "data:")):
                self.problems.append(f"a request for {found['request']['url'][:200]}")


@asynccontextmanager
async def browser_page(profile: Path) -> AsyncIterator[Page]:
    """A new page of a browser with an empty profile folder, which is closed at the end."""
    process = await asyncio.create_subprocess_exec(
        str(CHROMIUM),
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions"),
        *("--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert process.stderr is not None
    try:
        line = b""
        while b"DevTools listening on " not in line:
            line = await process.stderr.readline()
            assert line, "chromium has ended"
        host = line.decode().split("ws://")[1].partition("/")[0]
        drain = asyncio.create_task(process.stderr.read())
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{host}/json/list") as answer:
                pages = [one for one in await answer.json() if one["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Page(socket)
        drain.cancel()
    finally:
        process.terminate()
        await process.wait()
