"""gRPC's C core, by grpcio, on either side of the gateway: all four kinds of calls, of bytes without a schema.

In: `server ADDRESS [CERTIFICATE KEY CA]`, or `client ADDRESS CERTIFICATE KEY CA`. Out: of the client a line `ok NAME` for each
claim that holds; the first that does not ends it.
"""

import ast
import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "test.Peer"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
PATIENCE = 30


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Server(grpc.GenericRpcHandler):
    def __init__(self):
        self.cancelled = 0
        self.lock = threading.Lock()

    def service(self, handler_call_details):
        kinds = {
            "Echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
            "Sum": grpc.stream_unary_rpc_method_handler(self.sum),
            "Repeat": grpc.unary_stream_rpc_method_handler(self.repeat),
            "Talk": grpc.stream_stream_rpc_method_handler(self.talk),
            "Sleep": grpc.unary_unary_rpc_method_handler(self.sleep),
            "Cancelled": grpc.unary_unary_rpc_method_handler(lambda request, context: str(self.cancelled).encode()),
            "Metadata": grpc.unary_unary_rpc_method_handler(self.metadata),
            "Refuse": grpc.unary_unary_rpc_method_handler(self.refuse),
        }
        service, method = handler_call_details.method.lstrip("/").split("/")
        return kinds.get(method) if service == SERVICE else None

    @staticmethod
    def sum(requests, context):
        return str(sum(len(request) for request in requests)).encode()

    @staticmethod
    def repeat(request, context):
        count, size = map(int, request.split())
        for _ in range(count):
            yield bytes(size)

    def talk(self, requests, context):
        context.add_callback(lambda: self.count(context))
        yield from requests

    def sleep(self, request, context):
        context.add_callback(lambda: self.count(context))
        for _ in range(int(request)):
            if not context.is_active():
                return b""
            time.sleep(0.1)
        return b"awake"

    def count(self, context):
        """Both a deadline and a cancellation end a call before its time."""
        if context.code() is None:
            with self.lock:
                self.cancelled += 1

    @staticmethod
    def metadata(request, context):
        received = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-")]
        context.send_initial_metadata((("x-initial", "1"),))
        context.set_trailing_metadata((("x-trailing-bin", bytes(range(256))),))
        return repr(received).encode()

    @staticmethod
    def refuse(request, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not so: %, ü, \n")


def serve(address, files):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=UNLIMITED)
    server.add_generic_rpc_handlers((Server(),))
    if files:
        certificate, key, ca = map(read, files)
        credentials = grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
        server.add_secure_port(address, credentials)
    else:
        server.add_insecure_port(address)
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


class Client:
    def __init__(self, address, files, options=()):
        certificate, key, ca = map(read, files)
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        # A channel of its own for each: the core would share connections otherwise.
        options = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1), *options]
        self.channel = grpc.secure_channel(address, credentials, options=options)
        path = f"/{SERVICE}/"
        self.echo = self.channel.unary_unary(path + "Echo")
        self.sum = self.channel.stream_unary(path + "Sum")
        self.repeat = self.channel.unary_stream(path + "Repeat")
        self.talk = self.channel.stream_stream(path + "Talk")
        self.sleep = self.channel.unary_unary(path + "Sleep")
        self.cancelled = self.channel.unary_unary(path + "Cancelled")
        self.metadata = self.channel.unary_unary(path + "Metadata")
        self.refuse = self.channel.unary_unary(path + "Refuse")
        self.missing = self.channel.unary_unary(path + "Missing")


def fails(call, code):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error
    raise AssertionError(f"no error, {code} expected")


def becomes(look, value):
    for _ in range(PATIENCE * 10):
        if look() == value:
            return
        time.sleep(0.1)
    raise AssertionError(f"{look()} and not {value}")


def messages_of_any_size(client):
    for size in [0, 1, 16383, 16384, 16385, 65534, 65535, 65536, 1 << 20, 4 << 20, 16 << 20]:
        message = bytes([size % 251]) * size
        assert client.echo(message, timeout=PATIENCE) == message, size


def streams_of_requests(client):
    sizes = [0, 1, 100, 16384, 70000] * 40
    assert client.sum((bytes(size) for size in sizes), timeout=PATIENCE) == str(sum(sizes)).encode()


