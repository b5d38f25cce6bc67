//! Which file of a crate uses which other, as its `use` lines and paths say. A name that a file
//! passes on is traced to the file that has it. Tests are left out; knows no rule.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow};
use proc_macro2::{TokenStream, TokenTree};

use crate::tree::Tree;

/// A file of a crate, by its path below `src`.
pub(super) struct File {
    pub(super) path: String,
    /// The files that it uses, each with the first line that does.
    pub(super) uses: BTreeMap<String, usize>,
    /// Every identifier outside its imports, with the first line that has it.
    pub(super) words: BTreeMap<String, usize>,
}

/// The path of a module from the root of the crate, or of an item in it.
type Names = Vec<String>;

/// The files below `src` (with a `/` at its end) but the root of the crate and the tests.
pub(super) fn files(tree: &Tree, src: &str) -> Result<Vec<File>> {
    let mut scans = BTreeMap::new();
    for file in tree.rust() {
        let Some(path) = file.path.strip_prefix(src) else { continue };
        if path == "tests.rs" || path.ends_with("/tests.rs") {
            continue;
        }
        let module: Names = match path.trim_end_matches(".rs") {
            "lib" => Names::new(),
            path => path.split('/').map(str::to_owned).collect(),
        };
        let mut scan = Scan { path: path.to_owned(), module: module.clone(), ..Scan::default() };
        scan.items(file.text.parse().map_err(|error| anyhow!("{}: {error}", file.path))?);
        scans.insert(module, scan);
    }
    Ok(scans
        .iter()
        .filter(|(module, _)| !module.is_empty())
        .map(|(_, it)| it.file(&scans))
        .collect())
}

/// A name that a file imports.
struct Import {
    name: String,
    target: Names,
    is_passed_on: bool,
    line: usize,
}

/// What one file says, before its names are traced.
#[derive(Default)]
struct Scan {
    path: String,
    /// The module that is being read: that of the file, or one inside it.
    module: Names,
    children: BTreeSet<Names>,
    imports: Vec<Import>,
    paths: Vec<(Names, usize)>,
    words: BTreeMap<String, usize>,
}

impl Scan {
    fn file(&self, scans: &BTreeMap<Names, Self>) -> File {
        // What is only passed on is used by others, who are traced to where it is.
        let used = |it: &&Import| !it.is_passed_on || self.words.contains_key(&it.name);
        let imports = self.imports.iter().filter(used).map(|it| (&it.target, it.line));
        let mut uses = BTreeMap::new();
        for (target, line) in imports.chain(self.paths.iter().map(|(names, line)| (names, *line))) {
            let target = home(target.clone(), scans);
            if target.path != self.path && !target.module.is_empty() {
                let first = uses.entry(target.path.clone()).or_insert(line);
                *first = line.min(*first);
            }
        }
        File { path: self.path.clone(), uses, words: self.words.clone() }
    }

    /// The path from the root of the crate, of one that begins in it.
    fn absolute(&self, names: &[String]) -> Option<Names> {
        let mut module = self.module.clone();
        let rest = match names.first()?.as_str() {
            "crate" => {
                module.clear();
                &names[1..]
            }
            "self" => &names[1..],
            "super" => {
                let up = names.iter().take_while(|name| *name == "super").count();
                module.truncate(module.len().saturating_sub(up));
                &names[up..]
            }
            child => {
                let below = [&module[..], &[child.to_owned()]].concat();
                self.children.contains(&below).then_some(names)?
            }
        };
        (names.len() > 1).then(|| [&module[..], rest].concat())
    }

