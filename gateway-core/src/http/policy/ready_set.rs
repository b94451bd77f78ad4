//! Ready sets: what a kind of client calls, by the names and paths of the systems themselves. In: a set's name. Out: its
//! targets. One table a set. `docs/http.md` says what each is for.

use gateway_common::closed_list;

use super::Target;
use crate::http::message::PathPrefix;

/// A row of a set: methods and a path prefix, or a gRPC service or method.
enum Row {
    Path(&'static [&'static str], &'static str),
    Service(&'static str),
}
use Row::{Path, Service};

const GET: &[&str] = &["GET"];
const POST: &[&str] = &["POST"];
const GET_POST: &[&str] = &["GET", "POST"];
const GET_POST_DELETE: &[&str] = &["GET", "POST", "DELETE"];

closed_list! {
    /// What a kind of client calls. Labels are their names in `allow`.
    pub enum ReadySet: &'static [Row] {
        /// Exporters of OTLP, over gRPC and HTTP.
        Otlp = "otlp", OTLP;
        /// SkyWalking's agents: what they report, and the tasks they ask for. Neither GraphQL nor cluster RPC.
        SkywalkingAgent = "skywalking-agent", SKYWALKING_AGENT;
        /// SkyWalking's user interface.
        SkywalkingQuery = "skywalking-query", SKYWALKING_QUERY;
        /// Writers to Cortex.
        CortexPush = "cortex-push", CORTEX_PUSH;
        /// Readers of Cortex, such as Grafana.
        CortexQuery = "cortex-query", CORTEX_QUERY;
        /// Administrators of a tenant's rules.
        CortexRuler = "cortex-ruler", CORTEX_RULER;
        /// Administrators of a tenant's alerts, and operators that silence them.
        CortexAlertmanager = "cortex-alertmanager", CORTEX_ALERTMANAGER;
        /// Cortex's own parts.
        CortexComponent = "cortex-component", CORTEX_COMPONENT;
        /// Administrators of a Cortex.
        CortexAdmin = "cortex-admin", CORTEX_ADMIN;
        /// Prometheus and agents that write as it does.
        PrometheusRemoteWrite = "prometheus-remote-write", PROMETHEUS_REMOTE_WRITE;
    }
}

/// OTLP 1.9, "OTLP/gRPC" and "OTLP/HTTP Request".
const OTLP: &[Row] = &[
    Service("opentelemetry.proto.collector.trace.v1.TraceService"),
    Service("opentelemetry.proto.collector.metrics.v1.MetricsService"),
    Service("opentelemetry.proto.collector.logs.v1.LogsService"),
    Service("opentelemetry.proto.collector.profiles.v1development.ProfilesService"),
    Path(POST, "/v1/traces"),
    Path(POST, "/v1/metrics"),
    Path(POST, "/v1/logs"),
    Path(POST, "/v1development/profiles"),
];

/// The data collect protocol of OAP 10, with the names without a package that agents before version 8.4 use.
/// `RemoteService` is how OAP servers speak to each other: a client that may call it can write any metric.
const SKYWALKING_AGENT: &[Row] = &[
    Service("skywalking.v3.TraceSegmentReportService"),
    Service("skywalking.v3.SpanAttachedEventReportService"),
    Service("skywalking.v3.JVMMetricReportService"),
    Service("skywalking.v3.CLRMetricReportService"),
    Service("skywalking.v3.GolangMetricReportService"),
    Service("skywalking.v3.MeterReportService"),
    Service("skywalking.v3.LogReportService"),
    Service("skywalking.v3.EventService"),
    Service("skywalking.v3.ManagementService"),
    Service("skywalking.v3.ConfigurationDiscoveryService"),
    Service("skywalking.v3.ProfileTask"),
    Service("skywalking.v10.AsyncProfilerTask"),
    Service("skywalking.v10.PprofTask"),
    Service("skywalking.v3.BrowserPerfService"),
    Service("skywalking.v3.ServiceMeshMetricService"),
    Service("skywalking.v3.EBPFProcessService"),
    Service("skywalking.v3.EBPFProfilingService"),
    Service("skywalking.v3.EBPFAccessLogService"),
    Service("skywalking.v3.ContinuousProfilingService"),
    Service("TraceSegmentReportService"),
    Service("JVMMetricReportService"),
    Service("CLRMetricReportService"),
    Service("MeterReportService"),
    Service("ManagementService"),
    Service("ProfileTask"),
    Service("BrowserPerfService"),
    Path(POST, "/v3/segment"),
    Path(POST, "/v3/segments"),
    Path(POST, "/v3/logs"),
    Path(POST, "/v3/events"),
    Path(POST, "/v3/management/reportProperties"),
    Path(POST, "/v3/management/keepAlive"),
    Path(POST, "/browser/perfData"),
    Path(POST, "/browser/errorLog"),
    Path(POST, "/browser/errorLogs"),
];

const SKYWALKING_QUERY: &[Row] = &[Path(POST, "/graphql")];

/// Cortex' HTTP API, "Distributor", with its legacy prefix.
const CORTEX_PUSH: &[Row] = &[
    Path(POST, "/api/v1/push"),
    Path(POST, "/api/prom/push"),
    Path(POST, "/api/v1/otlp/v1/metrics"),
];

