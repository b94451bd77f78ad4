"""Three exports of one span each by OpenTelemetry's own Python exporter, with a pause between them.

Usage: otel.py grpc|http SECONDS. Configured by the OTEL_EXPORTER_OTLP variables. Exits 1 when an export failed.
"""

import importlib
import sys
import time

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

protocol, pause = sys.argv[1], float(sys.argv[2])
module = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{protocol}.trace_exporter")
results = []


class Watched(SpanExporter):
    """Remembers what the real exporter says."""

    def __init__(self):
        self.exporter = module.OTLPSpanExporter()

    def export(self, spans):
        results.append(self.exporter.export(spans))
        return results[-1]

    def shutdown(self):
        self.exporter.shutdown()


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(Watched()))
for number in range(3):
    if number:
        time.sleep(pause)
    with provider.get_tracer("resumption").start_as_current_span(f"span {number}"):
        pass
provider.shutdown()
sys.exit(0 if results == [SpanExportResult.SUCCESS] * 3 else 1)