    /// Reads what stands in a file, a block or a macro.
    fn items(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut rest = &tokens[..];
        let (mut path, mut goes_on, mut was_colon) = (Names::new(), false, false);
        let mut is_passed_on = false;
        while let Some((token, after)) = rest.split_first() {
            rest = after;
            match token {
                TokenTree::Punct(it) if it.as_char() == '#' => rest = after_attribute(after),
                TokenTree::Ident(it) if it == "mod" => rest = self.module(after),
                TokenTree::Ident(it) if it == "use" => {
                    let end = after.iter().position(|it| is(it, ';')).unwrap_or(after.len());
                    self.import(&after[..end], &[], is_passed_on);
                    rest = &after[end..];
                }
                TokenTree::Ident(ident) => {
                    let line = ident.span().start().line;
                    self.words.entry(ident.to_string()).or_insert(line);
                    if !goes_on {
                        path.clear();
                    }
                    path.push(ident.to_string());
                    if !matches!(after, [colon, _, TokenTree::Ident(_), ..] if is(colon, ':')) {
                        self.paths.extend(self.absolute(&path).map(|path| (path, line)));
                    }
                }
                TokenTree::Group(group) => self.items(group.stream()),
                _ => {}
            }
            goes_on = is(token, ':') && was_colon;
            was_colon = is(token, ':');
            // `pub`, or what stands in brackets behind it.
            is_passed_on = matches!(token, TokenTree::Ident(it) if it == "pub")
                || is_passed_on && matches!(token, TokenTree::Group(_));
        }
    }

    /// Reads a module from behind `mod`, its body too if it has one here.
    fn module<'a>(&mut self, tokens: &'a [TokenTree]) -> &'a [TokenTree] {
        let [name, body, rest @ ..] = tokens else { return tokens };
        self.module.push(name.to_string());
        match body {
            TokenTree::Group(body) => self.items(body.stream()),
            _ => drop(self.children.insert(self.module.clone())),
        }
        self.module.pop();
        rest
    }

    /// Reads the names behind `use`, each of which begins with those before.
    fn import(&mut self, tokens: &[TokenTree], before: &[String], is_passed_on: bool) {
        for one in tokens.split(|token| is(token, ',')) {
            let mut target = before.to_vec();
            let mut name = None;
            let mut idents = one.iter().filter(|it| matches!(it, TokenTree::Ident(_)));
            while let Some(ident) = idents.next() {
                match ident.to_string() {
                    word if word == "as" => name = idents.next().map(ToString::to_string),
                    word if word == "self" && !target.is_empty() => {}
                    word => target.push(word),
                }
            }
            match one.last() {
                Some(TokenTree::Group(group)) => {
                    let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                    self.import(&inside, &target, is_passed_on);
                }
                Some(last) => {
                    let line = last.span().start().line;
                    let is_glob = is(last, '*');
                    let name = name.or_else(|| target.last().cloned()).filter(|_| !is_glob);
                    let name = name.unwrap_or_default();
                    let target = self.absolute(&target);
                    self.imports.extend(target.map(|target| Import {
                        name,
                        target,
                        is_passed_on,
                        line,
                    }));
                }
                None => {}
            }
        }
    }
}

fn is(token: &TokenTree, char: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == char)
}

/// What stands behind an attribute; of what is there for tests alone the end.
fn after_attribute(tokens: &[TokenTree]) -> &[TokenTree] {
    let skipped = usize::from(tokens.first().is_some_and(|it| is(it, '!')));
    let Some((attribute, rest)) = tokens[skipped..].split_first() else { return tokens };
    if attribute.to_string().replace(' ', "") != "[cfg(test)]" {
        return rest;
    }
    let is_end = |token: &TokenTree| is(token, ';') || token.to_string().starts_with('{');
    let end = rest.iter().position(is_end).map_or(rest.len(), |at| at + 1);
    &rest[end..]
}

/// The file that has what the names mean, through every file that passes it on.
fn home(mut names: Names, scans: &BTreeMap<Names, Scan>) -> &Scan {
    // As long as the longest chain could be: imports may lead round in a circle.
    for _ in 0..scans.len() {
        let (scan, len) = deepest(&names, scans);
        let name = names.get(len);
        let import = name.and_then(|name| scan.imports.iter().find(|it| it.name == *name));
        let Some(import) = import else { break };
        names = [&import.target[..], &names[len + 1..]].concat();
    }
    deepest(&names, scans).0
}

