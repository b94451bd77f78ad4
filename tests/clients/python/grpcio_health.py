"""What a client of gRPC learns from grpc.health.v1 of the gateway, while its only server is down and then comes.

In: `ADDRESS CERTIFICATE KEY CA`. Out: a line `ok NAME` for each claim that holds; the first that does not ends it. The server is to
come after `ok watched`.
"""

import sys
import time

import grpc

PATIENCE = 60
SERVING, NOT_SERVING = 1, 2


def read(path):
    with open(path, "rb") as file:
        return file.read()


def request(service):
    """HealthCheckRequest { service = 1 }."""
    name = service.encode()
    return bytes([0x0A, len(name)]) + name if name else b""


def status(response):
    """HealthCheckResponse { status = 1 }."""
    assert len(response) == 2 and response[0] == 0x08, response
    return response[1]


def connect(address, certificate, key, ca, options=()):
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    return grpc.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1), *options])


def main():
    address, *files = sys.argv[1:]
    certificate, key, ca = (read(file) for file in files)
    channel = connect(address, certificate, key, ca)
    health = "/grpc.health.v1.Health/"
    check = channel.unary_unary(health + "Check")
    until = time.monotonic() + PATIENCE
    while status(check(request(""), timeout=PATIENCE)) != NOT_SERVING:
        assert time.monotonic() < until, "the server that is down is never known as such"
        time.sleep(0.1)
    assert status(check(request("test.Peer"), timeout=PATIENCE)) == NOT_SERVING
    print("ok checked", flush=True)
    try:
        channel.unary_unary(health + "List")(b"", timeout=PATIENCE)
        raise AssertionError("List was answered")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    print("ok unimplemented", flush=True)
    # The core itself watches here, and takes the connection for usable once it hears SERVING.
    config = '{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "test.Peer"}}'
    watching = connect(address, certificate, key, ca, [("grpc.service_config", config)])
    ready = grpc.channel_ready_future(watching)
    try:
        ready.result(timeout=2)
        raise AssertionError("the core takes a connection for usable that does not serve")
    except grpc.FutureTimeoutError:
        pass
    heard = channel.unary_stream(health + "Watch")(request("test.Peer"), timeout=PATIENCE)
    assert status(next(heard)) == NOT_SERVING
    print("ok watched", flush=True)
    assert status(next(heard)) == SERVING
    print("ok heard", flush=True)
    heard.cancel()
    ready.result(timeout=PATIENCE)
    print("ok ready", flush=True)


main()
