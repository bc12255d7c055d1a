//! Live stock: snapshots, changes, resuming, conflation, who may watch, and the end of it.

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, Message, client::IntoClientRequest, protocol::frame::coding::CloseCode},
};

use crate::{
    reserver::{Asked, Reserver},
    world::{Api, Said, World, options, sku_in, wait_for},
};

const SOON: Duration = Duration::from_secs(10);
/// Longer than the pace of updates, for what must not come.
const QUIET: Duration = Duration::from_millis(400);

/// A SKU whose stock the test decides.
struct Shelf {
    sku: String,
    asked: Asked,
    version: i64,
}

impl Shelf {
    /// With ten units, three of them held and two allocated.
    async fn new(api: &Api, reserver: &mut Reserver, lane: i32) -> Self {
        let sku = sku_in(lane).to_string();
        let request = api.post(
            "/v1/stock/adjustments",
            &json!({"sku": sku, "change": 10, "reason": "r"}),
        );
        Said::read(request.header("Prefer", "respond-async").send().await.unwrap()).await;
        let asked = reserver.next().await;
        let event = reserver.stocked(&asked, 10, 1);
        reserver.decide(&asked, event).await;
        let shelf = Self { sku, asked, version: 1 };
        shelf.is_known(api).await;
        shelf
    }

    /// One more version, with so many units.
    async fn set(&mut self, reserver: &mut Reserver, on_hand: i64) {
        self.version += 1;
        self.asked.offset += 1;
        let event = reserver.stocked(&self.asked, on_hand, self.version);
        reserver.decide(&self.asked, event).await;
    }

    async fn is_known(&self, api: &Api) {
        let path = format!("/v1/stock/{}", self.sku);
        wait_for("the tail", async || {
            api.get(&path).await.body["version"] == self.version
        })
        .await;
    }

    fn stock(&self, on_hand: i64) -> Value {
        json!({"sku": self.sku, "on_hand": on_hand, "held": 3, "allocated": 2, "available": on_hand - 5,
               "version": self.version, "safety_stock": 0})
    }
}

/// Server-sent events as a browser reads them.
struct Events {
    response: Response,
    text: String,
}

impl Events {
    async fn open(api: &Api, sku: &str, has: Option<i64>) -> Self {
        let mut request = api.call(Method::GET, &format!("/v1/stock/{sku}/live"));
        if let Some(version) = has {
            request = request.header("Last-Event-ID", version);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            text: String::new(),
        }
    }

    /// The next event's id and data; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(i64, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = event.lines();
                    lines.find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
                };
                let found = (field("event:"), field("id:"), field("data:"));
                self.text = rest.to_owned();
                if let (Some(name), Some(id), Some(data)) = found {
                    assert_eq!(name, "stock");
                    return Some((id.parse().unwrap(), serde_json::from_str(&data).unwrap()));
                }
                continue;
            }
            let chunk = tokio::time::timeout(SOON, self.response.chunk()).await;
            let chunk = chunk.expect("an event comes").expect("the stream is whole")?;
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    async fn is_quiet(&mut self) {
        assert!(tokio::time::timeout(QUIET, self.next()).await.is_err());
    }
}

