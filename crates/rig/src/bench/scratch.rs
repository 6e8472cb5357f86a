//! Files that a run takes away at its end; where a signal is its end, the next run does.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// This process's folder for them.
///
/// # Errors
/// Where it cannot be made, or what was left cannot be removed.
pub(super) fn folder() -> io::Result<PathBuf> {
    let all = crate::workspace().join("target/bench/tmp");
    let own = all.join(std::process::id().to_string());
    fs::create_dir_all(&own)?;
    remove_ended(&all)?;
    Ok(own)
}

/// Each is named after its process: that of another run which goes on is in use.
fn remove_ended(all: &Path) -> io::Result<()> {
    for entry in fs::read_dir(all)?.flatten() {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ended_run_left_is_removed_and_what_another_one_uses_is_not() {
        let all = tempfile::tempdir().unwrap();
        // No process has the number 0.
        let [ended, running] = ["0", "1"].map(|pid| all.path().join(pid).join("file"));
        for path in [&ended, &running] {
            fs::create_dir(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        remove_ended(all.path()).unwrap();
        assert!(!ended.parent().unwrap().exists() && running.exists());
    }
}
