//! Which clauses the vectors prove. Knows of a vector its name and its clauses only; what else is
//! in it is read and judged by the conformance crate.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::tree::{File, Tree};

const FOLDER: &str = "conformance/vectors/";

/// One vector.
pub(super) struct Vector {
    /// The file that has it, from the top of the checkout.
    pub(super) path: String,
    pub(super) name: String,
    pub(super) clauses: Vec<String>,
}

impl Vector {
    /// The name of its file without folder and extension.
    pub(super) fn family(&self) -> &str {
        let name = self.path.rsplit_once('/').map_or(&*self.path, |(_, name)| name);
        name.strip_suffix(".toml").unwrap_or(name)
    }
}

#[derive(Deserialize)]
struct Family {
    vector: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    clauses: Vec<String>,
}

/// Every vector of the tree.
pub(super) fn find(tree: &Tree) -> Result<Vec<Vector>> {
    let mut vectors = Vec::new();
    for file in tree.files().filter(|file| is_vectors(file)) {
        let family: Family = toml::from_str(&file.text).with_context(|| file.path.clone())?;
        vectors.extend(family.vector.into_iter().map(|Entry { name, clauses }| Vector {
            path: file.path.clone(),
            name,
            clauses,
        }));
    }
    Ok(vectors)
}

fn is_vectors(file: &File) -> bool {
    file.path.starts_with(FOLDER) && file.path.ends_with(".toml")
}
