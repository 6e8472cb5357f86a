//! How small it is: its start, its memory, its files, and what it is made of.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use super::{
    Effort,
    chapter::{Bound, Chapter, Goal},
    dependencies::{self, Dependency},
    figure::Figure,
    memory,
    served::{self, Source},
    stage::{self, Stage, ms},
    turns::Turns,
};
use crate::{
    scratch::Scratch,
    succession::{Runtime, Succession},
    table::Server,
};

const ABOUT: &str = "KB and MB are 10^3 and 10^6 bytes. A start is from before fork to READY, on this machine without \
    systemd; the shell that puts the socket where the program expects it is in it, and its own time stands beside it. \
    Memory is VmRSS, of all processes: what the kernel keeps for a socket is in none of it. That of an idle connection is \
    what so many take more than one, opened one after the other, each with one request behind it. Ours is no more than its \
    socket once it has been idle for 250 ms; where all of them ask at the same moment, what that took stays with the \
    allocator, some 10 KB each. nginx makes room for its 16,384 for each worker when it starts, so that part of them is in \
    its memory from the beginning (Growth has all of it). The idle instance and the activation are on a systemd host. Ours \
    is the shipped, static binary throughout; `axum::serve` has the same router, and nginx answers from its configuration.";
const KILO: f64 = 1e3;
const MEGA: f64 = 1e6;
const KIB: f64 = 1024.0;

/// # Panics
/// Where a host does not boot, or an activation fails.
pub(super) fn run(effort: Effort) -> io::Result<Chapter> {
    let mut chapter = Chapter {
        title: "Small",
        about: ABOUT.to_owned(),
        figures: Vec::new(),
        curves: Vec::new(),
        goals: Vec::new(),
        notes: Vec::new(),
    };
    starts(effort, &mut chapter)?;
    on_a_host(effort, &mut chapter)?;
    idle_connections(effort, &mut chapter)?;
    sizes(&mut chapter)?;
    made_of(&mut chapter)?;
    cold_builds(effort, &mut chapter)?;
    Ok(chapter)
}

/// Starts something, and says how many milliseconds that took.
type Startup = Box<dyn FnMut() -> io::Result<f64>>;

fn starts(effort: Effort, chapter: &mut Chapter) -> io::Result<()> {
    let startup = |program: &Path| -> io::Result<Startup> {
        let mut succession = Succession::start(program, Runtime::Shared)?;
        Ok(Box::new(move || Ok(ms(succession.activate()?.length()))))
    };
    let (app, stock) = (stage::program()?, Server::Stock.build());
    let mut turns = Turns::of("ours", startup(&app)?)
        .and("axum::serve", stock.and_then(|stock| startup(&stock)))
        .and("the shell alone, and true(1)", Ok(Box::new(shell)));
    let figures = turns.figures("from before fork to READY, by a shell", "ms", effort.times, |start| start())?;
    chapter.goals.push(Goal::of("exec to READY, the shell included", Bound::AtMost(5.0), &figures[0]));
    chapter.figures.extend(figures);
    chapter.notes.extend(turns.lacks());
    Ok(())
}

/// As [`Succession`] starts a program.
fn shell() -> io::Result<f64> {
    let began = Instant::now();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" 3<&0 </dev/null", "true"]).stdin(Stdio::null()).stdout(Stdio::null());
    command.status()?;
    Ok(ms(began.elapsed()))
}

fn on_a_host(effort: Effort, chapter: &mut Chapter) -> io::Result<()> {
    let stage = Stage::in_memory()?;
    let (mut idle, mut during) = (Vec::new(), Vec::new());
    for _ in 0..effort.times {
        stage.settle();
        assert_eq!(memory::count(stage.host(), "app"), 1, "{}: one instance serves", stage.host().name());
        idle.push(memory::of_all(stage.host(), "app") * KIB / MEGA);
        let activate = || drop(stage.host().succeed("releasectl restart"));
        during.push(memory::most_while(stage.host(), &["app", "releasectl"], activate).1 * KIB / MEGA);
    }
    let idle = Figure::new("resident memory, idle", "ours", "MB", idle);
    chapter.goals.push(Goal::of(&idle.what, Bound::AtMost(8.0), &idle));
    let during = Figure::new("at most during an activation, both instances and releasectl", "ours", "MB", during);
    chapter.figures.extend([idle, during]);
    Ok(())
}

