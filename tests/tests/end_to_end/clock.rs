//! A wall clock that is set while the gateway runs.
//! In: a gateway whose clock the test sets (`clock.c`). Out: connections that end with their certificate by the clock as it is.

use tests::{Backend, Behaviour, Clock, Closing, Request, Workspace};

#[test]
fn a_connection_ends_with_its_certificate_although_the_clock_jumps_there() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let clock = Clock::make(workspace.folder());
    let [preload, offset] = clock.variables();
    let gateway = workspace
        .setup()
        .under(&["env", &preload, &offset])
        .route("edge", "", &[backend.address()], "")
        .start();
    let request = Request::client("spiffe://example.test/agent/short").seconds(3600);
    let short = workspace.agents.issue("short", request);
    let connect = |credentials| {
        let client = workspace.client().credentials(credentials);
        let mut client = client.connect(gateway.address()).unwrap();
        client.send(b"ping").unwrap();
        assert_eq!(client.receive(4).unwrap(), b"ping");
        client
    };
    let mut ends = connect(&short);
    let mut stays = connect(&workspace.agent);
    clock.set(3700);
    assert_ne!(ends.receive_to_end().1, Closing::CloseNotify);
    let labels = [("listener", "edge"), ("reason", "expired")];
    gateway.wait_for("portcullis_connections_ended_total", &labels, 1);
    stays.send(b"ping").unwrap();
    assert_eq!(stays.receive(4).unwrap(), b"ping");
}
