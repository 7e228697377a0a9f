//! gRPC over HTTP/2: a message each way with a status at the end, or a stream of answers
//! (`doc/PROTOCOL-HTTP2.md` of gRPC).

use std::fmt;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::{HeaderName, Method as HttpMethod, Request, StatusCode};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Runtime;
use tokio::time::timeout_at;

use super::connection::Connection;
use super::failure::{Cause, Failure};
use super::fate::Fate;
use super::wire::Method;
use super::wire::{Call, Stream};

/// The largest answer that is read.
const ANSWER_LIMIT: usize = 64 << 20;

/// The length of the header of a message: a flag and the message's length.
const FRAME: usize = 5;

/// Sends one message, and returns the one that answers it.
pub(super) async fn unary(connection: &mut Connection, call: &Call) -> Result<Bytes, Failure> {
    let (response, _) = send(connection, call, End::Here).await?;
    let mut answer = Answer::new(response);
    let message = answer.message().await?;
    let (Some(message), None) = (message, answer.message().await?) else {
        return Err(Failure::unknown(Cause::Protocol("no message, or more than one".to_owned())));
    };
    Ok(message)
}

/// Sends the messages of a stream.
pub(super) async fn stream(
    connection: &mut Connection,
    call: &Call,
    runtime: Rc<Runtime>,
) -> Result<Messages, Failure> {
    let (response, send) = send(connection, call, End::Later).await?;
    Ok(Messages { runtime, answer: Answer::new(response), _send: send })
}

/// Whether a message is the only one that is sent.
#[derive(PartialEq, Eq)]
enum End {
    Here,
    Later,
}

async fn send(
    connection: &mut Connection,
    call: &Call,
    end: End,
) -> Result<(ResponseFuture, SendStream<Bytes>), Failure> {
    // Until the message itself is handed over, nothing can have been carried out.
    let unsent = |error: h2::Error| Failure::not_sent(Cause::Lost(error.to_string()));
    let unspeakable = |error: http::Error| Failure::not_sent(Cause::Protocol(error.to_string()));
    let mut sender = connection.sender.clone().ready().await.map_err(unsent)?;
    let request = request(&connection.base, call, &end).map_err(unspeakable)?;
    let (response, mut body) = sender.send_request(request, false).map_err(unsent)?;
    let mut frames = BytesMut::with_capacity(FRAME + call.message.len());
    for message in std::iter::once(&call.message).chain(&call.more) {
        frames.put_u8(0); // not compressed
        frames.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        frames.put_slice(message);
    }
    body.send_data(frames.freeze(), end == End::Here).map_err(unsent)?;
    Ok((response, body))
}

fn request(base: &str, call: &Call, end: &End) -> Result<Request<()>, http::Error> {
    let mut request = Request::builder()
        .method(HttpMethod::POST)
        .uri(format!("{base}{}", call.method.path()))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers");
    if call.method != Method::TxnOfMember {
        // A member without a leader refuses at once, instead of waiting for one.
        request = request.header("hasleader", "true");
    }
    if *end == End::Here {
        let left = call.deadline.saturating_duration_since(Instant::now());
        request = request.header("grpc-timeout", format!("{}m", left.as_millis().max(1)));
    }
    if let Some(token) = &call.token {
        let mut value = HeaderValue::from_str(token)?;
        value.set_sensitive(true);
        request = request.header(HeaderName::from_static("token"), value);
    }
    request.body(())
}

/// An answer as far as it has come.
struct Answer {
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    buffer: BytesMut,
}

impl Answer {
    fn new(response: ResponseFuture) -> Self {
        Self { response: Some(response), body: None, buffer: BytesMut::new() }
    }

    /// The next message; `None` at the end, if the status there is OK. May be dropped while it
    /// waits, and called again.
    async fn message(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Some(response) = &mut self.response {
            let response = response.await.map_err(of_h2)?;
            self.response = None;
            check_head(response.status(), response.headers())?;
            self.body = Some(response.into_body());
        }
        let Some(body) = &mut self.body else { return Ok(None) };
        loop {
            if let Some(message) = take_frame(&mut self.buffer)? {
                return Ok(Some(message));
            }
            match body.data().await {
                Some(data) => {
                    let data = data.map_err(of_h2)?;
                    let _ = body.flow_control().release_capacity(data.len());
                    self.buffer.extend_from_slice(&data);
                }
                None => {
                    let trailers = body.trailers().await.map_err(of_h2)?.unwrap_or_default();
                    self.body = None;
                    return check_status(&trailers).map(|()| None);
                }
            }
        }
    }
}

