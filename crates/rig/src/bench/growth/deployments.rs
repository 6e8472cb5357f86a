//! What deployments in a row leave: nothing that grows.

use std::io;

use super::super::{
    Effort,
    chapter::Curve,
    figure::Figure,
    stage::{Stage, timed},
};
use crate::soak::Holdings;

/// One for ten of what other curves go to: a deployment takes a good part of a second.
const OF_MOST: usize = 10;
/// What stays flat on a host that does nothing but this.
const FLAT: [&str; 4] = ["units of systemd", "inodes", "control groups", "memory of systemd, KiB"];

/// How long an activation takes, and what the host holds, after so many.
pub(super) fn curves(effort: Effort) -> io::Result<Vec<Curve>> {
    let mut stage = Stage::in_memory()?;
    let last = effort.most / OF_MOST;
    let (mut activations, mut holdings) = (Vec::new(), Vec::new());
    let marks: Vec<usize> = effort.counts(last).collect();
    for count in 1..=last {
        let id = stage.subject.next_revision();
        stage.hook("after-install");
        activations.push(timed(|| stage.hook("application-start")));
        stage.hook("validate-service");
        stage.subject.reported = Some(id);
        if marks.contains(&count) {
            eprintln!("{count} deployments");
            holdings.push((count, Holdings::of(stage.host())));
        }
    }
    let curve = |what: &str, points| Curve { what: what.to_owned(), over: "deployments", points };
    let figure = |whose: &str, unit, values| Figure::new("", format!("ours, {whose}"), unit, values);
    // The ten before it, as far as there are.
    let of = |count: usize| figure("activate", "ms", activations[count.saturating_sub(10)..count].to_vec());
    let took = holdings.iter().map(|(count, _)| (*count, of(*count))).collect();
    let held = holdings.iter().flat_map(|(count, held)| {
        let flat = held.named().filter(|(name, _)| FLAT.contains(name));
        flat.map(|(name, value)| (*count, figure(name, "", vec![value]))).collect::<Vec<_>>()
    });
    let curves = vec![curve("an activation over deployments", took), curve("what the host holds", held.collect())];
    Ok(curves)
}
