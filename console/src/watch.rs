//! Live stock for the page: the API's WebSocket, passed on both ways.

use std::time::Duration;

use axum::{
    extract::{
        State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, HeaderValue, header},
};
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, client::IntoClientRequest},
};

use crate::{
    App,
    access::Person,
    problem::{Answer, Problem},
};

/// Longer than the API is silent: it asks every 30 s whether somebody is there.
const SILENCE_MAX: Duration = Duration::from_secs(75);
const SEND_MAX: Duration = Duration::from_secs(10);

type Upstream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens the way. Other sites' pages have no cookie here (SameSite), and their origin gives them away as well.
pub async fn watch(State(app): State<App>, _person: Person, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Answer {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let page = text(header::ORIGIN).and_then(|origin| origin.split_once("://"));
    if page.is_some_and(|(_, host)| Some(host) != text(header::HOST)) {
        return Err(Problem::forbidden("only the console's own page may watch"));
    }
    let upstream = connect(&app).await.map_err(|error| {
        tracing::debug!(%error, "live stock does not answer the console");
        Problem::unavailable("live stock does not answer")
    })?;
    Ok(upgrade
        .max_message_size(16 * 1024)
        .on_upgrade(|page| async move { pass(app, page, upstream).await }))
}

async fn connect(app: &App) -> Result<Upstream, tungstenite::Error> {
    let url = app.api.url.replacen("http", "ws", 1);
    let mut request = format!("{url}/v1/live").into_client_request()?;
    if let Some(token) = &app.api.token {
        let bearer = HeaderValue::try_from(format!("Bearer {token}"))?;
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
    }
    Ok(connect_async(request).await?.0)
}

async fn pass(app: App, mut page: WebSocket, mut upstream: Upstream) {
    loop {
        // Whoever is silent, breaks off or says goodbye ends both ways.
        let passed = tokio::select! {
            () = app.stop.requested() => break,
            () = tokio::time::sleep(SILENCE_MAX) => break,
            said = page.recv() => match said {
                Some(Ok(Message::Text(text))) => within(upstream.send(tungstenite::Message::text(text.as_str()))).await,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => true,
                _ => false,
            },
            told = upstream.next() => match told {
                Some(Ok(tungstenite::Message::Text(text))) => within(page.send(Message::text(text.as_str()))).await,
                Some(Ok(tungstenite::Message::Ping(_))) => within(page.send(Message::Ping(Default::default()))).await,
                Some(Ok(tungstenite::Message::Pong(_))) => true,
                _ => false,
            },
        };
        if !passed {
            break;
        }
    }
    drop(tokio::time::timeout(Duration::from_secs(1), page.send(Message::Close(None))).await);
}

async fn within<E>(sending: impl Future<Output = Result<(), E>>) -> bool {
    matches!(tokio::time::timeout(SEND_MAX, sending).await, Ok(Ok(())))
}
