"""Watches TLS 1.3 handshakes from between client and server, without a key.

Whether a client offers a ticket and whether the server takes it stands in clear: the pre_shared_key extension (41) of
ClientHello and ServerHello (RFC 8446 section 4.2.11). Everything is passed on as it comes.
"""

import hashlib
import socket
import threading

PRE_SHARED_KEY = 41
HANDSHAKE, CHANGE_CIPHER_SPEC = 22, 20
CLIENT_HELLO, SERVER_HELLO = 1, 2
# RFC 8446 section 4.1.3: a ServerHello with this random is a HelloRetryRequest.
RETRY = hashlib.sha256(b"HelloRetryRequest").digest()


class Connection:
    """What was seen of one connection."""

    def __init__(self):
        self.offered = False
        self.resumed = False
        self.answered = False


class Observer:
    """Listens on a free port of 127.0.0.1 and passes every connection on."""

    def __init__(self, target):
        self.target = target
        self.connections = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def take(self):
        """The connections since the last call on which a server answered."""
        seen, self.connections = self.connections, []
        return [connection for connection in seen if connection.answered]

    def _accept(self):
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            connection = Connection()
            self.connections.append(connection)
            for source, sink, look in (
                (client, server, Hello(CLIENT_HELLO, connection)),
                (server, client, Hello(SERVER_HELLO, connection)),
            ):
                threading.Thread(target=relay, args=(source, sink, look), daemon=True).start()


def relay(source, sink, look):
    try:
        while data := source.recv(65536):
            look.take(data)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        # One side is gone: so is the other.
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Hello:
    """Reads the hellos at the start of one direction."""

    def __init__(self, kind, connection):
        self.kind = kind
        self.connection = connection
        self.records = b""
        self.messages = b""
        self.done = False

    def take(self, data):
        if self.done:
            return
        self.records += data
        while len(self.records) >= 5:
            length = int.from_bytes(self.records[3:5], "big")
            if len(self.records) < 5 + length:
                return
            kind, content = self.records[0], self.records[5 : 5 + length]
            self.records = self.records[5 + length :]
            if kind == HANDSHAKE:
                self.messages += content
                self._read_messages()
            elif kind != CHANGE_CIPHER_SPEC:
                # From here on everything is encrypted.
                self.done = True
                return

    def _read_messages(self):
        while len(self.messages) >= 4:
            length = int.from_bytes(self.messages[1:4], "big")
            if len(self.messages) < 4 + length:
                return
            kind, body = self.messages[0], self.messages[4 : 4 + length]
            self.messages = self.messages[4 + length :]
            if kind == self.kind == CLIENT_HELLO:
                self.connection.offered = PRE_SHARED_KEY in client_extensions(body)
            elif kind == self.kind == SERVER_HELLO and body[2:34] != RETRY:
                self.connection.answered = True
                self.connection.resumed = PRE_SHARED_KEY in server_extensions(body)


def client_extensions(body):
    at = 34
    at += 1 + body[at]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    return extensions(body[at:])


def server_extensions(body):
    at = 34
    at += 1 + body[at]
    return extensions(body[at + 3 :])


def extensions(block):
    found, at, end = set(), 2, 2 + int.from_bytes(block[:2], "big")
    while at + 4 <= end:
        found.add(int.from_bytes(block[at : at + 2], "big"))
        at += 4 + int.from_bytes(block[at + 2 : at + 4], "big")
    return found
