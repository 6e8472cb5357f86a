//! Everything that CodeDeploy's agent may do to our bundle, each on a host of its own, under load: the events end as they must,
//! nothing is lost, and the deployment that follows succeeds.

mod incidents;
mod stage;
mod usual;

use std::{collections::VecDeque, io, sync::Mutex, thread};

use comfy_table::{Table, presets};

use crate::subject;
use stage::{Bundles, Stage, Tale};

/// Hosts at once: a scenario waits more than it works.
const HOSTS: usize = 3;

/// How many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// All.
    Whole,
    /// One of each kind.
    Short,
}

type Play = Box<dyn Fn(&Stage<'_>, &mut Tale) + Send + Sync>;

/// One of them: a name, whether it is among the few, and what happens.
struct Scenario {
    name: String,
    pass: Pass,
    play: Play,
}

impl Scenario {
    fn new(name: impl Into<String>, play: impl Fn(&Stage<'_>, &mut Tale) + Send + Sync + 'static) -> Self {
        Self { name: name.into(), pass: Pass::Whole, play: Box::new(play) }
    }

    /// Among the few.
    fn short(mut self) -> Self {
        self.pass = Pass::Short;
        self
    }
}

/// Runs those whose name contains one of `names`, or all, and prints the table; returns whether all was as it must be.
///
/// # Errors
/// Where the bundles do not build, or nothing is called so.
///
/// # Panics
/// Where a host does not boot.
pub fn run(pass: Pass, names: &[String]) -> io::Result<bool> {
    let bundles = Bundles::pack(subject::contents()?)?;
    let all = usual::all().into_iter().chain(incidents::all());
    let is_named = |scenario: &Scenario| names.is_empty() || names.iter().any(|name| scenario.name.contains(name));
    let is_in = |scenario: &Scenario| (pass == Pass::Whole || scenario.pass == pass) && is_named(scenario);
    let chosen: VecDeque<_> = all.filter(is_in).enumerate().collect();
    if chosen.is_empty() {
        return Err(io::Error::other(format!("no scenario's name contains {}", names.join(" or "))));
    }
    let (waiting, told) = (Mutex::new(chosen), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..HOSTS {
            scope.spawn(|| {
                loop {
                    let Some((n, scenario)) = waiting.lock().expect("no scenario panics").pop_front() else { return };
                    let tale = Stage::run(&bundles, &scenario.name, &scenario.play);
                    eprintln!("{}: {}", scenario.name, if tale.is_good() { "as wanted" } else { "NOT as wanted" });
                    tale.faults.iter().for_each(|fault| eprintln!("{}: {fault}", scenario.name));
                    told.lock().expect("no scenario panics").push((n, scenario.name, tale));
                }
            });
        }
    });
    let mut told = told.into_inner().expect("no scenario panics");
    told.sort_by_key(|(n, ..)| *n);
    let tales: Vec<_> = told.into_iter().map(|(_, name, tale)| (name, tale)).collect();
    Ok(print(&tales))
}

fn print(tales: &[(String, Tale)]) -> bool {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["SCENARIO", "WANTED", "SEEN", "SENT", "LOST"]);
    for (name, tale) in tales {
        let seen = if tale.seen == tale.wanted { "the same".to_owned() } else { tale.seen.join(", ") };
        table.add_row([name.clone(), tale.wanted.join(", "), seen, tale.sent.to_string(), tale.lost.to_string()]);
    }
    println!("{table}");
    let bad = tales.iter().filter(|(_, tale)| !tale.is_good()).count();
    let [sent, lost] = [|tale: &Tale| tale.sent, |tale: &Tale| tale.lost]
        .map(|of| tales.iter().map(|(_, tale)| of(tale)).sum::<u64>());
    println!("\n{} scenarios, {bad} unexpected; {sent} requests, {lost} lost", tales.len());
    bad == 0
}
