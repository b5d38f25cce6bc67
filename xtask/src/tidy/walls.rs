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
    wall: Vec<Wall>,
    only: Vec<Only>,
}

/// The files of an owner (`space` is space.rs and the folder space) use none of others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wall {
    of: String,
    must_not_use: Vec<String>,
    why: String,
}

/// A word of the source that only some owners have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Only {
    word: String,
    of: Vec<String>,
    why: String,
}

/// Checks every file of qed-core.
pub(super) fn check(tree: &Tree) -> Result<Vec<Problem>> {
    let walls: Walls = toml::from_str(&tree.file(WALLS)?.text).context(WALLS)?;
    let files = uses::files(tree, SRC)?;
    let mut problems = circles(&files);
    problems.extend(walls.wall.iter().flat_map(|wall| through(wall, &files)));
    problems.extend(walls.only.iter().flat_map(|only| elsewhere(only, &files)));
    Ok(problems)
}

fn problem(file: &File, line: usize, text: String) -> Problem {
    Problem::new(format!("{SRC}{}", file.path), line, text)
}

fn is_of(path: &str, owner: &str) -> bool {
    path.strip_prefix(owner).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn through(wall: &Wall, files: &[File]) -> Vec<Problem> {
    let inside = files.iter().filter(|file| is_of(&file.path, &wall.of));
    let used = inside.flat_map(|file| file.uses.iter().map(move |(to, line)| (file, to, *line)));
    used.filter(|(_, to, _)| wall.must_not_use.iter().any(|owner| is_of(to, owner)))
        .map(|(file, to, line)| problem(file, line, format!("must not use {to}: {}", wall.why)))
        .collect()
}

fn elsewhere(only: &Only, files: &[File]) -> Vec<Problem> {
    let outside = files.iter().filter(|file| !only.of.iter().any(|owner| is_of(&file.path, owner)));
    outside
        .filter_map(|file| Some((file, *file.words.get(&only.word)?)))
        .map(|(file, line)| {
            problem(file, line, format!("must not have {}: {}", only.word, only.why))
        })
        .collect()
}

/// Each file that uses itself by way of others, with the shortest way.
fn circles(files: &[File]) -> Vec<Problem> {
    let by_path: BTreeMap<&str, &File> = files.iter().map(|it| (it.path.as_str(), it)).collect();
    let circle = |file| {
        let way = way_back(file, &by_path)?;
        let line = file.uses[way[1]];
        Some(problem(file, line, format!("a circle of files: {}", way.join(" -> "))))
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

    const WALL: &str = "[[wall]]\nof = \"a\"\nwhy = \"low\"\nmust_not_use = ";
    const ONLY: &str = "[[only]]\nword = \"write\"\nwhy = \"one\"\nof = ";

    #[test]
    fn a_circle_is_told_with_the_way_round() {
        let (a, b) = ("use crate::b::B;", "\nuse crate::c::d::d;\nfn f() { crate::a::f() }");
        let way =
            |place: &str, way: &str| format!("qed-core/src/{place}: a circle of files: {way}");
        let both = [way("a.rs:1", "a.rs -> b.rs -> a.rs"), way("b.rs:3", "b.rs -> a.rs -> b.rs")];
        assert_eq!(told(a, b, &format!("{WALL}[]\n{ONLY}[\"c\"]")), both);
    }

    #[test]
    fn a_use_through_a_wall_and_a_word_that_stands_elsewhere_are_told() {
        let walls = format!("{WALL}[\"c\"]\n{ONLY}[\"c\"]");
        let found = told("use crate::c::d::d;", "use crate::c::d::d;", &walls);
        assert_eq!(found, ["qed-core/src/a.rs:1: must not use c/d.rs: low"]);
        assert!(told("// write\nfn writes() {}", "use crate::c;", &walls).is_empty());
        let found = told("fn f() { x.write() }", "fn f() {\n g!(write) }", &walls);
        let at = |place| format!("qed-core/src/{place}: must not have write: one");
        assert_eq!(found, [at("a.rs:1"), at("b.rs:2")]);
    }
}
