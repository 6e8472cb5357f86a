//! What idle connections cost a server: memory, and time on the processor.

use std::{io, time::Duration};

use super::super::{
    Effort,
    chapter::Curve,
    figure::Figure,
    idle::Idle,
    served::{self, Served, Way},
};

const CONNECTIONS: usize = 10_000;
/// In which each connection asks once, or nobody asks.
const WINDOW: Duration = Duration::from_secs(1);

/// Memory, time for a request on each, and time while nobody asks; and which peer could not be had.
pub(super) fn curves(effort: Effort) -> io::Result<(Vec<Curve>, Option<String>)> {
    let (servers, lack) = served::all()?;
    let mut curves = ["resident memory", "time on the processor for a request on each", "and in a second without any"]
        .map(|what| Curve { what: what.to_owned(), over: "connections", points: Vec::new() });
    for server in &servers {
        eprintln!("connections to {}", server.whose);
        for (count, figures) in grow(effort, server)? {
            for (curve, figure) in curves.iter_mut().zip(figures) {
                curve.points.push((count, figure));
            }
        }
    }
    Ok((curves.into(), lack))
}

fn grow(effort: Effort, server: &Way) -> io::Result<Vec<(usize, [Figure; 3])>> {
    let (served, mut idle) = ((server.start)()?, Idle::none()?);
    let mut points = Vec::new();
    for count in effort.counts(CONNECTIONS) {
        idle.open_until(count, served.address)?;
        let memory = served.resident() / 1024.0;
        let asked = spent(&served, || idle.ask_each(WINDOW, 1).map(drop))? / count as f64;
        let at_rest = spent(&served, || {
            std::thread::sleep(WINDOW);
            Ok(())
        })?;
        let figure = |unit, value| Figure::new("", &server.whose, unit, vec![value]);
        points.push((count, [figure("MiB", memory), figure("µs", asked), figure("µs", at_rest)]));
    }
    Ok(points)
}

/// Microseconds on the processor while `act` goes on.
fn spent(served: &Served, act: impl FnOnce() -> io::Result<()>) -> io::Result<f64> {
    let before = served.processor_time();
    act()?;
    Ok((served.processor_time() - before).as_secs_f64() * 1e6)
}
