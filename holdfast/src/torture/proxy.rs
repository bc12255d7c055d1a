//! A TCP proxy in front of an engine: it cuts connections, delivers requests and drops their answers, or leads new connections
//! to another engine while the old ones go on.

use std::net::SocketAddr;

use anyhow::Context as _;
use plumbing::task::{self, Task};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// They pass.
    Open,
    /// Requests pass, answers are dropped.
    Mute,
    /// None is accepted, and those that were are closed.
    Cut,
}

#[derive(Debug, Clone)]
struct Way {
    mode: Mode,
    target: String,
    /// Connections of earlier rounds are closed.
    round: u64,
}

/// A proxy in front of one engine, for as long as it is kept.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    way: watch::Sender<Way>,
    accepting: Task<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    /// In front of `host:port`.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: &str) -> anyhow::Result<Self> {
        Self::listen(target, None).await
    }

    /// In front of a Kafka broker on `host:port`, which tells its clients where it is: they are told where the proxy is instead.
    ///
    /// # Errors
    /// No port is free, or the broker's address is no address.
    pub async fn kafka(target: &str) -> anyhow::Result<Self> {
        let (host, port) = target.rsplit_once(':').context("a broker is host:port")?;
        let port: i32 = port.parse().context("a broker's port")?;
        Self::listen(target, Some([host.as_bytes(), &port.to_be_bytes()].concat())).await
    }

    async fn listen(target: &str, advertised: Option<Vec<u8>>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (way, _) = watch::channel(Way {
            mode: Mode::Open,
            target: target.to_owned(),
            round: 0,
        });
        let renamed = advertised.map(|from| {
            let host = &from[..from.len() - 4];
            let to = [host, &i32::from(address.port()).to_be_bytes()].concat();
            Renamed { from, to }
        });
        let ways = way.clone();
        let accepting = task::spawn("proxy", async move {
            while let Ok((client, _)) = listener.accept().await {
                let way = ways.subscribe();
                if way.borrow().mode != Mode::Cut {
                    let passing = pass(client, way, renamed.clone());
                    drop(task::spawn("proxied", passing));
                }
            }
        });
        Ok(Self {
            address,
            way,
            accepting,
        })
    }

    /// Closes every connection and accepts none.
    pub fn cut(&self) {
        self.way.send_modify(|way| {
            way.mode = Mode::Cut;
            way.round += 1;
        });
    }

    /// Delivers requests and drops what is answered.
    pub fn mute(&self) {
        self.way.send_modify(|way| way.mode = Mode::Mute);
    }

    /// Lets everything through again; connections that lost an answer are closed.
    pub fn heal(&self) {
        self.way.send_modify(|way| {
            if way.mode == Mode::Mute {
                way.round += 1;
            }
            way.mode = Mode::Open;
        });
    }

    /// Leads new connections to another `host:port`; the old ones stay where they are.
    pub fn lead_to(&self, target: &str) {
        self.way.send_modify(|way| target.clone_into(&mut way.target));
    }

    /// Closes every connection; new ones are accepted.
    pub fn disconnect(&self) {
        self.way.send_modify(|way| way.round += 1);
    }
}

/// An address in answers that is replaced by one of the same length.
#[derive(Debug, Clone)]
struct Renamed {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Renamed {
    fn rename(&self, frame: &mut [u8]) {
        let mut at = 0;
        while at + self.from.len() <= frame.len() {
            if frame[at..].starts_with(&self.from) {
                frame[at..at + self.to.len()].copy_from_slice(&self.to);
                at += self.from.len();
            } else {
                at += 1;
            }
        }
    }
}

async fn pass(client: TcpStream, mut way: watch::Receiver<Way>, renamed: Option<Renamed>) {
    let (target, round) = {
        let way = way.borrow();
        (way.target.clone(), way.round)
    };
    let Ok(server) = TcpStream::connect(&target).await else {
        return;
    };
    let _no_matter = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let answers = way.clone();
    tokio::select! {
        () = ask(from_client, to_server) => {}
        () = answer(from_server, to_client, answers, renamed) => {}
        _ = way.wait_for(|way| way.round != round) => {}
    }
}

async fn ask(mut client: OwnedReadHalf, mut server: OwnedWriteHalf) {
    // Whatever ends it ends the connection.
    let _ended = tokio::io::copy(&mut client, &mut server).await;
}

async fn answer(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    way: watch::Receiver<Way>,
    renamed: Option<Renamed>,
) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = match &renamed {
            Some(renamed) => frame(&mut server, &mut bytes, renamed).await,
            None => server.read(&mut bytes).await.unwrap_or(0),
        };
        if read == 0 {
            return;
        }
        let is_muted = way.borrow().mode == Mode::Mute;
        if !is_muted && client.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// Reads one of Kafka's answers whole: its length, and so many bytes. 0 at the end.
async fn frame(server: &mut OwnedReadHalf, bytes: &mut Vec<u8>, renamed: &Renamed) -> usize {
    let Ok(length) = server.read_u32().await else { return 0 };
    let whole = length as usize + 4;
    bytes.resize(whole.max(bytes.len()), 0);
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    if server.read_exact(&mut bytes[4..whole]).await.is_err() {
        return 0;
    }
    renamed.rename(&mut bytes[4..whole]);
    whole
}

/// `host:port` of a URL.
#[must_use]
pub fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}
