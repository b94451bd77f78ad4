"""What a SkyWalking OAP looks like to its agents: a gRPC server on the stubs that ship with the agent.

Usage: skywalking_server.py ADDRESS PORT FILE
Appends one line of JSON to FILE for each segment and for each call of the management service. Ends by SIGTERM.
"""

import json
import sys
import threading
from concurrent import futures

import grpc
from skywalking.protocol.common.Command_pb2 import Commands
from skywalking.protocol.language_agent import Meter_pb2_grpc, Tracing_pb2_grpc
from skywalking.protocol.logging import Logging_pb2_grpc
from skywalking.protocol.management import Management_pb2_grpc
from skywalking.protocol.profile import Profile_pb2_grpc

address, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
lock = threading.Lock()


def record(**fields):
    with lock, open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(fields) + "\n")


def drain(stream):
    for _ in stream:
        pass
    return Commands()


class Segments(Tracing_pb2_grpc.TraceSegmentReportServiceServicer):
    def collect(self, stream, context):
        for segment in stream:
            record(segment=segment.traceSegmentId, service=segment.service, operation=segment.spans[0].operationName)
        return Commands()


class Management(Management_pb2_grpc.ManagementServiceServicer):
    def reportInstanceProperties(self, request, context):
        record(properties=request.service)
        return Commands()

    def keepAlive(self, request, context):
        record(heartbeat=request.service)
        return Commands()


class Meters(Meter_pb2_grpc.MeterReportServiceServicer):
    def collect(self, stream, context):
        return drain(stream)


class Logs(Logging_pb2_grpc.LogReportServiceServicer):
    def collect(self, stream, context):
        return drain(stream)


class Profiles(Profile_pb2_grpc.ProfileTaskServicer):
    def getProfileTaskCommands(self, request, context):
        return Commands()


open(path, "w", encoding="utf-8").close()
server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
Tracing_pb2_grpc.add_TraceSegmentReportServiceServicer_to_server(Segments(), server)
Management_pb2_grpc.add_ManagementServiceServicer_to_server(Management(), server)
Meter_pb2_grpc.add_MeterReportServiceServicer_to_server(Meters(), server)
Logging_pb2_grpc.add_LogReportServiceServicer_to_server(Logs(), server)
Profile_pb2_grpc.add_ProfileTaskServicer_to_server(Profiles(), server)
if server.add_insecure_port(f"{address}:{port}") != port:
    sys.exit(f"cannot listen on {address}:{port}")
server.start()
server.wait_for_termination()
