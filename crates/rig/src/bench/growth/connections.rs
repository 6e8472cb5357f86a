//! What idle connections cost a server: memory, and time on the processor.

use std::{io, thread, time::Duration};

use super::{
    super::{
        Effort,
        chapter::Curve,
        figure::Figure,
        served::{self, Source},
    },
    times,
};

const CONNECTIONS: usize = 10_000;
/// In which each connection asks once, or nobody asks.
const WINDOW: Duration = Duration::from_secs(1);
/// Each of an idle server, with its unit.
const WHATS: [(&str, &str); 3] = [
    ("resident memory", "MiB"),
    ("time on the processor for a request on each", "µs"),
    ("and in a second without any", "µs"),
];

/// Memory, time for a request on each, and time while nobody asks; and which peer could not be had.
pub(super) fn curves(effort: Effort) -> io::Result<(Vec<Curve>, Vec<String>)> {
    let mut servers = served::all()?;
    let mut curves = WHATS.map(|(what, _)| Curve { what: what.to_owned(), over: "connections", points: Vec::new() });
    for count in effort.counts(CONNECTIONS) {
        eprintln!("{count} connections");
        for (whose, values) in servers.measure(times(effort), |source| measure(source, count))? {
            for (n, curve) in curves.iter_mut().enumerate() {
                let values = values.iter().map(|values| values[n]).collect();
                curve.points.push((count, Figure::new("", whose, WHATS[n].1, values)));
            }
        }
    }
    Ok((curves.into(), servers.lacks().collect()))
}

/// Of a fresh server: what was before it is not in its memory.
fn measure(source: &Source, count: usize) -> io::Result<[f64; 3]> {
    let mut served = source.start()?;
    served.open_until(count)?;
    let memory = served.resident()? / 1024.0;
    let asked = served.busy_while(|served| served.ask_each(WINDOW))?;
    let at_rest = served.busy_while(|_| {
        thread::sleep(WINDOW);
        Ok(())
    })?;
    let [asked, at_rest] = [asked, at_rest].map(|time| time.as_secs_f64() * 1e6);
    Ok([memory, asked / count as f64, at_rest])
}
