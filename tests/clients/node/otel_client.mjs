// OpenTelemetry's own JavaScript SDK and exporters, configured by their environment variables only.
//
// Usage: node otel_client.mjs MODULES grpc|http|proto SPANS
// MODULES is the folder with `node_modules`. Prints one line of JSON: every span it made, and what failed.
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [modules, protocol, count] = process.argv.slice(2);
// The modules are installed outside the sources, where an ordinary import would not look.
const require = createRequire(resolve(modules, "package.json"));
const { BasicTracerProvider, BatchSpanProcessor, InMemorySpanExporter, SimpleSpanProcessor } =
  require("@opentelemetry/sdk-trace-base");
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${protocol}`);

const failures = [];
/** Passes everything on and remembers what the exporter says of it: a processor only logs it. */
class Watched {
  constructor(exporter) {
    this.exporter = exporter;
  }
  export(spans, done) {
    this.exporter.export(spans, (result) => {
      if (result.code !== 0) failures.push(String(result.error));
      done(result);
    });
  }
  shutdown() {
    return this.exporter.shutdown();
  }
  forceFlush() {
    return this.exporter.forceFlush?.() ?? Promise.resolve();
  }
}

const memory = new InMemorySpanExporter();
const provider = new BasicTracerProvider({
  spanProcessors: [new SimpleSpanProcessor(memory), new BatchSpanProcessor(new Watched(new OTLPTraceExporter()))],
});
const tracer = provider.getTracer("portcullis.tests");
for (let index = 0; index < Number(count); index++) {
  tracer.startSpan(`span ${index}`, { attributes: { index } }).end();
}
await provider.forceFlush();
const nanoseconds = ([seconds, rest]) => (BigInt(seconds) * 1000000000n + BigInt(rest)).toString();
const spans = memory.getFinishedSpans().map((span) => ({
  trace: span.spanContext().traceId,
  span: span.spanContext().spanId,
  name: span.name,
  index: span.attributes.index,
  start: nanoseconds(span.startTime),
  end: nanoseconds(span.endTime),
}));
await provider.shutdown();
// Numbers beyond 2^53 do not survive JavaScript's own JSON.
console.log(JSON.stringify({ spans, failures }).replace(/"(start|end)":"(\d+)"/g, '"$1":$2'));
process.exit(failures.length === 0 ? 0 : 1);
