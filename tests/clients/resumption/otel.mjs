// Three exports of one span each by OpenTelemetry's own JavaScript exporter, with a pause between them.
//
// Usage: node otel.mjs MODULES grpc|http|proto SECONDS. Configured by the OTEL_EXPORTER_OTLP variables. Exits 1 when an
// export failed.
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { setTimeout } from "node:timers/promises";

const [modules, protocol, pause] = process.argv.slice(2);
const require = createRequire(resolve(modules, "package.json"));
const { BasicTracerProvider, SimpleSpanProcessor } = require("@opentelemetry/sdk-trace-base");
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${protocol}`);

const exporter = new OTLPTraceExporter();
const results = [];
const watched = {
  export(spans, done) {
    exporter.export(spans, (result) => {
      results.push(result.code);
      if (result.code !== 0) console.error(String(result.error));
      done(result);
    });
  },
  shutdown: () => exporter.shutdown(),
  forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
};
const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(watched)] });
for (let number = 0; number < 3; number++) {
  if (number > 0) await setTimeout(Number(pause) * 1000);
  provider.getTracer("resumption").startSpan(`span ${number}`).end();
  await provider.forceFlush();
}
await provider.shutdown();
process.exit(results.length === 3 && results.every((code) => code === 0) ? 0 : 1);
