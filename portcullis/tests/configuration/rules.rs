//! Rules of identity and the CAs behind them: errors and warnings, also of rules in files of their own.

use std::fs;
use std::process::Command;

use gateway_core::certificate::Certificate;
use gateway_core::limits;

use super::{Pki, SMALLEST, pki, with};

const BROKEN_RULES: &str = r#"
match = | # match = | 16 | match | missing
{ uri = "spiffe://example.org/agent/*" } | {} | 17 | match | at least one of uri, dns, cn
{ uri = "spiffe://example.org/agent/*" } | { ur = "a", cn = "a" } | 17 | match: ur | did you mean `uri`?
"spiffe://example.org/agent/*" | "" | 17 | match: uri = "" | must not be empty
uri = "spiffe://example.org/agent/*" | dns = "a*.example.org" | 17 | match: dns = "a*.example.org" | in place of a whole label
uri = "spiffe://example.org/agent/*" | uri = "spiffe://a/b*/c" | 17 | match: uri = "spiffe://a/b*/c" | in place of a whole segment
uri = "spiffe://example.org/agent/*" | cn = "*.example.org" | 17 | match: cn = "*.example.org" | at its end
tenant = "team-a" | tenants = ["team-a"] | 18 | tenants = ["team-a"] | needs tenant_from
tenant = "team-a" | tenant_from = "uri"\ntenants = [] | 19 | tenants = [] | must name at least one
tenant = "team-a" | tenant_from = "uri"\ntenants = ["a", "a"] | 19 | tenants = "a" | is named twice
tenant = "team-a" | tenant_from = "uri"\ntenants = [".*"] | 19 | tenants = ".*" | at least one letter or digit
"team-a" | ".*" | 18 | tenant = ".*" | at least one letter or digit
"team-a" | "a/b" | 18 | tenant = "a/b" | letters, digits
tenant = "team-a" | tenant = "a"\ntenant_from = "cn" | 19 | tenant_from = "cn" | must not stand beside tenant
tenant = "team-a" | tenant_from = "o" | 18 | tenant_from = "o" | must be "uri", "dns", "cn" or "ou"
{ uri = "spiffe://example.org/agent/*" }\ntenant = "team-a" | { uri = "spiffe://a" }\ntenant_from = "uri" | 18 | tenant_from = "uri" | stands for, up to the next
{ uri = "spiffe://example.org/agent/*" }\ntenant = "team-a" | { cn = "a" }\ntenant_from = "uri" | 18 | tenant_from = "uri" | stands for, up to the next
tenant = "team-a" | listeners = ["otlp"] | 18 | listeners = "otlp" | must name a [[listener]]: otlp-grpc
tenant = "team-a" | listeners = [] | 18 | listeners = [] | must name at least one
tenant = "team-a" | listeners = ["otlp-grpc", "otlp-grpc"] | 18 | listeners = "otlp-grpc" | is named twice
tenant = "team-a" | max_connections = 0 | 18 | max_connections = 0 | must be 1 to 1000000
tenant = "team-a" | handshakes_per_second = -1 | 18 | handshakes_per_second = -1 | must be 1 to 1000000
tenant = "team-a" | bytes_per_second = "10" | 18 | bytes_per_second = "10" | must be a size with its unit
tenant = "team-a" | bytes_burst = "1MiB" | 18 | bytes_burst = "1MiB" | has no effect without bytes_per_second
tenant = "team-a" | bytes_per_second = "1KiB" | 18 | bytes_per_second = "1KiB" | 16 KiB to 1 TiB
uri = "spiffe://example.org/agent/*" | dns = "agent." | 17 | match: dns = "agent." | must not end in a dot
uri = "spiffe://example.org/agent/*" | dns = "ägent" | 17 | match: dns = "ägent" | must be ASCII
uri = "spiffe://example.org/agent/*" | ip = "10.0.0.0/8" | 17 | match: ip = "10.0.0.0/8" | must be an IP address
uri = "spiffe://example.org/agent/*" | trust_domain = "A" | 17 | match: trust_domain = "A" | lower-case letters
uri = "spiffe://example.org/agent/*" | fingerprint = "00" | 17 | match: fingerprint = "00" | 64 hexadecimal digits
uri = "spiffe://example.org/agent/*" | fingerprint = ["zz"] | 17 | match: fingerprint = "zz" | 64 hexadecimal digits
uri = "spiffe://example.org/agent/*" | fingerprint = [] | 17 | match: fingerprint = [] | must name at least one
uri = "spiffe://example.org/agent/*" | fingerprint = 1 | 17 | match: fingerprint = 1 | or an array of strings
"#;

#[test]
fn broken_rules_say_where_and_why() {
    pki().assert_refused("identity 1", BROKEN_RULES);
}

