"""Which real clients resume their TLS sessions over mTLS, measured against the gateway.

Usage, after `cargo build --bins`, with the environment that `cargo xtask setup` makes:
    .tools/python/bin/python tests/clients/resumption/matrix.py [--only NAME] [--json FILE]

Each client connects at least three times as itself would: the backend ends every connection. An observer between client
and gateway sees whether a ticket is offered and taken, and the gateway's own counters have to agree with it. What is not
found in PATH, or with --node and --python, is left out and said to be.
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import backends
from observer import Observer

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
# Longer than the gRPC receiver keeps its clients.
PAUSE = "2.5"
COUNTERS = ("handshakes", "handshakes_resumed", "handshake_failures", "tickets_issued", "tickets_refused")
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class World:
    """Certificates, backends, the gateway and the observers before it."""

    def __init__(self, folder, programs):
        self.folder, self.programs = folder, programs
        self.ca, self.certificate, self.key = (folder / f"pki/{name}" for name in ("ca.pem", "agent.pem", "agent.key"))
        self.keystore = folder / "agent.p12"
        self._certificates()
        self.receiver, receiver_port = backends.otlp_grpc()
        ports = {"http": free_port(), "grpc": free_port()}
        self.admin = free_port()
        configuration = folder / "portcullis.toml"
        configuration.write_text(self._configuration(ports, {"http": backends.http(), "grpc": receiver_port}))
        log = open(folder / "gateway.log", "wb")
        command = [programs / "portcullis", "run", "--config", configuration]
        self.gateway = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(lambda: urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=5))
        self.observers = {name: Observer(port) for name, port in ports.items()}

    def _certificates(self):
        pki = [self.programs / "portcullis", "pki"]
        for words in (
            ["init"],
            ["issue", "gateway", "gateway", "--dns", "localhost", "--ip", "127.0.0.1"],
            ["issue", "agent", "agent", "--uri", "spiffe://example.org/agent/1"],
        ):
            run([*pki, *words, "--directory", self.folder / "pki"])
        run(
            ["openssl", "pkcs12", "-export", "-in", self.certificate, "-inkey", self.key, "-name", "agent"]
            + ["-certfile", self.ca, "-passout", "pass:password", "-out", self.keystore]
        )

    def _configuration(self, ports, behind):
        text = f'[workers]\ncount = 1\n\n[admin]\naddress = "127.0.0.1:{self.admin}"\n\n'
        for name, alpn in (("http", "http/1.1"), ("grpc", "h2")):
            text += f"""[[listener]]
name = "{name}"
address = "127.0.0.1:{ports[name]}"
mode = "stream"
alpn = ["{alpn}"]
certificate = "{self.folder}/pki/gateway.pem"
key = "{self.folder}/pki/gateway.key"
client_ca = ["{self.ca}"]
backend = "{name}"

[[backend]]
name = "{name}"
servers = ["127.0.0.1:{behind[name]}"]

