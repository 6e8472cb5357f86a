//! A way to replace what serves, and what it is set up by: those files are beside this one.

use std::{
    fs, io,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::{Cell, root::root, version};

/// A way to replace what serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Kind {
    /// `releasectl activate` on a real host.
    Ours,
    /// This project without its way: SIGTERM, wait, start, on one socket.
    Restart,
    /// The same of `axum::serve` with its graceful shutdown.
    AxumRestart,
    /// `axum::serve` with its graceful shutdown, the next one started before it.
    Axum,
    Ecdysis,
    Nginx,
    /// With `keepalive_min_timeout`.
    PatientNginx,
    Haproxy,
    Caddy,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Ours,
        Self::Restart,
        Self::AxumRestart,
        Self::Axum,
        Self::Ecdysis,
        Self::Nginx,
        Self::PatientNginx,
        Self::Haproxy,
        Self::Caddy,
    ];

    /// For people, with its version.
    pub fn name(self) -> String {
        match self {
            Self::Ours => "ours".to_owned(),
            Self::Restart => "this project, stop and start".to_owned(),
            Self::AxumRestart => format!("axum {}, stop and start", version("axum")),
            Self::Axum => format!("axum {}, overlapping", version("axum")),
            Self::Ecdysis => format!("ecdysis {}", version("ecdysis")),
            Self::Nginx => format!("nginx {}", version("nginx")),
            Self::PatientNginx => format!("nginx {}, min_timeout", version("nginx")),
            Self::Haproxy => format!("HAProxy {}", version("haproxy")),
            Self::Caddy => format!("Caddy {}", version("caddy")),
        }
    }

    /// What it is started with, and reloaded with; /mnt is its folder.
    pub(super) fn commands(self) -> [&'static str; 2] {
        match self {
            Self::Ecdysis => ["exec /mnt/ecdysis-peer", "kill -HUP $(cat /mnt/pid)"],
            Self::Haproxy => ["echo $$ >/mnt/pid; exec haproxy -W -f /mnt/haproxy.cfg", "kill -USR2 $(cat /mnt/pid)"],
            Self::Caddy => ["exec caddy run --config /mnt/Caddyfile", "caddy reload --config /mnt/Caddyfile"],
            _ => ["exec nginx -c /mnt/nginx.conf", "nginx -c /mnt/nginx.conf -s reload"],
        }
    }

    /// Puts what it is set up by into the cell's folder.
    pub(super) fn set_up(self, cell: &Cell) -> io::Result<()> {
        let write = |name: &str, text: &str| fs::write(cell.path(name), text);
        match self {
            Self::Ecdysis => fs::copy(ecdysis()?, cell.path("ecdysis-peer")).map(drop),
            Self::Haproxy => write("haproxy.cfg", include_str!("haproxy.cfg")),
            Self::Caddy => write("Caddyfile", include_str!("Caddyfile")),
            _ => {
                let patience = if self == Self::PatientNginx { "keepalive_min_timeout 5s;\n" } else { "" };
                write("patience.conf", patience)?;
                write("nginx.conf", include_str!("nginx.conf"))
            }
        }
    }

    /// Of the machine's own where it is built here.
    pub(super) fn root(self) -> io::Result<PathBuf> {
        if self == Self::Ecdysis { Ok(PathBuf::from("/")) } else { root() }
    }
}

/// Built as it is locked: outside the workspace nothing else holds it.
pub(super) fn ecdysis() -> io::Result<PathBuf> {
    const MANIFEST: &str = "crates/rig/src/bench/peers/ecdysis/Cargo.toml";
    build(&["--locked", "--manifest-path", MANIFEST, "--target-dir", "target/peers"])
}

/// The program that cargo builds last.
fn build(arguments: &[&str]) -> io::Result<PathBuf> {
    let mut command = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    command.args(["build", "--release", "--quiet"]).args(arguments);
    command.args(["--message-format", "json-render-diagnostics"]).current_dir(crate::workspace());
    let output = command.stderr(Stdio::inherit()).output()?;
    // The last artifact is the one that was asked for.
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut built = messages.filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)));
    let failed = || io::Error::other(format!("cargo build {} built no program", arguments.join(" ")));
    built.next_back().ok_or_else(failed)
}
