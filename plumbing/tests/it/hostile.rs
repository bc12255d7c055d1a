//! Clients that are slow, many, or write what may be read in two ways: raw bytes on a real socket.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::stream;
use plumbing::http::Limits;
use plumbing::{http, stop, task};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A server that counts what reaches its handlers.
struct House {
    addr: SocketAddr,
    guests: Arc<Guests>,
    _stopper: stop::Stopper,
}

#[derive(Default)]
struct Guests {
    smuggled: AtomicUsize,
    watching: AtomicUsize,
}

/// Counts as watching until it is dropped.
struct Watching(Arc<Guests>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watching.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A response without end, as fast as it is taken.
async fn endless(State(guests): State<Arc<Guests>>) -> Response {
    guests.watching.fetch_add(1, Ordering::SeqCst);
    let watching = Watching(guests);
    let chunks = stream::repeat_with(move || {
        let _here = &watching;
        Ok::<_, std::io::Error>(vec![b'x'; 16 * 1024])
    });
    Body::from_stream(chunks).into_response()
}

/// Short times, so that a test need not be long.
fn limits() -> Limits {
    Limits {
        connections: 8,
        head: Duration::from_millis(400),
        idle: Duration::from_millis(1_200),
        body: Duration::from_millis(400),
        write_stall: Duration::from_millis(400),
    }
}

impl House {
    async fn open(limits: Limits) -> Self {
        let guests = Arc::new(Guests::default());
        let smuggled = |State(guests): State<Arc<Guests>>| async move {
            guests.smuggled.fetch_add(1, Ordering::SeqCst);
            "in"
        };
        let router = Router::new()
            .route(
                "/",
                get(|| async { "home" }).post(|body: String| async move { body.len().to_string() }),
            )
            .route("/deaf", post(|| async { "deaf" }))
            .route("/smuggled", get(smuggled).post(smuggled))
            .route("/endless", get(endless))
            .with_state(Arc::clone(&guests));
        let (stopper, stop) = stop::pair();
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let (addr, serving) = http::serve_within(any, router, limits, stop)
            .await
            .expect("a free port");
        drop(task::spawn("house", serving));
        Self {
            addr,
            guests,
            _stopper: stopper,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.expect("the house listens")
    }

    /// Sends bytes and reads until the server closes.
    async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // It may close while it is still spoken to.
        drop(stream.write_all(bytes).await);
        until_closed(&mut stream).await
    }
}

/// What the server says until it closes.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let closed = async {
        // A reset is an end too.
        while let Ok(1..) = stream.read_buf(&mut said).await {}
    };
    tokio::time::timeout(Duration::from_secs(20), closed)
        .await
        .expect("the server closes");
    String::from_utf8_lossy(&said).into_owned()
}

async fn read_some(stream: &mut TcpStream) -> String {
    let mut buffer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer));
    let len = read.await.expect("an answer").expect("an open connection");
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

#[tokio::test]
async fn who_sends_no_whole_head_in_time_is_let_go() {
    let house = House::open(limits()).await;
    for begun in [
        &b""[..],
        b"GET / HTTP/1.1\r\nhost: a\r\n",
        b"GET",
        b"PRI * HTTP/2.0\r\n\r\nSM",
    ] {
        let started = Instant::now();
        let said = house.say(begun).await;
        assert!(started.elapsed() >= limits().head, "{begun:?}");
        assert!(!said.contains("200"), "{begun:?}: {said}");
    }
    // Byte by byte is no faster.
    let mut stream = house.connect().await;
    let dripping = async {
        for byte in
            b"GET / HTTP/1.1\r\nx-a-header-that-never-ends: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(until_closed(&mut stream).await, "");
    };
    dripping.await;
}

#[tokio::test]
async fn a_connection_is_kept_while_it_is_used_and_closed_when_it_is_silent() {
    let house = House::open(limits()).await;
    let mut stream = house.connect().await;
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 200"));
        // Longer than a head may take, shorter than a silence.
        tokio::time::sleep(limits().head * 2).await;
    }
    let started = Instant::now();
    assert_eq!(until_closed(&mut stream).await, "");
    assert!(started.elapsed() < limits().idle * 4, "{:?}", started.elapsed());
    // A second head has the same time as the first.
    let mut stream = house.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 200"));
    stream.write_all(b"GET / HTT").await.unwrap();
    assert_eq!(until_closed(&mut stream).await, "");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let house = House::open(limits()).await;
    let mut stream = house.connect().await;
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n")
        .await
        .unwrap();
    let (mut reading, mut writing) = stream.split();
    let dripping = async {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut said = Vec::new();
    tokio::select! {
        () = dripping => {}
        _ = reading.read_to_end(&mut said) => {}
    }
    let said = String::from_utf8_lossy(&said);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
}

/// Found on a slow machine: the client put the connection back into its pool, and its next call met the end of it.
#[tokio::test]
async fn a_body_that_nobody_reads_costs_its_client_neither_the_answer_nor_the_next_call() {
    let house = House::open(limits()).await;
    let mut stream = house.connect().await;
    let head = format!(
        "POST /deaf HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        512 * 1024
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        stream.write_all(&[b'x'; 64 * 1024]).await.unwrap();
    }
    let said = read_some(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("deaf"), "{said}");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let said = read_some(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("home"), "{said}");
}

