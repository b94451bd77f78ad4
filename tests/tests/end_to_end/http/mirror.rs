//! Copies of requests for a second backend: what it gets, and that a client notices nothing of it.
//! In: a route with a mirror that answers, is silent or is not there. Out: responses, copies, metrics.

use std::net::SocketAddr;

use tests::{Gateway, Http1Client, HttpBackend, Reply, Speaks, Workspace};

const MIRRORED: &str = "portcullis_mirrored_requests_total";

/// A gateway whose requests go to the first server, and copies to the second.
fn mirroring(workspace: &Workspace, [server, mirror]: [SocketAddr; 2]) -> Gateway {
    let tables = format!(
        "[[backend]]\nname = \"next\"\nservers = [\"{mirror}\"]\n\
         [[route]]\nlistener = \"edge\"\npath = \"/api\"\nbackend = \"edge\"\nreplace_prefix = \"/v2\"\n\
         mirror = {{ backend = \"next\" }}\n"
    );
    let setup = workspace.setup().http().tables(&tables);
    setup.route("edge", "", &[server], "").start()
}

fn answering(workspace: &Workspace, status: u16) -> HttpBackend {
    HttpBackend::clear(workspace.host.free(), Speaks::Http1, move |_| {
        Reply::status(status)
    })
}

#[test]
fn a_second_backend_gets_what_the_first_got_and_its_responses_reach_nobody() {
    let workspace = Workspace::new();
    let [first, second] = [200, 500].map(|status| answering(&workspace, status));
    let gateway = mirroring(&workspace, [first.address(), second.address()]);
    let mut client = Http1Client::connect(&workspace.client(), gateway.address());
    for _ in 0..20 {
        let answer = client.post(
            "/api/push",
            "X-Scope-OrgID: forged\r\nX-A: 1\r\n",
            b"samples",
        );
        assert_eq!(answer.status, 200);
    }
    gateway.wait_for(MIRRORED, &[("backend", "next"), ("result", "sent")], 20);
    let (got, copies) = (first.ended(20), second.ended(20));
    for (one, copy) in got.iter().zip(&copies) {
        assert_eq!(copy.path, "/v2/push");
        assert_eq!(copy.values("x-scope-orgid"), ["team-a"]);
        assert_eq!((&one.path, &one.fields), (&copy.path, &copy.fields));
        assert_eq!(copy.content, b"samples");
    }
    // Others are not copied.
    assert_eq!(client.post("/other", "", b"samples").status, 200);
    assert_eq!(second.requests().len(), 20);
}

#[test]
fn a_mirror_that_is_silent_or_not_there_costs_no_client_anything() {
    let workspace = Workspace::new();
    let first = answering(&workspace, 200);
    let silent = HttpBackend::clear(workspace.host.free(), Speaks::Http1, |_| {
        Reply::status(200).silence()
    });
    for (mirror, dropped) in [(silent.address(), 0), (workspace.host.free(), 20)] {
        let gateway = mirroring(&workspace, [first.address(), mirror]);
        let mut client = Http1Client::connect(&workspace.client(), gateway.address());
        for _ in 0..20 {
            assert_eq!(client.post("/api/push", "", b"samples").status, 200);
        }
        let labels = [("backend", "next"), ("result", "dropped")];
        gateway.wait_for(MIRRORED, &labels, dropped);
    }
}