/// Cortex' HTTP API, "Querier / Query-frontend", with its legacy prefix.
const CORTEX_QUERY: &[Row] = &[
    Path(GET_POST, "/prometheus/api/v1/query"),
    Path(GET_POST, "/prometheus/api/v1/query_range"),
    Path(GET_POST, "/prometheus/api/v1/query_exemplars"),
    Path(GET_POST, "/prometheus/api/v1/format_query"),
    Path(GET_POST, "/prometheus/api/v1/parse_query"),
    Path(GET_POST, "/prometheus/api/v1/series"),
    Path(GET_POST, "/prometheus/api/v1/labels"),
    Path(GET, "/prometheus/api/v1/label"),
    Path(GET, "/prometheus/api/v1/metadata"),
    Path(POST, "/prometheus/api/v1/read"),
    Path(GET, "/prometheus/api/v1/status/buildinfo"),
    Path(GET, "/prometheus/api/v1/rules"),
    Path(GET, "/prometheus/api/v1/alerts"),
    Path(GET_POST, "/api/prom/api/v1/query"),
    Path(GET_POST, "/api/prom/api/v1/query_range"),
    Path(GET_POST, "/api/prom/api/v1/query_exemplars"),
    Path(GET_POST, "/api/prom/api/v1/format_query"),
    Path(GET_POST, "/api/prom/api/v1/parse_query"),
    Path(GET_POST, "/api/prom/api/v1/series"),
    Path(GET_POST, "/api/prom/api/v1/labels"),
    Path(GET, "/api/prom/api/v1/label"),
    Path(GET, "/api/prom/api/v1/metadata"),
    Path(POST, "/api/prom/api/v1/read"),
    Path(GET, "/api/prom/api/v1/status/buildinfo"),
    Path(GET, "/api/prom/api/v1/rules"),
    Path(GET, "/api/prom/api/v1/alerts"),
    Path(GET, "/api/v1/user_stats"),
    Path(GET, "/api/prom/user_stats"),
];

/// Cortex' HTTP API, "Ruler", but for what it says is internal.
const CORTEX_RULER: &[Row] = &[
    Path(GET_POST_DELETE, "/api/v1/rules"),
    Path(GET_POST_DELETE, "/api/prom/rules"),
    Path(GET, "/prometheus/api/v1/rules"),
    Path(GET, "/prometheus/api/v1/alerts"),
    Path(GET, "/api/prom/api/v1/rules"),
    Path(GET, "/api/prom/api/v1/alerts"),
];

/// Cortex' HTTP API, "Alertmanager", but for what it says is internal; and Alertmanager's own API below its prefix.
const CORTEX_ALERTMANAGER: &[Row] = &[
    Path(GET_POST_DELETE, "/api/v1/alerts"),
    Path(GET_POST_DELETE, "/alertmanager"),
];

/// The services of Cortex' gRPC port.
const CORTEX_COMPONENT: &[Row] = &[
    Service("distributor.Distributor"),
    Service("cortex.Ingester"),
    Service("gatewaypb.StoreGateway"),
    Service("frontend.Frontend"),
    Service("frontendv2pb.FrontendForQuerier"),
    Service("schedulerpb.SchedulerForFrontend"),
    Service("schedulerpb.SchedulerForQuerier"),
    Service("ruler.Ruler"),
    Service("alertmanagerpb.Alertmanager"),
    Service("httpgrpc.HTTP"),
    Service("grpc.health.v1.Health"),
];

/// Cortex' HTTP API, what no user of a tenant should reach.
const CORTEX_ADMIN: &[Row] = &[
    Path(GET, "/config"),
    Path(GET, "/runtime_config"),
    Path(GET, "/services"),
    Path(GET, "/ready"),
    Path(GET, "/metrics"),
    Path(GET, "/debug/pprof"),
    Path(GET, "/debug/fgprof"),
    Path(GET, "/memberlist"),
    Path(GET, "/distributor"),
    Path(GET_POST, "/ingester"),
    Path(GET_POST, "/ruler"),
    Path(GET_POST, "/multitenant_alertmanager"),
    Path(GET, "/store-gateway"),
    Path(GET, "/compactor"),
    Path(GET_POST, "/purger"),
    Path(GET_POST_DELETE, "/api/v1/user-overrides"),
    Path(GET, "/all_user_stats"),
    Path(GET, "/ha-tracker"),
    Path(GET_POST, "/flush"),
    Path(GET_POST, "/shutdown"),
    Path(GET, "/ring"),
    Path(GET, "/ruler_ring"),
];

/// Where Prometheus, Cortex and Thanos take remote write.
const PROMETHEUS_REMOTE_WRITE: &[Row] = &[
    Path(POST, "/api/v1/write"),
    Path(POST, "/api/v1/push"),
    Path(POST, "/api/v1/receive"),
];

impl ReadySet {
    /// The set of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.label() == name)
    }

    /// What it permits.
    pub fn targets(self) -> Vec<Target> {
        let target = |row: &Row| match row {
            Path(methods, prefix) => {
                let prefix = PathPrefix::parse(prefix).expect("a test reads every row");
                let methods = methods.iter().map(|method| method.as_bytes().into());
                Target::path(prefix, methods.collect())
            }
            Service(name) => Target::service(name).expect("a test reads every row"),
        };
        self.row().iter().map(target).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_read() {
        for set in ReadySet::ALL {
            assert!(!set.targets().is_empty(), "{}", set.label());
            assert_eq!(ReadySet::named(set.label()), Some(set));
        }
        assert_eq!(ReadySet::named("OTLP"), None);
    }
}
