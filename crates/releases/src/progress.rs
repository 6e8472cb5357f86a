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
}

impl Progress {
    /// Nothing is done yet.
    pub fn begin(verb: &'static str) -> Self {
        Self { verb, began: Instant::now(), ended: Vec::new(), under_way: None }
    }

    /// Ends the step before, and begins this.
    pub fn step(&mut self, name: &'static str) {
        self.end_step();
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
        if self.under_way.is_some() {
            self.end_step();
            show_done();
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
