//! What Prometheus is told, on a socket of its own.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::{Router, http::header, routing::get};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use metrics::{Recorder, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::{interval, sleep, timeout},
};

use crate::{
    config::Config,
    counts::Counts,
    listener::{ACCEPT_AGAIN, Accepting, Listener},
    stream::Stream,
};

/// Scrapes at once, of which there is one every so many seconds.
const AT_ONCE: usize = 16;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often samples are put together that nobody has asked for: each is kept until then.
const UPKEEP: Duration = Duration::from_secs(5);

/// Answers on the socket until what is returned is dropped.
pub(crate) fn expose(listener: Listener, config: &Config, counts: Arc<Counts>) -> io::Result<JoinSet<Infallible>> {
    let builder = PrometheusBuilder::new();
    let builder =
        builder.add_global_label("release", &config.release).add_global_label("instance", config.n.to_string());
    let recorder = Arc::new(builder.build_recorder());
    let handle = recorder.handle();
    // For what handlers record. A program that has a recorder of its own keeps it.
    if metrics::set_global_recorder(recorder.clone()).is_err() {
        tracing::info!("the program has a metrics recorder; only this library's metrics are on the metrics socket");
    }
    let upkeep = handle.clone();
    let answer = move || {
        let text = render(&handle, &recorder, &counts);
        // Whoever asks again finds the next instance.
        async { ([(header::CONNECTION, "close"), (header::CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
    };
    let router = Router::new().route("/metrics", get(answer));
    let mut task = JoinSet::new();
    task.spawn(answer_all(listener.accepting()?, router, upkeep));
    Ok(task)
}

/// Dropped, it answers nothing any more, whoever has connected.
async fn answer_all(listener: Accepting, router: Router, handle: PrometheusHandle) -> Infallible {
    let (mut open, mut upkeep) = (JoinSet::new(), interval(UPKEEP));
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < AT_ONCE => match accepted {
                Ok((Stream::Tcp(stream), _)) => drop(open.spawn(timeout(PATIENCE, answer(stream, router.clone())))),
                Ok((Stream::Unix(stream), _)) => drop(open.spawn(timeout(PATIENCE, answer(stream, router.clone())))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the metrics socket");
                    sleep(ACCEPT_AGAIN).await;
                }
            },
            Some(_) = open.join_next() => {}
            _ = upkeep.tick() => handle.run_upkeep(),
        }
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a scrape ended");
    }
}

fn render(handle: &PrometheusHandle, recorder: &impl Recorder, counts: &Counts) -> String {
    with_local_recorder(recorder, || {
        metrics::gauge!("serve_connections").set(counts.connections() as f64);
        metrics::gauge!("serve_requests_in_flight").set(counts.requests() as f64);
        metrics::counter!("serve_requests_total").absolute(counts.asked());
        metrics::counter!("serve_connections_accepted_total").absolute(counts.accepted());
        metrics::counter!("serve_connections_taken_total").absolute(counts.taken());
        metrics::counter!("serve_late_bytes_total").absolute(counts.late_bytes());
    });
    handle.run_upkeep();
    handle.render()
}
