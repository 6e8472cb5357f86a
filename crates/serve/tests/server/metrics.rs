//! Numbers for Prometheus: on their own socket, and nowhere else.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use crate::served::{Start, ask, connect, listener, receive, send};

#[test]
fn the_numbers_are_on_the_socket_named_metrics_and_not_on_the_public_one() {
    let (http, metrics) = (listener(), listener());
    let sockets = vec![http.try_clone().unwrap().into(), metrics.try_clone().unwrap().into()];
    let (served, address) = Start::passed(sockets, "http:metrics").ready();
    let mut stream = connect(&address);
    ask(&mut stream, "/");
    send(&mut stream, "/slow/3000");
    ask(&mut connect(&address), "/");
    let scrape = || ask(&mut connect(&metrics.local_addr().unwrap().to_string()), "/metrics");
    let labels = "{release=\"0123456789abcdef\",instance=\"7\"}";
    // Whoever sent first is not always the first to be read, and a client has its answer a moment before that has ended here.
    let (mut text, began) = (scrape(), Instant::now());
    let says = |text: &str, name, number| text.contains(&format!("{name}{labels} {number}\n"));
    while !says(&text, "serve_requests_total", 3) || !says(&text, "serve_requests_in_flight", 1) {
        assert!(began.elapsed() < Duration::from_secs(20), "{text}");
        text = scrape();
    }
    for line in ["serve_requests_total", "serve_requests_in_flight", "serve_connections_accepted_total"] {
        assert!(text.contains(&format!("{line}{labels} ")), "{line}: {text}");
    }
    assert!(text.contains("connection: close"), "the next scrape is the next instance's: {text}");
    let mut elsewhere = connect(&metrics.local_addr().unwrap().to_string());
    assert!(ask(&mut elsewhere, "/livez").starts_with("HTTP/1.1 404"));
    assert!(ask(&mut connect(&address), "/metrics").starts_with("HTTP/1.1 404"));
    receive(&mut stream);
    served.signal();
    drop(stream);
    served.ends_well();
}

#[test]
fn who_says_nothing_to_the_metrics_socket_is_in_nobodys_way_and_gone_with_the_signal() {
    let (http, metrics) = (listener(), listener());
    let scrapes = metrics.local_addr().unwrap().to_string();
    let (served, address) = Start::passed(vec![http.into(), metrics.into()], "http:metrics").ready();
    let silent: Vec<_> = (0..15).map(|_| connect(&scrapes)).collect();
    assert!(ask(&mut connect(&scrapes), "/metrics").starts_with("HTTP/1.1 200"));
    let mut slow = connect(&address);
    send(&mut slow, "/slow/1000");
    ask(&mut connect(&address), "/");
    served.signal();
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "the next scrape is the next instance's");
    }
    assert!(receive(&mut slow).ends_with("slow"));
    served.ends_well();
}

#[test]
fn a_metrics_socket_that_cannot_serve_is_refused_in_one_line() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let text = Start::passed(vec![listener().into(), file.into()], "http:metrics").refused();
    assert!(text.contains("the socket \"metrics\"") && text.contains("no TCP or Unix stream socket"), "{text}");
}
