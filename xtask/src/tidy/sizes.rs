//! Limits on the length of files and functions. A longer function needs a line with its reason in
//! `xtask/long-functions.toml`, which can only shrink; a longer file has to be split.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::problem::Problem;
use crate::tree::{RustFile, Tree};

/// Lines of a file, its tests left out.
const FILE_LINES_MAX: usize = 800;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
const EXCEPTIONS: &str = "xtask/long-functions.toml";

#[derive(Deserialize)]
struct Exceptions {
    #[serde(default)]
    function: Vec<Exception>,
}

/// A function that may be longer, up to `lines`, and why.
#[derive(Deserialize)]
struct Exception {
    path: String,
    name: String,
    lines: usize,
    reason: String,
}

/// Measures every Rust file and the functions in it.
pub(super) fn check(tree: &Tree) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let mut long = Vec::new();
    for rust in tree.parsed() {
        let rust = rust?;
        problems.extend(long_file(&rust));
        long.extend(long_functions(&rust));
    }
    let exceptions: Exceptions =
        toml::from_str(&tree.file(EXCEPTIONS)?.text).context(EXCEPTIONS)?;
    problems.extend(without_exception(&long, exceptions.function));
    Ok(problems)
}

fn long_file(rust: &RustFile<'_>) -> Option<Problem> {
    let in_tests: usize =
        rust.syntax.items.iter().filter(|item| is_test_module(item)).map(lines).sum();
    let lines = rust.file.text.lines().count() - in_tests;
    let text = format!("{lines} lines without tests, {FILE_LINES_MAX} is the limit: split it");
    (lines > FILE_LINES_MAX).then(|| Problem::new(&rust.file.path, 1, text))
}

fn is_test_module(item: &syn::Item) -> bool {
    let syn::Item::Mod(module) = item else { return false };
    module.attrs.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|word| word == "test")
    })
}

fn lines(node: impl Spanned) -> usize {
    let span = node.span();
    span.end().line - span.start().line + 1
}

/// A function over the limit.
struct LongFunction {
    path: String,
    name: String,
    line: usize,
    lines: usize,
}

fn long_functions(rust: &RustFile<'_>) -> Vec<LongFunction> {
    let mut finder = Finder { path: &rust.file.path, found: Vec::new() };
    finder.visit_file(&rust.syntax);
    finder.found
}

struct Finder<'a> {
    path: &'a str,
    found: Vec<LongFunction>,
}

impl Finder<'_> {
    fn measure(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let line = signature.span().start().line;
        let lines = block.span().end().line - line + 1;
        if lines > FUNCTION_LINES_MAX {
            let name = signature.ident.to_string();
            self.found.push(LongFunction { path: self.path.to_owned(), name, line, lines });
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.measure(&node.sig, &node.block);
        visit::visit_item_fn(self, node);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.measure(&node.sig, &node.block);
        visit::visit_impl_item_fn(self, node);
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        if let Some(block) = &node.default {
            self.measure(&node.sig, block);
        }
        visit::visit_trait_item_fn(self, node);
    }
}

/// The long functions that no exception covers, and the exceptions that are of no use any more.
fn without_exception(long: &[LongFunction], exceptions: Vec<Exception>) -> Vec<Problem> {
    let mut open: BTreeMap<(String, String), Exception> =
        exceptions.into_iter().map(|it| ((it.path.clone(), it.name.clone()), it)).collect();
    let mut problems = Vec::new();
    for function in long {
        let LongFunction { path, name, line, lines } = function;
        let limit = match open.remove(&(path.clone(), name.clone())) {
            Some(exception) if !exception.reason.trim().is_empty() => exception.lines,
            _ => FUNCTION_LINES_MAX,
        };
        if *lines > limit {
            let text = format!("{name} has {lines} lines, {limit} is its limit");
            problems.push(Problem::new(path, *line, text));
        }
    }
    for Exception { path, name, .. } in open.into_values() {
        problems.push(Problem::new(EXCEPTIONS, 1, format!("{name} of {path} is no longer long")));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str, exceptions: &str) -> Vec<String> {
        let tree = Tree::of(&[("a/src/b.rs", source), (EXCEPTIONS, exceptions)]);
        check(&tree).unwrap().into_iter().map(|problem| problem.text).collect()
    }

    fn function(name: &str, lines: usize) -> String {
        format!("fn {name}() {{\n{}}}\n", "    call();\n".repeat(lines - 2))
    }

    fn exception(name: &str, lines: usize, reason: &str) -> String {
        format!(
            "[[function]]\npath = \"a/src/b.rs\"\nname = \"{name}\"\nlines = {lines}\nreason = \"{reason}\"\n"
        )
    }

    #[test]
    fn a_function_may_have_seventy_lines() {
        assert!(found(&function("a", 70), "").is_empty());
        assert_eq!(found(&function("a", 71), ""), ["a has 71 lines, 70 is its limit"]);
        let inside = format!("impl A {{\n{}}}\n", function("b", 71));
        assert_eq!(found(&inside, ""), ["b has 71 lines, 70 is its limit"]);
    }

    #[test]
    fn an_exception_has_a_reason_and_only_shrinks() {
        let long = function("a", 80);
        assert!(found(&long, &exception("a", 80, "one table")).is_empty());
        assert_eq!(found(&long, &exception("a", 79, "one table")).len(), 1);
        assert_eq!(found(&long, &exception("a", 80, " ")).len(), 1);
        let stale = found(&function("a", 60), &exception("a", 80, "one table"));
        assert_eq!(stale, ["a of a/src/b.rs is no longer long"]);
    }

    #[test]
    fn tests_do_not_count_towards_the_length_of_a_file() {
        let code = "const A: u8 = 0;\n".repeat(FILE_LINES_MAX);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "const B: u8 = 0;\n".repeat(50));
        assert!(found(&format!("{code}{tests}"), "").is_empty());
        assert_eq!(found(&format!("{code}const C: u8 = 0;\n"), "").len(), 1);
    }
}
