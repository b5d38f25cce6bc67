//! The checkout as a value: the text files of it, the Rust ones parsed. No check does I/O itself.

use std::fs;

use anyhow::{Context, Result};

use crate::repo;

/// What is read: code, documents, manifests, and the data files that tests and checks use.
const EXTENSIONS: [&str; 4] = ["rs", "md", "toml", "sh"];

/// The text files of the checkout.
pub(crate) struct Tree {
    files: Vec<File>,
}

/// One text file.
pub(crate) struct File {
    /// From the top of the checkout, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A Rust file and what it parses to.
pub(crate) struct RustFile<'a> {
    pub(crate) file: &'a File,
    pub(crate) syntax: syn::File,
}

impl Tree {
    /// Reads the checkout.
    pub(crate) fn read() -> Result<Self> {
        let mut files = Vec::new();
        for path in repo::files(&EXTENSIONS)? {
            let text = fs::read_to_string(repo::root().join(&path))
                .with_context(|| path.display().to_string())?;
            files.push(File { path: path.to_string_lossy().into_owned(), text });
        }
        Ok(Self { files })
    }

    /// A tree of the given paths and texts.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        Self { files: files.iter().map(file).collect() }
    }

    /// Every text file.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    /// Every Rust file.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    /// Every Rust file, parsed.
    pub(crate) fn parsed(&self) -> impl Iterator<Item = Result<RustFile<'_>>> {
        self.rust().map(|file| {
            let syntax = syn::parse_file(&file.text).with_context(|| file.path.clone())?;
            Ok(RustFile { file, syntax })
        })
    }

    /// The file at `path`.
    pub(crate) fn file(&self, path: &str) -> Result<&File> {
        let found = self.files.iter().find(|file| file.path == path);
        found.with_context(|| format!("{path} is missing"))
    }
}

impl File {
    /// The lines with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }
}