def streams_of_responses(client):
    for count, size in [(0, 0), (1, 0), (1000, 10), (50, 100000)]:
        received = [len(message) for message in client.repeat(f"{count} {size}".encode(), timeout=PATIENCE)]
        assert received == [size] * count, (count, size, received)


def both_at_once(client):
    sent = [bytes([number]) * (number * 997) for number in range(200)]
    assert list(client.talk(iter(sent), timeout=PATIENCE)) == sent


def one_after_the_other(client):
    ask = threading.Semaphore(1)

    def requests():
        for number in range(100):
            ask.acquire()
            yield bytes([number])

    numbers = []
    for answer in client.talk(requests(), timeout=PATIENCE):
        numbers.append(answer[0])
        ask.release()
    assert numbers == list(range(100)), numbers


def deadlines_reach_the_server(client):
    before = int(client.cancelled(b""))
    started = time.monotonic()
    fails(lambda: client.sleep(b"100", timeout=0.5), grpc.StatusCode.DEADLINE_EXCEEDED)
    assert time.monotonic() - started < 5
    becomes(lambda: int(client.cancelled(b"")), before + 1)


def cancellations_reach_the_server(client):
    before = int(client.cancelled(b""))
    never = threading.Event()

    def requests():
        yield b"first"
        never.wait(PATIENCE)

    call = client.talk(requests())
    assert next(call) == b"first"
    call.cancel()
    becomes(lambda: int(client.cancelled(b"")), before + 1)
    never.set()


def metadata_passes_without_the_forged(client):
    sent = (("x-scope-orgid", "forged"), ("x-scope-orgid", "forged-2"), ("x-sent-bin", b"\0\1\xff"), ("x-sent", "a"))
    response, call = client.metadata.with_call(b"", metadata=sent, timeout=PATIENCE)
    expected = [("x-scope-orgid", "team-a"), ("x-sent", "a"), ("x-sent-bin", b"\0\1\xff")]
    assert sorted(ast.literal_eval(response.decode())) == expected, response
    assert ("x-initial", "1") in call.initial_metadata(), call.initial_metadata()
    trailing = [value for key, value in call.trailing_metadata() if key == "x-trailing-bin"]
    assert trailing == [bytes(range(256))], trailing


def statuses_pass(client):
    error = fails(lambda: client.refuse(b"", timeout=PATIENCE), grpc.StatusCode.FAILED_PRECONDITION)
    assert error.details() == "not so: %, ü, \n", error.details()
    fails(lambda: client.missing(b"", timeout=PATIENCE), grpc.StatusCode.UNIMPLEMENTED)


def compression_passes(client):
    message = b"a" * 1_000_000
    assert client.echo(message, compression=grpc.Compression.Gzip, timeout=PATIENCE) == message


def a_thousand_at_once(client):
    calls = [client.echo.future(str(number).encode(), timeout=PATIENCE) for number in range(1000)]
    assert [int(call.result()) for call in calls] == list(range(1000))


def silence_with_keepalive(client):
    """The gateway answers PING by itself, and what is quiet for seconds goes on."""
    ask = threading.Event()

    def requests():
        yield b"before"
        ask.wait(PATIENCE)
        yield b"after"

    call = client.talk(requests(), timeout=PATIENCE)
    assert next(call) == b"before"
    time.sleep(5)
    ask.set()
    assert list(call) == [b"after"]


CLAIMS = [
    messages_of_any_size,
    streams_of_requests,
    streams_of_responses,
    both_at_once,
    one_after_the_other,
    deadlines_reach_the_server,
    cancellations_reach_the_server,
    metadata_passes_without_the_forged,
    statuses_pass,
    compression_passes,
    a_thousand_at_once,
]

KEEPALIVE = [
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


def run(address, files):
    client = Client(address, files)
    for claim in CLAIMS:
        claim(client)
        print("ok", claim.__name__, flush=True)
    silence_with_keepalive(Client(address, files, KEEPALIVE))
    print("ok", silence_with_keepalive.__name__, flush=True)


if __name__ == "__main__":
    role, address, *files = sys.argv[1:]
    serve(address, files) if role == "server" else run(address, files)
