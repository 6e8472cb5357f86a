//! What is deployed to the fleet: the product, and what is wrong with it in one way each.

use std::{
    fs, io,
    sync::atomic::{AtomicU32, Ordering},
};

use releases::bundle::{Bundle, Contents};

use crate::table::Server;

/// So many seconds does a release bake here; what is shipped bakes for ten.
const BAKE: u32 = 3;
const VALIDATE: &str = "hooks/validate-service";
const STOP_START: [(&str, u32, &str); 5] = [
    ("appspec.yml", 0o644, include_str!("stop-start/appspec.yml")),
    ("hooks/stop", 0o755, include_str!("stop-start/stop.sh")),
    ("hooks/copy", 0o755, include_str!("stop-start/copy.sh")),
    ("hooks/start", 0o755, include_str!("stop-start/start.sh")),
    ("units/web.service", 0o644, include_str!("stop-start/web.service")),
];

/// Of one product, each another release.
#[derive(Debug)]
pub(super) struct Bundles {
    contents: Contents,
    stock: Vec<u8>,
    count: AtomicU32,
}

impl Bundles {
    /// Of what is shipped; it bakes for a shorter time. Whatever is to be built is built here.
    pub fn of(shipped: &Contents) -> io::Result<Self> {
        let mut contents = shipped.clone();
        contents.put(VALIDATE, 0o755, validate("exec bin/releasectl", "").as_bytes());
        let stock = fs::read(Server::Stock.build()?)?;
        Ok(Self { contents, stock, count: AtomicU32::new(0) })
    }

    /// One that is good.
    pub fn next(&self) -> io::Result<Bundle> {
        self.pack(&self.contents)
    }

    /// One whose program exits.
    pub fn never_ready(&self) -> io::Result<Bundle> {
        let mut contents = self.contents.clone();
        contents.put("bin/app", 0o755, b"#!/bin/sh\necho out of order >&2\nexit 3\n");
        self.pack(&contents)
    }

    /// One that loses, once it bakes, what it must have to be ready.
    pub fn not_for_long(&self) -> io::Result<Bundle> {
        let mut contents = self.contents.clone();
        let breaks =
            " | while read -r line; do echo \"$line\"; case $line in *bakes*) rm -r /var/lib/app ;; esac; done";
        contents.put(VALIDATE, 0o755, validate("bin/releasectl", breaks).as_bytes());
        self.pack(&contents)
    }

    /// The same router behind `axum::serve`, in a unit that is stopped and started.
    pub fn stop_start(&self) -> io::Result<Bundle> {
        let mut contents = self.contents.clone();
        for (path, mode, text) in STOP_START {
            contents.put(path, mode, text.as_bytes());
        }
        contents.put("bin/stock", 0o755, &self.stock);
        self.pack(&contents)
    }

    fn pack(&self, contents: &Contents) -> io::Result<Bundle> {
        let label = format!("fleet {}", self.count.fetch_add(1, Ordering::Relaxed));
        contents.pack(&label).map_err(io::Error::other)
    }
}

fn validate(releasectl: &str, and: &str) -> String {
    format!(
        "#!/bin/bash\nset -o pipefail\ncd \"${{0%/*}}/..\" || exit 1\n{releasectl} validate . --bake {BAKE} 2>&1{and}\n"
    )
}
