//! Bad input over HTTP: a 4xx problem with a code each, and nothing in the log.

mod requests;
mod values;

use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    wire::Wire,
    world::{Answer, Setup, World},
};

/// One bad request and what it must be told.
struct Bad {
    what: String,
    method: Method,
    path: String,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
}

impl Bad {
    /// A JSON body that is refused as such.
    fn post(what: impl Into<String>, path: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self {
            what: what.into(),
            method: Method::POST,
            path: path.into(),
            headers: vec![("content-type", b"application/json".to_vec())],
            body: body.into(),
            status: 400,
            code: "invalid_request",
        }
    }

    fn get(path: impl Into<String>) -> Self {
        let mut bad = Self::post("a bad path or query", path, "");
        bad.method = Method::GET;
        bad.headers.clear();
        bad
    }

    fn put(mut self) -> Self {
        self.method = Method::PUT;
        self
    }

    fn with(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.headers
            .retain(|(found, _)| *found != name || name == "idempotency-key");
        self.headers.push((name, value.into()));
        self
    }

    fn told(mut self, status: u16, code: &'static str) -> Self {
        (self.status, self.code) = (status, code);
        self
    }

    async fn send(&self, world: &World) -> Answer {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let value = HeaderValue::from_bytes(value).expect("bytes that HTTP can carry");
            headers.append(HeaderName::from_static(name), value);
        }
        let request = world
            .client
            .request(self.method.clone(), format!("{}{}", world.url, self.path))
            .headers(headers)
            .body(self.body.clone());
        world.request(request).await
    }
}
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_a_problem_with_a_code_and_leaves_nothing_in_the_log() {
    let world = Setup::new().start().await;
    let wire = Wire::of(&world).await;
    world.stock("mug", 1_000_000).await;
    let hold = world.reserve("input", "mug", 1, "ann").await.hold_id();
    let before = wire.ends(&wire.topics.commands).await;

    let parts = [
        values::quantities_and_skus(),
        values::fields(&hold),
        values::stock(),
        requests::keys(&hold),
        requests::bodies(&hold),
        requests::as_arrays(&hold),
        requests::paths(),
    ];
    let all: Vec<Bad> = parts.into_iter().flatten().collect();
    assert!(all.len() > 400, "{}", all.len());
    let mut wrong = Vec::new();
    for bad in &all {
        let answer = bad.send(&world).await;
        let told = (answer.status, answer.code());
        let is_problem = answer.header("content-type") == Some("application/problem+json")
            && answer.body["status"] == bad.status
            && ["type", "title", "detail"]
                .iter()
                .all(|name| answer.body[name].is_string());
        if told != (bad.status, bad.code) || !is_problem {
            let what = format!("{} ({} {:.60})", bad.what, bad.method, bad.path);
            wrong.push(format!("{what}: want {} {}, got {answer:?}", bad.status, bad.code));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        all.len(),
        wrong.join("\n")
    );
    assert_eq!(
        wire.ends(&wire.topics.commands).await,
        before,
        "nothing was asked of the log"
    );

    // What is just legal is not refused, and is in the log: the watermarks would have told.
    let mut largest = values::reserve_body("\"mug\"", "1000000")
        .replace("1000000", "10")
        .into_bytes();
    largest.resize(64 * 1024, b' ');
    let mut good = Bad::post("64 KiB", "/v1/holds", largest).with("idempotency-key", [b'k'; 255]);
    good = good.with("content-type", "application/vnd.shop+json; charset=utf-8");
    assert_eq!(good.send(&world).await.status, 201);
    let lines: Vec<_> = world.skus_in(wire.lane_of("mug"), "line", 50);
    for sku in &lines {
        world.stock(sku, 1).await;
    }
    let lines: Vec<_> = lines.iter().map(|sku| json!({"sku": sku, "quantity": 1})).collect();
    let cart = world
        .post(
            "/v1/holds",
            &json!({"lines": lines, "user_id": "u".repeat(128), "ttl_seconds": 3_600}),
        )
        .await;
    assert_eq!(cart.status, 201, "{cart:?}");
    let (lane, after) = (
        usize::from(wire.lane_of("mug").number()),
        wire.ends(&wire.topics.commands).await,
    );
    assert_eq!(after[lane], before[lane] + 52);
    world.assert_verified().await;
}

/// What no well-behaved client library sends, byte by byte.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_break_http_itself_leave_nothing_in_the_log() {
    let world = Setup::new().start().await;
    let wire = Wire::of(&world).await;
    world.stock("mug", 1_000).await;
    let before = wire.ends(&wire.topics.commands).await;
    let body = values::reserve_body("\"mug\"", "1");
    let head = "POST /v1/holds HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let padded = format!("{body}{}", " ".repeat(64 * 1024));
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{padded}\r\n0\r\n\r\n",
        padded.len()
    );
    let split = format!(
        "{head}Idempotency-Key: a\r\n b\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let both = format!(
        "{head}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let nul = format!(
        "{head}Idempotency-Key: a\0b\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let short = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len() + 1);
    for (what, request, wanted) in [
        ("a chunked body above the limit", &chunked, &["413"][..]),
        ("a folded header", &split, &["400"]),
        ("NUL in a header", &nul, &["400"]),
        ("a body that never ends", &short, &["408"]),
        ("no HTTP", &"hello\r\n\r\n".to_owned(), &["400"]),
    ] {
        let answer = talk(&world, request).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(wanted.contains(&status), "{what}: {answer}");
    }
    assert_eq!(
        wire.ends(&wire.topics.commands).await,
        before,
        "nothing was asked of the log"
    );
    // Two lengths: refused, or one request by the chunks (RFC 9112, 6.3); never two.
    let answer = talk(&world, &both).await;
    let asked = i64::from(answer.starts_with("HTTP/1.1 201"));
    let (lane, after) = (
        usize::from(wire.lane_of("mug").number()),
        wire.ends(&wire.topics.commands).await,
    );
    assert_eq!(after[lane], before[lane] + asked, "{answer}");
}

async fn talk(world: &World, request: &str) -> String {
    let address = world.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("the ingress listens");
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    // A reset is an answer too.
    let _reset = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}
