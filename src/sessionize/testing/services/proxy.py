"""A TCP proxy between a client and its server that can cut connections around a word."""

import socket
import threading
from contextlib import suppress

_CHUNK_BYTES = 65_536
_END_TIMEOUT_S = 60


class CuttingProxy:
    """Forwards bytes to a server until it is armed; then it cuts the connection around the next COMMIT.

    answered: whether the server has received and answered the COMMIT when the connection is cut. word: the word to look
    for instead of COMMIT; an answer must contain it too. cuts: the number of cut connections.
    """

    def __init__(self, port: int, *, word: bytes = b"COMMIT") -> None:
        self._server_port = port
        self._word = word
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.armed = False
        self.answered = False
        self.cuts = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Accept no more connections; returns when all have ended. Errors: TimeoutError."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=_END_TIMEOUT_S)
            if thread.is_alive():
                raise TimeoutError("a connection through the proxy does not end")

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                holding = threading.Event()
                for work in (self._to_server, self._to_client):
                    self._threads.append(threading.Thread(target=work, args=(client, server, holding)))
                    self._threads[-1].start()

    def _to_server(self, client: socket.socket, server: socket.socket, holding: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(_CHUNK_BYTES):
                if self.armed and self._word in data:
                    holding.set()
                    if not self.answered:
                        self._cut(client, server)
                        return
                server.sendall(data)
        _end(client, server)

    def _to_client(self, client: socket.socket, server: socket.socket, holding: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(_CHUNK_BYTES):
                if holding.is_set() and self._word in data:
                    self._cut(client, server)
                    return
                client.sendall(data)
        _end(client, server)

    def _cut(self, client: socket.socket, server: socket.socket) -> None:
        self.armed = False
        self.cuts += 1
        _end(client, server)


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
