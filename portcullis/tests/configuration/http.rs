//! Mode "http": its keys, routes and rights, and what broken ones say.

use std::fs;
use std::process::Command;

use super::{Pki, pki, rows};

/// The smallest useful file with an HTTP listener.
const SMALLEST: &str = r#"[[listener]]
name = "otlp"
address = "0.0.0.0:4317"
mode = "http"
certificate = "server.pem"
key = "server.key"
client_ca = ["ca.pem"]
backend = "collector"

[[backend]]
name = "collector"
servers = ["127.0.0.1:4317"]
protocol = "h2"

[[identity]]
match = { uri = "spiffe://example.org/agent/*" }
tenant = "team-a"
allow = ["otlp"]
"#;

/// The one error of a text; all of them, if there are more.
fn only_error(pki: &Pki, text: &str) -> String {
    let errors = errors(pki, text);
    match errors.as_slice() {
        [one] => one.clone(),
        other => format!("{other:#?}\nin\n{text}"),
    }
}

/// The errors of a text.
fn errors(pki: &Pki, text: &str) -> Vec<String> {
    let errors = pki.check(text).err();
    let errors = errors.iter().flat_map(|errors| errors.as_slice());
    errors.map(ToString::to_string).collect()
}

#[test]
fn servers_have_shares_and_are_checked_and_ejected_on_http_listeners_only() {
    let pki = pki();
    let servers = r#"servers = ["127.0.0.1:4317", { address = "127.0.0.1:2", weight = 1000 }, { address = "[::1]:3", backup = true }]
patience = "0s"
slow_start = "30s"
health = { kind = "grpc", service = "a.B", interval = "5s", timeout = "5s", healthy_after = 1, unhealthy_after = 1 }
ejection = { enabled = true, consecutive_failures = 3, failure_percent = 90, first = "10s", longest = "10s", max_percent = 20 }"#;
    let text = SMALLEST.replace("servers = [\"127.0.0.1:4317\"]", servers);
    assert_eq!(errors(&pki, &text), [""; 0]);
    let stream = text
        .replace("mode = \"http\"\n", "")
        .replace("protocol = \"h2\"\n", "")
        .replace("allow = [\"otlp\"]\n", "")
        .replace("kind = \"grpc\", service = \"a.B\"", "kind = \"tcp\"");
    let errors = errors(&pki, &stream);
    for key in [
        "servers: weight",
        "servers: backup",
        "patience",
        "slow_start",
        "health",
        "ejection",
    ] {
        let start = format!("backend \"collector\": {key} = ");
        let of_key = errors.iter().filter(|error| error.contains(&start));
        let of_key: Vec<_> = of_key.collect();
        assert_eq!(of_key.len(), 1, "{key} in {errors:#?}");
        assert!(
            of_key[0].contains("is for backends of listeners of mode"),
            "{of_key:?}"
        );
    }
    assert_eq!(errors.len(), 6, "{errors:#?}");
}

