"""OpenTelemetry's own Python SDK and exporters, configured by their environment variables only.

Usage: otel_client.py grpc|http SPANS LOGS METRIC_POINTS [SECONDS_TO_LINGER]
Prints one line of JSON: every span it made, and how many log records and metric points.
Exits 1 when an exporter says that anything was not delivered.
"""

import importlib
import json
import logging
import sys
import time

from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Complaints(logging.Handler):
    """Exporters report what they could not deliver by logging, and by nothing else."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def exporter(protocol, module, name):
    path = f"opentelemetry.exporter.otlp.proto.{protocol}.{module}"
    return getattr(importlib.import_module(path), name)()


def send_spans(protocol, count):
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    provider.add_span_processor(BatchSpanProcessor(exporter(protocol, "trace_exporter", "OTLPSpanExporter")))
    tracer = provider.get_tracer("portcullis.tests")
    for index in range(count):
        with tracer.start_as_current_span(f"span {index}", attributes={"index": index}):
            pass
    provider.force_flush()
    provider.shutdown()
    return [
        {
            "trace": format(span.context.trace_id, "032x"),
            "span": format(span.context.span_id, "016x"),
            "name": span.name,
            "index": span.attributes["index"],
            "start": span.start_time,
            "end": span.end_time,
        }
        for span in memory.get_finished_spans()
    ]


def send_logs(protocol, count):
    provider = LoggerProvider()
    provider.add_log_record_processor(
        BatchLogRecordProcessor(exporter(protocol, "_log_exporter", "OTLPLogExporter"))
    )
    logger = logging.getLogger("portcullis.tests.telemetry")
    logger.propagate = False
    logger.addHandler(LoggingHandler(logger_provider=provider))
    logger.setLevel(logging.INFO)
    for index in range(count):
        logger.info("record %d", index)
    provider.force_flush()
    provider.shutdown()


def send_metrics(protocol, count):
    # One export when told, none by the clock.
    reader = PeriodicExportingMetricReader(
        exporter(protocol, "metric_exporter", "OTLPMetricExporter"), export_interval_millis=float("inf")
    )
    provider = MeterProvider([reader])
    counter = provider.get_meter("portcullis.tests").create_counter("observations")
    for index in range(count):
        counter.add(index + 1, {"index": index})
    provider.force_flush()
    provider.shutdown()


def main():
    protocol, spans, logs, points = sys.argv[1], *map(int, sys.argv[2:5])
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    sent = send_spans(protocol, spans) if spans else []
    if logs:
        send_logs(protocol, logs)
    if points:
        send_metrics(protocol, points)
    if len(sys.argv) > 5:
        time.sleep(float(sys.argv[5]))
    print(json.dumps({"spans": sent, "logs": logs, "points": points, "complaints": complaints.messages}))
    return 1 if complaints.messages else 0


sys.exit(main())
