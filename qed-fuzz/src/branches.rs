//! Which branches of the code under test an input went through: what seeds are chosen by.

use std::collections::BTreeSet;
use std::fmt::Debug;

/// Collects names of branches where somebody asks for them; costs nothing where nobody does.
#[derive(Debug, Default)]
pub struct Branches(Option<BTreeSet<String>>);

impl Branches {
    /// Collects nothing: what a fuzzer passes, which sees branches itself.
    #[must_use]
    pub fn unseen() -> Self {
        Self(None)
    }

    /// Collects.
    #[must_use]
    pub fn seen() -> Self {
        Self(Some(BTreeSet::new()))
    }

    /// What was collected.
    #[must_use]
    pub fn into_names(self) -> BTreeSet<String> {
        self.0.unwrap_or_default()
    }

    /// Notes a branch, named by `area` and the innermost name of what came out of it.
    pub(crate) fn note(&mut self, area: &str, outcome: impl Debug) {
        if let Some(names) = &mut self.0 {
            names.insert(format!("{area}-{}", kebab(&format!("{outcome:?}"))));
        }
    }
}

/// The variants at the front of what `Debug` prints, without fields and numbers:
/// `Err(Header(Magic { .. }))` is `err-header-magic`.
fn kebab(debug: &str) -> String {
    let mut names = Vec::new();
    for variant in debug.split('(') {
        let end = variant.find(|char: char| !char.is_alphanumeric()).unwrap_or(variant.len());
        if variant[..end].starts_with(|char: char| char.is_alphabetic()) {
            names.push(hyphenated(&variant[..end]));
        }
        // Behind anything but a further variant there are fields.
        if end < variant.len() || names.is_empty() {
            break;
        }
    }
    names.join("-")
}

/// `UnexpectedEof` as `unexpected-eof`.
fn hyphenated(name: &str) -> String {
    let mut hyphenated = String::new();
    for char in name.chars() {
        if char.is_uppercase() && !hyphenated.is_empty() {
            hyphenated.push('-');
        }
        hyphenated.extend(char.to_lowercase());
    }
    hyphenated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_have_the_names_of_the_variants() {
        let mut branches = Branches::seen();
        branches.note("open", Some(std::io::ErrorKind::UnexpectedEof));
        branches.note("open", Err::<(), _>(Some(3)));
        branches.note("open", Ok::<_, ()>(Some(true)));
        branches.note("open", Ok::<_, ()>(0..Some(1).iter().count()));
        let names: Vec<String> = branches.into_names().into_iter().collect();
        assert_eq!(
            names,
            ["open-err-some", "open-ok", "open-ok-some-true", "open-some-unexpected-eof"]
        );
        let mut unseen = Branches::unseen();
        unseen.note("a", ());
        assert!(unseen.into_names().is_empty());
    }
}
