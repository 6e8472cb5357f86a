//! ssh, as the user has it: keys, agent, jumps and known hosts are its own business.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    thread,
};

use crate::{
    Error, Result,
    interrupt::Interrupt,
    screen::{cut, printable},
};

/// Becomes root where the user is not, and leaves with this where that is refused.
const GATE: &str =
    "[ \"$(id -u)\" = 0 ] && exec sh -c \"$@\"; sudo -n true 2>/dev/null || exit 77; exec sudo -n sh -c \"$@\"";
const NOT_ROOT: i32 = 77;
/// What ssh itself ends with where it has no connection, or loses it.
const NO_CONNECTION: i32 = 255;
/// Nobody is there to answer questions; host keys are known or refused, whatever the user's configuration says; and a
/// connection that is dead is found out.
const OPTIONS: [&str; 5] = [
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ConnectTimeout=20",
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
];
const LONGEST_LINE: usize = 400;

/// How hosts are reached.
#[derive(Clone, Debug, Default)]
pub struct Ssh {
    /// The configuration that takes the place of the user's (`ssh -F`).
    pub config: Option<PathBuf>,
    /// What ends a connection before its time.
    pub interrupt: Interrupt,
}

impl Ssh {
    /// Runs a shell script on a host as root, with `input` on its standard input, and gives each line that it prints.
    ///
    /// # Errors
    /// [`Error::Command`] with what ssh said and what to do, where it does not end with 0.
    pub(super) fn run(&self, host: &str, script: &[&str], input: &[u8], mut each: impl FnMut(&str)) -> Result<()> {
        let failed = |output: String| Error::Command { command: format!("ssh {host}"), output };
        let mut command = self.command(host, script);
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        self.interrupt.ends(&child);
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let said = thread::scope(|scope| {
            // Who takes no more of it says why.
            scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(input)));
            let said = scope.spawn(|| read_all(stderr));
            let lines = stdout.map(BufReader::new).into_iter().flat_map(|lines| lines.split(b'\n'));
            for line in lines.map_while(std::result::Result::ok) {
                each(&String::from_utf8_lossy(&line));
            }
            said.join().unwrap_or_default()
        });
        self.interrupt.spares(&child);
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        match status.success() {
            true => Ok(()),
            false if self.interrupt.came() => Err(failed("interrupted".to_owned())),
            false => Err(failed(explain(status, &said))),
        }
    }

    fn command(&self, host: &str, script: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        if let Some(config) = &self.config {
            command.arg("-F").arg(config);
        }
        command.arg("-T").args(OPTIONS.iter().flat_map(|option| ["-o", option])).args(["--", host]);
        let words = ["sh", "-c", GATE, "ship"].into_iter().chain(script.iter().copied());
        command.arg(words.map(quote).collect::<Vec<_>>().join(" "));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// A word for a shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn read_all(from: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    let _ = from.map(|mut from| from.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What went wrong, and what to do.
fn explain(status: ExitStatus, said: &str) -> String {
    let lines: Vec<String> = said.lines().map(|line| printable(line.trim())).filter(|line| !line.is_empty()).collect();
    let said = cut(&lines.join("; "), LONGEST_LINE);
    match status.code() {
        Some(NOT_ROOT) => {
            "the user is not root there, and `sudo -n` is refused: ship as root, or allow it sudo without a password"
                .to_owned()
        }
        Some(NO_CONNECTION) if said.contains("Host key verification failed") => {
            format!(
                "{said}: compare its key with the host's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub, there), and let \
                 ssh know it: call `ssh` once by hand"
            )
        }
        Some(_) if said.is_empty() => status.to_string(),
        Some(_) => said,
        None => format!("{status} {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_reaches_the_script_as_it_is() {
        let words = ["it's", "$HOME", "a\nb", "", "`x` \"y\" \\"];
        let line = format!("printf '%s|' {}", words.map(quote).join(" "));
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), words.map(|word| format!("{word}|")).concat());
    }
}
