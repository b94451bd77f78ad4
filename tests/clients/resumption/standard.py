"""Three requests by Python's own ssl module, the later ones with the session of the one before if told to.

Usage: standard.py PORT CA CERTIFICATE KEY told|untold
"""

import socket
import ssl
import sys

port, ca, certificate, key, mode = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(certificate, key)
session = None
for _ in range(3):
    plain = socket.create_connection(("127.0.0.1", int(port)))
    with context.wrap_socket(plain, server_hostname="localhost", session=session) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := connection.recv(4096):
            answer += data
        if not answer.startswith(b"HTTP/1.1 200 "):
            sys.exit(1)
        session = connection.session if mode == "told" else None
