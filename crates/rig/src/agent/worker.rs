//! The agent's process that has started a script and waits for it. It is in the host; the pipes are read here, each by a
//! program that can be killed, for then the script writes to nobody.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Instant,
};

use super::service::{self, RUN};
use crate::Host;

/// What there is to hear of a script.
#[derive(Debug)]
pub(super) enum News {
    /// A line of its output, marked as what it is.
    Line(String),
    /// Nobody holds this pipe any more.
    Closed(&'static str),
    /// It has ended, and how a shell says that.
    Exited(i32),
    /// The worker has, and will not tell.
    Died,
}

/// A worker with its script.
pub(super) struct Worker<'a> {
    host: &'a Host,
    /// The worker's process, and the script's, which leads its group.
    pids: Option<[String; 2]>,
    readers: Vec<Child>,
    news: Receiver<News>,
    folder: String,
    said: Receiver<String>,
}

impl<'a> Worker<'a> {
    /// Starts what `shell` sets as its arguments.
    ///
    /// # Panics
    /// Where the host does not take a file.
    pub fn start(host: &'a Host, shell: &str) -> Self {
        let folder = format!("{RUN}/{:016x}", fastrand::u64(..));
        host.succeed(&format!("mkdir {folder}; cd {folder}; mkfifo out err said"));
        // The script must not hold what tells of the worker's own end.
        let text = format!(
            "#!/bin/sh\ncd {folder}\nexec 3>said\n{shell}\"$@\" </dev/null >{folder}/out 2>{folder}/err 3>&- &\n\
             echo \"$$ $!\" >&3\nwait $!\necho $? >&3\n"
        );
        let path = host.path(&format!("{folder}/worker"));
        fs::write(&path, text).expect("the host takes a worker");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let (tell, news) = mpsc::channel();
        let (say, said) = mpsc::channel();
        let mut readers = Vec::new();
        for (name, pipe, mark) in [("out", "STDOUT", "[stdout]"), ("err", "STDERR", "[stderr]")] {
            let mut reader = read(host, &format!("{folder}/{name}"));
            pass_on(&mut reader, pipe, mark, tell.clone());
            readers.push(reader);
        }
        let mut reader = read(host, &format!("{folder}/said"));
        follow(&mut reader, say, tell);
        readers.push(reader);
        service::hand_over(host, &format!("{folder}/worker"));
        Self { host, pids: None, readers, news, folder, said }
    }

    /// The next thing that happens until then.
    pub fn next(&mut self, until: Instant) -> Option<News> {
        match self.news.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(News::Died),
        }
    }

    /// Waits for the script alone, until then or for ever; whether it has ended.
    pub fn wait(&mut self, until: Option<Instant>) -> bool {
        loop {
            let news = match until {
                Some(until) => self.next(until),
                None => self.news.recv().ok().or(Some(News::Died)),
            };
            match news {
                Some(News::Exited(_) | News::Died) => return true,
                Some(News::Line(_) | News::Closed(_)) => {}
                None => return false,
            }
        }
    }

    /// Ends the worker, as the kernel ends a process for want of memory. The script has lost its parent and its readers.
    pub fn kill(&mut self) {
        let [worker, _] = self.pids().clone();
        self.host.run(&format!("kill -KILL {worker}"));
        self.close();
    }

    /// Reads no more of what the script prints: its next line costs it its life, if it does not mind the signal.
    pub fn close(&mut self) {
        for reader in &mut self.readers[..2] {
            let _ = reader.kill();
            let _ = reader.wait();
        }
    }

    /// Sends a signal to the script's whole group.
    pub fn signal_group(&mut self, signal: &str) {
        let [_, script] = self.pids().clone();
        self.host.run(&format!("kill -{signal} -{script}"));
    }

    fn pids(&mut self) -> &[String; 2] {
        let said = &self.said;
        self.pids.get_or_insert_with(|| {
            let line = said.recv().unwrap_or_default();
            let (worker, script) = line.split_once(' ').expect("a worker that runs says who it is");
            [worker.to_owned(), script.to_owned()]
        })
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        for reader in &mut self.readers {
            let _ = reader.kill();
            let _ = reader.wait();
        }
        self.host.run(&format!("rm -rf {}", self.folder));
    }
}

fn read(host: &Host, path: &str) -> Child {
    let mut command = Command::new("cat");
    command.arg(host.path(path)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("cat starts")
}

fn pass_on(reader: &mut Child, pipe: &'static str, mark: &'static str, tell: Sender<News>) {
    let mut lines = BufReader::new(reader.stdout.take().expect("piped"));
    thread::spawn(move || {
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let _ = tell.send(News::Line(format!("{mark}{}", String::from_utf8_lossy(&line))));
            line.clear();
        }
        let _ = tell.send(News::Closed(pipe));
    });
}

/// The worker says first who it is, then how the script ended.
fn follow(reader: &mut Child, say: Sender<String>, tell: Sender<News>) {
    let mut lines = BufReader::new(reader.stdout.take().expect("piped")).lines().map_while(Result::ok);
    thread::spawn(move || {
        let _ = lines.next().map(|line| say.send(line));
        let code = lines.next().and_then(|line| line.parse().ok());
        let _ = tell.send(code.map_or(News::Died, News::Exited));
    });
}
