//! What a verb is doing, step by step: a line for each when it begins, in a terminal one that tells for how long it has been
//! under way, and at the end one with the times of all.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::screen::{say, show_doing, show_done};

/// A part of a verb.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What it does.
    pub name: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// The steps of a verb that is under way.
#[derive(Debug)]
pub struct Progress {
    verb: &'static str,
    began: Instant,
    ended: Vec<Step>,
    under_way: Option<(&'static str, Instant)>,
    /// Told with the second step: whoever's input is bad gets one clear line and no more.
    untold: Option<&'static str>,
}

impl Progress {
    /// Nothing is done yet but the first step.
    pub fn begin(verb: &'static str, first: &'static str) -> Self {
        let began = Instant::now();
        show_doing(first);
        Self { verb, began, ended: Vec::new(), under_way: Some((first, began)), untold: Some(first) }
    }

    /// Ends the step before, and begins this.
    pub fn step(&mut self, name: &'static str) {
        self.end_step();
        if let Some(first) = self.untold.take() {
            say(&format!("  {first}"));
        }
        say(&format!("  {name}"));
        show_doing(name);
        self.under_way = Some((name, Instant::now()));
    }

    /// Ends the last one, and returns all.
    pub fn end(mut self) -> Vec<Step> {
        self.conclude();
        std::mem::take(&mut self.ended)
    }

    fn end_step(&mut self) {
        if let Some((name, since)) = self.under_way.take() {
            self.ended.push(Step { name: name.to_owned(), ms: since.elapsed().as_millis() as u64 });
        }
    }

    fn conclude(&mut self) {
        if self.under_way.is_none() {
            return;
        }
        self.end_step();
        show_done();
        if self.untold.is_none() {
            let steps: Vec<String> = self.ended.iter().map(ToString::to_string).collect();
            say(&format!("{} took {} ms: {}", self.verb, self.began.elapsed().as_millis(), steps.join(", ")));
        }
    }
}

/// Whatever failed: the times are told, and the last step is where.
impl Drop for Progress {
    fn drop(&mut self) {
        self.conclude();
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.ms)
    }
}