/// What is replaced by what, and the error's line, section and key with value, and expectation.
const BROKEN: &str = r#"
mode = "http" | mode = "http"\nquiet_timeout = "5s" | 5 | listener "otlp": quiet_timeout = "5s" | is for listeners of mode "stream"
mode = "http" | mode = "http"\nalpn = ["h2", "grpc-exp"] | 1 | listener "otlp": alpn | and no "grpc-exp"
mode = "http" | mode = "http"\nheader_timeout = "0s" | 5 | listener "otlp": header_timeout = "0s" | must be 100ms to 1m
mode = "http" | mode = "http"\nrequest_idle_timeout = "0s" | 5 | listener "otlp": request_idle_timeout = "0s" | must be 1s to 1day
mode = "http" | mode = "http"\nmax_request_headers = "1MiB" | 5 | listener "otlp": max_request_headers = "1MiB" | 4 KiB to 64 KiB
mode = "http" | mode = "http"\nmax_request_body = "0KiB" | 5 | listener "otlp": max_request_body = "0KiB" | 1 KiB to 1 TiB
mode = "http" | mode = "http"\nmax_streams = 257 | 5 | listener "otlp": max_streams = 257 | must be 1 to 256
mode = "http" | mode = "http"\ngrpc_health = "yes" | 5 | listener "otlp": grpc_health = "yes" | must be true or false
mode = "http" | mode = "http"\nheaders = { uri = "Content-Length" } | 5 | listener "otlp": headers: uri = "Content-Length" | HTTP or gRPC has another use
mode = "http" | mode = "http"\nheaders = { uri = "a b" } | 5 | listener "otlp": headers: uri = "a b" | must be the name of a header
mode = "http" | mode = "http"\nheaders = { cn = "x-a-bin" } | 5 | listener "otlp": headers: cn = "x-a-bin" | has another use
mode = "http" | mode = "http"\nheaders = { uri = "x-a", dns = "X_A" } | 5 | listener "otlp": headers: dns = "X_A" | is named twice
mode = "http" | mode = "http"\nheaders = { forwarded = "via" } | 5 | listener "otlp": headers: forwarded = "via" | "X-Forwarded-For" or "Forwarded"
mode = "http" | mode = "http"\nheaders = { set = { x-a = " b" } } | 5 | listener "otlp": headers: set: x-a | must be one line
mode = "http" | mode = "http"\nheaders = { set = { x-a = 1 } } | 5 | listener "otlp": headers: set: x-a = 1 | must be a string in quotes, or a table
mode = "http" | mode = "http"\nheaders = { set = { x-a = { file = "absent" } } } | 5 | listener "otlp": headers: set: x-a: file = "absent" | cannot be read
mode = "http" | mode = "http"\nheaders = { set = { x-a = {} } } | 5 | listener "otlp": headers: set: x-a: file | missing: name the file
backend = "collector" | | 1 | listener "otlp": backend | missing: give the name of a [[backend]], or a [[route]]
protocol = "h2" | protocol = "h3" | 13 | backend "collector": protocol = "h3" | must be "auto", "h2" or "http/1.1"
protocol = "h2" | proxy_protocol = true | 10 | backend "collector": proxy_protocol | must be false: clients
protocol = "h2" | hash = "host" | 13 | backend "collector": hash = "host" | must be "tenant", "identity" or a table
protocol = "h2" | hash = {} | 13 | backend "collector": hash: header | missing
protocol = "h2" | max_requests = 0 | 13 | backend "collector": max_requests = 0 | must be 1 to 1000000
protocol = "h2" | ping_interval = "1s" | 13 | backend "collector": ping_interval = "1s" | must be 10s to 1day
protocol = "h2" | patience = "2m" | 13 | backend "collector": patience = "2m" | must be 0s to 1m
protocol = "h2" | slow_start = "2h" | 13 | backend "collector": slow_start = "2h" | must be 0s to 1h
protocol = "h2" | health = {} | 13 | backend "collector": health: kind | missing: say what a check is
protocol = "h2" | health = { kind = "udp" } | 13 | backend "collector": health: kind = "udp" | must be "grpc", "http" or "tcp"
protocol = "h2" | health = { kind = "grpc" } | 10 | backend "collector": health | needs protocol = "h2"
protocol = "h2" | protocol = "h2"\nhealth = { kind = "grpc", path = "/" } | 14 | backend "collector": health: path = "/" | is for kind = "http"
protocol = "h2" | protocol = "h2"\nhealth = { kind = "grpc", service = "a b" } | 14 | backend "collector": health: service = "a b" | must be the name of a gRPC service
protocol = "h2" | health = { kind = "http" } | 13 | backend "collector": health: path | missing: name the path
protocol = "h2" | health = { kind = "http", path = "ready" } | 13 | backend "collector": health: path = "ready" | must be a path that begins with a slash
protocol = "h2" | health = { kind = "tcp", interval = "1ms" } | 13 | backend "collector": health: interval = "1ms" | must be 1s to 1h
protocol = "h2" | health = { kind = "tcp", interval = "3s", timeout = "4s" } | 13 | backend "collector": health: timeout = "4s" | must be 100ms to 3s: a check ends
protocol = "h2" | health = { kind = "tcp", healthy_after = 0 } | 13 | backend "collector": health: healthy_after = 0 | must be 1 to 100
protocol = "h2" | ejection = { max_percent = 101 } | 13 | backend "collector": ejection: max_percent = 101 | must be 1 to 100
protocol = "h2" | ejection = { first = "1h", longest = "1m" } | 13 | backend "collector": ejection: longest = "1m" | must be 1h to 1day: not below `first`
protocol = "h2" | ejection = false | 13 | backend "collector": ejection = false | must be a table
servers = ["127.0.0.1:4317"] | servers = [1] | 12 | backend "collector": servers = [1] | must be an array of addresses, or of tables
servers = ["127.0.0.1:4317"] | servers = [{ weight = 2 }] | 12 | backend "collector": servers: address | missing: give its address
servers = ["127.0.0.1:4317"] | servers = [{ address = "127.0.0.1" }] | 12 | backend "collector": servers: address = "127.0.0.1" | must be an address or DNS name
servers = ["127.0.0.1:4317"] | servers = [{ address = "127.0.0.1:1", weight = 0 }] | 12 | backend "collector": servers: weight = 0 | must be 1 to 1000
servers = ["127.0.0.1:4317"] | servers = [{ address = "127.0.0.1:1", backup = true }] | 12 | backend "collector": servers = [{ address = "127.0.0.1:1", backup = true }] | must name a server that is no backup
servers = ["127.0.0.1:4317"] | servers = [{ address = "srv:_otlp._tcp.example.org", weight = 2 }] | 12 | backend "collector": servers: weight = 2 | must not stand beside a service: its records say it
servers = ["127.0.0.1:4317"] | servers = ["127.0.0.1:1", { address = "127.0.0.1:1" }] | 12 | backend "collector": servers: address = "127.0.0.1:1" | is named twice
allow = ["otlp"] | | 15 | identity 1: allow | missing: say what its clients may call on listener "otlp"
allow = ["otlp"] | allow = [] | 18 | identity 1: allow = [] | must have at least one element
allow = ["otlp"] | allow = ["otlq"] | 18 | identity 1: allow = "otlq" | must be a ready set or a table
allow = ["otlp"] | allow = [{ path = "api" }] | 18 | identity 1: allow: path = "api" | must begin with a slash
allow = ["otlp"] | allow = [{ path = [] }] | 18 | identity 1: allow: path = [] | must name at least one
allow = ["otlp"] | allow = [{ service = "a/b/c" }] | 18 | identity 1: allow: service = "a/b/c" | must be a gRPC service
allow = ["otlp"] | allow = [{ service = "a.B", methods = ["GET"] }] | 18 | identity 1: allow: methods = ["GET"] | is for path
allow = ["otlp"] | allow = [{ methods = ["GE T"] }] | 18 | identity 1: allow: methods = "GE T" | methods of HTTP
allow = ["otlp"] | allow = [{ host = "a:80" }] | 18 | identity 1: allow: host = "a:80" | without a port
allow = ["otlp"] | allow = [{ from = "10.0.0.1/8" }] | 18 | identity 1: allow: from = "10.0.0.1/8" | say "10.0.0.0/8"
allow = ["otlp"] | allow = [{ set = "otlp", path = "/" }] | 18 | identity 1: allow: set | must not stand beside
tenant = "team-a" | tenant = "a"\ncomponent = true | 18 | identity 1: component = true | must not stand beside
tenant = "team-a" | tenant = "a"\ntenants = ["a"] | 15 | identity 1: tenants | must not stand beside tenant
tenant = "team-a" | default_tenant = "a" | 17 | identity 1: default_tenant = "a" | needs tenants
tenant = "team-a" | tenants = ["a"]\ndefault_tenant = "b" | 18 | identity 1: default_tenant = "b" | must be one of tenants
tenant = "team-a" | requests_per_second = 0 | 17 | identity 1: requests_per_second = 0 | must be 1 to 10000000
tenant = "team-a" | tenant = "a"\nper_tenant = { requests_per_second = 0 } | 18 | identity 1: per_tenant: requests_per_second = 0 | must be 1 to 10000000
tenant = "team-a" | tenant = "a"\nper_tenant = { bytes_burst = "1MiB" } | 18 | identity 1: per_tenant: bytes_burst = "1MiB" | has no effect without bytes_per_second
tenant = "team-a" | tenant = "a"\nper_tenant = { bytes_per_second = "1KiB" } | 18 | identity 1: per_tenant: bytes_per_second = "1KiB" | must be a size with its unit, such as "10MiB": 16 KiB to 1 TiB
tenant = "team-a" | per_tenant = { requests_per_second = 1 } | 17 | identity 1: per_tenant = { requests_per_second = 1 } | has no effect: clients of the rule have no tenant
[[identity]] | [[route]]\nbackend = "collector"\n[[identity]] | 15 | route 1: listener | missing
[[identity]] | [[route]]\nlistener = "otlq"\nbackend = "collector"\n[[identity]] | 16 | route 1: listener = "otlq" | must name a [[listener]]: otlp
[[identity]] | [[route]]\nlistener = "otlp"\n[[identity]] | 15 | route 1: backend | missing
[[identity]] | [[route]]\nlistener = "otlp"\nbackend = "c"\n[[identity]] | 17 | route 1: backend = "c" | must be the name of a [[backend]]
[[identity]] | [[route]]\nlistener = "otlp"\nbackend = "collector"\nservice = "a.B"\nreplace_prefix = "/"\n[[identity]] | 19 | route 1: replace_prefix = "/" | must not stand beside service
[[identity]] | [[route]]\nlistener = "otlp"\nbackend = "collector"\nreplace_host = "a b"\n[[identity]] | 18 | route 1: replace_host = "a b" | must be a host
[[identity]] | [[route]]\nlistener = "otlp"\nbackend = "collector"\nheader = { te = "a" }\n[[identity]] | 18 | route 1: header: te = "a" | has another use
[[identity]] | [[route]]\nlistener = "otlp"\nbackend = "collector"\ncanary = { backend = "collector" }\n[[identity]] | 18 | route 1: canary | must have percent or tenants
[[identity]] | [[route]]\nlistener = "otlp"\nbackend = "collector"\ncanary = { backend = "collector", percent = 100 }\n[[identity]] | 18 | route 1: canary: percent = 100 | must be 1 to 99
[[identity]] | [[route]]\nlistener = "otlp"\nbackend = "collector"\nmirror = { backend = "collector", percent = 0 }\n[[identity]] | 18 | route 1: mirror: percent = 0 | must be 1 to 100
[[identity]] | [[route]]\nlistener = "otlp"\nbackend = "collector"\nmirror = {}\n[[identity]] | 18 | route 1: mirror: backend | missing
[[identity]] | [[route]]\nlistener = "otlp"\nbackend = "collector"\nidentity = "a*"\n[[identity]] | 18 | route 1: identity = "a*" | is for listeners of mode "stream", and that of "otlp" is "http"
"#;