#[test]
fn rules_come_from_files_of_their_own_in_order_and_errors_name_file_and_line() {
    let pki = pki();
    let text = format!("include = [\"one.toml\", \"two.toml\"]\n{SMALLEST}");
    let rule = |name: &str| format!("[[identity]]\nmatch = {{ cn = \"{name}\" }}\n\n");
    let many: String = (0..5_000)
        .map(|number| rule(&format!("agent-{number}")))
        .collect();
    fs::write(pki.path("one.toml"), format!("# the first\n{many}")).unwrap();
    fs::write(pki.path("two.toml"), rule("late") + &rule("agent-7")).unwrap();
    let loaded = pki.check(&text).unwrap();
    let rules = loaded.config.rules.as_slice();
    assert_eq!(rules.len(), 1 + 5_000 + 2);
    assert_eq!(
        rules[1].common_name.as_ref().unwrap().to_string(),
        "agent-0"
    );
    assert_eq!(
        rules[5_001].common_name.as_ref().unwrap().to_string(),
        "late"
    );
    let warning = format!(
        "{}:4: identity 5003: never reached: the rule at line 23 of {} matches all that it matches",
        pki.path("two.toml").display(),
        pki.path("one.toml").display()
    );
    assert_eq!(loaded.warnings, [warning]);
    let files: Vec<_> = loaded.config.files.iter().map(|seen| seen.path()).collect();
    assert!(files.contains(&pki.path("two.toml").as_path()), "{files:?}");

    let broken = format!("{many}[[identity]]\nmatch = {{ cm = \"a\" }}\n[admin]\n");
    fs::write(pki.path("one.toml"), broken).unwrap();
    fs::remove_file(pki.path("two.toml")).unwrap();
    let errors = pki.check(&text).unwrap_err().to_string();
    let errors: Vec<_> = errors.lines().collect();
    let expected = [
        format!("{}:1: include = \"two.toml\": ", pki.file().display()),
        format!(
            "{}:15002: identity 5001: match: cm: unknown key",
            pki.path("one.toml").display()
        ),
        format!(
            "{}:15003: admin: unknown key",
            pki.path("one.toml").display()
        ),
    ];
    for expected in expected {
        assert!(
            errors.iter().any(|error| error.starts_with(&expected)),
            "{expected}\n{errors:#?}"
        );
    }
}

#[test]
fn more_lines_of_rules_than_the_limit_are_refused() {
    let pki = pki();
    let lines = "\n".repeat(limits::RULES_LINES_MAX / 2 + 1);
    fs::write(pki.path("lines.toml"), lines).unwrap();
    let text = format!("include = [\"lines.toml\", \"lines.toml\"]\n{SMALLEST}");
    let errors = pki.check(&text).unwrap_err().to_string();
    assert!(errors.contains("at most 1000000 lines"), "{errors}");
}

#[test]
fn a_tenant_that_clients_of_a_bound_ca_cannot_have_is_warned_of() {
    let pki = pki();
    let warnings = |client_ca: &str, patterns: &str| {
        let text = with(
            "client_ca = [\"ca.pem\"]",
            &format!("client_ca = {client_ca}"),
        );
        let text = text.replace("tenant = \"team-a\"", "tenant_from = \"cn\"");
        let text = text.replace("match = { ", &format!("match = {{ {patterns}"));
        pki.check(&text).unwrap().warnings
    };
    let bound = "[{ file = \"ca.pem\", trust_domain = \"example.org\" }]";
    let [warning] = &warnings(bound, "")[..] else {
        panic!("one warning");
    };
    assert!(
        warning.contains(":16: ") && warning.contains("takes the tenant from cn or ou"),
        "{warning}"
    );
    assert!(warnings("[\"ca.pem\"]", "").is_empty());
    let named = warnings(bound, "trust_domain = \"example.org\", ");
    assert!(named.is_empty(), "{named:?}");
}

#[test]
fn two_cas_are_warned_of_only_where_a_rule_admits_clients_of_both() {
    let pki = pki();
    let unbound = "\"ca.pem\", \"edge.pem\"";
    let one_bound = "\"ca.pem\", { file = \"edge.pem\", trust_domain = \"a\" }";
    let both_bound = "{ file = \"ca.pem\", trust_domain = \"b\", dns = [\"a.b\"] }, \
                      { file = \"edge.pem\", trust_domain = \"a\", dns = [\"*.b\"] }";
    let fingerprint = format!("fingerprint = \"{}\"", "ab".repeat(32));
    for (client_ca, matched, is_warned) in [
        (unbound, "uri = \"spiffe://example.org/a\"", true),
        (unbound, "issuer = \"CN=Example CA\"", true),
        (unbound, &fingerprint, false),
        (one_bound, "uri = \"spiffe://a/x\"", true),
        (one_bound, "uri = \"spiffe://example.org/*\"", false),
        (one_bound, "trust_domain = \"a\"", false),
        (one_bound, "cn = \"x\"", false),
        (both_bound, "dns = \"a.b\"", true),
        (both_bound, "uri = \"spiffe://b/x\"", false),
        (both_bound, "dns = \"c.b\"", false),
    ] {
        let text = with(
            "client_ca = [\"ca.pem\"]",
            &format!("client_ca = [{client_ca}]"),
        );
        let text = text.replace("uri = \"spiffe://example.org/agent/*\"", matched);
        let warnings = pki.check(&text).unwrap().warnings;
        let warned = warnings
            .iter()
            .any(|warning| warning.contains("may issue the same names"));
        assert_eq!(warned, is_warned, "{client_ca}, {matched}: {warnings:?}");
    }
}

