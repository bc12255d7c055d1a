//! Many SKUs over one WebSocket (RFC 6455).
//!
//! The client says `{"subscribe":["a","b"]}` and `{"unsubscribe":["a"]}`; it is told `{"stock":{...}}` for a snapshot and
//! for every change, `{"watching":[...]}` when a request is done, and `{"problem":{...}}` where it is wrong.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    extract::{
        State,
        ws::{
            CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code,
            rejection::WebSocketUpgradeRejection,
        },
    },
    http::request::Parts,
};
use domain::Sku;
use futures::{
    StreamExt,
    future::{AbortHandle, Abortable, BoxFuture, FutureExt},
    stream::FuturesUnordered,
};
use plumbing::http::json;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    origin,
    rooms::{Seat, Update},
    viewers::Viewer,
};
use crate::{
    app::{App, unknown_sku},
    openapi::ReadProblems,
    problem::{Answer, Problem, ProblemBody},
    request::Params,
    stock,
};

/// SKUs that one connection watches, at most.
const ROOMS_MAX: usize = 100;
/// Largest message of a client, in bytes: a hundred SKUs of the greatest length, twice.
const MESSAGE_MAX: usize = 16 * 1024;
/// What is read at once, in bytes.
const READ_BUFFER: usize = 2 * 1024;
/// How often a client is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// After so long without a word, not even a pong, it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// So long may one message wait for a client that takes none.
const SEND_MAX: Duration = Duration::from_secs(10);
/// So long may the last words take.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Watch up to a hundred SKUs over one WebSocket
///
/// Send `{"subscribe":["a","b"]}` or `{"unsubscribe":["a"]}` as text. You get `{"stock":{...}}`, a Stock object, for what is there when
/// you subscribe and for every change after it, at most ten a second for each SKU and always the last; `{"watching":["b"]}` when a request is
/// done; and `{"problem":{...}}` where it cannot be done. A newer object of a SKU has a greater version. Close 1001: the server stops, come back.
#[utoipa::path(
    get, path = "/v1/live", tag = "live stock", operation_id = "watch",
    responses((status = 101, description = "The WebSocket"),
        (status = 403, description = "`forbidden`: not for pages of this origin", content_type = "application/problem+json", body = ProblemBody),
        ReadProblems),
)]
pub async fn watch(
    State(app): State<Arc<App>>,
    params: Params,
    parts: Parts,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    params.only(&[])?;
    let upgrade = upgrade.map_err(|refused| {
        Problem::invalid(format!("this path is a WebSocket, not a page: {}", refused.body_text()))
    })?;
    origin::check(&parts, &app.options.live_origins)?;
    app.live()?;
    let viewer = app.viewers.admit("websocket")?;
    Ok(upgrade
        .max_message_size(MESSAGE_MAX)
        .max_frame_size(MESSAGE_MAX)
        // Most viewers say little: the default of 128 KiB each would be most of what they cost.
        .read_buffer_size(READ_BUFFER)
        // What is written is one message at a time; a client that takes none holds up this one only.
        .max_write_buffer_size(2 * MESSAGE_MAX)
        .write_buffer_size(0)
        .on_upgrade(|socket| serve(app, viewer, socket)))
}

/// What a client may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ask {
    subscribe: Vec<String>,
    unsubscribe: Vec<String>,
}

#[derive(Serialize)]
struct Watching<'a> {
    watching: Vec<&'a str>,
}

/// Why a connection ends.
enum End {
    /// The client left.
    Left,
    /// It takes nothing, or says nothing.
    Dropped,
    /// The server stops.
    Stopped,
}

type News = Abortable<BoxFuture<'static, (Seat, Update)>>;

struct Connection {
    app: Arc<App>,
    viewer: Viewer,
    socket: WebSocket,
    /// Each room's next update. A handle ends the wait, and with it the seat.
    news: FuturesUnordered<News>,
    rooms: HashMap<Sku, AbortHandle>,
    heard: Instant,
}

async fn serve(app: Arc<App>, viewer: Viewer, socket: WebSocket) {
    let mut connection = Connection {
        app,
        viewer,
        socket,
        news: FuturesUnordered::new(),
        rooms: HashMap::new(),
        heard: Instant::now(),
    };
    let Err(end) = connection.talk().await else { return };
    let goodbye = match end {
        End::Left => return,
        End::Dropped => return connection.viewer.dropped(),
        End::Stopped => Message::Close(Some(CloseFrame {
            code: close_code::AWAY,
            reason: Utf8Bytes::from_static("the server stops"),
        })),
    };
    // The client may be gone already.
    drop(tokio::time::timeout(GOODBYE_MAX, connection.socket.send(goodbye)).await);
}

impl Connection {
    async fn talk(&mut self) -> Result<(), End> {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        let stop = self.app.stop.clone();
        loop {
            // In this order: what a client left is let go before its next message is heard, or one that comes and goes in a loop
            // would be remembered without bound. Rooms tell ten times a second at most, so it is always heard.
            tokio::select! {
                biased;
                () = stop.requested() => return Err(End::Stopped),
                Some(news) = self.news.next() => {
                    // An aborted wait was that of a room that the client has left.
                    if let Ok((seat, update)) = news {
                        self.tell(&update).await?;
                        self.await_news(seat);
                    }
                }
                _ = heartbeat.tick() => {
                    if self.heard.elapsed() > SILENCE_MAX {
                        return Err(End::Dropped);
                    }
                    self.send(Message::Ping(Default::default())).await?;
                }
                message = self.socket.recv() => self.hear(message).await?,
            }
        }
    }

