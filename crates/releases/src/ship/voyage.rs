//! One host: what it is told, and what it tells.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use super::{Shipment, Ssh};
use crate::{
    Error, Result,
    id::hex,
    screen::{printable, say, show_doing, show_done, step},
    store::SHIPS,
};

const RECEIVE: &str = include_str!("receive.sh");
const RUN: &str = include_str!("run.sh");
/// Of a step that failed, so many last lines.
const TAIL: usize = 20;

/// A name for a ship, which hooks and receipts have as the deployment's: when it left, and what tells two at once apart.
pub fn id() -> String {
    let now = jiff::Timestamp::now();
    let apart = hex(&Sha256::digest(format!("{now} {}", std::process::id())));
    format!("ship-{}-{}", now.strftime("%Y%m%dT%H%M%SZ"), &apart[..4])
}

/// Brings the shipment to a host and sees what becomes of it.
///
/// # Errors
/// [`Error::Release`] where a step failed, [`Error::Command`] where the host was not reached, or was lost on the way.
pub fn sail(shipment: &Shipment, ssh: &Ssh, host: &str, id: &str) -> Result<()> {
    let plan = shipment.plan(&format!("{SHIPS}/{id}/bundle"));
    let mut log = Log { id, began: Instant::now(), doing: None, lines: VecDeque::new(), end: None };
    show_doing(if shipment.archive.is_empty() { "connect" } else { "copy" });
    let ran =
        ssh.run(host, &[RECEIVE, "ship", id, &shipment.digest(), &plan, RUN], &shipment.archive, |line| log.read(line));
    show_done();
    let ended = log.end.take();
    match (ended, ran) {
        (Some(End::Exit(0)), _) => Ok(()),
        (Some(End::Exit(_)), _) => Err(Error::Release(format!("{host}: {}", log.failure()))),
        (Some(End::Damaged), _) => Err(Error::Release(format!(
            "{host}: what arrived is not what was sent, and nothing of it was run; ship again"
        ))),
        (None, ran) => Err(log.lost(host, ran)),
    }
}

/// How it ended, by the host's word.
enum End {
    Exit(i32),
    Damaged,
}

/// What a host has said so far.
struct Log<'a> {
    id: &'a str,
    began: Instant,
    doing: Option<String>,
    /// The last ones of what is being done.
    lines: VecDeque<String>,
    end: Option<End>,
}

impl Log<'_> {
    fn read(&mut self, line: &str) {
        match line.strip_prefix(self.id).map(|rest| rest.split(' ').collect::<Vec<_>>()).as_deref() {
            Some(["", "copied"]) => self.copied(),
            Some(["", "damaged"]) => self.end = Some(End::Damaged),
            Some(["", "begin", name]) => self.begin(name),
            Some(["", "end", name, code, ms, limit]) => {
                self.end(name, code, Duration::from_millis(ms.parse().unwrap_or_default()), limit)
            }
            Some(["", "exit", code]) => self.end = code.parse().ok().map(End::Exit),
            // What a step prints. Ours come after an empty line, since a step's last may not end.
            _ if line.is_empty() => {}
            _ => {
                self.lines.push_back(printable(line));
                if self.lines.len() > TAIL {
                    self.lines.pop_front();
                }
            }
        }
    }

    fn copied(&mut self) {
        say(&step("copied", self.began.elapsed(), ""));
        // From here on the host may do what it was told, whether it can still tell or not.
        self.doing = Some("its beginning".to_owned());
    }

    fn begin(&mut self, name: &str) {
        show_doing(name);
        self.doing = Some(name.to_owned());
        self.lines.clear();
    }

    fn end(&self, name: &str, code: &str, took: Duration, limit: &str) {
        let is_late = limit.parse().is_ok_and(|limit| took >= Duration::from_secs(limit));
        let how = match code {
            "0" => self.lines.back().cloned().unwrap_or_default(),
            _ if is_late => format!("was ended after {limit} s"),
            _ => format!("exit status {code}"),
        };
        say(&step(name, took, &how));
    }

    fn failure(&self) -> String {
        let tail: String = self.lines.iter().map(|line| format!("\n  | {line}")).collect();
        format!("{} failed; its last lines:{tail}", self.doing.as_deref().unwrap_or("nothing"))
    }

    /// It has not said how it ended.
    fn lost(&self, host: &str, ran: Result<()>) -> Error {
        match (&self.doing, ran) {
            (None, Err(error)) => error,
            (doing, ran) => {
                let doing = doing.as_deref().unwrap_or("its beginning");
                let why = ran.err().map_or_else(|| "nobody ends it there".to_owned(), |error| error.to_string());
                Error::Release(format!(
                    "{host}: lost at {doing} ({why}): what has begun there goes on, by systemd (journalctl -u {}); ship again, \
                     and it converges",
                    self.id
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_work_in_the_folder_that_uninstall_removes() {
        assert!(RECEIVE.contains(&format!("\nbase={SHIPS}\n")) && RUN.contains(&format!("\nfolder={SHIPS}/$ship\n")));
    }

    #[test]
    fn what_a_host_says_of_a_step_is_told_from_what_the_step_prints() {
        let mut log = Log { id: "ship-1", began: Instant::now(), doing: None, lines: VecDeque::new(), end: None };
        for line in
            ["", "ship-1 begin AfterInstall", "one", "", "two ship-1 exit 0", "ship-1 exit", "", "ship-1 exit 7"]
        {
            log.read(line);
        }
        assert!(matches!(log.end, Some(End::Exit(7))));
        assert_eq!(
            log.failure(),
            "AfterInstall failed; its last lines:\n  | one\n  | two ship-1 exit 0\n  | ship-1 exit"
        );
    }
}
