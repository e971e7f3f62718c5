"""A pooler in transaction mode, as PgBouncer is: a server's session for each transaction.

It speaks just enough of PostgreSQL's protocol. Clients come over a Unix socket, without passwords.
"""

import asyncio
import os
import socket
import struct
import threading

import psycopg

_PARAMETERS = (
    *("server_version", "server_encoding", "client_encoding", "standard_conforming_strings"),
    *("DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes"),
)
_SOCKET = ".s.PGSQL.5432"
_VERSION = 196608


class Pooler:
    """Many clients on few sessions, which go round from one transaction to the next.

    Args:
        server: the server's address, wherever it is.
        folder: where to put a socket for clients.
        size: how many sessions to share out.
    """

    def __init__(self, server, folder, size=2):
        self.dsn = f"host={folder} user=postgres dbname=postgres"
        self.transactions = 0
        self._server, self._folder, self._size = server, folder, size
        self._greeting = b""
        self._connections = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._ready = threading.Event()

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._over.set_result, None)
        self._thread.join()

    def _run(self):
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self):
        self._over = self._loop.create_future()
        self._sessions = asyncio.Queue()
        for _ in range(self._size):
            self._sessions.put_nowait(await self._connect())
        server = await asyncio.start_unix_server(self._client, f"{self._folder}/{_SOCKET}")
        self._ready.set()
        await self._over
        server.close()
        while not self._sessions.empty():
            _, writer = self._sessions.get_nowait()
            writer.close()
        for connection in self._connections:
            connection.close()
        clients = asyncio.all_tasks() - {asyncio.current_task()}
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _connect(self):
        """A session whose opening libpq has done, with whatever the server wants to know."""
        connection = psycopg.connect(self._server, sslmode="disable", gssencmode="disable")
        self._connections.append(connection)
        pgconn = connection.pgconn
        self._greeting = b"R\0\0\0\x08\0\0\0\0"
        for parameter in map(str.encode, _PARAMETERS):
            words = parameter + b"\0" + pgconn.parameter_status(parameter) + b"\0"
            self._greeting += b"S" + struct.pack("!i", 4 + len(words)) + words
        self._greeting += b"Z\0\0\0\5I"
        return await asyncio.open_connection(sock=socket.socket(fileno=os.dup(pgconn.socket)))

    async def _client(self, reader, writer):
        try:
            await self._greet(reader, writer)
            while True:
                session = None
                status = b""
                while status != b"I":  # else a transaction goes on
                    request = await _request(reader)
                    if session is None:
                        session = await self._sessions.get()
                    status = await _exchange(request, session, writer)
                self.transactions += 1
                self._sessions.put_nowait(session)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has gone, between two transactions
        finally:
            writer.close()

    async def _greet(self, reader, writer):
        while True:
            length, code = struct.unpack("!ii", await reader.readexactly(8))
            await reader.readexactly(length - 8)
            if code == _VERSION:
                break
            writer.write(b"N")  # no encryption
        writer.write(self._greeting)


async def _message(reader):
    head = await reader.readexactly(5)
    return head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)


async def _request(reader):
    """Messages up to the one that makes the server answer."""
    request = b""
    while True:
        message = await _message(reader)
        if message[:1] == b"X":
            raise ConnectionError
        request += message
        if message[:1] in b"QS":
            return request


async def _exchange(request, session, client):
    """The state that the server is in when it has answered."""
    reader, writer = session
    writer.write(request)
    while True:
        answer = await _message(reader)
        client.write(answer)
        if answer[:1] == b"Z":
            return answer[-1:]
