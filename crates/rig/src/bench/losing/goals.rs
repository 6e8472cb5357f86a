//! What ours has to keep: everything that it was asked counts, with releases and without.

use super::{beside::Beside, run::Run, seen::Seen};
use crate::{
    Mode,
    bench::{
        chapter::{Bound, Goal},
        figure::{Figure, short},
    },
};

/// Of every kind of client; `pairs` are those of c3.
pub(super) fn goals(played: &[Beside], pairs: &Beside) -> Vec<Goal> {
    let all = || played.iter().chain([pairs]).filter_map(|beside| beside.runs.first());
    let total = |count: fn(&Seen) -> u64| all().map(|run: &Run| run.total(count)).sum::<u64>();
    let none = |what: String, is: u64| Goal { what, bound: Bound::AtMost(0.0), is: is as f64, unit: "" };
    let sent = short(total(|seen| seen.sent) as f64);
    let counts = [
        none(format!("requests lost by ours, all kinds of clients, of {sent} sent"), total(Seen::lost)),
        none("HTTP/1.1 connections closed by ours, all kinds".to_owned(), total(|seen| seen.closed)),
    ];
    let at_most = |what: String, figure: &Figure| Goal::of(what, Bound::AtMost(1.1), figure);
    let worst = played.iter().filter_map(slower);
    let worst = worst.max_by(|(_, one), (_, other)| one.median().total_cmp(&other.median())).map(|(mode, figure)| {
        at_most(format!("p99.9 with releases, times that without, of the worst kind by itself ({mode})"), &figure)
    });
    let pairs = slower(pairs).map(|(_, figure)| at_most("the same of c3, pair by pair".to_owned(), &figure));
    counts.into_iter().chain(worst).chain(pairs).collect()
}

/// Of one kind of client by itself.
fn slower(beside: &Beside) -> Option<(Mode, Figure)> {
    Some((beside.scene.mode()?, beside.runs.first()?.slower(&beside.scene)?))
}
