"""An OTLP receiver on OpenTelemetry's own stubs that writes down every span it gets.

Usage: otlp_recorder.py ADDRESS GRPC_PORT HTTP_PORT FILE
Appends one line of JSON for each span to FILE, before it acknowledges the request. Ends by SIGTERM.
"""

import json
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

address, grpc_port, http_port, path = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
lock = threading.Lock()


def record(request):
    lines = []
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                attributes = {item.key: item.value.int_value for item in span.attributes}
                lines.append(
                    json.dumps(
                        {
                            "trace": span.trace_id.hex(),
                            "span": span.span_id.hex(),
                            "name": span.name,
                            "index": attributes["index"],
                            "start": span.start_time_unix_nano,
                            "end": span.end_time_unix_nano,
                        }
                    )
                )
    with lock, open(path, "a", encoding="utf-8") as file:
        file.write("".join(line + "\n" for line in lines))


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        record(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        record(trace_service_pb2.ExportTraceServiceRequest.FromString(self.body()))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def body(self):
        length = self.headers["Content-Length"]
        if length is not None:
            return self.rfile.read(int(length))
        # Chunked (RFC 9112 section 7.1): the JavaScript exporter sends so.
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *arguments):
        pass


open(path, "w", encoding="utf-8").close()
server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
if server.add_insecure_port(f"{address}:{grpc_port}") != grpc_port:
    sys.exit(f"cannot listen on {address}:{grpc_port}")
server.start()
ThreadingHTTPServer((address, http_port), Handler).serve_forever()
