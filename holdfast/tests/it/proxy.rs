//! A TCP proxy in front of an engine, so that one world can lose it while others go on.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A proxy; cut, it refuses new connections and has closed the old ones.
pub struct Proxy {
    pub address: SocketAddr,
    cut: watch::Sender<bool>,
    open: Arc<AtomicBool>,
}

impl Proxy {
    /// In front of `host:port`.
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (cut, cutting) = watch::channel(false);
        let open = Arc::new(AtomicBool::new(true));
        let (target, accepting) = (target.to_owned(), open.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move {
            loop {
                let Ok((mut client, _)) = listener.accept().await else {
                    return;
                };
                if !accepting.load(Ordering::Relaxed) {
                    continue;
                }
                let (target, mut cutting) = (target.clone(), cutting.clone());
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(&target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = cutting.wait_for(|cut| *cut) => {}
                    }
                });
            }
        });
        Self { address, cut, open }
    }

    /// Closes every connection and refuses new ones.
    pub async fn cut(&self) {
        self.open.store(false, Ordering::Relaxed);
        self.cut.send_replace(true);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// Lets connections through again.
    pub fn heal(&self) {
        self.cut.send_replace(false);
        self.open.store(true, Ordering::Relaxed);
    }
}

/// `host:port` of a URL.
pub fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().expect("a host")
}