/// A CA with this extension.
fn authority_by_openssl(pki: &Pki, name: &str, extension: &str) {
    let output = Command::new("openssl")
        .args("req -x509 -nodes -days 30 -newkey ec -pkeyopt ec_paramgen_curve:P-256".split(' '))
        .args("-addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign".split(' '))
        .args([
            "-addext",
            extension,
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
        ])
        .arg(pki.path(&format!("{name}.key")))
        .arg("-out")
        .arg(pki.path(&format!("{name}.pem")))
        .output()
        .expect("the openssl command runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
}

#[test]
fn a_ca_that_admits_nobody_and_one_whose_critical_extensions_do_not_count_are_warned_of() {
    let pki = pki();
    authority_by_openssl(
        &pki,
        "hosts",
        "nameConstraints=critical,permitted;URI:example.org",
    );
    authority_by_openssl(
        &pki,
        "policy",
        "policyConstraints=critical,requireExplicitPolicy:0",
    );
    let warnings = |client_ca: &str, matched: &str| {
        let text = with("\"ca.pem\"]\nbackend", &format!("{client_ca}]\nbackend"));
        let text = text.replace("uri = \"spiffe://example.org/agent/*\"", matched);
        pki.check(&text).unwrap().warnings
    };
    let bound = "{ file = \"ca.pem\", trust_domain = \"b\" }";
    for (client_ca, matched, admits) in [
        (bound, "uri = \"spiffe://example.org/*\"", false),
        (bound, "cn = \"x\"", false),
        (bound, "uri = \"spiffe://b/*\"", true),
        ("\"ca.pem\"", "trust_domain = \"a\"", false),
        ("\"hosts.pem\"", "uri = \"spiffe://example.org/a\"", true),
        ("\"hosts.pem\"", "uri = \"spiffe://example.net/*\"", false),
        (
            "\"hosts.pem\"",
            "uri = \"spiffe://example.org.evil/*/a\"",
            false,
        ),
        ("\"hosts.pem\"", "uri = \"spiffe://*\"", true),
        ("\"hosts.pem\"", "dns = \"a.example.net\"", true),
    ] {
        let warnings = warnings(client_ca, matched);
        let warned = warnings
            .iter()
            .any(|warning| warning.contains("admits no client"));
        assert_eq!(warned, !admits, "{client_ca}, {matched}: {warnings:?}");
    }
    let unbound = warnings("\"ca.pem\"", "trust_domain = \"a\"");
    let told = "identity 1: matches no client on otlp-grpc: no CA of client_ca is bound to the trust domain a there";
    assert!(
        unbound.iter().any(|warning| warning.contains(told)),
        "{unbound:?}"
    );
    let [policy] = &warnings("\"policy.pem\"", "cn = \"x\"")[..] else {
        panic!("one warning");
    };
    assert!(policy.contains("critical extension 2.5.29.36"), "{policy}");
}

#[test]
fn warnings_of_rules_in_other_files_have_the_numbers_of_the_table() {
    let pki = pki();
    let rules = "[[identity]]\nmatch = { cn = \"one\" }\n[[identity]]\nmatch = { cn = \"*\" }\n";
    fs::write(pki.path("rules.toml"), rules).unwrap();
    let text = format!("include = [\"rules.toml\"]\n{SMALLEST}");
    let warnings = pki.check(&text).unwrap().warnings;
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(
        warning.contains("rules.toml:3: identity 3: `*` admits"),
        "{warning}"
    );
}

#[test]
fn a_bound_ca_that_has_ended_stays_bound() {
    let text = with(
        "client_ca = [\"ca.pem\"]",
        "client_ca = [\"ca.pem\", { file = \"expired-ca.pem\", trust_domain = \"a\" }]",
    );
    let config = pki().check(&text).unwrap().config;
    assert_eq!(config.listeners[0].client_scopes.len(), 1);
}

#[test]
fn dns_rules_ignore_case() {
    let text = with(
        "uri = \"spiffe://example.org/agent/*\"",
        "dns = \"Agent-*\"",
    );
    let names = Certificate {
        dns_names: vec!["agent-1.example.org".to_owned()],
        ..Certificate::default()
    };
    assert!(
        pki()
            .check(&text)
            .unwrap()
            .config
            .rules
            .decide(&names, None, 0)
            .is_ok()
    );
}
