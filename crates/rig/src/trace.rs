//! What strace(1) saw of `releasectl`, held against the steps that it counted: whatever changes a host is a step.

use std::collections::{BTreeMap, BTreeSet};

use crate::subject::STEPS;

/// What strace is asked for: each thread and process, the paths of descriptors, and whatever can change a host.
pub const STRACE: &str = "strace -f -y -qq -e signal=none -e trace=open,openat,openat2,creat,write,writev,pwrite64,pwritev,\
    sendfile,copy_file_range,splice,fallocate,truncate,ftruncate,fsync,fdatasync,sync,syncfs,sync_file_range,\
    rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,mknod,mknodat,\
    chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,utimensat,setxattr,fsetxattr,lsetxattr,removexattr,\
    mount,umount2,pivot_root,kill,tgkill,pidfd_send_signal,clone,clone3,fork,vfork";

/// The system call of each operation that effect.rs of `releases` names; to wait for a program changes nothing.
const CALLS: [(&str, &str); 13] = [
    ("create", "open"),
    ("open", "open"),
    ("write", "write"),
    ("truncate", "ftruncate"),
    ("set the mode of", "fchmod"),
    ("sync folder", "fsync"),
    ("sync", "fsync"),
    ("make folder", "mkdir"),
    ("rename to", "rename"),
    ("exchange", "rename"),
    ("link", "symlink"),
    ("remove folder", "rmdir"),
    ("remove", "unlink"),
];

/// How many calls of each kind are no counted step, or the other way round; one line for each.
pub fn differences(trace: &str, steps: &str) -> Vec<String> {
    let (seen, counted) = (calls(trace), operations(steps));
    let kinds: BTreeSet<_> = seen.keys().chain(counted.keys()).collect();
    let count = |of: &BTreeMap<String, Vec<String>>, kind: &str| of.get(kind).map_or(0, Vec::len);
    let differs = |kind: &&&String| count(&seen, kind) != count(&counted, kind);
    let line = |kind: &String| {
        let (calls, steps) = (count(&seen, kind), count(&counted, kind));
        format!("{calls} calls of {kind}, {steps} steps: {:?} and {:?}", seen.get(kind), counted.get(kind))
    };
    kinds.iter().filter(differs).map(|kind| line(kind)).collect()
}

fn operations(steps: &str) -> BTreeMap<String, Vec<String>> {
    let mut counted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for step in steps.lines().filter_map(|line| line.splitn(4, ' ').nth(3)) {
        let call = CALLS.iter().find(|(name, _)| step.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let kind = match call {
            Some((_, call)) => call,
            None if step.starts_with("start ") => "start",
            None if step.starts_with("wait for ") => continue,
            None => "of no kind that is known",
        };
        counted.entry(kind.to_owned()).or_default().push(step.to_owned());
    }
    counted
}

/// The calls of the traced process that change something; what programs do that it starts is theirs.
fn calls(trace: &str) -> BTreeMap<String, Vec<String>> {
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut others, mut unfinished) = (BTreeSet::new(), BTreeMap::new());
    for line in trace.lines() {
        let Some((pid, line)) = line.trim_start().split_once(' ') else { continue };
        let mut line = line.trim_start().to_owned();
        if let Some(begun) = line.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid, begun.to_owned());
            continue;
        }
        if let Some((_, rest)) = line.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            line = unfinished.remove(pid).unwrap_or_default() + rest;
        }
        let Some((name, arguments)) = line.split_once('(') else { continue };
        if others.contains(pid) {
            if let Some(child) = child_of(name, arguments) {
                others.insert(child.to_owned());
            }
            continue;
        }
        if let Some(kind) = kind(name, arguments) {
            if kind == "start"
                && let Some(child) = child_of(name, arguments)
            {
                others.insert(child.to_owned());
            }
            seen.entry(kind.to_owned()).or_default().push(line);
        }
    }
    seen
}

fn child_of<'a>(name: &str, arguments: &'a str) -> Option<&'a str> {
    let makes = ["clone", "clone3", "fork", "vfork"].contains(&name);
    makes.then(|| arguments.rsplit_once("= ").map(|(_, pid)| pid.split_once(' ').map_or(pid, |(pid, _)| pid)))?
}

/// What kind of change a call is, if it is one.
fn kind<'a>(name: &'a str, arguments: &str) -> Option<&'a str> {
    // The lines of the steps themselves, and what goes to a terminal, a pipe or a socket.
    let is_elsewhere = arguments.contains(STEPS) || !arguments.contains("</") || arguments.contains("</dev/");
    Some(match name {
        "open" | "openat" | "openat2" | "creat" => {
            let changes = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| arguments.contains(flag));
            let is_device = arguments.contains("\"/dev/") || arguments.contains(STEPS);
            (changes && !is_device).then_some("open")?
        }
        "write" | "writev" => (!is_elsewhere).then_some("write")?,
        "clone" | "clone3" | "fork" | "vfork" => (!arguments.contains("CLONE_THREAD")).then_some("start")?,
        "rename" | "renameat" | "renameat2" => "rename",
        "unlink" => "unlink",
        "unlinkat" => {
            if arguments.contains("AT_REMOVEDIR") {
                "rmdir"
            } else {
                "unlink"
            }
        }
        "mkdir" | "mkdirat" => "mkdir",
        "symlink" | "symlinkat" => "symlink",
        "fsync" | "fdatasync" => "fsync",
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: &str = "install 7 1 remove /opt/app/x\ninstall 7 2 start systemctl show\n";
    const TRACE: &str = "7 unlink(\"/opt/app/x\") = -1 ENOENT (No such file or directory)\n\
        7 clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD}, 88) = 8\n\
        8 openat(AT_FDCWD</>, \"/x\", O_WRONLY|O_CREAT) = 3</x>\n\
        7 openat(AT_FDCWD</>, \"/etc/passwd\", O_RDONLY) = 3</etc/passwd>\n\
        7 write(1</dev/null>, \"said\", 4) = 4\n";

    #[test]
    fn what_is_counted_and_what_a_started_program_does_is_no_difference() {
        assert_eq!(differences(TRACE, STEP), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_counted_is_seen() {
        for call in ["ftruncate(3</x>, 0) = 0", "write(3</x>, \"y\", 1) = 1", "kill(8, SIGKILL) = 0"] {
            assert_eq!(differences(&format!("{TRACE}7 {call}\n"), STEP).len(), 1, "{call}");
        }
        let torn = "7 mkdir(\"/x\", 0755 <unfinished ...>\n8 exit(0) = ?\n7 <... mkdir resumed>) = 0\n";
        assert_eq!(differences(&(TRACE.to_owned() + torn), STEP).len(), 1);
    }
}
