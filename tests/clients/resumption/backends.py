"""What stands behind the gateway: receivers that end connections, so that clients have to come back.

HTTP answers each request and closes. gRPC takes OTLP traces and sends its clients away after a second.
"""

import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Receiver(BaseHTTPRequestHandler):
    """Takes OTLP over HTTP, remote write and anything else."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(200, b"ok\n", "text/plain")

    def do_POST(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/api/v1/write"):
            self._answer(204, b"", None)
        elif "json" in self.headers.get("Content-Type", ""):
            self._answer(200, b"{}", "application/json")
        else:
            self._answer(200, b"", "application/x-protobuf")

    def _answer(self, status, body, kind):
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """Keeps quiet about clients that go away: what they say themselves counts."""

    def handle_error(self, request, client_address):
        pass


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    """Acknowledges every export."""

    def Export(self, request, context):
        return trace_service_pb2.ExportTraceServiceResponse()


def http():
    """Starts the HTTP receiver and returns its port."""
    server = Server(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def otlp_grpc():
    """Starts the gRPC receiver and returns it, to be kept alive, with its port."""
    options = [("grpc.max_connection_age_ms", 1000)]
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port
