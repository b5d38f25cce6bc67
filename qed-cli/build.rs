//! Tells the program which commit and Cargo features it was built from. Without git, as in a crate
//! from the registry, the commit is left out.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let commit = commit().map(|id| format!(" (commit {id})")).unwrap_or_default();
    println!("cargo::rustc-env=QED_COMMIT={commit}");
    println!("cargo::rustc-env=QED_FEATURES={}", features());
}

/// The commit of the checkout this crate is in, with a plus sign if tracked files differ from it.
fn commit() -> Option<String> {
    // A packaged crate carries no .git; one vendored into another project must not name that
    // project's commit, so the workspace has to be right above.
    let git = Path::new("../.git");
    if !git.exists() || !Path::new("../qed-spec").exists() {
        return None;
    }
    for name in ["HEAD", "logs/HEAD", "index"] {
        let path = git.join(name);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    let id = git_output(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git_output(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { id } else { format!("{id}+") })
}

fn git_output(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn features() -> String {
    let mut names: Vec<String> = env::vars()
        .filter_map(|(name, _)| name.strip_prefix("CARGO_FEATURE_").map(str::to_lowercase))
        .filter(|name| name != "default")
        .collect();
    names.sort();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}
