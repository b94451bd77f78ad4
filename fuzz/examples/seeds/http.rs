//! Seeds of HTTP: what clients and backends send. In: nothing. Out: a file for each.

use anyhow::Result;

use super::Seeds;

/// What clients of HTTP/1 send, behind a byte that says in which pieces.
pub fn http1_requests(seeds: &Seeds) -> Result<()> {
    let get = "GET /api/v1/query?query=up HTTP/1.1\r\nHost: cortex.example\r\nAccept: */*\r\n\r\n";
    let chunks = "2;name=value\r\nab\r\n1\r\nc\r\n0\r\nChecksum: 1\r\n\r\n";
    for (name, choice, text) in [
        ("pipeline", 0, [get, get].concat()),
        (
            "length",
            0x10,
            "POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc".to_owned(),
        ),
        (
            "chunks",
            0x21,
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n{chunks}"),
        ),
        (
            "absolute",
            4,
            "GET http://a/b HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\nX: 1\r\n\r\n".to_owned(),
        ),
        ("old", 8, "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned()),
    ] {
        seeds.write(name, &[&[choice], text.as_bytes()].concat())?;
    }
    Ok(())
}

/// What backends of HTTP/1 send, behind a byte that says to which request, and in which pieces.
pub fn http1_responses(seeds: &Seeds) -> Result<()> {
    for (name, choice, text) in [
        (
            "length",
            0,
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: text/plain\r\n\r\nabc",
        ),
        (
            "chunks",
            0x20,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nGrpc-Status: 0\r\n\r\n",
        ),
        ("until-the-end", 4, "HTTP/1.0 200 OK\r\n\r\nabc"),
        ("head", 1, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
        (
            "interim",
            0x42,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
        ),
    ] {
        seeds.write(name, &[&[choice], text.as_bytes()].concat())?;
    }
    Ok(())
}

/// What peers send after their preface, behind a byte that says who they are.
pub fn http2(seeds: &Seeds) -> Result<()> {
    let frame = |frame_type: u8, flags: u8, stream: u8, payload: &[u8]| {
        let header = [
            0,
            0,
            payload.len() as u8,
            frame_type,
            flags,
            0,
            0,
            0,
            stream,
        ];
        [&header, payload].concat()
    };
    let request = b"\x83\x87\x84\x41\x01a";
    let [data, rst_stream, credit] = [0, 3, 8];
    let unary = [frame(1, 4, 1, request), frame(data, 1, 1, b"content")];
    let padded = [frame(1, 4, 1, request), frame(data, 9, 1, b"\x02ab\0\0")];
    let split = [frame(1, 1, 1, &request[..2]), frame(9, 4, 1, &request[2..])];
    let control = [
        frame(4, 0, 0, &[0, 4, 0, 0, 0, 9]),
        frame(6, 0, 0, b"12345678"),
        frame(1, 5, 3, request),
        frame(credit, 0, 3, &[0, 0, 1, 0]),
        frame(rst_stream, 0, 3, &[0, 0, 0, 8]),
        frame(7, 0, 0, &[0; 8]),
    ];
    let response = [
        frame(1, 4, 1, b"\x88"),
        frame(data, 0, 1, b"content"),
        frame(1, 5, 1, b""),
    ];
    for (name, role, frames) in [
        ("request", 0, &unary[..]),
        ("padding", 0x40, &padded),
        ("continuation", 0x40, &split),
        ("control", 2, &control),
        ("response", 1, &response),
    ] {
        seeds.write(name, &[&[role][..], &frames.concat()].concat())?;
    }
    Ok(())
}
