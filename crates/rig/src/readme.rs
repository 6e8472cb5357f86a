//! What runs have put into the README: each between two lines that name its recipe.

use std::{fs, io};

/// Puts it between `<!-- just RECIPE -->` and `<!-- /just RECIPE -->`, instead of what the run before has put there.
///
/// # Errors
/// Where the README has no such lines, or cannot be read or written.
pub(crate) fn put(recipe: &str, text: &str) -> io::Result<()> {
    let path = crate::workspace().join("README.md");
    let failed = |error: io::Error| io::Error::other(format!("{}: {error}", path.display()));
    let before = fs::read_to_string(&path).map_err(failed)?;
    let missing = || io::Error::other(format!("{} has no `<!-- just {recipe} -->`, and its end", path.display()));
    fs::write(&path, with(&before, recipe, text).ok_or_else(missing)?).map_err(failed)
}

fn with(readme: &str, recipe: &str, text: &str) -> Option<String> {
    let [begin, end] = ["", "/"].map(|slash| format!("<!-- {slash}just {recipe} -->\n"));
    let (before, rest) = readme.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{text}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_puts_replaces_what_the_run_before_has_put_and_nothing_else() {
        let readme = "a\n<!-- just it -->\n<!-- /just it -->\nb\n";
        let once = with(readme, "it", "old\n").unwrap();
        assert_eq!(with(&once, "it", "new\n").unwrap(), "a\n<!-- just it -->\nnew\n<!-- /just it -->\nb\n");
        assert_eq!(with(readme, "other", "new\n"), None);
    }
}
