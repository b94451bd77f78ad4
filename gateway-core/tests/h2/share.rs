//! Shares of a backend's window: what clients whose content is not read leave to others.

use std::time::{Duration, Instant};

use gateway_core::http::h2::{ErrorCode, StreamId};
use gateway_core::http::limits::{WINDOW_SHARE, WINDOW_SHARED_EIGHTHS};

use crate::support::*;

/// What is there for whoever comes first, and what is shared.
const PARTS: [usize; 2] = [
    65_535 - 8_191 * WINDOW_SHARED_EIGHTHS,
    8_191 * WINDOW_SHARED_EIGHTHS,
];

/// What a client without content at the backend may hold of what is left.
fn share(left: usize) -> usize {
    left / (WINDOW_SHARE + 1)
}

/// A backend whose streams have all the credit that they want, with one for each of so many clients: of the first, 1, of the second,
/// 3, and so on.
fn backend(clients: u32) -> Peer {
    let mut peer = Peer::backend();
    peer.say(&setting(4, 1 << 20));
    peer.connection.set_client(StreamId::new(1), 0);
    for client in 1..clients {
        let stream = open(&mut peer, client);
        assert_eq!(stream, 2 * client + 1);
    }
    peer.hear();
    peer
}

fn open(peer: &mut Peer, client: u32) -> u32 {
    let stream = peer.connection.open(client + 1, peer.now).unwrap();
    peer.connection
        .send_section(stream, fields(&REQUEST), false);
    peer.connection.set_client(stream, client);
    stream.number()
}

/// Offers content on a stream, and returns how much was sent of it.
fn offer(peer: &mut Peer, stream: u32, bytes: usize) -> usize {
    let sent = peer.send(stream, bytes, false);
    peer.hear();
    sent + send_queued(peer)
}

/// Sends what waits. Returns how much that was.
fn send_queued(peer: &mut Peer) -> usize {
    let mut bytes = 0;
    loop {
        match peer.connection.send_queued() {
            Some(left) => bytes += left.bytes,
            None if peer.hear().is_empty() => return bytes,
            None => {}
        }
    }
}

/// Since when content waits because its client has its share.
fn held_back_since(peer: &Peer) -> Option<Instant> {
    let stall = peer.connection.stalled()?;
    assert!(!stall.is_spent);
    Some(stall.since)
}

#[test]
fn a_client_whose_content_is_not_read_leaves_room_to_others() {
    let mut peer = backend(2);
    assert_eq!(offer(&mut peer, 1, 100_000), PARTS[0]);
    // With more streams it gets no more.
    let further = open(&mut peer, 0);
    assert_eq!(offer(&mut peer, further, 100_000), 0);
    // The other one is served as long as its content is read.
    let bytes = share(PARTS[1]);
    assert!(bytes > 1_400);
    for _ in 0..100 {
        assert_eq!(offer(&mut peer, 3, bytes), bytes);
        let credit = [3, 0].map(|stream| window_update(stream, bytes as u32));
        peer.say(&credit.concat());
        assert_eq!(send_queued(&mut peer), 0);
    }
}

#[test]
fn many_clients_whose_content_is_not_read_leave_something_to_one_more() {
    let mut peer = backend(41);
    let mut left = PARTS[1];
    assert_eq!(offer(&mut peer, 1, 100_000), PARTS[0]);
    for client in 1..40 {
        assert_eq!(offer(&mut peer, 2 * client + 1, 100_000), share(left));
        left -= share(left);
    }
    assert!(left > 65_535 / 30, "{left}");
    assert_eq!(offer(&mut peer, 81, 100), 100);
}

#[test]
fn what_a_client_is_given_back_it_can_use_again() {
    let mut peer = backend(2);
    assert_eq!(offer(&mut peer, 1, 200_000), PARTS[0]);
    assert_eq!(offer(&mut peer, 3, 1_000), 1_000);
    // Credit of its stream alone: what it holds is less, and it has a share of the second part.
    peer.say(&window_update(1, PARTS[0] as u32));
    let more = share(PARTS[1] - 1_000);
    assert_eq!(send_queued(&mut peer), more);
    // Credit of the connection: the first part is there again.
    peer.say(&window_update(0, PARTS[0] as u32));
    assert_eq!(send_queued(&mut peer), PARTS[0] - 1_000 - more);
    // A stream that is gone holds nothing.
    peer.say(&rst_stream(1, ErrorCode::Cancel));
    let next = open(&mut peer, 0);
    assert_eq!(offer(&mut peer, next, 100_000), share(PARTS[1]));
}

