//! `bundle [LABEL]`: builds the workspace and prints the path of its bundle.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let label = std::env::args().nth(1).unwrap_or_else(|| releases::bundle::LABEL.to_owned());
    match releases::bundle::make(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), &label) {
        Ok(path) => {
            let size = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
            eprintln!("bundle of {} KiB, label {label}:", size / 1024);
            println!("{}", path.canonicalize().unwrap_or(path).display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bundle: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