/// Takes the first message out of `buffer`, if it is all there.
fn take_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, Failure> {
    let protocol = |what: &str| Err(Failure::unknown(Cause::Protocol(what.to_owned())));
    let Some(mut head) = buffer.get(..FRAME) else { return Ok(None) };
    let (flag, length) = (head.get_u8(), head.get_u32() as usize);
    if flag != 0 {
        return protocol("a compressed message");
    }
    if length > ANSWER_LIMIT {
        return protocol("a message over 64 MiB");
    }
    if buffer.len() < FRAME + length {
        return Ok(None);
    }
    buffer.advance(FRAME);
    Ok(Some(buffer.split_to(length).freeze()))
}

fn check_head(status: StatusCode, headers: &HeaderMap) -> Result<(), Failure> {
    if headers.contains_key("grpc-status") {
        return check_status(headers); // an answer without a message
    }
    // As gRPC translates them: from a proxy, or from something that is no gRPC server.
    let status = match status {
        StatusCode::OK => return Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => 7,
        StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS => 14,
        StatusCode::NOT_FOUND => 12,
        _ => 2,
    };
    Err(Failure::of_status(status, "an HTTP status in place of an answer"))
}

fn check_status(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").map(str::parse) {
        Some(Ok(0)) => Ok(()),
        Some(Ok(status)) => {
            Err(Failure::of_status(status, &percent_decoded(text("grpc-message").unwrap_or(""))))
        }
        _ => Err(Failure::unknown(Cause::Lost("an answer without its end".to_owned()))),
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|_| *first == b'%');
        let hex = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(hex.unwrap_or(*first));
        rest = if hex.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn of_h2(error: h2::Error) -> Failure {
    // The one reset that proves that the request was not looked at (RFC 9113, 8.7).
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    let fate = if is_refused { Fate::NotSent } else { Fate::Unknown };
    Failure { fate, cause: Cause::Lost(error.to_string()) }
}

/// The answers of a stream that stays open until it is dropped.
pub(super) struct Messages {
    runtime: Rc<Runtime>,
    answer: Answer,
    /// Its end would be the stream's.
    _send: SendStream<Bytes>,
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

/// Waits until one of these descriptors can be read. One that the kernel cannot watch never can.
async fn any_readable(descriptors: &[BorrowedFd<'_>]) {
    // What is borrowed stays open; the other constructor is for what may not, and unsafe.
    #[allow(deprecated)]
    let watched: Vec<_> = descriptors
        .iter()
        .filter_map(|fd| AsyncFd::with_interest(*fd, Interest::READABLE).ok())
        .collect();
    std::future::poll_fn(|context| {
        match watched.iter().any(|fd| fd.poll_read_ready(context).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

impl Stream for Messages {
    fn next(
        &mut self,
        deadline: Instant,
        wake: &[BorrowedFd<'_>],
    ) -> Result<Option<Bytes>, Failure> {
        let Self { runtime, answer, _send } = self;
        let next = async {
            tokio::select! {
                message = answer.message() => Some(message),
                () = any_readable(wake) => None,
            }
        };
        match runtime.block_on(async { timeout_at(deadline.into(), next).await }) {
            Err(_) | Ok(None) => Ok(None),
            Ok(Some(Ok(None))) => Err(Failure::unknown(Cause::Lost("the stream ended".to_owned()))),
            Ok(Some(message)) => message,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_when_it_is_all_there() {
        let mut buffer = BytesMut::from(&b"\0\0\0\0\x02a"[..]);
        assert_eq!(take_frame(&mut buffer).unwrap(), None);
        buffer.extend_from_slice(b"b\0\0\0\0\0");
        assert_eq!(take_frame(&mut buffer).unwrap().unwrap(), "ab");
        assert_eq!(take_frame(&mut buffer).unwrap().unwrap(), "");
        assert_eq!(take_frame(&mut buffer).unwrap(), None);
    }

    #[test]
    fn an_answer_that_is_not_grpc_leaves_the_fate_open() {
        for bad in [&b"\x01\0\0\0\0"[..], b"\0\xff\xff\xff\xff"] {
            assert_eq!(take_frame(&mut BytesMut::from(bad)).unwrap_err().fate, Fate::Unknown);
        }
        assert_eq!(check_status(&HeaderMap::new()).unwrap_err().fate, Fate::Unknown);
    }

    #[test]
    fn messages_of_a_status_are_decoded() {
        assert_eq!(percent_decoded("a%20b%C3%BC%"), "a bü%");
    }
}
