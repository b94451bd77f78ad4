//! Who is counted as what: the kernel's counters by reason against what agents and attackers did.

use crate::site::{ATTACKERS, PORT, Site};

#[test]
fn an_agent_is_authenticated_and_a_stranger_is_not() {
    let site = Site::new();
    let guarded = site.start("mode = \"monitor\"\ninterfaces = [\"gate0\"]\nrequired = true");
    let mut agent = site
        .connect_from("192.0.2.1", &site.agent())
        .expect("it gets in");
    agent.send(b"hello").expect("it is sent");
    assert_eq!(agent.receive(5).expect("it comes back"), b"hello");
    let stranger = site.agent().without_certificate();
    let failure = site.agents_host.enter(|| {
        let socket = site.open("192.0.2.101").expect("it is reached");
        let mut client = stranger
            .connect_over(socket)
            .expect("TLS 1.3 clients are done first");
        client.receive_to_end()
    });
    println!("{failure:?}");
    assert_eq!(
        guarded.flows(),
        [
            ("authenticated".to_owned(), 1),
            ("no_certificate".to_owned(), 1)
        ],
        "{}",
        guarded.log()
    );
    let opened = guarded
        .metrics()
        .count("portcullis_guard_flows_opened_total", &[("port", PORT)]);
    assert_eq!(opened, 2);
    guarded.stop();
}

#[test]
fn attackers_are_banned_in_enforce_and_agents_are_served() {
    let site = Site::new();
    let guarded = site.start("mode = \"enforce\"\ninterfaces = [\"gate0\"]\nrequired = true");
    let mut agent = site
        .connect_from("192.0.2.1", &site.agent())
        .expect("it gets in");
    let flood = [
        "--sources",
        ATTACKERS,
        "--rate",
        "400",
        "--count",
        "1200",
        "--timeout",
        "900ms",
    ];
    let report = site.flood(&["badcert", "junk"], &flood);
    assert_eq!(guarded.bans_in_force(), 19, "{report:#}");
    assert!(guarded.packets("dropped") > 0, "{report:#}");
    agent.send(b"still here").expect("it is sent");
    assert_eq!(agent.receive(10).expect("it comes back"), b"still here");
    site.connect_from("192.0.2.1", &site.agent())
        .expect("new agents get in");
    guarded.stop();
}