fn idle_connections(effort: Effort, chapter: &mut Chapter) -> io::Result<()> {
    let (mut servers, count) = (served::all()?, effort.most);
    let what = format!("memory of each of {count} idle connections");
    eprintln!("{what}");
    let figures = servers.figures(&what, "KB", effort.rounds, |source| each(source, count))?;
    chapter.goals.push(Goal::of(what, Bound::AtMost(8.0), &figures[0]));
    let ratios: Vec<Figure> = figures[1..].iter().map(|peer| figures[0].ratio_to(peer)).collect();
    chapter.figures.extend(figures.into_iter().chain(ratios));
    chapter.notes.extend(servers.lacks());
    Ok(())
}

/// KB that each of so many connections takes.
fn each(source: &Source, count: usize) -> io::Result<f64> {
    let mut served = source.start()?;
    served.open_until(1)?;
    let one = served.resident()?;
    served.open_until(1 + count)?;
    Ok((served.resident()? - one) * KIB / KILO / count as f64)
}

fn sizes(chapter: &mut Chapter) -> io::Result<()> {
    let contents = stage::contents()?;
    let bundle = contents.pack("bench").map_err(io::Error::other)?;
    let figure = |what: &str, bytes: &[u8]| Figure::new(what, "ours", "MB", vec![bytes.len() as f64 / MEGA]);
    let bundle = figure("bundle", &bundle.archive);
    let releasectl = figure("releasectl", stage::binary(&contents, "releasectl")?);
    chapter.goals.push(Goal::of("bundle", Bound::AtMost(6.0), &bundle));
    chapter.goals.push(Goal::of("releasectl", Bound::AtMost(3.0), &releasectl));
    let app = figure("the example app's binary", stage::binary(&contents, "app")?);
    chapter.figures.extend([bundle, releasectl, app]);
    Ok(())
}

fn made_of(chapter: &mut Chapter) -> io::Result<()> {
    for (package, binary) in [("app", "app"), ("releases", "releasectl")] {
        let count = dependencies::count_all(package)? as f64;
        chapter.figures.push(Figure::new(format!("crates that {binary} is built of"), "ours", "", vec![count]));
    }
    for package in ["app", "serve", "releases"] {
        let line = |Dependency { name, why }: Dependency| format!("{name}: {}", why.unwrap_or_default());
        let lines: Vec<String> = dependencies::direct(package)?.into_iter().map(line).collect();
        chapter.notes.push(format!("What {package} depends on. {}.", lines.join("; ")));
    }
    Ok(())
}

/// What a bundle is made of, into a folder where nothing is.
fn cold_builds(effort: Effort, chapter: &mut Chapter) -> io::Result<()> {
    let seconds = (0..effort.cold_builds).map(|_| cold_build()).collect::<io::Result<Vec<f64>>>()?;
    if !seconds.is_empty() {
        chapter.figures.push(Figure::new("a release build from nothing", "ours", "s", seconds));
    }
    Ok(())
}

fn cold_build() -> io::Result<f64> {
    let folder = Scratch::on_disk()?;
    let mut command = Command::new("setpriv");
    // Else it would go on to write there when this process is killed.
    command.args(["--pdeathsig", "KILL", option_env!("CARGO").unwrap_or("cargo")]);
    command.args(["build", "--release", "--locked", "--quiet", "-p", "app", "-p", "releases", "--bins"]);
    command.arg("--target-dir").arg(folder.path()).current_dir(crate::workspace());
    let began = Instant::now();
    let status = command.status()?;
    let seconds = began.elapsed().as_secs_f64();
    if status.success() { Ok(seconds) } else { Err(io::Error::other(format!("the cold build ended with {status}"))) }
}
