//! Bad input over HTTP: a 4xx problem with a code each, and nothing in the log.

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

/// What is no number of units: JSON texts.
const NO_QUANTITIES: [&str; 20] = [
    "0",
    "-1",
    "-0",
    "1.5",
    "1.0",
    "1e3",
    "1E0",
    "\"5\"",
    "2147483648",
    "1000001",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "-9223372036854775809",
    "1e400",
    "NaN",
    "Infinity",
    "null",
    "true",
    "[1]",
];

/// What is no SKU: JSON texts.
fn no_skus() -> Vec<String> {
    let long = "x".repeat(4_096);
    let texts = [
        "",
        "{}",
        "{mug}",
        "a:b",
        "a\r\nb",
        "a\n",
        "a\0b",
        "\0",
        " ",
        "a b",
        "a/b",
        "a%20b",
        "ä",
        "a\u{200b}",
        "..\\",
        "*",
        &long,
        &long[..65],
    ];
    let mut all: Vec<_> = texts.iter().map(|text| json!(text).to_string()).collect();
    all.extend(["null", "7", "[\"mug\"]", "{\"a\":1}"].map(str::to_owned));
    all
}

fn reserve_body(sku: &str, quantity: &str) -> String {
    format!(r#"{{"lines":[{{"sku":{sku},"quantity":{quantity}}}],"user_id":"ann"}}"#)
}

fn short_body(sku: &str, quantity: &str, key: &str) -> String {
    format!(r#"{{"sku":{sku},"qty":{quantity},"user_id":"ann","idempotency_key":{key}}}"#)
}

fn adjust_body(sku: &str, how: &str) -> String {
    format!(r#"{{"sku":{sku},{how},"reason":"test"}}"#)
}

/// Every call that takes a body, with a good one.
fn calls(hold: &str) -> Vec<(Method, String, String)> {
    let post = |path: String, body: &str| (Method::POST, path, body.to_owned());
    vec![
        post("/v1/holds".to_owned(), &reserve_body("\"mug\"", "1")),
        post(format!("/v1/holds/{hold}/confirm"), r#"{"payment_ref":"p"}"#),
        post(format!("/v1/holds/{hold}/cancel"), r#"{"reason":"r"}"#),
        post(format!("/v1/holds/{hold}/extend"), r#"{"ttl_seconds":60}"#),
        post(
            "/v1/stock/adjustments".to_owned(),
            &adjust_body("\"mug\"", "\"change\":1"),
        ),
        (
            Method::PUT,
            "/v1/skus/mug".to_owned(),
            r#"{"safety_stock":1}"#.to_owned(),
        ),
        post("/holds/reserve".to_owned(), &short_body("\"mug\"", "1", "\"k\"")),
        post(
            "/holds/confirm".to_owned(),
            &json!({"hold_id": hold, "payment_ref": "p"}).to_string(),
        ),
        post("/holds/cancel".to_owned(), &json!({"hold_id": hold}).to_string()),
    ]
}

fn quantities_and_skus() -> Vec<Bad> {
    let mut all = Vec::new();
    for quantity in NO_QUANTITIES {
        let what = format!("quantity {quantity}");
        all.push(Bad::post(&what, "/v1/holds", reserve_body("\"mug\"", quantity)));
        all.push(Bad::post(
            &what,
            "/holds/reserve",
            short_body("\"mug\"", quantity, "\"k\""),
        ));
    }
    for sku in no_skus() {
        let what = format!("SKU {}", sku.chars().take(40).collect::<String>());
        all.push(Bad::post(&what, "/v1/holds", reserve_body(&sku, "1")));
        all.push(Bad::post(&what, "/holds/reserve", short_body(&sku, "1", "\"k\"")));
        all.push(Bad::post(
            &what,
            "/v1/stock/adjustments",
            adjust_body(&sku, "\"change\":1"),
        ));
    }
    for sku in [
        "%7B%7D",
        "a%3Ab",
        "a%0D%0Ab",
        "a%00b",
        "%00",
        "a%2Fb",
        "%C3%A4",
        "%FF",
        "%20",
        &"x".repeat(65),
    ] {
        all.push(Bad::post("a SKU in the path", format!("/v1/skus/{sku}"), r#"{"safety_stock":1}"#).put());
        all.push(Bad::get(format!("/v1/stock/{sku}")));
        all.push(Bad::get(format!("/v1/stock?sku=mug&sku={sku}")));
    }
    all
}

fn fields(hold: &str) -> Vec<Bad> {
    let lines = vec![json!({"sku": "mug", "quantity": 1}); 51];
    let many = json!({"lines": lines, "user_id": "ann"}).to_string();
    let sum =
        json!({"lines": [{"sku": "mug", "quantity": 1_000_000}, {"sku": "mug", "quantity": 1}], "user_id": "ann"});
    let reserve = |more: &str| format!(r#"{{"lines":[{{"sku":"mug","quantity":1}}],"user_id":"ann",{more}}}"#);
    let post = |what: &str, body: &str| Bad::post(what, "/v1/holds", body);
    let mut all = vec![
        post("51 lines", &many),
        post("lines that add up to too many units", &sum.to_string()),
        post("no line", r#"{"lines":[],"user_id":"ann"}"#),
        post("lines that are none", r#"{"lines":{},"user_id":"ann"}"#),
        post("no lines at all", r#"{"user_id":"ann"}"#),
        post("no user", r#"{"lines":[{"sku":"mug","quantity":1}]}"#),
        post(
            "an empty user",
            r#"{"lines":[{"sku":"mug","quantity":1}],"user_id":""}"#,
        ),
        post(
            "a user with a line break",
            r#"{"lines":[{"sku":"mug","quantity":1}],"user_id":"a\nb"}"#,
        ),
        post("a long user", &reserve("\"x\":1").replace("ann", &"u".repeat(129))),
        post(
            "a number for a user",
            r#"{"lines":[{"sku":"mug","quantity":1}],"user_id":7}"#,
        ),
        post("a field twice", &reserve("\"user_id\":\"bob\"")),
        post(
            "a line without a quantity",
            r#"{"lines":[{"sku":"mug"}],"user_id":"ann"}"#,
        ),
        post(
            "a line with another field",
            r#"{"lines":[{"sku":"mug","quantity":1,"price":3}],"user_id":"ann"}"#,
        ),
        post("an unknown policy", &reserve("\"policy\":\"best_effort\"")),
        post(
            "a long reference",
            &reserve(&format!("\"external_ref\":\"{}\"", "r".repeat(256))),
        ),
    ];
    for ttl in ["0", "-1", "3601", "1.5", "\"60\"", "1e2", "9223372036854775807"] {
        all.push(post(
            &format!("a ttl of {ttl}"),
            &reserve(&format!("\"ttl_seconds\":{ttl}")),
        ));
        let body = format!("{{\"ttl_seconds\":{ttl}}}");
        all.push(Bad::post(
            format!("an extension by {ttl}"),
            format!("/v1/holds/{hold}/extend"),
            body,
        ));
    }
    for payment in [
        "\"\"",
        "7",
        "null",
        "\"a\\u0000b\"",
        &format!("\"{}\"", "p".repeat(256)),
    ] {
        let short = payment.chars().take(20).collect::<String>();
        let body = format!("{{\"payment_ref\":{payment}}}");
        all.push(Bad::post(
            format!("payment {short}"),
            format!("/v1/holds/{hold}/confirm"),
            body,
        ));
        let body = format!("{{\"hold_id\":\"{hold}\",\"payment_ref\":{payment}}}");
        all.push(Bad::post(format!("payment {short}"), "/holds/confirm", body));
    }
    let reason = json!({"reason": "r".repeat(256)}).to_string();
    all.push(Bad::post("a long reason", format!("/v1/holds/{hold}/cancel"), reason));
    all
}

fn stock() -> Vec<Bad> {
    let post = |how: &str| {
        Bad::post(
            format!("adjusting by {how}"),
            "/v1/stock/adjustments",
            adjust_body("\"mug\"", how),
        )
    };
    let mut all: Vec<Bad> = [
        "\"change\":0",
        "\"change\":1.5",
        "\"change\":1e3",
        "\"change\":\"5\"",
        "\"change\":9223372036854775808",
        "\"change\":1000000000001",
        "\"change\":1,\"set\":1",
        "\"change\":null",
        "\"set\":-1",
        "\"set\":1000000000001",
        "\"set\":NaN",
        "\"set\":1,\"expected\":-1",
        "\"set\":1,\"expected\":\"x\"",
        "\"set\":1,\"reference\":7",
        "\"unit\":1",
    ]
    .into_iter()
    .map(post)
    .collect();
    let adjusting = |what: &str, body: &str| Bad::post(what, "/v1/stock/adjustments", body);
    all.push(adjusting("no reason", r#"{"sku":"mug","change":1}"#));
    all.push(adjusting("an empty reason", r#"{"sku":"mug","change":1,"reason":""}"#));
    let actor = || adjusting("an actor", &adjust_body("\"mug\"", "\"change\":1"));
    all.extend([&b""[..], b"\xc3\xa4", &[b'a'; 256]].map(|name| actor().with("x-actor", name)));
    for policy in [
        r#"{"safety_stock":-1}"#,
        r#"{"safety_stock":1.5}"#,
        r#"{"safety_stock":1000000000001}"#,
        r#"{"max_per_user":0}"#,
        r#"{"max_per_user":"2"}"#,
        r#"{"max":1}"#,
    ] {
        all.push(Bad::post(format!("policy {policy}"), "/v1/skus/mug", policy).put());
    }
    all
}

fn keys(hold: &str) -> Vec<Bad> {
    let mut all = Vec::new();
    let long = [b'k'; 256];
    for key in [&b""[..], &long, b"a b", b"a\tb", b"\xc3\xa4", b"\xff"] {
        let what = format!("a key of {} bytes: {:.10}", key.len(), String::from_utf8_lossy(key));
        for (method, path, body) in calls(hold) {
            // The others are named by their hold or by a field of their body.
            if path == "/v1/holds" || path.ends_with("/extend") || path.starts_with("/v1/s") {
                let mut bad = Bad::post(&what, path, body).with("idempotency-key", key);
                bad.method = method;
                all.push(bad);
            }
        }
        let text = json!(String::from_utf8_lossy(key)).to_string();
        all.push(Bad::post(&what, "/holds/reserve", short_body("\"mug\"", "1", &text)));
    }
    let twice = Bad::post("two keys", "/v1/holds", reserve_body("\"mug\"", "1"));
    all.push(twice.with("idempotency-key", "a").with("idempotency-key", "b"));
    for id in [
        "x",
        "7",
        "00000000-0000-4000-8000-000000000000",
        "{}",
        "00020000000080008000000000000000",
    ] {
        let path = id.replace('{', "%7B").replace('}', "%7D");
        all.push(Bad::post(
            "no hold id",
            format!("/v1/holds/{path}/confirm"),
            r#"{"payment_ref":"p"}"#,
        ));
        all.push(Bad::post("no hold id", format!("/v1/holds/{path}/cancel"), ""));
        all.push(Bad::post(
            "no hold id",
            format!("/v1/holds/{path}/extend"),
            r#"{"ttl_seconds":1}"#,
        ));
        all.push(Bad::get(format!("/v1/holds/{path}")));
        all.push(Bad::post(
            "no hold id",
            "/holds/confirm",
            json!({"hold_id": id, "payment_ref": "p"}).to_string(),
        ));
        all.push(Bad::post(
            "no hold id",
            "/holds/cancel",
            json!({"hold_id": id}).to_string(),
        ));
    }
    // A hold of a lane that does not exist.
    let nowhere = "fffa2774-9426-80a8-b1c5-ca7e69a1d0a8";
    let confirm = Bad::post(
        "no such lane",
        format!("/v1/holds/{nowhere}/confirm"),
        r#"{"payment_ref":"p"}"#,
    );
    all.push(confirm.told(404, "hold_not_found"));
    all.push(Bad::get(format!("/v1/holds/{nowhere}")).told(404, "hold_not_found"));
    all
}

/// What is wrong with any body, for every call that takes one.
fn bodies(hold: &str) -> Vec<Bad> {
    let mut all = Vec::new();
    for (method, path, good) in calls(hold) {
        let bad = |what: &str, body: Vec<u8>| {
            let mut bad = Bad::post(format!("{what} to {path}"), path.clone(), body);
            bad.method = method.clone();
            bad
        };
        let unknown = good.replacen('{', "{\"surprise\":1,", 1).into_bytes();
        let mut not_utf8 = good.clone().into_bytes();
        not_utf8.splice(2..2, [0xff, 0xfe]);
        let mut text_not_utf8 = good.clone().into_bytes();
        let quote = text_not_utf8.iter().position(|byte| *byte == b'"').expect("a name");
        text_not_utf8.insert(quote + 1, 0xc3);
        let mut large = good.clone().into_bytes();
        large.resize(64 * 1024 + 1, b' ');
        all.push(bad("an unknown field", unknown));
        all.push(bad("invalid UTF-8", not_utf8));
        all.push(bad("invalid UTF-8 in a text", text_not_utf8));
        all.push(bad("deep arrays", vec![b'['; 60_000]));
        all.push(bad("deep objects", "{\"lines\":".repeat(7_000).into_bytes()));
        all.push(bad("half a body", good.as_bytes()[..good.len() - 1].to_vec()));
        all.push(bad("two bodies", format!("{good}{good}").into_bytes()));
        all.push(bad("an array", b"[]".to_vec()));
        all.push(bad("null", b"null".to_vec()));
        all.push(bad("64 KiB + 1", large).told(413, "payload_too_large"));
        if !path.ends_with("/cancel") || path == "/holds/cancel" {
            all.push(bad("no body", Vec::new()));
        }
        if !path.ends_with("/cancel") && method == Method::POST || path == "/holds/cancel" {
            all.push(bad("no field", b"{}".to_vec()));
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application", ""] {
            let wrong = bad("another content type", good.clone().into_bytes()).with("content-type", kind);
            all.push(wrong.told(415, "unsupported_media_type"));
        }
        let mut method = bad("a wrong method", good.into_bytes()).told(405, "method_not_allowed");
        method.method = Method::DELETE;
        all.push(method);
    }
    all
}

fn paths() -> Vec<Bad> {
    let mut all: Vec<_> = [
        "/",
        "/v1",
        "/v1/hold",
        "/v2/holds",
        "/v1/holds/",
        "/v1/holds/x/pay",
        "/%00",
        "/../etc/passwd",
    ]
    .into_iter()
    .flat_map(|path| [Bad::get(path), Bad::post("an unknown path", path, "{}")])
    .map(|bad| bad.told(404, "not_found"))
    .collect();
    all.extend(
        [
            "/v1/holds?limit=0",
            "/v1/holds?limit=1e2",
            "/v1/holds?state=lost",
            "/v1/holds?sku=%7B%7D",
            "/v1/holds?user_id=",
            "/v1/holds?cursor=x",
            "/v1/holds?user=ann",
            "/v1/holds?limit=1&limit=2",
            "/v1/stock?limit=-1",
            "/v1/stock?cursor=%00",
            "/v1/stock/mug?command=x",
            "/v1/stock/mug?command=-1",
        ]
        .map(Bad::get),
    );
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_a_problem_with_a_code_and_leaves_nothing_in_the_log() {
    let world = Setup::new().start().await;
    let wire = Wire::of(&world).await;
    world.stock("mug", 1_000_000).await;
    let hold = world.reserve("input", "mug", 1, "ann").await.hold_id();
    let before = wire.ends(&wire.topics.commands).await;

    let parts = [
        quantities_and_skus(),
        fields(&hold),
        stock(),
        keys(&hold),
        bodies(&hold),
        paths(),
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
    let mut largest = reserve_body("\"mug\"", "1000000").replace("1000000", "10").into_bytes();
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
    let body = reserve_body("\"mug\"", "1");
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
