"""A client that breaks TLS 1.3 in one way at a time, and some that stretch it without breaking it.

In: address, CA, certificate and key, and the names of cases (all without any). Out: a line of JSON for each case: its name, and
how the gateway answered: `alert NAME`, `closed` without one, or `echo` where every byte came back.
Built on tlslite-ng, which lets each message be changed on its way out.
"""

import json
import socket
import sys

from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
from tlslite.constants import AlertDescription, ContentType, HandshakeType
from tlslite.errors import TLSAbruptCloseError, TLSLocalAlert, TLSRemoteAlert
from tlslite.extensions import ClientKeyShareExtension, KeyShareEntry, TLSExtension
from tlslite.messages import Alert, Message

KEY_SHARE, GROUPS, SIGNATURES, VERSIONS, SERVER_NAME = 51, 10, 13, 43, 0
PRE_SHARED_KEY = 41
BULK = bytes(at * 7 % 251 for at in range(60_000))


class Hostile(TLSConnection):
    """Sends what `change` makes of each message."""

    def __init__(self, raw, change):
        super().__init__(raw)
        self.change = change

    def _sendMsg(self, msg, *arguments, **named):
        changed = self.change(self, msg) if msg.contentType == ContentType.handshake else [msg]
        for message in changed:
            yield from super()._sendMsg(message, *arguments, **named)

    def in_clear(self, data):
        self.sock.flush()
        self.sock.socket.sendall(bytes(data))


def kind(message):
    return getattr(message, "handshakeType", None)


def handshake(data):
    return Message(ContentType.handshake, bytearray(data))


def hello(change):
    """Changes the ClientHello as an object."""

    def on(_, message):
        if kind(message) == HandshakeType.client_hello:
            change(message)
        return [message]

    return on


def hello_bytes(change):
    """Changes the body of the ClientHello; type and length are put before it."""

    def on(_, message):
        if kind(message) == HandshakeType.client_hello:
            body = bytes(change(bytearray(message.write()[4:])))
            return [handshake(bytes([1]) + len(body).to_bytes(3, "big") + body)]
        return [message]

    return on


def without(*types):
    def change(message):
        message.extensions[:] = [one for one in message.extensions if one.extType not in types]

    return hello(change)


def with_extension(extension, at=None):
    def change(message):
        place = len(message.extensions) if at is None else at
        message.extensions.insert(place, extension)

    return hello(change)


def extension(number, data=b""):
    return TLSExtension(extType=number).create(bytearray(data))


def key_shares(*shares):
    """Other key shares; a share is a group and its bytes."""

    def change(message):
        entries = [KeyShareEntry().create(group, bytearray(data)) for group, data in shares]
        for index, one in enumerate(message.extensions):
            if one.extType == KEY_SHARE:
                message.extensions[index] = ClientKeyShareExtension().create(entries)

    return hello(change)


def twice(number):
    def change(message):
        message.extensions.extend([one for one in message.extensions if one.extType == number])

    return hello(change)


def field(name, value):
    return hello(lambda message: setattr(message, name, value))


def at(place, make):
    """Replaces messages of this kind in our second flight."""

    def on(connection, message):
        return make(connection, message) if kind(message) == place else [message]

    return on


def body_of(change):
    """Changes the body of a message; type and length are put before it."""

    def make(_, message):
        written = bytearray(message.write())
        body = bytes(change(written[4:]))
        return [handshake(bytes([written[0]]) + len(body).to_bytes(3, "big") + body)]

    return make


def changed_last_byte(body):
    body[-1] ^= 1
    return body


def before(place, *messages):
    return at(place, lambda _, message: [*messages, message])


def in_clear_before(place, data):
    def make(connection, message):
        connection.in_clear(data)
        return [message]

    return at(place, make)


def in_parts(place, size, between=None):
    def make(_, message):
        written = message.write()
        parts = [handshake(written[at : at + size]) for at in range(0, len(written), size)]
        return parts if between is None else [parts[0], between, *parts[1:]]

    return at(place, make)


