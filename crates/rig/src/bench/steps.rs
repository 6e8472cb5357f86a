//! Where a verb's time goes: what its receipts say of each step.

use serde_json::Value;

use super::figure::Figure;
use crate::Host;

/// The steps of a verb, in their order, and what each took each time, in whole milliseconds.
pub(super) struct Steps {
    verb: &'static str,
    took: Vec<(String, Vec<f64>)>,
}

impl Steps {
    /// Those of the verb of this name, none yet.
    pub fn of(verb: &'static str) -> Self {
        Self { verb, took: Vec::new() }
    }

    /// Adds what the host's last receipt says.
    ///
    /// # Panics
    /// Where it is of another verb.
    pub fn add(&mut self, host: &Host) {
        let history = host.succeed("releasectl history --json --last 1");
        let history: Value = serde_json::from_str(&history).expect("it is JSON");
        let receipt = &history[0];
        assert_eq!(receipt["verb"], self.verb, "{}: {history}", host.name());
        let steps = [&receipt["steps"], &receipt["validation"]["steps"]].into_iter().filter_map(Value::as_array);
        for step in steps.flatten() {
            let (name, ms) = (step["name"].as_str().unwrap_or_default(), step["ms"].as_f64().unwrap_or_default());
            match self.took.iter_mut().find(|(known, _)| known == name) {
                Some((_, took)) => took.push(ms),
                None => self.took.push((name.to_owned(), vec![ms])),
            }
        }
    }

    pub fn figures(self) -> Vec<Figure> {
        let what = format!("where the time of {} goes", self.verb);
        self.took.into_iter().map(|(name, took)| Figure::new(&what, format!("ours, {name}"), "ms", took)).collect()
    }
}
