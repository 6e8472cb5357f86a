//! Clients of what is no single request and response: HTTP/2, server-sent events, WebSocket.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use h2::client::{self, SendRequest};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, protocol::frame::coding::CloseCode},
};

use crate::{client::PATIENCE, outcome::Outcome};

/// An HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Streams(SendRequest<Bytes>);

impl Streams {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Outcome> {
        let stream = connect(address).await.map_err(|_| Outcome::Refused)?;
        let handshake = client::handshake(stream);
        let (send, connection) = handshake.await.map_err(|error| outcome_of(&error, false))?;
        tokio::task::spawn_local(connection);
        Ok(Self(send))
    }

    /// Whether another stream may be opened; a client may not know yet that it may not.
    pub(crate) async fn is_open(&mut self) -> bool {
        std::future::poll_fn(|context| self.0.poll_ready(context)).await.is_ok()
    }

    /// One GET on a stream of its own.
    pub(crate) async fn get(&mut self, path: &str) -> (Outcome, Vec<u8>) {
        let exchange = timeout(PATIENCE, self.exchange(path)).await;
        exchange.unwrap_or(Err(Outcome::TimedOut)).unwrap_or_else(|outcome| (outcome, Vec::new()))
    }

    async fn exchange(&mut self, path: &str) -> Result<(Outcome, Vec<u8>), Outcome> {
        let request = http::Request::get(format!("http://rig{path}")).body(()).expect("a request");
        let (response, _) = self.0.send_request(request, true).map_err(|error| outcome_of(&error, false))?;
        let response = response.await.map_err(|error| outcome_of(&error, false))?;
        let status = response.status();
        let (mut stream, mut body) = (response.into_body(), Vec::new());
        while let Some(bytes) = stream.data().await {
            let bytes = bytes.map_err(|error| outcome_of(&error, true))?;
            // An error is the connection's, and the next read tells it.
            let _ = stream.flow_control().release_capacity(bytes.len());
            body.extend_from_slice(&bytes);
        }
        Ok((if status == 200 { Outcome::Answered } else { Outcome::WrongStatus }, body))
    }
}

fn outcome_of(error: &h2::Error, response_began: bool) -> Outcome {
    match error.get_io() {
        Some(error) => Outcome::of_error(error, response_began),
        None if response_began => Outcome::Truncated,
        None => Outcome::GoneAway,
    }
}

/// A WebSocket.
#[derive(Debug)]
pub(crate) struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    pub(crate) async fn open(address: SocketAddr, path: &str) -> Result<Self, Outcome> {
        let stream = connect(address).await.map_err(|_| Outcome::Refused)?;
        let opened = timeout(PATIENCE, client_async(format!("ws://rig{path}"), stream)).await;
        let (socket, _) = opened.map_err(|_| Outcome::TimedOut)?.map_err(|error| of_socket(&error))?;
        Ok(Self(socket))
    }

    /// Sends messages `pause` apart and takes their echoes until `until`, then closes. It ends well too where the server
    /// closes with 1012; a message that crosses that close is not echoed, which RFC 6455 leaves to the client.
    pub(crate) async fn converse(mut self, until: Instant, pause: Duration) -> Outcome {
        for n in 0_u32.. {
            let sent = Message::text(n.to_string());
            if let Err(error) = self.0.send(sent.clone()).await {
                return of_socket(&error);
            }
            match timeout(PATIENCE, self.0.next()).await {
                Ok(Some(Ok(message))) if message == sent => {}
                Ok(Some(Ok(message))) => return self.closed(message).await,
                Ok(Some(Err(error))) => return of_socket(&error),
                Ok(None) => return Outcome::Closed,
                Err(_) => return Outcome::TimedOut,
            }
            let next = Instant::now() + pause;
            match timeout_at(next, self.0.next()).await {
                Ok(Some(Ok(message))) => return self.closed(message).await,
                Ok(Some(Err(error))) => return of_socket(&error),
                Ok(None) => return Outcome::Closed,
                Err(_) if next >= until => break,
                Err(_) => {}
            }
        }
        if let Err(error) = self.0.close(None).await {
            return of_socket(&error);
        }
        match timeout(PATIENCE, self.0.next()).await {
            Ok(None | Some(Ok(Message::Close(_)))) => Outcome::Answered,
            Ok(Some(Ok(_))) => Outcome::WrongBody,
            Ok(Some(Err(error))) => of_socket(&error),
            Err(_) => Outcome::TimedOut,
        }
    }

    /// What the server said instead of an echo.
    async fn closed(mut self, message: Message) -> Outcome {
        let Message::Close(Some(frame)) = message else { return Outcome::WrongBody };
        // Answers the close.
        let _ = timeout(PATIENCE, self.0.next()).await;
        if frame.code == CloseCode::Restart { Outcome::Answered } else { Outcome::WrongStatus }
    }
}

fn of_socket(error: &tungstenite::Error) -> Outcome {
    match error {
        tungstenite::Error::Io(error) => Outcome::of_error(error, false),
        tungstenite::Error::Http(_) => Outcome::WrongStatus,
        _ => Outcome::Closed,
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(PATIENCE, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
