//! Any bytes as what a backend of HTTP/1 sends, in answer to a GET, a HEAD, or a POST that is not complete; and then the
//! end.
//!
//! What must hold: no panic; in whatever pieces bytes come, the events and the content are the same; nothing is told
//! after a fault; nothing is asked of a backend that has said something unasked; a response is told to be complete at
//! most once.
#![no_main]

use std::time::Instant;

use gateway_core::http::h1::Http1Connection;
use gateway_core::http::h2::{Event, Role};
use gateway_core::http::message::{Field, HeaderList};
use libfuzzer_sys::fuzz_target;

/// Largest header list, in bytes: no section is larger.
const LIST_SIZE_MAX: usize = 64 << 10;

fuzz_target!(|input: &[u8]| {
    let &[choice, ref sent @ ..] = input else {
        return;
    };
    let now = Instant::now();
    let whole = hear(choice, sent, usize::MAX, now);
    let in_pieces = hear(choice, sent, 1 + usize::from(choice >> 3), now);
    assert_eq!(whole, in_pieces);
});

/// What is told, and the content.
fn hear(choice: u8, sent: &[u8], piece_bytes: usize, now: Instant) -> (Vec<String>, Vec<u8>) {
    let mut connection = Http1Connection::new(Role::Client);
    let mut list = HeaderList::new(LIST_SIZE_MAX);
    let Some(stream) = connection.open(7) else {
        panic!("a new connection takes a request");
    };
    let method = [&b"GET"[..], b"HEAD", b"POST"][usize::from(choice & 3) % 3];
    let fields = [Field::new(b":method", method), Field::new(b":path", b"/")];
    connection.send_section(stream, fields.into_iter(), method != b"POST");
    connection.take_output();
    let (mut told, mut content, mut ends) = (Vec::new(), Vec::new(), 0);
    for piece in sent.chunks(piece_bytes) {
        let was_closed = connection.is_closed();
        let mut rest = piece;
        while let Some(event) = connection.receive(&mut rest, &mut list, now) {
            assert!(!was_closed, "{event:?} of a connection that is over");
            if let Event::Data {
                data, end_stream, ..
            } = event
            {
                content.extend_from_slice(data);
                connection.release(stream, data.len());
                if end_stream {
                    ends += 1;
                    told.push("the end".to_owned());
                }
                continue;
            }
            ends += u32::from(matches!(
                event,
                Event::Section {
                    end_stream: true,
                    ..
                }
            ));
            if let Event::Malformed(_) = event {
                assert!(connection.is_closed() && connection.output().is_empty());
            }
            told.push(format!("{event:?} {:?}", list.size()));
        }
        assert!(rest.is_empty());
    }
    let is_authentic = choice & 4 != 0;
    if let Some(event) = connection.end_of_input(is_authentic) {
        ends += u32::from(matches!(event, Event::Data { .. }));
        assert!(is_authentic || matches!(event, Event::Reset { .. }));
        told.push(format!("{event:?}"));
    }
    assert!(ends <= 1 && connection.is_closed() && !connection.can_open());
    (told, content)
}
