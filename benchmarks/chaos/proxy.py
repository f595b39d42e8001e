"""An S3 server that fails: a proxy between a run and the real server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

_BODY = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>no</Message></Error>"

_STATUS = {"503": 503, "SlowDown": 503, "InternalError": 500, "ExpiredToken": 400}


class Proxy:
    """A proxy of an S3 server that can be switched to a fault.

    Modes: `refuse` connections, `hang` (no answer), `503`, `slow`, `cut` answers in their middle, `flip` the last bit
    of each part of an answer, or the name of an S3 error that is the answer to every request.

    Attributes:
        met: modes in which data came while they lasted; `refuse` has none.
        mode_of: called with each GET request; the mode in which it alone is answered, or None for the current one.
        environment: the AWS variables of the server.
        endpoint: its own.
        slow_s: the pause after each 4 KiB in the mode `slow`.
        refused: requests with these bytes are answered by `ExpiredToken`.
    """

    def __init__(self, environment: Mapping[str, str], host: str = "127.0.0.1") -> None:
        """Listens at an address of this machine."""
        self.environment, address = environment, urlsplit(environment["AWS_ENDPOINT_URL"])
        assert address.hostname is not None
        assert address.port is not None
        self._host, self._target, self._mode = host, (address.hostname, address.port), "on"
        self.slow_s = 0.002
        self.met: set[str] = set()
        self.refused: bytes | None = None
        self.mode_of: Callable[[bytes], str | None] = lambda _: None
        self._open: set[socket.socket] = set()
        self._answers = threading.Event()
        self._answers.set()
        self._slow = threading.Event()
        self._listen(0)

    def _listen(self, port: int) -> None:
        self._listener = socket.create_server((self._host, port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://{self._host}:{self.port}"

    def switch(self, mode: str) -> None:
        before, self._mode = self._mode, mode
        if mode == "hang":
            self._answers.clear()
        else:
            self._answers.set()
        if mode not in {"on", "hang", "slow", "flip"}:
            if mode == "refuse":
                self._close(self._listener)
            for connection in list(self._open):
                self._close(connection)
        elif before == "refuse":
            self._listen(self.port)

    def close(self) -> None:
        self.switch("refuse")

    @staticmethod
    def _close(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._target)
                self._open |= {client, server}
                alone: list[str | None] = [None]
                for source, sink in ((client, server), (server, client)):
                    answers = source is server
                    threading.Thread(target=self._copy, args=(source, sink, answers, alone), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, answers: bool, alone: list[str | None]) -> None:
        """Passes on what comes from `source`; `alone` has the mode of the connection's request, if it has its own."""
        with contextlib.suppress(OSError):
            while data := source.recv(4096 if self._mode == "slow" else 65536):
                if not answers and data.startswith(b"GET "):
                    alone[0] = self.mode_of(data)
                mode = alone[0] or self._mode
                self.met.add(mode)
                self._answers.wait(600)
                if mode == "cut" and answers:
                    sink.sendall(data[: len(data) // 2])
                    break
                error = self._error(data, mode)
                if error is not None:
                    if not answers:
                        source.sendall(error)
                    break
                if mode == "slow":
                    self._slow.wait(self.slow_s)
                if mode == "flip" and answers:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                sink.sendall(data)
        self._close(source)
        self._close(sink)

    def _error(self, data: bytes, mode: str) -> bytes | None:
        """The answer in the place of the server's."""
        code = "ExpiredToken" if self.refused is not None and self.refused in data.lower() else mode
        if code in {"on", "hang", "slow", "cut", "flip", "refuse"}:
            return None
        body = b"" if code == "503" or data.startswith(b"HEAD ") else _BODY % code.encode()
        status = _STATUS.get(code, 403)
        head = f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + body