/// The innermost module that has a file, and how many of the names are its path.
fn deepest<'a>(names: &[String], scans: &'a BTreeMap<Names, Scan>) -> (&'a Scan, usize) {
    let found = (0..=names.len()).rev().find_map(|len| Some((scans.get(&names[..len])?, len)));
    found.expect("a crate has a lib.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "file: the files that it uses".
    fn uses(sources: &[(&str, &str)]) -> Vec<String> {
        let paths: Vec<String> = sources.iter().map(|(path, _)| format!("c/src/{path}")).collect();
        let named: Vec<(&str, &str)> =
            paths.iter().zip(sources).map(|(path, (_, text))| (path.as_str(), *text)).collect();
        let files = files(&Tree::of(&named), "c/src/").unwrap();
        let line = |file: &File| {
            let used: Vec<String> =
                file.uses.iter().map(|(to, line)| format!("{to}:{line}")).collect();
            format!("{}: {}", file.path, used.join(" "))
        };
        files.iter().filter(|file| !file.uses.is_empty()).map(line).collect()
    }

    #[test]
    fn every_way_to_name_another_file_counts() {
        let lib = ("lib.rs", "mod a; mod b; pub use b::B;");
        let b = ("b.rs", "pub struct B; pub(crate) mod c;");
        for (text, expected) in [
            ("use crate::b::B;", "b.rs:1"),
            ("use super::b::{self, B};", "b.rs:1"),
            ("use crate::B;", "b.rs:1"),
            ("use crate::b::c::{d, e as f};", "b/c.rs:1"),
            ("use crate::b::*;", "b.rs:1"),
            ("fn f() {\n crate::b::c::d() }", "b/c.rs:2"),
            ("fn f() -> Option<crate::B> { None }", "b.rs:1"),
            ("fn f() { assert!(x, \"{}\", crate::b::c::d()) }", "b/c.rs:1"),
            ("mod inner { use super::super::b::B; }", "b.rs:1"),
        ] {
            let found = uses(&[lib, b, ("b/c.rs", ""), ("a.rs", text)]);
            assert_eq!(found, [format!("a.rs: {expected}")], "{text}");
        }
    }

    #[test]
    fn declarations_tests_the_root_and_other_crates_do_not() {
        for text in [
            "mod b;",
            "use std::b::B; use crate::item; use b::B;",
            "#[cfg(test)] mod tests { use crate::b::B; }",
            "#[cfg(test)] use crate::b::B;",
            "/// As [`crate::b::B`].\nstruct A;",
        ] {
            let found =
                uses(&[("lib.rs", "mod a; mod b; fn item() {}"), ("b.rs", ""), ("a.rs", text)]);
            assert!(found.is_empty(), "{text}: {found:?}");
        }
        let tests = ("a/tests.rs", "use crate::b::B;");
        assert!(uses(&[("lib.rs", ""), ("a.rs", ""), ("b.rs", ""), tests]).is_empty());
    }

    #[test]
    fn a_name_that_is_passed_on_is_used_where_it_is_asked_for() {
        let lib = ("lib.rs", "mod a; mod b;");
        let below = ("b/c.rs", "pub struct C;");
        let beside = ("b/d.rs", "use super::C;");
        let passes = uses(&[
            lib,
            ("a.rs", "use crate::b::C;"),
            ("b.rs", "mod c; pub use c::C;"),
            below,
            beside,
        ]);
        assert_eq!(passes, ["a.rs: b/c.rs:1", "b/d.rs: b/c.rs:1"]);
        let asks = uses(&[lib, ("a.rs", ""), ("b.rs", "mod c; pub use c::C; struct B(C);"), below]);
        assert_eq!(asks, ["b.rs: b/c.rs:1"]);
    }
}
