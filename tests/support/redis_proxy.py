"""A proxy in front of a server: what it passes on may come late, never, or in part."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Proxy:
    """Passes on what clients and the server at a port say.

    Attributes:
        port: where it listens.
        delay: seconds by which each piece of a reply is late.
        cut: where it is set, so many bytes of a reply are passed on before the connection is cut.
        replies, requests: while one is cleared, nothing of that kind is passed on.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.delay = 0.0
        self.cut: int | None = None
        self._gates: list[threading.Event] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._open_gates()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def forsake(self) -> None:
        """Never again pass on anything on the connections of now, as if their host had vanished."""
        for gate in self._gates:
            gate.clear()
        self._open_gates()

    def close(self) -> None:
        hang_up(self._listener, *self._sockets)
        for gate in self._gates:
            gate.set()
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._sockets):
            each.close()

    def _open_gates(self) -> None:
        self.replies, self.requests = threading.Event(), threading.Event()
        self._gates += [self.replies, self.requests]
        self.replies.set()
        self.requests.set()

    def _start(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    hang_up(client)
                    continue
                self._sockets.append(server)
                self._start(self._pass_requests, client, server, self.requests)
                self._start(self._pass_replies, server, client, self.replies)

    def pass_request(self, data: bytes, server: socket.socket) -> None:
        """Hear what is on its way to the server. For subclasses."""

    def may_pass_reply(self, server: socket.socket) -> bool:
        """Whether to pass on what comes from there, or cut the connection. For subclasses."""
        del server
        return True

    def _pass_requests(self, client: socket.socket, server: socket.socket, gate) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                gate.wait()
                self.pass_request(data, server)
                server.sendall(data)
        hang_up(client, server)

    def _pass_replies(self, server: socket.socket, client: socket.socket, gate) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                time.sleep(self.delay)
                gate.wait()
                if not self.may_pass_reply(server):
                    break
                client.sendall(data[: self.cut])
                if self.cut is not None:
                    break
        hang_up(client, server)


def hang_up(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