    async fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        // A client that breaks the protocol, or sends what is too large, is cut off by it.
        let Some(Ok(message)) = message else {
            return Err(End::Left);
        };
        self.heard = Instant::now();
        let answer = match message {
            Message::Text(text) => self.answer(text.as_bytes()).await?,
            Message::Binary(_) => Err(Problem::invalid("send text, not binary messages")),
            Message::Close(_) => return Err(End::Left),
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
        };
        match answer {
            Ok(()) => self.tell_rooms().await,
            Err(problem) => self.tell_problem(&problem).await,
        }
    }

    /// Does what the client asks, all of it or nothing.
    async fn answer(&mut self, text: &[u8]) -> Result<Result<(), Problem>, End> {
        let (leave, join) = match self.parse(text) {
            Ok(asked) => asked,
            Err(problem) => return Ok(Err(problem)),
        };
        for sku in leave {
            if let Some(waiting) = self.rooms.remove(&sku) {
                waiting.abort();
            }
        }
        self.join(join).await
    }

    /// The rooms to leave and those to join.
    fn parse(&self, text: &[u8]) -> Result<(Vec<Sku>, Vec<Sku>), Problem> {
        let asked: Ask = json::parse(text)?;
        if asked.subscribe.is_empty() && asked.unsubscribe.is_empty() {
            return Err(Problem::invalid("say what to `subscribe` or to `unsubscribe`"));
        }
        let skus = |texts: Vec<String>| texts.iter().map(|text| Sku::parse(text)).collect::<Result<Vec<_>, _>>();
        let (leave, mut join) = (skus(asked.unsubscribe)?, skus(asked.subscribe)?);
        join.sort_unstable();
        join.dedup();
        join.retain(|sku| !self.rooms.contains_key(sku) || leave.contains(sku));
        let stays = self.rooms.keys().filter(|sku| !leave.contains(sku)).count();
        if stays + join.len() > ROOMS_MAX {
            return Err(Problem::invalid(format!(
                "subscribe: a connection watches at most {ROOMS_MAX} SKUs; this one watches {stays}"
            )));
        }
        Ok((leave, join))
    }

    async fn join(&mut self, skus: Vec<Sku>) -> Result<Result<(), Problem>, End> {
        if skus.is_empty() {
            return Ok(Ok(()));
        }
        let app = Arc::clone(&self.app);
        let found = match app.live() {
            Ok(live) => {
                let seats: Vec<Seat> = skus.iter().map(|sku| live.rooms.join(sku)).collect();
                stock::find(live, skus).await.map(|found| (seats, found))
            }
            Err(problem) => Err(problem),
        };
        let (seats, found) = match found {
            Ok(found) => found,
            Err(problem) => return Ok(Err(problem)),
        };
        for (mut seat, (sku, stock)) in seats.into_iter().zip(found) {
            match stock {
                Some(stock) => {
                    let snapshot = seat.snapshot(stock);
                    self.tell(&snapshot).await?;
                    self.await_news(seat);
                }
                None => self.tell_problem(&unknown_sku(&sku)).await?,
            }
        }
        Ok(Ok(()))
    }

    fn await_news(&mut self, mut seat: Seat) {
        let (handle, registration) = AbortHandle::new_pair();
        self.rooms.insert(seat.sku().clone(), handle);
        let news = async move {
            let update = seat.next().await;
            (seat, update)
        };
        self.news.push(Abortable::new(news.boxed(), registration));
    }

    async fn tell(&mut self, update: &Update) -> Result<(), End> {
        self.say(update.message.clone()).await
    }

    async fn tell_rooms(&mut self) -> Result<(), End> {
        let mut watching: Vec<&str> = self.rooms.keys().map(Sku::as_str).collect();
        watching.sort_unstable();
        let text = serde_json::to_string(&Watching { watching }).expect("texts are JSON");
        self.say(text.into()).await
    }

    async fn tell_problem(&mut self, problem: &Problem) -> Result<(), End> {
        self.say(format!("{{\"problem\":{}}}", problem.json()).into()).await
    }

    async fn say(&mut self, text: Utf8Bytes) -> Result<(), End> {
        self.viewer.sent(text.len());
        self.send(Message::Text(text)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match tokio::time::timeout(SEND_MAX, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Left),
            Err(_late) => Err(End::Dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_what_to_do() {
        let ask = |text: &str| json::parse::<Ask>(text.as_bytes()).map(|ask| (ask.subscribe, ask.unsubscribe));
        assert_eq!(
            ask(r#"{"subscribe":["a"],"unsubscribe":["b"]}"#).unwrap(),
            (vec!["a".to_owned()], vec!["b".to_owned()])
        );
        for bad in [
            "",
            "{",
            "[]",
            "null",
            r#"["a"]"#,
            r#"{"subscribe":"a"}"#,
            r#"{"subscribe":[1]}"#,
            r#"{"join":["a"]}"#,
        ] {
            assert!(ask(bad).is_err(), "{bad}");
        }
    }
}
