//! What the binaries are made of: each direct dependency with why it is there, and how many crates come with them.

use std::{collections::BTreeSet, fs, io, process::Command};

/// A direct dependency, as a Cargo.toml of ours has it.
#[derive(Debug, PartialEq)]
pub(super) struct Dependency {
    pub name: String,
    /// The comment above it.
    pub why: Option<String>,
}

/// Those of a crate of this workspace, without what only its tests or its build need.
///
/// # Errors
/// Where its Cargo.toml cannot be read.
pub(super) fn direct(package: &str) -> io::Result<Vec<Dependency>> {
    let path = crate::workspace().join("crates").join(package).join("Cargo.toml");
    Ok(parse(&fs::read_to_string(path)?))
}

/// How many crates a binary of this package is built of, itself included.
///
/// # Errors
/// Where cargo fails.
pub(super) fn count_all(package: &str) -> io::Result<usize> {
    let mut command = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    command.args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--package", package]);
    let output = command.current_dir(crate::workspace()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    // `name v1.2.3 (more)`
    let name = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    Ok(lines.lines().filter(|line| !line.is_empty()).map(name).collect::<BTreeSet<_>>().len())
}

fn parse(text: &str) -> Vec<Dependency> {
    let (mut dependencies, mut why, mut is_in) = (Vec::new(), None, false);
    for line in text.lines() {
        if let Some(table) = line.strip_prefix('[') {
            is_in = table == "dependencies]";
        } else if let Some(comment) = line.strip_prefix('#') {
            why = Some(comment.trim().to_owned()).filter(|why| !why.is_empty());
            continue;
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| is_in && !line.starts_with(' ')) {
            dependencies.push(Dependency { name: name.to_owned(), why: why.clone() });
        }
        why = None;
    }
    dependencies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direct_dependency_of_what_is_shipped_says_why_it_is_there() {
        for package in ["app", "serve", "releases"] {
            let direct = direct(package).unwrap();
            assert!(!direct.is_empty(), "{package}");
            for Dependency { name, why } in direct {
                assert!(why.is_some(), "crates/{package}/Cargo.toml does not say above {name} why it is there");
            }
        }
    }

    #[test]
    fn a_comment_belongs_to_the_line_below_it() {
        let text = "# no\n[dependencies]\n# a reason\none = \"1\"\ntwo = { features = [\n  \"x\",\n] }\n[other]\nthree = \"1\"\n";
        let dependency =
            |name: &str, why: Option<&str>| Dependency { name: name.to_owned(), why: why.map(str::to_owned) };
        assert_eq!(parse(text), [dependency("one", Some("a reason")), dependency("two", None)]);
    }
}
