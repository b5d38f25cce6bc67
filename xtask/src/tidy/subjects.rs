//! The subjects of the commits since this rule: `area: imperative summary`, at most 72 characters.
//! Says nothing where the history is not there: in a package, or a clone without its depth.

use std::process::Command;

use crate::problem::Problem;
use crate::{process, repo};

/// The last commit that is not asked.
const SINCE: &str = "9591acd100b376c0a4ffda835a8c7d2be3ab8757";
const CHARS_MAX: usize = 72;
/// Verbs that look as if they were another form.
const VERBS: [&str; 8] = ["bring", "embed", "feed", "focus", "need", "seed", "speed", "bias"];
/// Where a sentence about the code begins, not a word about what to do.
const NO_VERBS: [&str; 6] = ["a", "an", "no", "the", "this", "what"];

/// Checks every subject, merges left out.
pub(super) fn check() -> Vec<Problem> {
    let range = format!("{SINCE}..HEAD");
    let mut git = Command::new("git");
    git.args(["log", "--no-merges", "--format=%s", &range]).current_dir(repo::root());
    let subjects = process::output(&mut git).unwrap_or_default();
    let problem =
        |subject| Some(Problem::new(".git", 1, format!("{}: {subject}", wrong(subject)?)));
    subjects.lines().filter_map(problem).collect()
}

/// What is wrong with a subject.
fn wrong(subject: &str) -> Option<&'static str> {
    if subject.chars().count() > CHARS_MAX {
        return Some("a subject has at most 72 characters");
    }
    let is_area =
        |area: &str| area.chars().all(|it| it.is_ascii_alphanumeric() || "-_/., ".contains(it));
    let Some((_, summary)) = subject.split_once(": ").filter(|(area, _)| is_area(area)) else {
        return Some("a subject is `area: summary`");
    };
    let word = summary.split(' ').next().unwrap_or_default();
    let is_other_form =
        ["ed", "ing", "s"].iter().any(|end| word.ends_with(end)) && !word.ends_with("ss");
    let is_verb = !word.is_empty()
        && word.chars().all(|char| char.is_ascii_lowercase() || char == '-')
        && (!is_other_form || VERBS.contains(&word))
        && !NO_VERBS.contains(&word);
    (!is_verb)
        .then_some("a summary begins with what the commit does, as an order: `add`, not `added`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_an_area_and_an_order_in_72_characters() {
        let long = format!("qed-io: {}", "x".repeat(64));
        for good in ["qed-core: pass it on", "docs, xtask: bring it", ".ci: seed one", &long] {
            assert_eq!(wrong(good), None, "{good}");
        }
        for bad in [
            "qed-core: passes it on",
            "qed-core: passed it on",
            "qed-core: passing it on",
            "qed-core: the pass",
            "qed-core: ErrorKind",
            "qed-core:",
            "add a thing",
            "why (not): add",
            &format!("{long}x"),
        ] {
            assert!(wrong(bad).is_some(), "{bad}");
        }
    }
}