#[test]
fn a_stream_that_goes_makes_room_for_others_of_its_client() {
    let mut peer = backend(1);
    let [first, second] = [1, 1].map(|client| open(&mut peer, client));
    assert_eq!(offer(&mut peer, 1, 100_000), PARTS[0]);
    assert_eq!(offer(&mut peer, first, 100_000), share(PARTS[1]));
    assert_eq!(offer(&mut peer, second, 100_000), 0);
    peer.say(&rst_stream(first, ErrorCode::Cancel));
    let left = PARTS[1] - share(PARTS[1]);
    assert_eq!(send_queued(&mut peer), share(left));
}

#[test]
fn content_of_nobody_has_the_whole_window() {
    let mut peer = Peer::backend();
    peer.say(&setting(4, 1 << 20));
    peer.hear();
    assert_eq!(offer(&mut peer, 1, 100_000), 65_535);
}

#[test]
fn content_has_the_whole_window_where_shares_are_not_in_force_and_as_soon_as_they_are_not() {
    let mut peer = backend(2);
    peer.connection.enforce_shares(false, peer.now);
    assert_eq!(offer(&mut peer, 1, 50_000), 50_000);
    peer.connection.enforce_shares(true, peer.now);
    assert_eq!(offer(&mut peer, 1, 50_000), 0);
    assert!(peer.connection.stalled().is_some());
    peer.connection.enforce_shares(false, peer.now);
    assert_eq!(send_queued(&mut peer), 65_535 - 50_000);
}

/// Has a server give this much credit a moment after shares were lifted. Returns whether it is one that gives credit late.
fn credits_late(credit: usize, after: Duration) -> bool {
    let mut peer = backend(2);
    offer(&mut peer, 1, 100_000);
    peer.connection.enforce_shares(false, peer.now);
    assert_eq!(send_queued(&mut peer), PARTS[1]);
    assert!(
        peer.connection
            .stalled()
            .is_some_and(|stall| stall.is_spent)
    );
    assert!(!peer.connection.credits_late());
    peer.wait(after);
    peer.say(&window_update(0, credit as u32));
    peer.connection.credits_late()
}

#[test]
fn a_server_that_gives_credit_as_soon_as_its_whole_window_is_used_is_known_by_that() {
    let soon = Duration::from_millis(100);
    assert!(credits_late(65_535, soon));
    assert!(credits_late(PARTS[0], soon));
    // It takes nothing of what one client has sent, and gives credit for what others have.
    assert!(!credits_late(PARTS[1], soon));
    // It has stood still, and goes on.
    assert!(!credits_late(65_535, Duration::from_secs(3)));
}

#[test]
fn streams_that_are_held_back_have_their_turns() {
    // A server that reads everything, and gives credit when half of its window is used.
    let mut peer = backend(6);
    let mut got = [0; 6];
    let mut used = 0;
    for client in 0..6 {
        got[client as usize] += offer(&mut peer, 2 * client + 1, 1 << 20);
    }
    used += got.iter().sum::<usize>();
    for _ in 0..60 {
        assert!(used >= 65_535 / 2, "the server gives no credit");
        let mut credit = vec![window_update(0, used as u32)];
        credit.extend((0..6).map(|client| window_update(2 * client + 1, 65_535)));
        used = 0;
        peer.say(&credit.concat());
        loop {
            match peer.connection.send_queued() {
                Some(left) => {
                    got[left.key as usize - 1] += left.bytes;
                    used += left.bytes;
                }
                None if peer.hear().is_empty() => break,
                None => {}
            }
        }
    }
    let [least, most] = [got.iter().min(), got.iter().max()].map(Option::unwrap);
    assert!(least * 2 > *most, "{got:?}");
}

#[test]
fn content_that_is_held_back_stalls_a_connection_until_it_moves() {
    let mut peer = backend(2);
    let opened = peer.now;
    offer(&mut peer, 1, 40_000);
    assert_eq!(peer.connection.stalled(), None);
    offer(&mut peer, 1, 30_000);
    assert_eq!(held_back_since(&peer), Some(opened));
    // What others send at once says nothing of what waits.
    peer.wait(Duration::from_secs(1));
    offer(&mut peer, 3, 100);
    assert_eq!(held_back_since(&peer), Some(opened));
    peer.say(&window_update(0, 10_000));
    let moved = peer.now;
    assert!(send_queued(&mut peer) > 0);
    assert_eq!(held_back_since(&peer), Some(moved));
    peer.say(&[window_update(1, 50_000), window_update(0, 40_000)].concat());
    send_queued(&mut peer);
    assert_eq!(peer.connection.stalled(), None);
}
