//! The test vectors of RFC 8448 section 3: every record that is protected with application traffic keys.

use gateway_core::record::{Opener, Peer, Sealer, Suite, TrafficKey};
use ring::aead::AES_128_GCM;

use super::support::{Event, Read, Real, read};

const CLIENT_KEY: &str = "17422dda596ed5d9acd890e3c63f5051";
const CLIENT_IV: &str = "5b78923dee08579033e523d9";
const SERVER_KEY: &str = "9f02283b6c9c07efc26bb9f2ac92e356";
const SERVER_IV: &str = "cf782b88dd83549aadf1e984";

const TICKET: &str = "17030300de3a6b8f90414a97d6959c3487680de5134a2b240e6cffac116e95d41d6af8f6b580dcf3d1\
    1d63c758db289a015940252f55713e061dc13e078891a38efbcf5753ad8ef170ad3c7353d16d9da773b9ca7f2b9fa1b6c0d4a3\
    d03f75e09c30ba1e62972ac46f75f7b981be63439b2999ce13064615139891d5e4c5b406f16e3fc181a77ca475840025db2f0a\
    77f81b5ab05b94c01346755f69232c86519d86cbeeac87aac347d143f9605d64f650db4d023e70e952ca49fe5137121c74bc26\
    97687e248746d6df353005f3bce18696129c8153556b3b6c6779b37bf15985684f";
const CLIENT_DATA: &str = "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b39\
    5bd54a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";
const SERVER_DATA: &str = "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6df\
    fc602dcb501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d";
const CLIENT_CLOSE: &str = "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3";
const SERVER_CLOSE: &str = "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9";

fn bytes(hexadecimal: &str) -> Vec<u8> {
    (0..hexadecimal.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap())
        .collect()
}

fn key(key: &str, iv: &str, sequence: u64) -> TrafficKey<Real> {
    let aead = Real::new(&AES_128_GCM, &bytes(key));
    TrafficKey::new(aead, bytes(iv).try_into().unwrap(), sequence, Suite::AesGcm)
}

/// 50 bytes: 0, 1, 2, ...
fn data() -> Vec<u8> {
    (0..50).collect()
}

#[test]
fn the_client_of_the_example_is_read() {
    let stream = bytes(&[CLIENT_DATA, CLIENT_CLOSE].concat());
    let mut opener = Opener::new(key(CLIENT_KEY, CLIENT_IV, 0), Peer::Client);
    let expected = Read {
        plaintext: data(),
        events: vec![(50, Event::Closed)],
        ..Read::default()
    };
    assert_eq!(read(&mut opener, [stream], |_| unreachable!()), expected);
}

#[test]
fn the_server_of_the_example_is_read_with_its_ticket() {
    let stream = bytes(&[TICKET, SERVER_DATA, SERVER_CLOSE].concat());
    let mut opener = Opener::new(key(SERVER_KEY, SERVER_IV, 0), Peer::Server);
    let read = read(&mut opener, [stream], |_| unreachable!());
    assert_eq!(read.plaintext, data());
    let [(0, Event::Ticket(ticket)), (50, Event::Closed)] = &read.events[..] else {
        panic!("{:?}", read.events);
    };
    // Lifetime 30 s, age_add, a nonce of two bytes, a ticket of 178.
    assert_eq!(ticket[..4], [0, 0, 0, 30]);
    assert_eq!(ticket.len(), 0xc9 - 4 + 4);
}

#[test]
fn both_sides_of_the_example_are_sealed_byte_for_byte() {
    let sides = [
        (CLIENT_KEY, CLIENT_IV, 0, CLIENT_DATA, CLIENT_CLOSE),
        (SERVER_KEY, SERVER_IV, 1, SERVER_DATA, SERVER_CLOSE),
    ];
    for (key_bytes, iv, sequence, sealed_data, sealed_close) in sides {
        let mut sealer = Sealer::new(key(key_bytes, iv, sequence));
        let mut buffer = [&[0; 5], &data()[..], &[0; 17]].concat();
        let records = sealer.seal(&mut buffer, 5..55, 16384).unwrap();
        assert_eq!(buffer[records], bytes(sealed_data));
        assert_eq!(sealer.close_notify().unwrap().to_vec(), bytes(sealed_close));
    }
}
