//! The manual page and the completions of `releasectl`, from the definition of its command line.

use clap::{Arg, Command, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use crate::cli::Cli;

/// Where a bundle has them, which is where each program looks for them below its own folder.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "share/bash-completion/completions/releasectl"),
    (Shell::Zsh, "share/zsh/site-functions/_releasectl"),
    (Shell::Fish, "share/fish/vendor_completions.d/releasectl.fish"),
];

/// Their paths in a bundle, and their bytes.
pub(crate) fn files() -> Vec<(&'static str, Vec<u8>)> {
    let mut command = Cli::command();
    let mut files = vec![("share/man/man8/releasectl.8", page(&command))];
    for (shell, path) in COMPLETIONS {
        let mut bytes = Vec::new();
        generate(shell, &mut command, "releasectl", &mut bytes);
        files.push((path, bytes));
    }
    files
}

/// One page for all verbs.
fn page(command: &Command) -> Vec<u8> {
    let mut command = command.clone();
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone()).section("8").date("").manual("System administration");
    // A Vec refuses nothing.
    let _ = man.render_title(&mut page).and_then(|()| man.render_name_section(&mut page));
    let _ = man.render_synopsis_section(&mut page).and_then(|()| man.render_description_section(&mut page));
    let _ = man.render_options_section(&mut page);
    page.extend(b".SH VERBS\n");
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        add_verb(&mut page, verb);
    }
    let mut notes = Vec::new();
    let _ = man.render_extra_section(&mut notes);
    page.extend(String::from_utf8_lossy(&notes).replace(".SH EXTRA", ".SH NOTES").bytes());
    page
}

fn add_verb(page: &mut Vec<u8>, verb: &Command) {
    // What all verbs have is told once.
    let is_told = |argument: &Arg| argument.is_global_set() || argument.get_id() == "help";
    let verb = verb.clone().mut_args(|argument| if is_told(&argument) { argument.hide(true) } else { argument });
    let (man, mut text) = (Man::new(verb.clone()), Vec::new());
    let _ = man.render_synopsis_section(&mut text).and_then(|()| man.render_description_section(&mut text));
    let _ = man.render_options_section(&mut text).and_then(|()| man.render_extra_section(&mut text));
    page.extend(format!(".SS {}\n", verb.get_name()).bytes());
    for line in String::from_utf8_lossy(&text).lines() {
        // Of a section within a section, only that something else begins.
        page.extend_from_slice(if line.starts_with(".SH") { b".PP" } else { line.as_bytes() });
        page.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_each_verb_with_its_options_and_an_example() {
        let page = String::from_utf8(page(&Cli::command())).unwrap();
        for verb in Cli::command().get_subcommands() {
            let (_, section) = page.split_once(&format!(".SS {}\n", verb.get_name())).unwrap();
            let section = section.split("\n.S").next().unwrap();
            assert!(section.contains("Example: ") && section.contains(verb.get_name()), "{section}");
        }
        assert!(page.contains("\\-\\-bake") && page.contains("Exit codes"), "{page}");
        assert_eq!(page.matches("\\-\\-lock\\-wait").count(), 2, "in the synopsis and among the options: {page}");
    }

    #[test]
    fn every_shell_completes_the_verbs() {
        for (path, bytes) in &files()[1..] {
            let text = String::from_utf8_lossy(bytes);
            assert!(text.contains("rollback") && text.contains("doctor"), "{path}: {text}");
        }
    }
}
