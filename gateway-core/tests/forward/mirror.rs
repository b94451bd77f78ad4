//! Copies of requests: what is handed over, when, and what is not.

use gateway_core::http::limits::HELD_CONTENT_BYTES_MAX;

use super::*;

/// A route to one backend, with a copy to another one.
struct Mirroring {
    to: ConnectionKey,
    copies: Vec<MirroredRequest>,
}

impl Router for Mirroring {
    fn choose(&mut self, _: &Call<'_>, rewrite: &mut Rewrite) -> Result<Placement, RequestRefusal> {
        rewrite.path.extend_from_slice(b"/api/v1/push");
        rewrite.mirror = Some(7);
        Ok(Placement::Connection(self.to))
    }

    fn full(&mut self, _: ConnectionKey, _: &Call<'_>) -> Result<(), RequestRefusal> {
        Ok(())
    }

    fn left(&mut self, _: ConnectionKey, _: LegEnd) {}

    fn mirror(&mut self, request: MirroredRequest) {
        self.copies.push(request);
    }

    fn ended(&mut self, _: &Ended<'_>) {}

    fn failed(&mut self, _: ConnectionKey, _: PeerFault) {}
}

const FIELDS: [(&str, &str); 5] = [
    (":method", "POST"),
    (":scheme", "https"),
    (":authority", "cortex.test"),
    (":path", "/push"),
    ("x-scope-orgid", "forged"),
];

/// Moves all bytes, until there are no more.
fn carry(path: &mut Path, router: &mut Mirroring) {
    for _ in 0..20 {
        for side in [CLIENT, BACKEND] {
            let bytes = path.ends[side].take_output();
            let forwarder = (&mut path.forwarder, path.keys[side]);
            receive_all(forwarder, &bytes, (&mut *router, path.now));
            while path.ends[side].send_queued().is_some() {}
        }
        while let Some(key) = path.forwarder.next_ready() {
            let side = usize::from(key == path.keys[BACKEND]);
            let mut bytes = Vec::new();
            path.forwarder
                .take_output(key, &mut bytes, router, path.now);
            for heard in hear(&mut path.ends[side], &bytes, path.now) {
                if let (BACKEND, Heard::Data(data, _)) = (side, heard) {
                    path.ends[BACKEND].release(StreamId::new(1), data.len(), path.now);
                }
            }
        }
    }
}

#[test]
fn a_copy_is_what_the_backend_got_and_comes_when_the_response_begins() {
    let mut path = Path::new(one_tenant());
    let mut router = Mirroring {
        to: path.keys[BACKEND],
        copies: Vec::new(),
    };
    let stream = path.request(&FIELDS, false);
    let _ = path.ends[CLIENT].send_data(stream, b"samples", true);
    carry(&mut path, &mut router);
    assert!(router.copies.is_empty(), "there is no response yet");
    path.send(BACKEND, stream, &[(":status", "103")], false);
    carry(&mut path, &mut router);
    assert!(router.copies.is_empty(), "nor is this one");
    path.send(BACKEND, stream, &[(":status", "200")], false);
    path.send(BACKEND, stream, &[("x-trailer", "a")], true);
    carry(&mut path, &mut router);
    let [copy] = router.copies.as_slice() else {
        panic!("one copy: {:?}", router.copies);
    };
    assert_eq!(copy.backend, 7);
    assert_eq!(copy.content.as_deref(), Some(&b"samples"[..]));
    let value = |name: &str| {
        let fields = copy
            .list
            .iter()
            .filter(|field| field.name == name.as_bytes());
        let values: Vec<_> = fields.map(|field| field.value).collect();
        values
    };
    assert_eq!(value(":path"), [b"/api/v1/push"]);
    assert_eq!(value("x-scope-orgid"), [b"red"]);
    assert_eq!(value("x-scope-clientid"), [b"agent"]);
}

#[test]
fn what_is_not_complete_or_too_large_is_handed_over_without_content() {
    for (bytes, ends) in [(10, false), (HELD_CONTENT_BYTES_MAX + 1, true)] {
        let mut path = Path::new(one_tenant());
        let mut router = Mirroring {
            to: path.keys[BACKEND],
            copies: Vec::new(),
        };
        let stream = path.request(&FIELDS, false);
        let _ = path.ends[CLIENT].send_data(stream, &vec![1; bytes], ends);
        carry(&mut path, &mut router);
        path.send(BACKEND, stream, &[(":status", "200")], true);
        carry(&mut path, &mut router);
        let contents: Vec<_> = router.copies.iter().map(|copy| &copy.content).collect();
        assert_eq!(contents, [&None], "{bytes} bytes");
    }
}