"""
        return text + '[[identity]]\nmatch = { uri = "spiffe://example.org/agent/*" }\n'

    def port(self, name="http"):
        return self.observers[name].port

    def url(self, path="/"):
        return f"https://localhost:{self.port()}{path}"

    @property
    def files(self):
        return [str(self.ca), str(self.certificate), str(self.key)]

    def otel(self, protocol):
        """The environment that configures an OpenTelemetry exporter."""
        name = "grpc" if protocol == "grpc" else "http"
        environment = {key: value for key, value in os.environ.items() if not key.endswith("_CA_BUNDLE")}
        names = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
        environment |= {f"OTEL_EXPORTER_OTLP_{name}": file for name, file in zip(names, self.files)}
        return environment | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{self.port(name)}"}

    def counters(self):
        page = urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5).read().decode()
        sums = dict.fromkeys(COUNTERS, 0)
        for line in page.splitlines():
            for name in COUNTERS:
                if line.startswith(f"portcullis_{name}_total{{"):
                    sums[name] += int(float(line.rsplit(" ", 1)[1]))
        return sums

    def stop(self):
        self.gateway.terminate()
        self.gateway.wait(30)


def run(command, **options):
    """Runs a program to its end, bounded in time; its end has to be a good one."""
    result = subprocess.run([str(word) for word in command], capture_output=True, timeout=90, **options)
    if result.returncode != 0:
        text = (result.stdout + result.stderr).decode(errors="replace")
        raise RuntimeError(f"{command[0]} ended with {result.returncode}: {text[-600:]}")
    return result.stdout.decode(errors="replace")


def run_for_a_while(world, command, folder):
    """Runs a program that does not end by itself until it has connected four times."""
    with open(folder / "output", "wb") as output:
        process = subprocess.Popen([str(word) for word in command], stdout=output, stderr=output, cwd=folder)
    try:
        wait_for(lambda: sum(one.answered for one in world.observers["http"].connections) >= 4, 40)
        time.sleep(0.5)
    finally:
        process.terminate()
        process.wait(20)


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError("it does not happen")
        time.sleep(0.1)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


# One function for each client. Each makes its connections and fails when one of them did.


def otel_python(protocol):
    return lambda world: run([sys.executable, HERE / "otel.py", protocol, PAUSE], env=world.otel(protocol))


def otel_node(node, protocol):
    modules = ROOT / ".tools/node"
    command = [node, HERE / "otel.mjs", modules, protocol, PAUSE]
    return lambda world: run(command, env=world.otel(protocol))


def node_https(node):
    return lambda world: run([node, HERE / "fetch.mjs", world.url(), *world.files])


def curl(world):
    ca, certificate, key = world.files
    run(["curl", "-sSf", "--cacert", ca, "--cert", certificate, "--key", key] + [world.url()] * 3)


def openssl(told):
    def client(world):
        ca, certificate, key = world.files
        session = world.folder / "openssl.session"
        session.unlink(missing_ok=True)
        command = ["openssl", "s_client", "-connect", f"localhost:{world.port()}", "-servername", "localhost"]
        command += ["-CAfile", ca, "-cert", certificate, "-key", key, "-verify_return_error", "-ign_eof"]
        for number in range(3):
            more = [*(["-sess_in", session] if number else []), "-sess_out", session] if told else []
            run(command + more, input=REQUEST)

    return client


def python(script, interpreter, mode):
    return lambda world: run([interpreter, HERE / script, world.port(), *world.files, mode])


def curl_cffi(interpreter):
    return lambda world: run([interpreter, HERE / "browser.py", world.url(), *world.files])


def go(mode):
    def client(world):
        program = world.folder / "go-client"
        if not program.exists():
            folders = {"GOCACHE": str(world.folder / "go-cache"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
            run(["go", "build", "-o", program, HERE / "client.go"], env=os.environ | folders)
        run([program, world.url(), *world.files, mode])

    return client


def java(world):
    run(["java", HERE / "Client.java", world.url(), world.ca, world.keystore])


def gnutls(told):
    def client(world):
        ca, certificate, key = world.files
        command = ["gnutls-cli", "--port", world.port(), "--x509cafile", ca, "--x509certfile", certificate]
        command += ["--x509keyfile", key, "localhost"]
        for _ in range(1 if told else 3):
            run(command + (["--resume", "--waitresumption"] if told else []), input=REQUEST)

    return client


def nss(world):
    database = world.folder / "nss"
    database.mkdir()
    run(["certutil", "-N", "-d", f"sql:{database}", "--empty-password"])
    run(["pk12util", "-i", world.keystore, "-d", f"sql:{database}", "-W", "password", "-K", ""])
    run(["certutil", "-A", "-d", f"sql:{database}", "-n", "ca", "-t", "CT,,", "-i", world.ca])
    command = ["strsclnt", "-d", f"sql:{database}", "-n", "agent", "-p", world.port(), "-c", "10", "-t", "1"]
    command += ["-V", "tls1.3:tls1.3", "-o", "localhost"]
    result = subprocess.run([str(word) for word in command], capture_output=True, timeout=60)
    # Its exit code depends on counts of its own; that ten connections did their work shows in the gateway's counters.
    if b"cache hits" not in result.stderr + result.stdout:
        raise RuntimeError(result.stderr.decode(errors="replace")[-600:])


def prometheus(world):
    folder = world.folder / "prometheus"
    folder.mkdir()
    ca, certificate, key = world.files
    address = f"127.0.0.1:{free_port()}"
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs:\n  - job_name: self\n    static_configs: [{{targets: ['{address}']}}]\n"
        f"remote_write:\n  - url: {world.url('/api/v1/write')}\n"
        f"    tls_config: {{ca_file: '{ca}', cert_file: '{certificate}', key_file: '{key}'}}\n"
        "    queue_config: {batch_send_deadline: 200ms, max_shards: 1}\n"
    )
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    run_for_a_while(world, [*command, f"--web.listen-address={address}"], folder)


def vmagent(world):
    folder = world.folder / "vmagent"
    folder.mkdir()
    ca, certificate, key = world.files
    address = f"127.0.0.1:{free_port()}"
    (folder / "scrape.yml").write_text(
        f"scrape_configs:\n  - job_name: self\n    scrape_interval: 1s\n"
        f"    static_configs: [{{targets: ['{address}']}}]\n"
    )
    command = ["vmagent", f"-httpListenAddr={address}", f"-promscrape.config={folder}/scrape.yml"]
    command += [f"-remoteWrite.url={world.url('/api/v1/write')}", f"-remoteWrite.tmpDataPath={folder}/data"]
    command += [f"-remoteWrite.tlsCAFile={ca}", f"-remoteWrite.tlsCertFile={certificate}"]
    run_for_a_while(world, [*command, f"-remoteWrite.tlsKeyFile={key}", "-remoteWrite.queues=1"], folder)


def rustls(world):
    ca, certificate, key = world.files
    command = [world.programs / "portcullis-loadgen", "handshake", "--mode", "resumed", "--count", "2"]
    command += ["--target", f"127.0.0.1:{world.port()}", "--server-name", "localhost", "--ca", ca]
    run([*command, "--certificate", certificate, "--key", key, "--verify-resumed", "false"])


def first_line(*command):
    """What a program says its version is."""
    try:
        result = subprocess.run(command, capture_output=True, timeout=30)
    except OSError:
        return None
    text = (result.stdout + result.stderr).decode(errors="replace").strip()
    line = text.splitlines()[0] if text else "does not say"
    # Versions come first; what follows in brackets is about the build.
    return line.split(" (")[0]


def module_version(interpreter, expression):
    try:
        return run([interpreter, "-c", f"import sys; {expression}"]).strip()
    except (OSError, RuntimeError):
        return None


def clients(arguments):
    """Name, version or None where it is not here, and what runs it."""
    own = sys.executable
    metadata = "import importlib.metadata as m; print"
    telemetry = module_version(own, f"{metadata}(m.version('opentelemetry-sdk'))")
    table = [
        ("OpenTelemetry Python, gRPC", telemetry, otel_python("grpc")),
        ("OpenTelemetry Python, HTTP", telemetry, otel_python("http")),
    ]
    package = ROOT / ".tools/node/node_modules/@opentelemetry/exporter-trace-otlp-proto/package.json"
    for node in arguments.node:
        release = first_line(node, "-p", "`${process.version}, OpenSSL ${process.versions.openssl}`")
        for protocol in ("grpc", "http", "proto"):
            version = release and package.exists() and f"{json.loads(package.read_text())['version']}, Node {release}"
            table.append((f"OpenTelemetry JavaScript, {protocol}", version or None, otel_node(node, protocol)))
        table.append(("Node https", release, node_https(node)))
    table += [
        ("Prometheus remote_write", first_line("prometheus", "--version"), prometheus),
        ("vmagent", first_line("vmagent", "-version"), vmagent),
        ("Go crypto/tls", first_line("go", "version"), go("plain")),
        ("Go crypto/tls, ClientSessionCache", first_line("go", "version"), go("cache")),
        ("Java JSSE", first_line("java", "-version"), java),
        ("curl", first_line("curl", "--version"), curl),
        ("OpenSSL s_client", first_line("openssl", "version"), openssl(False)),
        ("OpenSSL s_client, -sess_in", first_line("openssl", "version"), openssl(True)),
        ("GnuTLS gnutls-cli", first_line("gnutls-cli", "--version"), gnutls(False)),
        ("GnuTLS gnutls-cli, --resume", first_line("gnutls-cli", "--version"), gnutls(True)),
        ("NSS strsclnt", "NSS" if shutil.which("strsclnt") and shutil.which("certutil") else None, nss),
        ("rustls", first_line(arguments.programs / "portcullis-loadgen", "--version"), rustls),
    ]
    version = module_version(own, "import ssl; print(f'Python {sys.version.split()[0]}, {ssl.OPENSSL_VERSION}')")
    table.append(("Python ssl", version, python("standard.py", own, "untold")))
    table.append(("Python ssl, session given", version, python("standard.py", own, "told")))
    for other in arguments.python:
        text = "import OpenSSL.SSL as s; print(s.SSLeay_version(0).decode())"
        version = module_version(other, text)
        table.append(("pyOpenSSL", version, python("openssl_python.py", other, "untold")))
        table.append(("pyOpenSSL, session given", version, python("openssl_python.py", other, "told")))
        version = module_version(other, "import curl_cffi as c; print(c.__version__, c.__curl_version__)")
        table.append(("curl-cffi", version, curl_cffi(other)))
    return table


def measure(world, client):
    """Runs one client and says what was seen of it."""
    for observer in world.observers.values():
        observer.take()
    before = world.counters()
    error = None
    try:
        client(world)
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as failure:
        error = str(failure)
    # The gateway counts a handshake when it has the client's Finished, which may be on its way.
    time.sleep(0.5)
    seen = [one for observer in world.observers.values() for one in observer.take()]
    after = world.counters()
    grown = {name: after[name] - before[name] for name in COUNTERS}
    result = {
        "connections": len(seen),
        "offered": sum(one.offered for one in seen),
        "resumed": sum(one.resumed for one in seen),
        "gateway": grown,
        "error": error,
    }
    counted = (grown["handshakes"], grown["handshakes_resumed"], grown["handshake_failures"])
    if error is None and counted != (len(seen), result["resumed"], 0):
        result["error"] = "the gateway counts {} handshakes, {} of them resumed, and {} failures".format(*counted)
    return result


def verdict(result):
    if result["error"]:
        return f"failed: {result['error'].splitlines()[0]}"
    if result["resumed"]:
        return "yes"
    return "offers, refused" if result["offered"] else "no"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="clients whose name contains this")
    parser.add_argument("--json", type=pathlib.Path, help="write all that was seen to this file")
    parser.add_argument("--programs", type=pathlib.Path, default=ROOT / "target/debug", help="folder of the programs")
    parser.add_argument("--node", action="append", default=[], help="another Node; may be repeated")
    parser.add_argument("--python", action="append", default=[], help="a Python with pyopenssl and curl-cffi")
    arguments = parser.parse_args()
    if node := shutil.which("node"):
        arguments.node.insert(0, node)
    results, failed = {}, False
    with tempfile.TemporaryDirectory(prefix="resumption-") as folder:
        world = World(pathlib.Path(folder), arguments.programs)
        try:
            print("| client | version | resumes | connections | tickets offered | resumed |")
            print("| --- | --- | --- | --- | --- | --- |")
            for name, version, client in clients(arguments):
                if arguments.only not in name:
                    continue
                if version is None:
                    print(f"| {name} | not here | | | | |", flush=True)
                    continue
                result = measure(world, client)
                failed |= result["error"] is not None
                results[f"{name} ({version})"] = result
                cells = (name, version, verdict(result), *(result[key] for key in ("connections", "offered", "resumed")))
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        finally:
            world.stop()
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
