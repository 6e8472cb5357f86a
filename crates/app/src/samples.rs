//! One handler of each kind of request that a deployment can hurt. Yours will be of these kinds.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{
        Query,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    http::StatusCode,
    response::sse::{Event, Sse},
    routing::{any, get, post},
};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use serve::Retiring;
use tokio::time::{interval, sleep, timeout};

/// Between two chunks, or two events.
const PERIOD: Duration = Duration::from_millis(100);
/// When a client of `/events` comes back.
const COME_BACK: Duration = Duration::from_millis(10);
/// How long a client of `/ws` has to answer a close.
const FAREWELL: Duration = Duration::from_secs(1);
/// All of it is x.
const LARGE: Bytes = Bytes::from_static(&[b'x'; 64 << 10]);

pub fn routes() -> Router {
    Router::new()
        .route("/slow", get(slow))
        .route("/large", get(large))
        .route("/stream", get(chunks))
        .route("/upload", post(upload))
        .route("/events", get(events))
        .route("/ws", any(|upgrade: WebSocketUpgrade, retiring| async { upgrade.on_upgrade(|ws| echo(ws, retiring)) }))
}

#[derive(Deserialize)]
struct Slow {
    ms: u64,
}

/// The response comes late.
async fn slow(Query(Slow { ms }): Query<Slow>) -> String {
    sleep(Duration::from_millis(ms)).await;
    format!("after {ms} ms\n")
}

/// The response is long on its way to a slow client, though the handler has done its part.
async fn large() -> Bytes {
    LARGE
}

#[derive(Deserialize)]
struct Long {
    secs: u64,
}

/// The response takes long: a chunk every 100 ms.
async fn chunks(Query(Long { secs }): Query<Long>) -> Body {
    let count = secs.saturating_mul(10);
    Body::from_stream(stream::iter(1..=count).then(move |n| async move {
        sleep(PERIOD).await;
        Ok::<_, Infallible>(Bytes::from(format!("{n} of {count}\n")))
    }))
}

/// The request takes long. Answers how many bytes it had.
async fn upload(body: Body) -> Result<String, (StatusCode, String)> {
    let (mut body, mut length) = (body.into_data_stream(), 0);
    while let Some(bytes) = body.next().await {
        length += bytes.map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))?.len();
    }
    Ok(format!("{length}\n"))
}

/// The response has no end of its own. When the instance retires it gets one, and says how soon to come back
/// (`retry`, in milliseconds: HTML, 9.2).
async fn events(retiring: Retiring) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ticks = stream::unfold((interval(PERIOD), 0), |(mut ticks, n)| async move {
        ticks.tick().await;
        Some((Event::default().event("tick").data(n.to_string()), (ticks, n + 1)))
    });
    let last = |mut retiring: Retiring| async move { retiring.begun().await };
    let events = ticks.take_until(Box::pin(last(retiring)));
    let farewell = Event::default().event("retiring").retry(COME_BACK).data("come back");
    Sse::new(events.chain(stream::once(async { farewell })).map(Ok))
}

/// The connection is no longer HTTP. Every message comes back; when the instance retires it closes with 1012, "service
/// restart" (the IANA registry of RFC 6455, 11.7).
async fn echo(mut socket: WebSocket, mut retiring: Retiring) {
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
                // A ping or a close is answered by receiving on.
                Some(Ok(_)) => {}
                _ => return,
            },
            () = retiring.begun() => break,
        }
    }
    let restart = CloseFrame { code: close_code::RESTART, reason: "a new release takes over".into() };
    let _ = socket.send(Message::Close(Some(restart))).await;
    // The client's own close ends it (RFC 6455, 7.1.1). What crosses ours is not echoed: nothing may follow a close (5.5.1),
    // so a client sends again what it has no echo of.
    let rest = async { while let Some(Ok(_)) = socket.recv().await {} };
    let _ = timeout(FAREWELL, rest).await;
}

#[cfg(test)]
mod tests {
    use axum::{
        body::to_bytes,
        http::{
            Request,
            header::{CONTENT_LENGTH, CONTENT_TYPE},
        },
        response::Response,
    };
    use tower::ServiceExt;

    use super::*;

    async fn ask(request: Request<Body>) -> Response {
        routes().oneshot(request).await.unwrap()
    }

    async fn text(response: Response) -> String {
        String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_has_ten_chunks_a_second() {
        let body = text(ask(Request::get("/stream?secs=2").body(Body::empty()).unwrap()).await).await;
        assert_eq!((body.lines().count(), body.lines().last()), (20, Some("20 of 20")));
    }

    #[tokio::test]
    async fn a_large_response_is_64_kib_and_says_so() {
        let response = ask(Request::get("/large").body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers()[CONTENT_LENGTH], "65536");
        assert_eq!(text(response).await, "x".repeat(65_536));
    }

    #[tokio::test]
    async fn an_upload_is_counted() {
        assert_eq!(text(ask(Request::post("/upload").body(Body::from("12345")).unwrap()).await).await, "5\n");
    }

    #[tokio::test(start_paused = true)]
    async fn events_go_on_while_nobody_retires() {
        let response = ask(Request::get("/events").body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        let mut body = response.into_body().into_data_stream();
        for n in 0..3 {
            assert_eq!(body.next().await.unwrap().unwrap(), format!("event: tick\ndata: {n}\n\n"));
        }
    }
}
