//! Clients of HTTP/1.1 that are right: what RFC 9112 lets them do, to backends of both versions.
//! In: pipelines, chunks, expectations, methods with answers of their own. Out: each response, and a connection that goes on.

use tests::{Arrived, Closing, Gateway, Http1Client, HttpBackend, Reply, Speaks, Workspace};

fn script(request: &Arrived) -> Reply {
    match request.path.as_str() {
        "/echo" => Reply::status(200).echo(),
        "/none" => Reply::status(204),
        "/same" => Reply::status(304).field("etag", "\"a\""),
        "/length" => Reply::status(200)
            .field("content-length", "4")
            .content(b"four"),
        path => Reply::status(200).content(path.as_bytes()),
    }
}

/// Runs a claim with backends of both versions.
fn with_both(claim: impl Fn(&Workspace, &Gateway, &HttpBackend)) {
    for speaks in [Speaks::Http2, Speaks::Http1] {
        let workspace = Workspace::new();
        let backend = HttpBackend::over_mtls(&workspace, 14317, speaks, script);
        let keys = workspace.backend_keys();
        let setup = workspace.setup().http();
        let gateway = setup.route("edge", "", &[backend.address()], &keys).start();
        claim(&workspace, &gateway, &backend);
    }
}

fn client(workspace: &Workspace, gateway: &Gateway) -> Http1Client {
    Http1Client::connect(&workspace.client(), gateway.address())
}

#[test]
fn a_pipeline_is_answered_in_order() {
    with_both(|workspace, gateway, backend| {
        let mut client = client(workspace, gateway);
        let paths = ["/1", "/2", "/3", "/4", "/5"];
        let requests =
            paths.map(|path| format!("GET {path} HTTP/1.1\r\nHost: gateway.test\r\n\r\n"));
        client.send(requests.concat().as_bytes());
        for path in paths {
            let answer = client.answer();
            assert_eq!(answer.content, path.as_bytes());
            assert!(answer.is_complete);
        }
        let arrived: Vec<_> = backend
            .requests()
            .into_iter()
            .map(|request| request.path)
            .collect();
        assert_eq!(arrived, paths);
    });
}

#[test]
fn content_passes_in_chunks_and_by_length_and_the_connection_goes_on() {
    with_both(|workspace, gateway, _| {
        let mut client = client(workspace, gateway);
        let content: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
        for _ in 0..2 {
            // Sent and read by turns, since both windows are smaller than all of it.
            for piece in content.chunks(50_000) {
                let answer = client.post("/echo", "", piece);
                assert_eq!(answer.content, piece);
                let mut chunked = b"POST /echo HTTP/1.1\r\nHost: gateway.test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                for chunk in piece.chunks(999) {
                    chunked.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    chunked.extend(chunk);
                    chunked.extend(b"\r\n");
                }
                chunked.extend(b"0\r\n\r\n");
                client.send(&chunked);
                let answer = client.answer();
                assert!(answer.is_complete);
                assert_eq!(answer.content, piece);
            }
        }
    });
}

#[test]
fn content_is_asked_for_by_100_continue() {
    with_both(|workspace, gateway, _| {
        let mut client = client(workspace, gateway);
        client.send(b"POST /echo HTTP/1.1\r\nHost: gateway.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
        assert_eq!(client.head().status, 100);
        client.send(b"four");
        assert_eq!(client.answer().content, b"four");
    });
}

#[test]
fn answers_without_content_end_with_their_head() {
    with_both(|workspace, gateway, _| {
        let mut client = client(workspace, gateway);
        for (request, status) in [
            ("GET /none", 204),
            ("GET /same", 304),
            ("HEAD /length", 200),
        ] {
            client.send(format!("{request} HTTP/1.1\r\nHost: gateway.test\r\n\r\n").as_bytes());
            let answer = client.head();
            assert_eq!(answer.status, status, "{request}");
            assert_eq!(answer.value("transfer-encoding"), None, "{request}");
        }
        client.send(b"GET /length HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
        let answer = client.answer();
        assert_eq!(answer.content, b"four", "nothing stood between");
    });
}

#[test]
fn a_connection_ends_behind_the_response_if_the_client_says_so() {
    with_both(|workspace, gateway, _| {
        for request in [
            "GET /length HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n",
            "GET /length HTTP/1.0\r\nHost: gateway.test\r\n\r\n",
        ] {
            let mut client = client(workspace, gateway);
            client.send(request.as_bytes());
            let answer = client.answer();
            assert_eq!(answer.content, b"four", "{request}");
            assert!(answer.is_complete, "{request}");
            assert_eq!(client.read_to_end(), Closing::CloseNotify, "{request}");
        }
    });
}

#[test]
fn an_answer_in_chunks_to_http_1_0_ends_with_the_connection() {
    with_both(|workspace, gateway, _| {
        let mut client = client(workspace, gateway);
        client.send(b"POST /echo HTTP/1.0\r\nHost: gateway.test\r\nContent-Length: 4\r\n\r\nfour");
        let answer = client.answer();
        assert_eq!(answer.value("transfer-encoding"), None);
        assert_eq!(answer.content, b"four");
        assert!(answer.is_complete);
    });
}
