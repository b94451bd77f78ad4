//! The runbooks, command by command as they stand there.
//! In: the page's own text. Out: a shell that ran it beside a gateway of another user, and what an operator has to see.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::program;

/// The marked blocks of the page in their order, each with a line before it that tells the answers apart.
fn rehearsal() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks.md");
    let text = fs::read_to_string(page).unwrap();
    let blocks: Vec<String> = text
        .split("<!-- rehearsal -->\n```sh\n")
        .skip(1)
        .map(|rest| rest.split_once("```").unwrap().0)
        .enumerate()
        .map(|(number, block)| format!("echo '== step {number}'\n{block}"))
        .collect();
    assert_eq!(blocks.len(), 11, "the runbooks have eleven steps");
    blocks.join("agent\n")
}

/// What the page takes for granted: folders, a user, an authority, a gateway, and an agent that connects. The service
/// manager's part is done by the shell.
const HOST: &str = r#"
set -eu
ip link set lo up
for folder in /etc /run /var/log; do
    mkdir -p "layers$folder"
done
mount -t tmpfs tmpfs layers/etc
mkdir layers/etc/upper layers/etc/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=layers/etc/upper,workdir=layers/etc/work /etc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/log
mount -t tmpfs -o mode=755 tmpfs /var/lib
echo 'portcullis:x:990:' >> /etc/group
echo 'portcullis:x:990:990::/nonexistent:/usr/sbin/nologin' >> /etc/passwd
mkdir /etc/portcullis /run/bin
install -d -o portcullis -g portcullis /run/portcullis /var/log/portcullis /var/lib/portcullis
install -m 0755 "$PORTCULLIS" /run/bin/portcullis
PATH="/run/bin:$PATH"
cd /etc/portcullis
cat > portcullis.toml <<'END'
close_spread = "0s"
drain_timeout = "0s"
[admin]
address = "unix:/run/portcullis/admin.sock"
[audit]
file = "/var/log/portcullis/audit.jsonl"
[tls.resumption]
key_file = "/var/lib/portcullis/tickets.keys"
[[listener]]
name = "otlp-grpc"
address = "127.0.0.1:4317"
certificate = "gateway.pem"
key = "gateway.key"
client_ca = ["agents-ca.pem"]
crl = ["agents-ca.crl.pem"]
alpn = ["h2"]
backend = "collector"
[[backend]]
name = "collector"
servers = ["127.0.0.1:14317"]
[[identity]]
match = { uri = "spiffe://example.org/agent/*" }
END
portcullis pki init --directory pki --name "Agents"
portcullis pki issue gateway gateway --directory pki --dns localhost
portcullis pki issue agent agent-1 --directory pki --uri spiffe://example.org/agent/1
portcullis pki issue agent agent-2 --directory pki --uri spiffe://example.org/agent/2
portcullis pki crl --directory pki
cp pki/ca.pem agents-ca.pem
cp pki/ca.crl.pem agents-ca.crl.pem
cp pki/gateway.pem pki/gateway.key .
portcullis keys rotate /var/lib/portcullis/tickets.keys
chown portcullis: gateway.key
systemctl() {
    kill "$gateway"; wait "$gateway" || true; start
}
start() {
    setpriv --reuid portcullis --regid portcullis --clear-groups portcullis run --config portcullis.toml &
    gateway=$!
    until curl --silent --fail --output /dev/null --unix-socket /run/portcullis/admin.sock http://localhost/readyz; do
        sleep 0.1
    done
}
agent() {
    for number in 1 2; do
        timeout 2 openssl s_client -connect localhost:4317 -alpn h2 -CAfile pki/ca.pem -cert "pki/agent-$number.pem" \
            -key "pki/agent-$number.key" </dev/null >/dev/null 2>&1 || true
    done
}
portcullis-loadgen receiver --grpc 127.0.0.1:14317 --http 127.0.0.1:14318 >/dev/null &
start
agent
sleep 1
"#;

/// What stands between the heading of one step and that of the next.
fn step(said: &str, number: usize) -> &str {
    let from = said.split_once(&format!("== step {number}\n")).unwrap().1;
    from.split("== step").next().unwrap()
}

#[test]
fn the_runbooks_work_as_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = program("portcullis");
    let mut path = vec![gateway.parent().unwrap().to_owned()];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap()));
    path.push("/usr/sbin".into());
    let script = format!("{HOST}{}", rehearsal());
    // Nothing of it is seen by the host, and nothing of it is left: mounts, ports and processes are its own.
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
        .args(["--mount-proc", "bash", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", env::join_paths(path).unwrap())
        .env("PORTCULLIS", &gateway)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{said}\n{errors}",
        output.status
    );
    let expected = [
        (1, "in force; connections closed"),
        (1, "\"handshake\""),
        (
            2,
            "portcullis_crl_entries{listener=\"otlp-grpc\",issuer=\"CN=Agents\"} 1",
        ),
        (2, "ADMITTED"),
        (3, "epoch 1: no earlier ticket opens"),
        (4, "serial="),
        (5, "CN=Agents 2027"),
        (5, "ADMITTED"),
        (6, "\"left_out\": 0"),
        (7, "CN=Agents 2027"),
        (9, "issuer=\"CN=Agents 2027\""),
        (10, "a new key seals, 1 more open"),
        (10, "a new key seals, 2 more open"),
    ];
    for (number, expected) in expected {
        let answer = step(&said, number);
        assert!(
            answer.contains(expected),
            "step {number}: {answer}\n{errors}"
        );
    }
    assert!(!step(&said, 7).contains("CN=Agents\n"), "{said}");
}
