//! The walls inside qed-core, of `xtask/walls.toml`: what the files of one owner must not use, what
//! only one owner may do, and that no file uses itself by way of others.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::uses::{self, File};
use crate::problem::Problem;
use crate::tree::Tree;

const SRC: &str = "qed-core/src/";
const WALLS: &str = "xtask/walls.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Walls {
    /// Files that are still part of a circle.
    in_a_circle: BTreeSet<String>,
    #[serde(default)]
    wall: Vec<Wall>,
    #[serde(default)]
    only: Vec<Only>,
}

/// The files of an owner (`space` is space.rs and the folder space) use none of others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wall {
    of: String,
    must_not_use: Vec<String>,
    why: String,
    /// Files that still do.
    #[serde(default)]
    still: BTreeSet<String>,
}

/// A word of the source that only some owners have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Only {
    word: String,
    of: Vec<String>,
    why: String,
    #[serde(default)]
    still: BTreeSet<String>,
}

/// Checks every file of qed-core. What `still` breaks a rule is allowed for, and told once it does
/// not.
pub(super) fn check(tree: &Tree) -> Result<Vec<Problem>> {
    let walls: Walls = toml::from_str(&tree.file(WALLS)?.text).context(WALLS)?;
    let files = uses::files(tree, SRC)?;
    let mut problems = but(&walls.in_a_circle, "in_a_circle", circles(&files));
    for wall in &walls.wall {
        problems.extend(but(&wall.still, &wall.why, through(wall, &files)));
    }
    for only in &walls.only {
        problems.extend(but(&only.still, &only.why, elsewhere(only, &files)));
    }
    Ok(problems)
}

/// What is found, in files that are not allowed for, and what is allowed for and not found.
fn but(still: &BTreeSet<String>, rule: &str, found: Vec<(&File, usize, String)>) -> Vec<Problem> {
    let broken: BTreeSet<&str> = found.iter().map(|(file, ..)| file.path.as_str()).collect();
    let gone = still.iter().filter(|path| !broken.contains(path.as_str()));
    let told = |path: &String| {
        Problem::new(WALLS, 1, format!("{path} keeps the rule now, take it out: {rule}"))
    };
    let gone: Vec<Problem> = gone.map(told).collect();
    let new = found.into_iter().filter(|(file, ..)| !still.contains(&file.path));
    new.map(|(file, line, text)| Problem::new(format!("{SRC}{}", file.path), line, text))
        .chain(gone)
        .collect()
}

fn is_of(path: &str, owner: &str) -> bool {
    path.strip_prefix(owner).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn through<'a>(wall: &Wall, files: &'a [File]) -> Vec<(&'a File, usize, String)> {
    let inside = files.iter().filter(|file| is_of(&file.path, &wall.of));
    let used = inside.flat_map(|file| file.uses.iter().map(move |(to, line)| (file, to, *line)));
    used.filter(|(_, to, _)| wall.must_not_use.iter().any(|owner| is_of(to, owner)))
        .map(|(file, to, line)| (file, line, format!("must not use {to}: {}", wall.why)))
        .collect()
}

fn elsewhere<'a>(only: &Only, files: &'a [File]) -> Vec<(&'a File, usize, String)> {
    let outside = files.iter().filter(|file| !only.of.iter().any(|owner| is_of(&file.path, owner)));
    outside
        .filter_map(|file| Some((file, *file.words.get(&only.word)?)))
        .map(|(file, line)| (file, line, format!("must not have {}: {}", only.word, only.why)))
        .collect()
}

/// Each file that uses itself by way of others, with the shortest way.
fn circles(files: &[File]) -> Vec<(&File, usize, String)> {
    let by_path: BTreeMap<&str, &File> = files.iter().map(|it| (it.path.as_str(), it)).collect();
    let circle = |file| {
        let way = way_back(file, &by_path)?;
        let line = file.uses[way[1]];
        Some((file, line, format!("a circle of files: {}", way.join(" -> "))))
    };
    files.iter().filter_map(circle).collect()
}

/// The shortest way from a file to itself.
fn way_back<'a>(from: &'a File, files: &BTreeMap<&str, &'a File>) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![from.path.as_str()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for to in files[way[way.len() - 1]].uses.keys() {
                let way = [&way[..], &[to.as_str()]].concat();
                if *to == from.path {
                    return Some(way);
                }
                if seen.insert(to) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of three owners, `a` using what is given, under these walls.
    fn told(a: &str, b: &str, walls: &str) -> Vec<String> {
        let below = "fn d() { write() }";
        let tree = Tree::of(&[
            ("qed-core/src/lib.rs", "mod a; mod b; mod c;"),
            ("qed-core/src/a.rs", a),
            ("qed-core/src/b.rs", b),
            ("qed-core/src/c/d.rs", below),
            (WALLS, walls),
        ]);
        check(&tree).unwrap().iter().map(ToString::to_string).collect()
    }

    const NONE: &str = "in_a_circle = []\n";

    #[test]
    fn a_circle_is_told_with_the_way_round_and_one_that_is_gone_too() {
        let (a, b) = ("use crate::b::B;", "\nuse crate::c::d::d;\nfn f() { crate::a::f() }");
        let way = |of: &str, line, way: &str| {
            format!("qed-core/src/{of}:{line}: a circle of files: {way}")
        };
        let both = [way("a.rs", 1, "a.rs -> b.rs -> a.rs"), way("b.rs", 3, "b.rs -> a.rs -> b.rs")];
        assert_eq!(told(a, b, NONE), both);
        assert_eq!(told(a, b, "in_a_circle = [\"a.rs\"]"), both[1..]);
        let gone = told("", b, "in_a_circle = [\"a.rs\"]");
        assert_eq!(gone, ["xtask/walls.toml:1: a.rs keeps the rule now, take it out: in_a_circle"]);
    }

    #[test]
    fn a_use_through_a_wall_is_told_and_what_still_uses_is_not() {
        let wall = "[[wall]]\nof = \"a\"\nmust_not_use = [\"c\"]\nwhy = \"low\"\n";
        let found = told("use crate::c::d::d;", "use crate::c::d::d;", &format!("{NONE}{wall}"));
        assert_eq!(found, ["qed-core/src/a.rs:1: must not use c/d.rs: low"]);
        let still = format!("{NONE}{wall}still = [\"a.rs\"]");
        assert!(told("use crate::c::d::d;", "", &still).is_empty());
        assert_eq!(told("use crate::b;", "", &still).len(), 1);
    }

    #[test]
    fn a_word_stands_only_where_it_may() {
        let only = format!("{NONE}[[only]]\nword = \"write\"\nof = [\"c\"]\nwhy = \"one\"\n");
        assert!(told("// write\nfn writes() {}", "", &only).is_empty());
        let found = told("fn f() { x.write() }", "fn f() {\n g!(write) }", &only);
        let at = |place| format!("qed-core/src/{place}: must not have write: one");
        assert_eq!(found, [at("a.rs:1"), at("b.rs:2")]);
    }
}
