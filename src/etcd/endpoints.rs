//! The members of a cluster: a connection to the first one that answers.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout_at};

use super::address::{Address, Endpoint, Security};
use super::connection::Connection;
use super::credentials::Credentials;
use super::failure::{Cause, Failure, Obstacle};
use super::grpc;
use super::wire::{Call, Stream, Wire};
use crate::error::{Error, Kind, Result};

/// How long an endpoint is tried before the next one is tried as well (RFC 8305 has 250 ms between
/// addresses; members of a cluster are near).
const HEAD_START: Duration = Duration::from_millis(150);

/// The network.
#[derive(Debug)]
pub struct Endpoints {
    runtime: Rc<Runtime>,
    security: Security,
    credentials: Credentials,
    /// In the order in which they are tried; one that failed goes to the end.
    order: RefCell<Vec<Endpoint>>,
    open: RefCell<Option<Connection>>,
}

impl Endpoints {
    /// The members at `address`. Nothing is sent yet.
    pub fn new(address: &Address, credentials: Credentials) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let refused = |error: std::io::Error| {
            Error::new(Kind::of_io(&error), format!("the network cannot be used: {error}"))
        };
        if address.security == Security::Tls {
            credentials.tls()?; // refused before anything is sent
        }
        Ok(Self {
            runtime: Rc::new(runtime.map_err(refused)?),
            security: address.security,
            credentials,
            order: RefCell::new(address.endpoints.clone()),
            open: RefCell::new(None),
        })
    }

    /// The open connection, or a new one.
    async fn connection(&self, deadline: Instant) -> std::result::Result<Connection, Failure> {
        let open = self.open.borrow_mut().take();
        if let Some(mut open) = open {
            if open.is_alive(HEAD_START).await {
                return Ok(open);
            }
            self.put_last(&open.endpoint);
        }
        let tls = match self.security {
            Security::Plain => None,
            Security::Tls => Some(self.credentials.tls().map_err(|error| {
                let obstacle = Obstacle::Tls(error.message);
                Failure::not_sent(Cause::Unreachable(vec![("this side".to_owned(), obstacle)]))
            })?),
        };
        let mut waiting: Vec<Endpoint> = self.order.borrow().iter().rev().cloned().collect();
        let mut trying = Vec::new();
        let mut obstacles = Vec::new();
        let mut dials = JoinSet::new();
        let dial = async {
            loop {
                if let Some(next) = waiting.pop() {
                    trying.push(next.clone());
                    let tls = tls.clone();
                    dials.spawn(async move { (next.clone(), Connection::open(next, tls).await) });
                }
                tokio::select! {
                    () = sleep(HEAD_START), if !waiting.is_empty() => {}
                    Some(ended) = dials.join_next() => match ended {
                        Ok((_, Ok(connection))) => return Some(connection),
                        Ok((endpoint, Err(obstacle))) => {
                            obstacles.push((endpoint.to_string(), obstacle));
                        }
                        Err(_) => {}
                    },
                    else => return None,
                }
            }
        };
        if let Ok(Some(connection)) = timeout_at(deadline.into(), dial).await {
            // Those that were passed by come last.
            for endpoint in trying.iter().filter(|tried| **tried != connection.endpoint) {
                self.put_last(endpoint);
            }
            return Ok(connection);
        }
        for endpoint in trying {
            let name = endpoint.to_string();
            if !obstacles.iter().any(|(known, _)| *known == name) {
                obstacles.push((name, Obstacle::Network("no answer in time".to_owned())));
            }
        }
        Err(Failure::not_sent(Cause::Unreachable(obstacles)))
    }

    /// Tries an endpoint after all others from now on.
    fn put_last(&self, endpoint: &Endpoint) {
        let mut order = self.order.borrow_mut();
        if let Some(at) = order.iter().position(|known| known == endpoint) {
            order.get_mut(at..).unwrap_or_default().rotate_left(1);
        }
    }

    /// Keeps a connection for the next request, unless its member cannot answer now.
    fn keep<T>(&self, connection: Connection, result: &std::result::Result<T, Failure>) {
        match result {
            Err(failure) if failure.is_transient() => self.put_last(&connection.endpoint),
            _ => *self.open.borrow_mut() = Some(connection),
        }
    }
}

impl Wire for Endpoints {
    fn unary(&self, call: &Call) -> std::result::Result<Bytes, Failure> {
        self.runtime.block_on(async {
            let mut connection = self.connection(call.deadline).await?;
            let answer = timeout_at(call.deadline.into(), grpc::unary(&mut connection, call)).await;
            let answer = answer.unwrap_or_else(|_| Err(Failure::unknown(Cause::TimedOut)));
            connection.used = tokio::time::Instant::now();
            self.keep(connection, &answer);
            answer
        })
    }

    fn stream(&self, call: &Call) -> std::result::Result<Box<dyn Stream>, Failure> {
        self.runtime.block_on(async {
            let mut connection = self.connection(call.deadline).await?;
            let messages = grpc::stream(&mut connection, call, self.runtime.clone()).await;
            self.keep(connection, &messages);
            Ok(Box::new(messages?) as Box<dyn Stream>)
        })
    }
}