#[test]
fn broken_http_mode_says_where_and_why() {
    let pki = pki();
    let mut wrong = Vec::new();
    for [from, to, line, key, expectation] in rows(BROKEN) {
        assert_eq!(SMALLEST.matches(&from).count(), 1, "{from}");
        let error = only_error(&pki, &SMALLEST.replace(&from, &to));
        let start = format!("{}:{line}: {key}: ", pki.file().display());
        if !error.starts_with(&start) || !error.contains(&expectation) {
            wrong.push(format!("{error}\nshould be\n{start}{expectation}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Asks `portcullis check` about a request of the client with the gateway's own certificate: its exit code and words.
fn ask(pki: &Pki, arguments: &[&str]) -> (Option<i32>, String) {
    let rule = "{ uri = \"spiffe://example.org/agent/*\" }";
    let allow = "allow = [\"cortex-push\", { set = \"cortex-admin\", from = \"10.0.9.0/24\" }]";
    let text = SMALLEST
        .replace(rule, "{ cn = \"gateway\" }")
        .replace("allow = [\"otlp\"]", allow);
    let route = "[[route]]\nlistener = \"otlp\"\npath = \"/cortex\"\nbackend = \"collector\"\nreplace_prefix = \"/\"\n";
    fs::write(pki.file(), text + route).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["check", "--config"])
        .arg(pki.file())
        .arg("--certificate")
        .arg(pki.path("gateway.pem"))
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn check_says_what_becomes_of_a_request_and_why() {
    let pki = pki();
    let push = ["--request", "POST /cortex/api/v1/push"];
    let forged = ["--header", "X-Scope-OrgID: forged", "--header", "X-A: 1"];
    let admin = ["--request", "GET /config"];
    for (arguments, code, expected) in [
        (
            [push.as_slice(), &forged].concat(),
            0,
            &[
                "allowed by   cortex-push\n",
                "tenant       team-a\n",
                "route        1\n",
                "backend      collector\n",
                "sent         :path: /api/v1/push\n",
                "sent         x-a: 1\n",
                "sent         x-scope-orgid: team-a\n",
                "removed      x-scope-orgid\n",
            ][..],
        ),
        (
            admin.to_vec(),
            1,
            &[
                "REFUSED: 403, in gRPC PERMISSION_DENIED",
                "allowed is   cortex-push; cortex-admin from 10.0.9.0/24\n",
            ],
        ),
        (
            [admin.as_slice(), &["--from", "10.0.9.7"]].concat(),
            0,
            &["allowed by   cortex-admin from 10.0.9.0/24\n"],
        ),
        (
            vec!["--request", "POST /cortex/../config"],
            1,
            &["REFUSED: 400, in gRPC INTERNAL"],
        ),
        (
            vec!["--request", "POST"],
            1,
            &["--request: must be a method and a path"],
        ),
    ] {
        let (found, text) = ask(&pki, &arguments);
        assert_eq!(found, Some(code), "{arguments:?}\n{text}");
        for words in expected {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        assert!(
            !text.contains("sent         x-scope-orgid: forged"),
            "{text}"
        );
    }
}

/// What is added behind the backend, and a warning's line and text; none: it is right.
const UNREACHABLE: &str = r#"
[[route]]\nlistener = "otlp"\npath = "/api"\nbackend = "collector"\n[[route]]\nlistener = "otlp"\npath = "/api/v1"\nbackend = "collector" | 19 | route 2: never reached on listener "otlp": the route at line 15 takes all of its requests before
[[route]]\nlistener = "otlp"\npath = ["/a", "/b"]\nbackend = "collector"\n[[route]]\nlistener = "otlp"\npath = "/c"\nbackend = "collector"\n[[route]]\nlistener = "otlp"\npath = ["/c", "/b/c"]\nbackend = "collector" | 23 | never reached on listener "otlp": the routes at lines 15, 19 take all
[[route]]\nlistener = "otlp"\npath = "/api/v1"\nbackend = "collector"\n[[route]]\nlistener = "otlp"\npath = "/api"\nbackend = "collector" | |
[[route]]\nlistener = "otlp"\nhost = "a.example"\npath = "/api"\nbackend = "collector"\n[[route]]\nlistener = "otlp"\npath = "/api"\nbackend = "collector" | |
"#;

/// What `allow` and the keys of listener and backend are, and whether gRPC would meet HTTP/1.1.
const GRPC_RIGHTS: [(&str, &str, &str, bool); 9] = [
    ("\"otlp\"", "", "protocol = \"h2\"", false),
    ("\"otlp\"", "", "", true),
    ("\"otlp\"", "alpn = [\"http/1.1\"]", "", false),
    // On a port of OTLP over HTTP, the set's other requests are meant.
    ("\"otlp\"", "port 4318", "", false),
    ("\"cortex-component\"", "port 4318", "", true),
    ("\"cortex-push\"", "", "", false),
    ("{ service = \"a.B\" }", "port 4318", "", true),
    (
        "{ service = \"a.B\" }",
        "port 4318",
        "protocol = \"http/1.1\"",
        true,
    ),
    ("{ path = \"/\" }", "", "", false),
];

#[test]
fn routes_that_no_request_reaches_are_warned_of() {
    let pki = pki();
    for [routes, line, expectation] in rows(UNREACHABLE) {
        let text = SMALLEST.replace("\n[[identity]]", &format!("\n{routes}\n[[identity]]"));
        let warnings = pki.check(&text).unwrap().warnings;
        if line.is_empty() {
            assert_eq!(warnings, [""; 0], "{text}");
            continue;
        }
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(&format!(":{line}: ")), "{warnings:?}");
        assert!(warnings[0].contains(&expectation), "{warnings:?}");
    }
}

#[test]
fn rights_to_call_grpc_before_a_backend_of_http1_are_warned_of() {
    let pki = pki();
    for (allow, listener, backend, is_warned) in GRPC_RIGHTS {
        let text = SMALLEST
            .replace("\"otlp\"]", &format!("{allow}]"))
            .replace("protocol = \"h2\"", backend);
        let text = match listener {
            "port 4318" => text.replacen(":4317", ":4318", 1),
            keys => text.replace("mode = \"http\"", &format!("mode = \"http\"\n{keys}")),
        };
        let warnings = pki.check(&text).unwrap().warnings;
        assert_eq!(
            warnings.len(),
            usize::from(is_warned),
            "{warnings:?}\n{text}"
        );
        let expected =
            "sends gRPC to backend \"collector\", whose servers are spoken to in HTTP/1.1";
        let is_it = warnings.iter().all(|warning| warning.contains(expected));
        assert!(is_it, "{warnings:?}");
    }
    // A route takes the calls elsewhere.
    let elsewhere = "\n[[route]]\nlistener = \"otlp\"\nservice = \"a.B\"\nbackend = \"grpc\"\n\n\
                     [[backend]]\nname = \"grpc\"\nservers = [\"127.0.0.1:1\"]\nprotocol = \"h2\"\n\n[[identity]]";
    let text = SMALLEST
        .replace("\"otlp\"]", "{ service = \"a.B/Do\" }]")
        .replace("protocol = \"h2\"\n", "")
        .replace("\n[[identity]]", elsewhere);
    assert_eq!(pki.check(&text).unwrap().warnings, [""; 0]);
}
