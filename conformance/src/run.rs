//! The runner: every vector against one implementation, on several threads.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use thiserror::Error;

use crate::answer::{Answer, Answers, Case, DriveError, Implementation, Opened};
use crate::clause::Clauses;
use crate::judge::{AS_EXPECTED, FieldResult, Seen, judge};
use crate::report::Report;
use crate::vector::{Bytes, Run, Vector, lay};

/// Why a run came to no report.
#[derive(Debug, Error)]
#[error("vector {vector}")]
pub struct RunError {
    /// The vector over which it stopped.
    pub vector: String,
    /// Why.
    #[source]
    pub source: DriveError,
}

/// Holds an implementation against the vectors; their files are made below `folder` and removed
/// again.
///
/// # Errors
/// The implementation cannot be asked, or the files cannot be made. What it gets wrong is no error.
pub fn run(
    implementation: &dyn Implementation,
    vectors: &[Vector],
    clauses: &Clauses,
    folder: &Path,
) -> Result<Report, RunError> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(vector) = vectors.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = run_one(implementation, vector, folder);
                    let is_over = result.is_err();
                    done.lock().expect("nothing panics while it holds this").push((vector, result));
                    if is_over {
                        next.store(vectors.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut results = Vec::new();
    for (vector, result) in done.into_inner().expect("nothing panics while it holds this") {
        let failed = |source| RunError { vector: vector.name.clone(), source };
        results.push((vector, result.map_err(failed)?));
    }
    Ok(Report::new(implementation.name(), clauses, results))
}

/// Why a vector on a block device is not asked of others.
const NO_DEVICE: &str = "only the library is asked about block devices";

fn run_one(
    implementation: &dyn Implementation,
    vector: &Vector,
    folder: &Path,
) -> Result<Vec<FieldResult>, DriveError> {
    let folder = tempfile::Builder::new().prefix("qed-conformance-").tempdir_in(folder)?;
    let [images, scratch] = ["image", "scratch"].map(|name| folder.path().join(name));
    fs::create_dir(&images)?;
    fs::create_dir(&scratch)?;
    let image = lay(vector, &images)?;
    let qemu = vector.qemu.as_ref().filter(|_| implementation.is_qemu());
    let expect = match implementation.is_qemu() {
        true => vector.expect.of_qemu(qemu),
        false => vector.expect.clone(),
    };
    let case = Case { vector, expect: &expect, qemu, image: &image, scratch: &scratch };
    age(&images)?;
    let before = traces(&images)?;
    let is_asked = !vector.device || implementation.has_devices();
    let read = match is_asked {
        true => implementation.read(&case)?,
        false => Answers::none(NO_DEVICE),
    };
    let changed = differences(&before, &traces(&images)?);
    let write = match (expect.to_write(), &read.open) {
        (None, _) => None,
        (Some(_), _) if !is_asked => Some(Answer::Silent(NO_DEVICE)),
        // Whoever breaks down over an image is asked no more of it.
        (Some(_), Answer::Broke(_)) => Some(Answer::Silent("it broke down over the image before")),
        (Some(_), _) => Some(implementation.write(&case)?),
    };
    let after_write = match &expect.after_write {
        Some(runs) => Some(after_write(&image, runs, write.as_ref())?),
        None => None,
    };
    Ok(judge(&case, &Seen { read, changed, write, after_write }))
}

/// Name, length and time of the last change of a file.
type Trace = (PathBuf, u64, SystemTime);

/// Dates every file back, so that any change of it shows.
fn age(folder: &Path) -> io::Result<()> {
    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for entry in fs::read_dir(folder)? {
        File::options().write(true).open(entry?.path())?.set_modified(past)?;
    }
    Ok(())
}

fn traces(folder: &Path) -> io::Result<Vec<Trace>> {
    let mut traces = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        traces.push((entry.file_name().into(), metadata.len(), metadata.modified()?));
    }
    traces.sort();
    Ok(traces)
}

/// The names of the files that are not in both lists.
fn differences(before: &[Trace], after: &[Trace]) -> Vec<String> {
    let only = |these: &[Trace], those: &[Trace]| {
        let names = these.iter().filter(|trace| !those.contains(trace));
        names.map(|(name, ..)| name.display().to_string()).collect::<Vec<String>>()
    };
    let mut names = only(before, after);
    names.extend(only(after, before));
    names.sort();
    names.dedup();
    names
}

/// Whether the image holds these bytes after it was open for writing.
fn after_write(
    image: &Path,
    runs: &[Run],
    write: Option<&Answer<Opened>>,
) -> io::Result<Answer<String>> {
    match write {
        Some(Answer::Said(Opened::Accepted)) => {}
        Some(Answer::Silent(why)) => return Ok(Answer::Silent(why)),
        _ => return Ok(Answer::Silent("it did not open for writing")),
    }
    let file = File::open(image)?;
    for Run { at, bytes } in runs {
        let expected = match bytes {
            Bytes::Literal(bytes) => bytes.clone(),
            Bytes::Fill { byte, len } => vec![*byte; usize::try_from(*len).unwrap_or(usize::MAX)],
        };
        let mut found = vec![0; expected.len()];
        if let Err(error) = file.read_exact_at(&mut found, *at) {
            return Ok(Answer::Said(format!("{} bytes at {at}: {error}", expected.len())));
        }
        let wrong =
            found.iter().zip(&expected).zip(*at..).find(|((found, expected), _)| found != expected);
        if let Some(((found, expected), at)) = wrong {
            return Ok(Answer::Said(format!("byte {at} is {found:02x}, not {expected:02x}")));
        }
    }
    Ok(Answer::Said(AS_EXPECTED.to_owned()))
}
