"""Apache SkyWalking's own Python agent, sending trace segments and its heartbeat.

Usage: skywalking_client.py SEGMENTS CA CERTIFICATE KEY SECONDS_TO_LINGER
The agent is configured by its own environment variables. It has none for a client certificate, so the function of
gRPC that it calls for its credentials is replaced before it starts; everything else is the agent as it comes.
Prints one line of JSON: the segments it made.
"""

import json
import sys
import time

import grpc

segments, ca, certificate, key = int(sys.argv[1]), *sys.argv[2:5]


def read(path):
    with open(path, "rb") as file:
        return file.read()


plain_credentials = grpc.ssl_channel_credentials
grpc.ssl_channel_credentials = lambda: plain_credentials(read(ca), read(key), read(certificate))

from skywalking import agent  # noqa: E402
from skywalking.trace.context import get_context  # noqa: E402

agent.start()
sent = []
for index in range(segments):
    with get_context().new_entry_span(op=f"/operation/{index}") as span:
        segment = span.context.segment
    sent.append({"segment": str(segment.segment_id), "operation": f"/operation/{index}"})
# The agent's heartbeat goes out on its own time; its queue of segments is drained when the process ends.
time.sleep(float(sys.argv[5]))
print(json.dumps(sent))
