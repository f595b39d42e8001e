"""Whether processes on two nodes can open a connection to each other, on the ports that a system hands out."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

_CONNECT_S = 4.0


class Listener:
    """Accepts connections to an address of this node, on a free port, and says nothing; until closed.

    Raises OSError where the address is not this node's own.
    """

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.create_server((address, 0), family=family)
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # ends the wait of the thread
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.close()


def blocked_targets(targets: Sequence[tuple[str, int]], seconds: float = _CONNECT_S) -> dict[str, str]:
    """Of (address, port) those addresses that do not take a connection in so many seconds, and why.

    All are tried at the same time.
    """
    found: dict[str, str] = {}

    def connect(address: str, port: int) -> None:
        try:
            socket.create_connection((address, port), timeout=seconds).close()
        except TimeoutError:
            found[address] = f"no answer within {seconds:g} s"
        except OSError as error:
            found[address] = (error.strerror or type(error).__name__).lower()

    threads = [threading.Thread(target=connect, args=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
