//! What Prometheus is told, on a socket of its own.

use std::{io, sync::Arc};

use axum::{Router, http::header, routing::get};
use metrics::{Recorder, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::task::JoinSet;

use crate::{
    config::Config,
    drain::Counts,
    listener::{Accepting, Listener},
};

/// Answers on the socket until what is returned is dropped.
pub(crate) fn expose(listener: Listener, config: &Config, counts: Arc<Counts>) -> io::Result<JoinSet<io::Result<()>>> {
    let builder = PrometheusBuilder::new();
    let builder =
        builder.add_global_label("release", &config.release).add_global_label("instance", config.n.to_string());
    let recorder = Arc::new(builder.build_recorder());
    let handle = recorder.handle();
    // For what handlers record. A program that has a recorder of its own keeps it.
    if metrics::set_global_recorder(recorder.clone()).is_err() {
        tracing::info!("the program has a metrics recorder; only this library's metrics are on the metrics socket");
    }
    let answer = move || {
        let text = render(&handle, &recorder, &counts);
        // Whoever asks again finds the next instance.
        async { ([(header::CONNECTION, "close"), (header::CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
    };
    let router = Router::new().route("/metrics", get(answer));
    let mut task = JoinSet::new();
    match listener.accepting()? {
        Accepting::Tcp(listener) => task.spawn(async { axum::serve(listener, router).await }),
        Accepting::Unix(listener) => task.spawn(async { axum::serve(listener, router).await }),
    };
    Ok(task)
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