/// A WebSocket that watches.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(api: &Api) -> Self {
        Self::open_from(api, None).await.unwrap()
    }

    async fn open_from(api: &Api, origin: Option<&str>) -> Result<Self, u16> {
        let mut request = format!("ws://{}/v1/live", api.addr).into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn say(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).await.unwrap();
    }

    async fn message(&mut self) -> Message {
        let message = tokio::time::timeout(SOON, self.0.next()).await;
        message.expect("a message comes").unwrap().unwrap()
    }

    async fn hear(&mut self) -> Value {
        match self.message().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn hears_problem(&mut self, code: &str, detail: &str) {
        let heard = self.hear().await;
        assert_eq!(heard["problem"]["code"], code, "{heard}");
        assert!(heard["problem"]["detail"].as_str().unwrap().contains(detail), "{heard}");
    }

    async fn is_quiet(&mut self) {
        let heard = tokio::time::timeout(QUIET, self.0.next()).await;
        assert!(heard.is_err(), "{heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_what_is_there_then_changes_and_resumes_where_it_was() {
    let (world, api, mut reserver) = World::with_all().await;
    let mut shelf = Shelf::new(&api, &mut reserver, 0).await;
    let mut events = Events::open(&api, &shelf.sku, None).await;
    assert_eq!(events.next().await, Some((1, shelf.stock(10))));
    for on_hand in [9, 8] {
        shelf.set(&mut reserver, on_hand).await;
        assert_eq!(events.next().await, Some((shelf.version, shelf.stock(on_hand))));
    }
    drop(events);

    // Away for two changes: what is missed is told at once, as one event.
    shelf.set(&mut reserver, 7).await;
    shelf.set(&mut reserver, 6).await;
    shelf.is_known(&api).await;
    let mut resumed = Events::open(&api, &shelf.sku, Some(3)).await;
    assert_eq!(resumed.next().await, Some((5, shelf.stock(6))));
    drop(resumed);

    // Away for nothing: nothing is told again.
    let mut resumed = Events::open(&api, &shelf.sku, Some(5)).await;
    resumed.is_quiet().await;
    shelf.set(&mut reserver, 5).await;
    assert_eq!(resumed.next().await, Some((6, shelf.stock(5))));
    drop(resumed);
    // A version that this log never had: of another life of the SKU.
    let mut other = Events::open(&api, &shelf.sku, Some(77)).await;
    assert_eq!(other.next().await, Some((6, shelf.stock(5))));
    drop(other);

    // A version that another ingress has told already, and that this one reads a moment later: nothing older is told.
    let sku = shelf.sku.clone();
    let (mut ahead, ()) = tokio::join!(Events::open(&api, &sku, Some(7)), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        shelf.set(&mut reserver, 7).await;
    });
    shelf.set(&mut reserver, 6).await;
    assert_eq!(ahead.next().await, Some((8, shelf.stock(6))));
    drop(ahead);

    let path = format!("/v1/stock/{}/live", shelf.sku);
    api.get("/v1/stock/nothing/live").await.is_problem(404, "unknown_sku");
    api.get("/v1/stock/a%20b/live").await.is_problem(400, "invalid_request");
    api.get(&format!("{path}?from=1"))
        .await
        .is_problem(400, "invalid_request");
    for bad in ["x", "-1", "1.5"] {
        let request = api.call(Method::GET, &path).header("Last-Event-ID", bad);
        Said::read(request.send().await.unwrap())
            .await
            .is_problem(400, "invalid_request");
    }
    let request = api.call(Method::GET, &path).header("Origin", "https://evil.example");
    Said::read(request.send().await.unwrap())
        .await
        .is_problem(403, "forbidden");
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_gets_its_rooms_and_no_others() {
    let (world, api, mut reserver) = World::with_all().await;
    let mut a = Shelf::new(&api, &mut reserver, 0).await;
    let mut b = Shelf::new(&api, &mut reserver, 1).await;
    let mut socket = Socket::open(&api).await;
    let both = json!({"subscribe": [a.sku, b.sku, a.sku]});
    socket.say(both.to_string()).await;
    let mut snapshots = [socket.hear().await, socket.hear().await];
    snapshots.sort_by_key(|snapshot| snapshot["stock"]["sku"] != a.sku.as_str());
    assert_eq!(
        snapshots,
        [json!({"stock": a.stock(10)}), json!({"stock": b.stock(10)})]
    );
    let mut watching = [a.sku.clone(), b.sku.clone()];
    watching.sort();
    assert_eq!(socket.hear().await, json!({"watching": watching}));
    // Again: nothing is told twice.
    socket.say(both.to_string()).await;
    assert_eq!(socket.hear().await, json!({"watching": watching}));

    let mut other = Socket::open(&api).await;
    other.say(json!({"subscribe": [b.sku]}).to_string()).await;
    assert_eq!(other.hear().await, json!({"stock": b.stock(10)}));
    assert_eq!(other.hear().await, json!({"watching": [b.sku]}));
    a.set(&mut reserver, 7).await;
    assert_eq!(socket.hear().await, json!({"stock": a.stock(7)}));
    other.is_quiet().await;

    socket.say(json!({"unsubscribe": [a.sku]}).to_string()).await;
    assert_eq!(socket.hear().await, json!({"watching": [b.sku]}));
    a.set(&mut reserver, 6).await;
    b.set(&mut reserver, 9).await;
    assert_eq!(socket.hear().await, json!({"stock": b.stock(9)}));
    assert_eq!(other.hear().await, json!({"stock": b.stock(9)}));
    socket.is_quiet().await;
    // Back in the room, what was missed is the snapshot.
    a.is_known(&api).await;
    socket
        .say(json!({"subscribe": [a.sku], "unsubscribe": [b.sku]}).to_string())
        .await;
    assert_eq!(socket.hear().await, json!({"stock": a.stock(6)}));
    assert_eq!(socket.hear().await, json!({"watching": [a.sku]}));
    b.set(&mut reserver, 8).await;
    a.set(&mut reserver, 5).await;
    assert_eq!(socket.hear().await, json!({"stock": a.stock(5)}));
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_says_what_is_wrong_and_goes_on() {
    let (world, api, mut reserver) = World::with_all().await;
    let shelf = Shelf::new(&api, &mut reserver, 2).await;
    let mut socket = Socket::open(&api).await;
    for (text, detail) in [
        ("hello", "expected value"),
        ("{}", "say what to"),
        ("[]", "expected an object"),
        (r#"{"subscribe":["a b"]}"#, "sku"),
        (r#"{"subscribe":[""]}"#, "sku"),
        (r#"{"join":["a"]}"#, "unknown field"),
    ] {
        socket.say(text).await;
        socket.hears_problem("invalid_request", detail).await;
    }
    socket.0.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    socket.hears_problem("invalid_request", "text").await;
    socket.say(r#"{"subscribe":["nothing"]}"#).await;
    socket.hears_problem("unknown_sku", "nothing").await;
    assert_eq!(socket.hear().await, json!({"watching": []}));
    let many: Vec<String> = (0..101).map(|number| format!("many-{number}")).collect();
    socket.say(json!({"subscribe": many}).to_string()).await;
    socket.hears_problem("invalid_request", "at most 100").await;
    socket.say(json!({"subscribe": [shelf.sku]}).to_string()).await;
    assert_eq!(socket.hear().await, json!({"stock": shelf.stock(10)}));
    assert_eq!(socket.hear().await, json!({"watching": [shelf.sku]}));

    // More than a message may be: the connection ends, nobody else is harmed.
    let mut greedy = Socket::open(&api).await;
    greedy
        .say(format!("{{\"subscribe\":[\"{}\"]}}", "x".repeat(20_000)))
        .await;
    let ended = tokio::time::timeout(SOON, greedy.0.next()).await.expect("it ends");
    assert!(
        matches!(ended, None | Some(Err(_) | Ok(Message::Close(_)))),
        "{ended:?}"
    );

    api.get("/v1/live").await.is_problem(400, "invalid_request");
    assert_eq!(
        Socket::open_from(&api, Some("https://evil.example")).await.err(),
        Some(403)
    );
    assert_eq!(Socket::open_from(&api, Some("null")).await.err(), Some(403));
    let own = format!("http://{}", api.addr);
    assert!(Socket::open_from(&api, Some(&own)).await.is_ok());
    world.end(api, reserver).await;
}

/// Thousands of changes: few updates, and the last one is the last state, also for a viewer that looked away.
#[tokio::test(flavor = "multi_thread")]
async fn viewers_get_at_most_ten_updates_a_second_and_always_the_last_state() {
    const CHANGES: i64 = 3_000;
    let (world, api, mut reserver) = World::with_all().await;
    let mut shelf = Shelf::new(&api, &mut reserver, 0).await;
    let mut events = Events::open(&api, &shelf.sku, None).await;
    let mut away = Socket::open(&api).await;
    away.say(json!({"subscribe": [shelf.sku]}).to_string()).await;
    assert_eq!(away.hear().await, json!({"stock": shelf.stock(10)}));
    assert_eq!(away.hear().await, json!({"watching": [shelf.sku]}));
    assert_eq!(events.next().await, Some((1, shelf.stock(10))));

    let begun = Instant::now();
    let last = 1 + CHANGES;
    let reading = async {
        let mut updates = Vec::new();
        loop {
            let (version, stock) = events.next().await.unwrap();
            updates.push(version);
            if version == last {
                return (updates, stock, begun.elapsed());
            }
        }
    };
    let writing = async {
        for change in 0..CHANGES {
            shelf.set(&mut reserver, 10 + change).await;
        }
    };
    let ((updates, stock, took), ()) = tokio::join!(reading, writing);
    assert_eq!(stock, shelf.stock(9 + CHANGES));
    assert!(updates.is_sorted_by(|a, b| a < b), "{updates:?}");
    let most = took.as_millis() / 100 + 1;
    assert!(updates.len() as u128 <= most, "{} in {took:?}", updates.len());
    assert!(
        updates.len() < 2_000,
        "{} updates of {CHANGES}: nothing was conflated",
        updates.len()
    );

    let mut heard = 0;
    loop {
        heard += 1;
        if away.hear().await["stock"]["version"] == last {
            break;
        }
    }
    assert!(heard <= most, "{heard} in {took:?}");
    world.end(api, reserver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_so_many_seats_and_who_leaves_makes_room() {
    let mut options = options();
    options.live_viewers_max = 2;
    options.live_origins = vec!["https://shop.example".parse().unwrap()];
    let (world, api, mut reserver) = World::with_options(options).await;
    let shelf = Shelf::new(&api, &mut reserver, 3).await;
    let socket = Socket::open_from(&api, Some("https://shop.example")).await.unwrap();
    let request = api.call(Method::GET, &format!("/v1/stock/{}/live", shelf.sku));
    let stream = request.header("Origin", "https://shop.example").send().await.unwrap();
    assert_eq!(stream.headers()["access-control-allow-origin"], "https://shop.example");
    api.get(&format!("/v1/stock/{}/live", shelf.sku))
        .await
        .is_problem(429, "too_many_requests");
    assert_eq!(Socket::open_from(&api, None).await.err(), Some(429));
    drop((socket, stream));
    wait_for("the seats", async || Socket::open_from(&api, None).await.is_ok()).await;
    world.end(api, reserver).await;
}

/// At the stop a stream ends as a whole answer and a socket is told; neither is cut off after the drain.
#[tokio::test(flavor = "multi_thread")]
async fn viewers_leave_at_the_stop() {
    let (world, api, mut reserver) = World::with_all().await;
    let shelf = Shelf::new(&api, &mut reserver, 0).await;
    let mut events = Events::open(&api, &shelf.sku, None).await;
    events.next().await.unwrap();
    let mut socket = Socket::open(&api).await;
    socket.say(json!({"subscribe": [shelf.sku]}).to_string()).await;
    socket.hear().await;
    socket.hear().await;
    api.stopper().stop();
    assert_eq!(events.next().await, None);
    match socket.message().await {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Away),
        other => panic!("{other:?}"),
    }
    world.end(api, reserver).await;
}