def in_one_record(length):
    """A ClientHello that is right but for its length, and that all of it stands in one record."""

    def make(connection, message):
        message.extensions.insert(0, extension(0xFA00))
        message.extensions[0] = extension(0xFA00, bytes(length - len(message.write())))
        written = message.write()
        assert len(written) == length
        connection.in_clear(b"\x16\x03\x01" + length.to_bytes(2, "big") + written)
        # As it does with what it sends itself.
        connection._handshake_hash.update(written)
        return []

    return at(HandshakeType.client_hello, make)


def settings(**named):
    made = HandshakeSettings()
    made.minVersion = (3, 4)
    made.eccCurves = ["x25519", "secp256r1", "secp384r1"]
    made.keyShares = ["x25519"]
    made.dhGroups = []
    # It would compress its certificate although nobody asked for that.
    made.certificate_compression_send = []
    made.certificate_compression_receive = []
    for name, value in named.items():
        setattr(made, name, value)
    return made


def tls12(version):
    return settings(minVersion=version, maxVersion=version, keyShares=[])


CERTIFICATE = HandshakeType.certificate
VERIFY = HandshakeType.certificate_verify
FINISHED = HandshakeType.finished
X25519, SECP256R1 = 29, 23
NOTHING = lambda _, message: [message]  # noqa: E731
DATA = Message(ContentType.application_data, bytearray(b"too early"))
CLOSE = Alert().create(AlertDescription.close_notify, 1)

# What breaks nothing: each is answered with every byte.
STRETCHED = {
    **{
        f"{suite} with {group}": (
            NOTHING,
            settings(cipherNames=[suite], keyShares=[group], eccCurves=[group]),
        )
        for suite in ["aes128gcm", "aes256gcm", "chacha20-poly1305"]
        for group in ["x25519", "secp256r1", "secp384r1"]
    },
    "no key share, so a HelloRetryRequest": (NOTHING, settings(keyShares=[])),
    "a key share of another group, so a HelloRetryRequest": (
        NOTHING,
        settings(keyShares=["secp521r1"], eccCurves=["secp521r1", "x25519"]),
    ),
    "a hundred unknown extensions": (
        hello(lambda message: message.extensions.extend(extension(0xFA00 + n) for n in range(100))),
        settings(),
    ),
    "unknown suites and groups among the known": (
        hello(lambda message: message.cipher_suites.insert(0, 0x1A1A)),
        settings(),
    ),
    "Certificate in records of 100 bytes": (in_parts(CERTIFICATE, 100), settings()),
    "Finished in records of one byte": (in_parts(FINISHED, 1), settings()),
    "a ClientHello in a record of 2^14 bytes": (in_one_record(0x4000), settings()),
    "padded records": (
        NOTHING,
        settings(padding_cb=lambda length, kind, most: min(most - length - 1, 500)),
    ),
}