/// A body that was asked for is on its way, also when its handler gives up half-way (axum: above 2 MB).
#[tokio::test]
async fn who_was_told_to_go_on_is_heard_out() {
    let house = House::open(limits()).await;
    let mut stream = house.connect().await;
    let body = vec![b'x'; 5 * 512 * 1024];
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 100"));
    stream.write_all(&body).await.unwrap();
    let said = read_some(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let said = read_some(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("home"), "{said}");
}

#[tokio::test]
async fn who_is_not_listened_to_any_more_is_told_that_the_connection_ends() {
    let house = House::open(limits()).await;
    for (wish, length) in [("", 1_000), ("expect: 100-continue\r\n", 1_000), ("", 100_000_000)] {
        let mut stream = house.connect().await;
        let head = format!("POST /deaf HTTP/1.1\r\nhost: a\r\n{wish}content-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reading, mut writing) = stream.split();
        let sending = async {
            while length > 1_000_000 && writing.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        let mut said = vec![0; 4096];
        let len = tokio::select! {
            () = sending => unreachable!("it never ends"),
            read = reading.read(&mut said) => read.expect("an answer"),
        };
        let said = String::from_utf8_lossy(&said[..len]);
        assert!(
            said.starts_with("HTTP/1.1 200") && said.contains("\r\nconnection: close\r\n"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let house = House::open(limits()).await;
    let large = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx-large: {}\r\n\r\n",
        "x".repeat(40 * 1024)
    );
    assert!(house.say(large.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n");
    assert!(house.say(many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(70_000));
    let said = house.say(long.as_bytes()).await;
    assert!(
        said.starts_with("HTTP/1.1 414") || said.starts_with("HTTP/1.1 431"),
        "{said}"
    );
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so_and_seats_come_back() {
    let house = House::open(Limits {
        idle: Duration::from_secs(60),
        ..limits()
    })
    .await;
    let ask = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut seated = Vec::new();
    for _ in 0..limits().connections {
        let mut stream = house.connect().await;
        stream.write_all(ask).await.unwrap();
        assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 200"));
        seated.push(stream);
    }
    let said = house.say(ask).await;
    assert!(
        said.starts_with("HTTP/1.1 503") && said.contains("\r\nretry-after: 1\r\n") && said.contains("unavailable"),
        "{said}"
    );
    // Those inside are still served, and who leaves makes room.
    let mut first = seated.remove(0);
    first.write_all(ask).await.unwrap();
    assert!(read_some(&mut first).await.starts_with("HTTP/1.1 200"));
    drop(first);
    let mut tries = 0;
    while !house
        .say(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .starts_with("HTTP/1.1 200")
    {
        tries += 1;
        assert!(tries < 200, "the seat did not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_reads_nothing_is_dropped_and_what_it_was_sent_too() {
    let house = House::open(limits()).await;
    let mut lazy = house.connect().await;
    lazy.write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut busy = house.connect().await;
    busy.write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let reading = async {
        let mut buffer = vec![0; 64 * 1024];
        let mut taken = 0;
        while house.guests.watching.load(Ordering::SeqCst) != 1 || taken < 1_000_000 {
            taken += busy.read(&mut buffer).await.expect("who reads is not dropped");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .expect("only who reads is left");
    let _still_open = lazy;
}

#[tokio::test]
async fn bytes_that_may_be_read_in_two_ways_are_one_request_at_most() {
    let house = House::open(limits()).await;
    let inner = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let refused: &[(&str, String)] = &[
        (
            "two lengths",
            format!(
                "POST /deaf HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: {}\r\n\r\n{inner}",
                inner.len()
            ),
        ),
        (
            "a list of lengths",
            format!(
                "POST /deaf HTTP/1.1\r\nhost: a\r\ncontent-length: 0, {}\r\n\r\n{inner}",
                inner.len()
            ),
        ),
        (
            "a length with a sign",
            format!("POST /deaf HTTP/1.1\r\nhost: a\r\ncontent-length: +0\r\n\r\n{inner}"),
        ),
        (
            "a length in hexadecimal",
            format!("POST /deaf HTTP/1.1\r\nhost: a\r\ncontent-length: 0x0\r\n\r\n{inner}"),
        ),
        (
            "a coding that is not chunked last",
            format!("POST /deaf HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{inner}"),
        ),
        (
            "a coding nobody knows",
            format!("POST /deaf HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n{inner}"),
        ),
        (
            "chunked in HTTP/1.0",
            format!("POST /deaf HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
        ),
        (
            "a blank before the colon",
            format!(
                "POST /deaf HTTP/1.1\r\nhost: a\r\ncontent-length : {}\r\n\r\n{inner}",
                inner.len()
            ),
        ),
        (
            "a folded line",
            format!("POST /deaf HTTP/1.1\r\nhost: a\r\nx: b\r\n content-length: 3\r\n\r\n{inner}"),
        ),
        (
            "a carriage return in a value",
            format!("POST /deaf HTTP/1.1\r\nhost: a\r\nx: b\rcontent-length: 3\r\n\r\n{inner}"),
        ),
        (
            "a zero byte in a value",
            format!("POST /deaf HTTP/1.1\r\nhost: a\r\nx: b\0\r\n\r\n{inner}"),
        ),
    ];
    for (what, bytes) in refused {
        let said = house.say(bytes.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 400"), "{what}: {said}");
        assert_eq!(house.guests.smuggled.load(Ordering::SeqCst), 0, "{what}: {said}");
    }
    // Legal by the letter, each with its one meaning; then the connection ends.
    let chunked_and_length = [
        format!(
            "POST /deaf HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
            5 + inner.len()
        ),
        format!(
            "POST /deaf HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: {}\r\n\r\n0\r\n\r\n{inner}",
            5 + inner.len()
        ),
        format!(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n{inner}"
        ),
        format!("POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0;ext=\"a\"\r\n\r\n{inner}"),
    ];
    for bytes in &chunked_and_length {
        let said = house.say(bytes.as_bytes()).await;
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{bytes:?}: {said}");
        assert_eq!(house.guests.smuggled.load(Ordering::SeqCst), 0, "{bytes:?}: {said}");
    }
    for bad_chunk in [
        "zz\r\n",
        "-1\r\n",
        "fffffffffffffffff\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{bad_chunk}{inner}");
        let said = house.say(bytes.as_bytes()).await;
        assert!(!said.contains("200 OK"), "{bad_chunk:?}: {said}");
        assert_eq!(house.guests.smuggled.load(Ordering::SeqCst), 0, "{bad_chunk:?}: {said}");
    }
    // And what is plainly two requests is two.
    let said = house
        .say(format!("POST /deaf HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n{inner}").as_bytes())
        .await;
    assert_eq!(
        (
            said.matches("200 OK").count(),
            house.guests.smuggled.load(Ordering::SeqCst)
        ),
        (2, 1),
        "{said}"
    );
}

/// One HTTP/2 frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
/// GET http://a/, all of it from HPACK's static table but the authority.
const GET_HOME: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];

/// The server's frames, as far as they came: kind and payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while bytes.len() >= 9 {
        let len = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let Some(payload) = bytes.get(9..9 + len) else { break };
        found.push((bytes[3], payload.to_vec()));
        bytes = &bytes[9 + len..];
    }
    found
}

#[tokio::test]
async fn http2_says_its_limits_and_lets_go_of_who_is_silent() {
    let house = House::open(limits()).await;
    let mut stream = house.connect().await;
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 5, 1, GET_HOME)].concat();
    stream.write_all(&hello).await.unwrap();
    let mut said = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut said))
        .await
        .expect("a silent client is let go")
        .unwrap();
    let frames = frames(&said);
    let settings = frames
        .iter()
        .find(|(kind, _)| *kind == SETTINGS)
        .expect("settings come first");
    let setting = |id: u16| {
        let found = settings.1.chunks(6).find(|entry| entry[..2] == id.to_be_bytes());
        found.map(|entry| u32::from_be_bytes(entry[2..].try_into().unwrap()))
    };
    assert_eq!(
        (setting(3), setting(6)),
        (Some(256), Some(32 * 1024)),
        "streams, and bytes of a head"
    );
    assert!(
        frames.iter().any(|(kind, payload)| *kind == 0 && payload == b"home"),
        "{frames:?}"
    );
    assert!(frames.iter().any(|(kind, _)| *kind == 7), "GOAWAY: {frames:?}");
}

/// Frames without end.
type Flood = Box<dyn Iterator<Item = Vec<u8>> + Send>;

#[tokio::test]
async fn floods_of_http2_frames_end_the_connection() {
    let house = House::open(limits()).await;
    // Requests that are taken back at once (CVE-2023-44487).
    let resets = (0..50_000_u32).flat_map(|number| {
        let id = number * 2 + 1;
        [
            frame(HEADERS, 5, id, GET_HOME),
            frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()),
        ]
    });
    // A head that never ends (CVE-2024-27316).
    let endless = std::iter::once(frame(HEADERS, 1, 1, GET_HOME)).chain(
        std::iter::repeat_with(|| frame(CONTINUATION, 0, 1, &[0x40, 1, b'x', 1, b'y'].repeat(200))).take(50_000),
    );
    let floods: [(&str, Flood); 2] = [("resets", Box::new(resets)), ("continuations", Box::new(endless))];
    for (what, flood) in floods {
        let stream = house.connect().await;
        let (mut reading, mut writing) = stream.into_split();
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        writing.write_all(&hello).await.unwrap();
        let draining = task::spawn("drain", async move {
            let mut said = Vec::new();
            drop(reading.read_to_end(&mut said).await);
        });
        let mut sent = 0;
        let mut refused = false;
        for chunk in flood {
            if writing.write_all(&chunk).await.is_err() {
                refused = true;
                break;
            }
            sent += 1;
        }
        assert!(refused, "{what}: {sent} frames were taken");
        drop(draining);
    }
    let said = house
        .say(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    assert!(said.starts_with("HTTP/1.1 200"), "others are served: {said}");
}
