"""Three requests by pyOpenSSL, over the OpenSSL in its wheel, the later ones with the session of the one before.

Usage: openssl_python.py PORT CA CERTIFICATE KEY told|untold
"""

import socket
import sys

from OpenSSL import SSL

port, ca, certificate, key, mode = sys.argv[1:]
context = SSL.Context(SSL.TLS_CLIENT_METHOD)
context.load_verify_locations(ca)
context.set_verify(SSL.VERIFY_PEER)
context.use_certificate_chain_file(certificate)
context.use_privatekey_file(key)
session = None
for _ in range(3):
    connection = SSL.Connection(context, socket.create_connection(("127.0.0.1", int(port))))
    connection.set_tlsext_host_name(b"localhost")
    if mode == "told" and session is not None:
        connection.set_session(session)
    connection.set_connect_state()
    connection.do_handshake()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = b""
    try:
        while data := connection.recv(4096):
            answer += data
    except SSL.ZeroReturnError:
        pass
    if not answer.startswith(b"HTTP/1.1 200 "):
        sys.exit(1)
    session = connection.get_session()
    connection.shutdown()
    connection.close()