# What breaks something.
BROKEN = {
    "SSL 3.0": (NOTHING, tls12((3, 0))),
    "TLS 1.0": (NOTHING, tls12((3, 1))),
    "TLS 1.1": (NOTHING, tls12((3, 2))),
    "TLS 1.2": (NOTHING, tls12((3, 3))),
    "no supported_versions": (without(VERSIONS), settings()),
    "no key_share": (without(KEY_SHARE), settings()),
    "no supported_groups": (without(GROUPS), settings()),
    "no signature_algorithms": (without(SIGNATURES), settings()),
    "no extension at all": (field("extensions", []), settings()),
    "no cipher suite that is known": (field("cipher_suites", [0x1A1A]), settings()),
    "a suite of TLS 1.2 alone": (field("cipher_suites", [0xC02B]), settings()),
    "no cipher suite": (field("cipher_suites", []), settings()),
    "compression": (field("compression_methods", [1]), settings()),
    "no compression method": (field("compression_methods", []), settings()),
    "a session id of 33 bytes": (field("session_id", bytearray(33)), settings()),
    "key_share twice": (twice(KEY_SHARE), settings()),
    "supported_versions twice": (twice(VERSIONS), settings()),
    "two key shares of one group": (
        key_shares((X25519, bytes(range(32))), (X25519, bytes(range(32)))),
        settings(),
    ),
    "a key share of 31 bytes": (key_shares((X25519, bytes(range(31)))), settings()),
    "a key share of zeros": (key_shares((X25519, bytes(32))), settings()),
    "a key share that is no point": (key_shares((SECP256R1, bytes([4]) + bytes(range(64)))), settings()),
    "an empty server name": (with_extension(extension(SERVER_NAME, b""), 0), settings()),
    "a server name with a NUL": (
        with_extension(extension(SERVER_NAME, b"\x00\x06\x00\x00\x03a\x00b"), 0),
        settings(),
    ),
    "pre_shared_key that is not the last": (
        with_extension(extension(PRE_SHARED_KEY, b"\x00\x0a\x00\x04abcd\x00\x00\x00\x00\x00\x21\x20" + bytes(32)), 0),
        settings(),
    ),
    "a byte behind the extensions": (hello_bytes(lambda body: body + b"\x00"), settings()),
    "a ClientHello that is cut short": (hello_bytes(lambda body: body[:-10]), settings()),
    "a ClientHello of no length": (hello_bytes(lambda body: b""), settings()),
    "a handshake message of an unknown kind": (
        before(HandshakeType.client_hello, handshake(b"\x63\x00\x00\x01\x00")),
        settings(),
    ),
    "Finished first of all": (
        before(HandshakeType.client_hello, handshake(b"\x14\x00\x00\x20" + bytes(32))),
        settings(),
    ),
    "data before ClientHello": (
        in_clear_before(HandshakeType.client_hello, b"\x17\x03\x03\x00\x04data"),
        settings(),
    ),
    "an empty handshake record": (
        in_clear_before(HandshakeType.client_hello, b"\x16\x03\x03\x00\x00"),
        settings(),
    ),
    "a ClientHello in a record of 2^14 + 1 bytes": (in_one_record(0x4001), settings()),
    "a record of an unknown type": (
        in_clear_before(HandshakeType.client_hello, b"\x63\x03\x03\x00\x01\x00"),
        settings(),
    ),
    "a second ClientHello": (
        before(CERTIFICATE, handshake(b"\x01\x00\x00\x02\x03\x03")),
        settings(),
    ),
    "no certificate": ("no certificate", settings()),
    "a certificate that is none": (
        at(CERTIFICATE, lambda *_: [handshake(b"\x0b\x00\x00\x10\x00\x00\x00\x0c\x00\x00\x07garbage\x00\x00")]),
        settings(),
    ),
    "a CompressedCertificate that nobody asked for": (
        NOTHING,
        settings(certificate_compression_send=["zlib"], certificate_compression_receive=["zlib"]),
    ),
    "a context in Certificate": (
        at(CERTIFICATE, body_of(lambda body: b"\x01x" + body[1:])),
        settings(),
    ),
    "Certificate that is cut short": (at(CERTIFICATE, body_of(lambda body: body[:-5])), settings()),
    "no Certificate": (at(CERTIFICATE, lambda *_: []), settings()),
    "Certificate twice": (at(CERTIFICATE, lambda _, message: [message, message]), settings()),
    "no CertificateVerify": (at(VERIFY, lambda *_: []), settings()),
    "CertificateVerify with another signature": (at(VERIFY, body_of(changed_last_byte)), settings()),
    "CertificateVerify by a scheme of TLS 1.2": (
        at(VERIFY, body_of(lambda body: b"\x04\x01" + body[2:])),
        settings(),
    ),
    "CertificateVerify twice": (at(VERIFY, lambda _, message: [message, message]), settings()),
    "no Finished": (at(FINISHED, lambda *_: []), settings()),
    "another Finished": (at(FINISHED, body_of(changed_last_byte)), settings()),
    "a short Finished": (at(FINISHED, body_of(lambda body: body[:-1])), settings()),
    "an empty Finished": (at(FINISHED, body_of(lambda body: b"")), settings()),
    "a byte behind Finished": (
        at(FINISHED, lambda _, message: [handshake(message.write() + b"\x18")]),
        settings(),
    ),
    "KeyUpdate before Finished": (before(FINISHED, handshake(b"\x18\x00\x00\x01\x00")), settings()),
    "data before Finished": (before(FINISHED, DATA), settings()),
    "data between two parts of Certificate": (in_parts(CERTIFICATE, 100, DATA), settings()),
    "close_notify before Finished": (before(FINISHED, CLOSE), settings()),
    "data in clear before Certificate": (
        in_clear_before(CERTIFICATE, b"\x17\x03\x03\x00\x20" + bytes(32)),
        settings(),
    ),
    "a handshake message in clear before Certificate": (
        in_clear_before(CERTIFICATE, b"\x16\x03\x03\x00\x05\x18\x00\x00\x01\x00"),
        settings(),
    ),
    "a change_cipher_spec of two bytes": (
        in_clear_before(CERTIFICATE, b"\x14\x03\x03\x00\x02\x01\x01"),
        settings(),
    ),
    "a change_cipher_spec with 2": (
        in_clear_before(CERTIFICATE, b"\x14\x03\x03\x00\x01\x02"),
        settings(),
    ),
    "forty change_cipher_spec": (
        in_clear_before(CERTIFICATE, b"\x14\x03\x03\x00\x01\x01" * 40),
        settings(),
    ),
    "an alert in clear before Certificate": (
        in_clear_before(CERTIFICATE, b"\x15\x03\x03\x00\x02\x02\x28"),
        settings(),
    ),
}


