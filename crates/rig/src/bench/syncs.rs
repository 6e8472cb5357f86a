//! How often a verb waits for the disk, and how long: as strace(1) counts fsync(2) and its like.

use super::{figure::Figure, stage::Stage};
use crate::subject::BUNDLE;

const LOG: &str = "/run/bench.syncs";
/// The kernel stops a process at these calls alone: the rest runs as it does untraced.
const STRACE: &str =
    "strace -f --seccomp-bpf -qq -T -e signal=none -e trace=fsync,fdatasync,sync,syncfs,sync_file_range";

/// What one verb did.
pub(super) struct Syncs {
    verb: &'static str,
    count: usize,
    ms: f64,
}

impl Syncs {
    /// Of a deployment and the way back.
    pub fn of_each_verb(stage: &mut Stage) -> Vec<Self> {
        let id = stage.subject.next_revision();
        let verbs = [
            ("install", format!("{BUNDLE}/bin/releasectl install {BUNDLE}")),
            ("activate", format!("{BUNDLE}/bin/releasectl activate {BUNDLE}")),
            ("validate", format!("{BUNDLE}/bin/releasectl validate {BUNDLE} --bake 0")),
            ("rollback", "releasectl rollback".to_owned()),
        ];
        stage.subject.reported = Some(id);
        verbs.map(|(verb, command)| Self::of(stage, verb, &command)).into()
    }

    fn of(stage: &Stage, verb: &'static str, command: &str) -> Self {
        stage.host().succeed(&format!("{STRACE} -o {LOG} {command}"));
        let log = stage.host().succeed(&format!("cat {LOG}; rm {LOG}"));
        let seconds: Vec<f64> = log.lines().filter_map(seconds).collect();
        Self { verb, count: seconds.len(), ms: seconds.iter().sum::<f64>() * 1e3 }
    }

    pub fn figures(&self) -> [Figure; 2] {
        let Self { verb, count, ms } = self;
        [
            Figure::new(format!("{verb}: waits for the disk"), "ours", "", vec![*count as f64]),
            Figure::new(format!("{verb}: for so long, all together"), "ours", "ms", vec![*ms]),
        ]
    }
}

/// `7 fsync(3) = 0 <0.000012>`; of a call that was told in two lines the second has it.
fn seconds(line: &str) -> Option<f64> {
    line.rsplit_once('<')?.1.strip_suffix('>')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_counted_once() {
        let log = "7 fsync(3) = 0 <0.000012>\n8 fsync(4 <unfinished ...>\n7 fdatasync(3) = 0 <0.5>\n\
                   8 <... fsync resumed>) = 0 <1.000000>\n+++ exited with 0 +++\n";
        assert_eq!(log.lines().filter_map(seconds).collect::<Vec<_>>(), [0.000_012, 0.5, 1.0]);
    }
}
