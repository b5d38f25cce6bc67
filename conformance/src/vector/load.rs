//! Reading the vector files of a folder. All that is wrong is told at once, each with its file and
//! vector.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use super::Vector;
use super::rules::{self, Contradiction};
use crate::clause::Clauses;

/// Everything that is wrong with the files of a folder; never empty.
#[derive(Debug, Error)]
pub struct LoadError(pub Vec<VectorError>);

/// What is wrong, and where.
#[derive(Debug)]
pub struct VectorError {
    /// The file.
    pub file: PathBuf,
    /// The vector, where it is known.
    pub vector: Option<String>,
    /// What is wrong.
    pub problem: VectorProblem,
}

/// What is wrong with a vector or its file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VectorProblem {
    /// The file or folder cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// It is no TOML, or holds what no vector has.
    #[error("{0}")]
    Form(Box<toml::de::Error>),
    /// It holds no vector.
    #[error("there is no vector in it")]
    Empty,
    /// The name is used twice.
    #[error("{} has a vector of this name, too", .first.display())]
    Duplicate {
        /// The file of the first one.
        first: PathBuf,
    },
    /// The vector contradicts itself or the specification.
    #[error("{0}")]
    Contradiction(Contradiction),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorFile {
    #[serde(default)]
    vector: Vec<Vector>,
}

/// Reads the vectors of every `.toml` file of `folder` and of the folders in it, in order of the
/// paths.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load(folder: &Path, clauses: &Clauses) -> Result<Vec<Vector>, LoadError> {
    let mut errors = Vec::new();
    let files = files_below(folder).unwrap_or_else(|error| {
        errors.push(error);
        Vec::new()
    });
    let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut vectors = Vec::new();
    for file in files {
        let of_file = read(&file).unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        });
        for vector in of_file {
            let error = |problem| VectorError {
                file: file.clone(),
                vector: Some(vector.name.clone()),
                problem,
            };
            let broken = rules::check(&vector, clauses).into_iter();
            errors.extend(broken.map(VectorProblem::Contradiction).map(error));
            if let Some(first) = names.insert(vector.name.clone(), file.clone()) {
                errors.push(error(VectorProblem::Duplicate { first }));
            }
            vectors.push(vector);
        }
    }
    if errors.is_empty() { Ok(vectors) } else { Err(LoadError(errors)) }
}

/// The vector files, in order.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>, VectorError> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let failed = |source| VectorError {
            file: folder.clone(),
            vector: None,
            problem: VectorProblem::Read(source),
        };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(file: &Path) -> Result<Vec<Vector>, VectorError> {
    let error = |vector, problem| VectorError { file: file.to_path_buf(), vector, problem };
    let text =
        fs::read_to_string(file).map_err(|source| error(None, VectorProblem::Read(source)))?;
    let vectors = toml::from_str::<VectorFile>(&text)
        .map_err(|source| error(name_at(&text, &source), VectorProblem::Form(source.into())))?
        .vector;
    if vectors.is_empty() {
        return Err(error(None, VectorProblem::Empty));
    }
    Ok(vectors)
}

/// The name of the vector in which an error lies.
fn name_at(text: &str, error: &toml::de::Error) -> Option<String> {
    let start = error.span()?.start;
    let before = text.get(..start)?.rfind("[[vector]]")?;
    let rest = text.get(before + "[[vector]]".len()..)?;
    let vector = rest.split("[[vector]]").next()?;
    let name = vector.lines().find_map(|line| line.trim().strip_prefix("name = \""))?;
    name.split('"').next().map(str::to_owned)
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for VectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        if let Some(vector) = &self.vector {
            write!(f, "{vector}: ")?;
        }
        write!(f, "{}", self.problem)
    }
}