def run(address, credentials, change, made):
    """How one connection ends."""
    chain, key = credentials
    if change == "no certificate":
        chain, key, change = None, None, NOTHING
    with socket.create_connection(address, timeout=30) as raw:
        connection = Hostile(raw, change)
        connection.ignoreAbruptClose = False
        try:
            connection.handshakeClientCert(
                chain, key, settings=made, serverName="gateway.test"
            )
            return exchange(connection)
        except TLSRemoteAlert as alert:
            return f"alert {AlertDescription.toRepr(alert.description)}"
        except TLSLocalAlert as alert:
            return f"tlslite: {alert}"
        except (TLSAbruptCloseError, ConnectionResetError, BrokenPipeError):
            # Which of them, is a matter of who was faster.
            return "closed"
        except socket.timeout:
            return "nothing"


def exchange(connection):
    """Sends, changes keys where that can be, and wants every byte back."""
    received = bytearray()
    connection.sendall(BULK[:20_000])
    received += connection.read(None, 20_000)
    for _ in connection.send_keyupdate_request(1):
        pass
    connection.sendall(BULK[20_000:])
    received += connection.read(None, len(BULK) - 20_000)
    return "echo" if received == BULK else "other bytes"


def main():
    host, port, certificate, key, *names = sys.argv[1:]
    with open(certificate, encoding="ascii") as file:
        chain = X509CertChain()
        chain.parsePemList(file.read())
    with open(key, encoding="ascii") as file:
        private = parsePEMKey(file.read(), private=True)
    cases = {**STRETCHED, **BROKEN}
    for name in names or cases:
        change, made = cases[name]
        outcome = run((host, int(port)), (chain, private), change, made)
        for _ in range(3):
            # On a busy machine we may not be there to read the alert within the time that the gateway waits for that.
            if outcome != "closed":
                break
            outcome = run((host, int(port)), (chain, private), change, made)
        print(json.dumps({"case": name, "outcome": outcome}), flush=True)


main()
