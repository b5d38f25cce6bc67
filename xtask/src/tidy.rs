//! The rules of this tree that no compiler knows. Owns the list of checks and how a problem is
//! told; each check lies in a file of its own and sees the tree as a value.

mod changes;
mod dependencies;
mod graph;
mod heads;
mod hostile;
mod leftovers;
mod licences;
mod paths;
mod readme;
mod sizes;
mod subjects;
mod uses;
mod walls;

use anyhow::{Result, bail};

use crate::problem::Problem;
use crate::repo;
use crate::spec;
use crate::tree::Tree;
use crate::vectors;

/// Prints every broken rule and fails if there is one.
pub(crate) fn run(_words: &[String]) -> Result<()> {
    let problems = problems()?;
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        bail!("tidy found {} problems", problems.len());
    }
    println!("tidy: nothing found");
    Ok(())
}

fn problems() -> Result<Vec<Problem>> {
    let tree = Tree::read()?;
    let metadata = repo::metadata()?;
    let mut problems = graph::check(&metadata)?;
    problems.extend(dependencies::check(&tree, &metadata)?);
    problems.extend(licences::check(&repo::metadata_of_all()?)?);
    problems.extend(heads::check(&tree));
    problems.extend(sizes::check(&tree)?);
    problems.extend(leftovers::check(&tree));
    problems.extend(spec::problems(&tree)?);
    problems.extend(vectors::problems(&tree));
    problems.extend(hostile::check(&tree)?);
    problems.extend(changes::check(&tree)?);
    problems.extend(readme::check(&tree)?);
    problems.extend(paths::check(&tree)?);
    problems.extend(walls::check(&tree)?);
    problems.extend(subjects::check());
    problems.sort();
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_tree_keeps_its_rules() {
        let problems = problems().unwrap();
        let list: Vec<String> = problems.iter().map(Problem::to_string).collect();
        assert!(list.is_empty(), "\n{}", list.join("\n"));
    }
}
