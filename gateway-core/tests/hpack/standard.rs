//! The examples of RFC 7541 appendix C: each block says what it should, and leaves the table that it should.

use gateway_core::http::hpack::{DecodeError, Decoder};

use crate::support::{Owned, bytes, decode, field};

/// A block and the fields that it stands for.
type Example<'a> = (&'a str, &'a [(&'a str, &'a str)]);

/// Decodes blocks one after the other with one decoder, which then has this table, the newest entry first.
fn check(blocks: &[Example<'_>], table: &[(&str, &str)]) {
    let mut decoder = Decoder::default();
    for (block, fields) in blocks {
        assert_eq!(decode(&mut decoder, &bytes(block)), Ok(list(fields)));
    }
    // Index 62 and those behind it.
    let whole: Vec<u8> = (0..table.len())
        .map(|entry| 0x80 | (62 + entry as u8))
        .collect();
    assert_eq!(decode(&mut decoder, &whole), Ok(list(table)));
    let beyond = [0x80 | (62 + table.len() as u8)];
    assert_eq!(decode(&mut decoder, &beyond), Err(DecodeError::Index));
}

fn list(fields: &[(&str, &str)]) -> Vec<Owned> {
    fields
        .iter()
        .map(|(name, value)| field(name, value))
        .collect()
}

const CUSTOM: (&str, &str) = ("custom-key", "custom-value");
const NO_CACHE: (&str, &str) = ("cache-control", "no-cache");
const AUTHORITY: (&str, &str) = (":authority", "www.example.com");

const REQUESTS: [&[(&str, &str)]; 3] = [
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        AUTHORITY,
    ],
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        AUTHORITY,
        NO_CACHE,
    ],
    &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        AUTHORITY,
        CUSTOM,
    ],
];

const PRIVATE: (&str, &str) = ("cache-control", "private");
const DATE: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
const LATER: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
const LOCATION: (&str, &str) = ("location", "https://www.example.com");
const GZIP: (&str, &str) = ("content-encoding", "gzip");
const COOKIE: (&str, &str) = (
    "set-cookie",
    "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
);

const RESPONSES: [&[(&str, &str)]; 3] = [
    &[(":status", "302"), PRIVATE, DATE, LOCATION],
    &[(":status", "307"), PRIVATE, DATE, LOCATION],
    &[(":status", "200"), PRIVATE, LATER, LOCATION, GZIP, COOKIE],
];

/// Changes the size of the table to 256 bytes, as the examples of responses have it by a setting.
const SIZE_256: &str = "3fe1 01";

#[test]
fn fields_in_each_representation_are_decoded() {
    // C.2.1 to C.2.4.
    let literal = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    let custom = ("custom-key", "custom-header");
    check(&[(literal, &[custom])], &[custom]);
    let without = "040c 2f73 616d 706c 652f 7061 7468";
    check(&[(without, &[(":path", "/sample/path")])], &[]);
    check(&[("82", &[(":method", "GET")])], &[]);
    let never = bytes("1008 7061 7373 776f 7264 0673 6563 7265 74");
    let decoded = decode(&mut Decoder::default(), &never);
    assert_eq!(
        decoded,
        Ok(vec![("password".into(), "secret".into(), true)])
    );
}

#[test]
fn requests_build_on_each_other() {
    // C.3.
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    // C.4.
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, huffman] {
        let examples = [0, 1, 2].map(|example| (blocks[example], REQUESTS[example]));
        check(&examples, &[CUSTOM, NO_CACHE, AUTHORITY]);
    }
}

#[test]
fn responses_evict_each_others_fields() {
    // C.5.
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a
         3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04
         677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49
         553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
    ];
    // C.6.
    let huffman = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e
         919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7
         821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed
         4ee5 b106 3d50 07",
    ];
    for blocks in [plain, huffman] {
        let first = format!("{SIZE_256} {}", blocks[0]);
        let examples = [
            (&*first, RESPONSES[0]),
            (blocks[1], RESPONSES[1]),
            (blocks[2], RESPONSES[2]),
        ];
        check(&examples, &[COOKIE, GZIP, LATER]);
    }
}
