//! A connection to one member.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::address::{Endpoint, Security};
use super::failure::Obstacle;

/// The bytes of one answer that a member may send without being asked for more. An answer of the
/// usual size needs one round trip.
const WINDOW: u32 = 4 << 20;

/// How long a connection may be idle before it is tried out: the other end may have gone.
const IDLE: Duration = Duration::from_secs(1);

/// An open connection to a member.
pub(super) struct Connection {
    pub endpoint: Endpoint,
    /// The scheme and authority of its requests.
    pub base: String,
    pub sender: SendRequest<Bytes>,
    ping: PingPong,
    pub used: Instant,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Connection {
    /// Opens a connection on which the member has answered. A member that is stopped still has its
    /// port open, and one that refuses this client's certificate says so after the handshake: both
    /// are noticed before anything is sent.
    pub async fn open(
        endpoint: Endpoint,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self, Obstacle> {
        let network = |error: std::io::Error| Obstacle::Network(error.to_string());
        let addresses = resolve(&endpoint).await.map_err(network)?;
        let stream = TcpStream::connect(&*addresses).await.map_err(network)?;
        stream.set_nodelay(true).map_err(network)?;
        match tls {
            None => {
                let closed = |why| Obstacle::Closed(Security::Plain, why);
                Self::over(stream, endpoint, "http", closed).await
            }
            Some(config) => {
                let bad_name =
                    |_| Obstacle::Tls(format!("{:?} is not the name of a host", endpoint.host));
                let name = ServerName::try_from(endpoint.host.clone()).map_err(bad_name)?;
                let connector = TlsConnector::from(config);
                let stream = connector.connect(name, stream).await.map_err(of_handshake)?;
                Self::over(stream, endpoint, "https", Obstacle::Tls).await
            }
        }
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        endpoint: Endpoint,
        scheme: &str,
        obstacle: fn(String) -> Obstacle,
    ) -> Result<Self, Obstacle> {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        builder.enable_push(false);
        let (sender, mut connection) =
            builder.handshake(stream).await.map_err(|error| obstacle(error.to_string()))?;
        let no_ping = || Obstacle::Network("no HTTP/2".to_owned());
        let mut ping = connection.ping_pong().ok_or_else(no_ping)?;
        let driver = tokio::spawn(connection);
        if let Err(error) = ping.ping(Ping::opaque()).await {
            // The driver knows more: what the other end said when it closed.
            let why = match timeout(IDLE, driver).await {
                Ok(Ok(Err(cause))) => cause.to_string(),
                _ => error.to_string(),
            };
            return Err(obstacle(why));
        }
        let base = format!("{scheme}://{endpoint}");
        Ok(Self { endpoint, base, sender, ping, used: Instant::now() })
    }

    /// Returns whether the other end is still there, as far as that is not plain from its last
    /// answer.
    pub async fn is_alive(&mut self, patience: Duration) -> bool {
        self.used.elapsed() < IDLE
            || matches!(timeout(patience, self.ping.ping(Ping::opaque())).await, Ok(Ok(_)))
    }
}

/// The addresses of a host. A name is looked up in a thread of its own that nothing waits for when
/// the program ends: a name server that is down takes half a minute.
async fn resolve(endpoint: &Endpoint) -> std::io::Result<Vec<SocketAddr>> {
    let port = endpoint.port;
    if let Ok(address) = endpoint.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (found, looking) = oneshot::channel();
    let host = endpoint.host.clone();
    std::thread::Builder::new().spawn(move || {
        let _ = found.send((host, port).to_socket_addrs().map(Iterator::collect));
    })?;
    looking.await.unwrap_or_else(|_| Err(std::io::Error::other("the name was not looked up")))
}

/// A handshake ends with an error of TLS, or because the network failed.
fn of_handshake(error: std::io::Error) -> Obstacle {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => Obstacle::Tls(tls.to_string()),
        None => Obstacle::Closed(Security::Tls, error.to_string()),
    }
}
