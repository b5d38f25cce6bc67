//! Any NBD server of an image, asked with libnbd's `nbdinfo` and `nbdcopy`.

mod server;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::answer::{Answer, Answers, Case, DriveError, Implementation, Opened};
use crate::limited::{self, Limits, Ran};
use crate::vector::{Content, ContentBytes, MapKind, MapRun, Mapping, Opening};
use server::{Server, fill};

/// An NBD server of the image of a vector.
#[derive(Debug, Clone)]
pub struct Nbd {
    name: String,
    is_qemu: bool,
    uri: String,
    /// The words that start a server for one image; none where one runs already.
    serve: Option<Vec<String>>,
    limits: Limits,
}

/// The largest disk that is copied to compare it, in bytes.
const COPY_MAX: u64 = 64 << 20;
/// What the client says while a server is not there yet, or no longer.
const NOT_THERE: [&str; 4] =
    ["No such file", "Connection refused", "Connection reset", "disconnected unexpectedly"];
/// How often a server is tried until it has come up.
const TRY_EVERY: Duration = Duration::from_millis(10);

impl Nbd {
    /// The server at this URI. In the URI and in the words of the command `{name}` stands for the
    /// name of the vector, `{path}` for the image, `{socket}` for a socket of its own.
    ///
    /// # Errors
    /// libnbd's tools, or the server's program, do not start.
    pub fn new(uri: &str, serve: Option<&str>, limits: Limits) -> Result<Self, DriveError> {
        let scratch = tempfile::tempdir()?;
        let ran = limited::run(Path::new("nbdinfo"), ["--version"], scratch.path(), limits)?;
        if ran.ended != Ok(0) {
            return Err(limited::missing("nbdinfo", "libnbd-bin", &ran.said));
        }
        let serve: Option<Vec<String>> =
            serve.map(|line| line.split_whitespace().map(str::to_owned).collect());
        let program = serve.as_ref().and_then(|words| words.first());
        let qemu = match program {
            Some(program) => qemu_version(program, scratch.path(), limits)?,
            None => None,
        };
        let is_qemu = qemu.is_some();
        let name = qemu.or_else(|| program.cloned()).unwrap_or_else(|| uri.to_owned());
        Ok(Self { name, is_qemu, uri: uri.to_owned(), serve, limits })
    }

    fn client(&self, tool: &str, words: &[&str], case: &Case<'_>) -> Result<Ran, DriveError> {
        let mut limits = self.limits;
        limits.file_bytes = limits.file_bytes.max(COPY_MAX);
        limited::run(Path::new(tool), words, case.scratch, limits)
    }

    /// Opens the export, as soon as the server is there, and asks for its size.
    fn open(
        &self,
        uri: &str,
        server: &mut Option<Server>,
        answers: &mut Answers,
        case: &Case<'_>,
    ) -> Result<(), DriveError> {
        let deadline = Instant::now() + Duration::from_secs(self.limits.seconds.into());
        loop {
            let ended = match server {
                Some(server) => server.ended()?,
                None => None,
            };
            if let Some(answer) = ended {
                answers.open = answer;
                return Ok(());
            }
            let ran = self.client("nbdinfo", &["--size", uri], case)?;
            let is_absent = NOT_THERE.iter().any(|text| ran.said.contains(text));
            answers.open = match ran.ended {
                Ok(0) => {
                    let size = String::from_utf8_lossy(&ran.stdout).trim().parse();
                    answers.size = size.map_or_else(|_| Answer::Broke(ran.said), Answer::Said);
                    Answer::Said(Opened::Accepted)
                }
                Err(why) => Answer::Broke(why),
                Ok(_) if !is_absent => {
                    Answer::Said(Opened::Refused { clauses: None, said: ran.said })
                }
                Ok(_) if server.is_none() => {
                    return Err(DriveError::Start { program: uri.to_owned(), why: ran.said });
                }
                Ok(_) if Instant::now() > deadline => {
                    Answer::Broke("the server neither listens nor ends".to_owned())
                }
                Ok(_) => {
                    std::thread::sleep(TRY_EVERY);
                    continue;
                }
            };
            return Ok(());
        }
    }

    fn ask(&self, uri: &str, answers: &mut Answers, case: &Case<'_>) -> Result<(), DriveError> {
        if let (Some(Mapping::Runs(expected)), true) =
            (&case.expect.map, case.vector.files.is_empty())
        {
            answers.map = self.map(uri, expected, case)?;
        }
        if case.expect.content.is_some() {
            answers.content = self.content(uri, &answers.size, case)?;
        }
        Ok(())
    }

    /// The mapping as far as NBD has words for it.
    fn map(
        &self,
        uri: &str,
        expected: &[MapRun],
        case: &Case<'_>,
    ) -> Result<Answer<Mapping>, DriveError> {
        let ran = self.client("nbdinfo", &["--map", "--json", uri], case)?;
        if ran.ended != Ok(0) {
            return Ok(match ran.ended {
                Err(why) => Answer::Broke(why),
                Ok(_) => Answer::Silent("the server tells no base:allocation"),
            });
        }
        let told: Result<Vec<Told>, _> = serde_json::from_slice(&ran.stdout);
        Ok(match told {
            Ok(told) => as_far_as_told(&told, expected),
            Err(error) => Answer::Broke(format!("nbdinfo prints no such JSON: {error}")),
        })
    }

    fn content(
        &self,
        uri: &str,
        size: &Answer<u64>,
        case: &Case<'_>,
    ) -> Result<Answer<Vec<Option<Vec<u8>>>>, DriveError> {
        if !matches!(size, Answer::Said(..=COPY_MAX)) {
            return Ok(Answer::Silent("the disk is too large to be copied"));
        }
        let copy: PathBuf = case.scratch.join("copy");
        let to = copy.display().to_string();
        // What the server says of holes is not taken for what it reads there.
        let ran = self.client("nbdcopy", &["--no-extents", uri, &to], case)?;
        let fails = |place: &Content| matches!(place.bytes, ContentBytes::Fail { .. });
        Ok(match ran.ended {
            Ok(0) => Answer::Said(places_of(&File::open(copy)?, case)),
            Err(why) => Answer::Broke(why),
            Ok(_) if case.places().iter().any(fails) && !case.places().iter().all(fails) => {
                Answer::Silent("a copy fails as a whole")
            }
            Ok(_) => Answer::Said(vec![None; case.places().len()]),
        })
    }
}

fn nothing_is_read(case: &Case<'_>) -> bool {
    let fails = |place: &Content| matches!(place.bytes, ContentBytes::Fail { .. });
    let places = case.places();
    case.expect.map == Some(Mapping::Fails) && !places.is_empty() && places.iter().all(fails)
}

impl Implementation for Nbd {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_qemu(&self) -> bool {
        self.is_qemu
    }

    fn read(&self, case: &Case<'_>) -> Result<Answers, DriveError> {
        let mut answers = Answers::none("NBD has no words for it");
        let stands_alone = |expect| case.vector.stands_alone(expect);
        let alone = stands_alone(case.expect) || stands_alone(&case.vector.expect);
        if alone && case.expect.open == Opening::Accept {
            return Ok(Answers::none("the backing file cannot be opened, and servers open it"));
        }
        let uri = fill(&self.uri, case);
        let mut server = match &self.serve {
            Some(words) => Some(Server::start(words, self.limits, case)?),
            None => None,
        };
        self.open(&uri, &mut server, &mut answers, case)?;
        if answers.is_open() {
            self.ask(&uri, &mut answers, case)?;
        } else if case.expect.open == Opening::Accept && nothing_is_read(case) {
            return Ok(Answers::none("nothing of the disk can be read, and servers refuse that"));
        }
        Ok(answers)
    }

    fn write(&self, _case: &Case<'_>) -> Result<Answer<Opened>, DriveError> {
        Ok(Answer::Silent("the server decides how it opens the image"))
    }
}

/// A run of `nbdinfo --map --json`: bit 0 of the type says hole, bit 1 reads as zeros.
#[derive(Debug, Deserialize)]
struct Told {
    offset: u64,
    length: u64,
    r#type: u32,
}

/// The expected mapping if what is told agrees with it: data is not told to be zeros, and all else
/// is. A server may keep to itself that something is zeros; then nothing can be said.
fn as_far_as_told(told: &[Told], expected: &[MapRun]) -> Answer<Mapping> {
    let mut found: Vec<MapRun> = Vec::new();
    let mut kept_back = false;
    for Told { offset, length, r#type } in told {
        let is_zero = r#type & 2 != 0;
        let (start, end) = (*offset, offset.saturating_add(*length));
        for run in expected {
            let (from, to) = (run.at.max(start), (run.at + run.len).min(end));
            if from >= to {
                continue;
            }
            let kind = match (run.kind, is_zero) {
                (MapKind::Data { .. }, true) => MapKind::Zero,
                (MapKind::Data { host }, false) => MapKind::Data { host: host + (from - run.at) },
                (kind, _) => kind,
            };
            kept_back |= !matches!(run.kind, MapKind::Data { .. }) && !is_zero;
            MapRun::append(&mut found, MapRun { at: from, len: to - from, kind });
        }
    }
    if kept_back && found == expected {
        return Answer::Silent("the server does not tell where zeros are");
    }
    Answer::Said(Mapping::Runs(found))
}

fn places_of(copy: &File, case: &Case<'_>) -> Vec<Option<Vec<u8>>> {
    let read = |at: u64, len: u64| {
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        copy.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    };
    case.places().iter().map(|place| read(place.at, place.bytes.len())).collect()
}

/// What a server's program calls itself if it is QEMU's.
fn qemu_version(
    program: &str,
    scratch: &Path,
    limits: Limits,
) -> Result<Option<String>, DriveError> {
    let ran = limited::run(Path::new(program), ["--version"], scratch, limits)?;
    if let Ok(126 | 127) = ran.ended {
        return Err(DriveError::Start { program: program.to_owned(), why: ran.said });
    }
    let text = String::from_utf8_lossy(&ran.stdout);
    let version = text.split(" (").next().unwrap_or_default();
    Ok(version.starts_with("qemu-nbd ").then(|| version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: MapRun = MapRun { at: 0, len: 512, kind: MapKind::Data { host: 4096 } };
    const ZERO: MapRun = MapRun { at: 512, len: 512, kind: MapKind::Zero };

    #[track_caller]
    fn check(told: &[(u64, u64, u32)], expected: &[MapRun], answer: &Answer<Mapping>) {
        let told: Vec<Told> =
            told.iter().map(|&(offset, length, r#type)| Told { offset, length, r#type }).collect();
        assert_eq!(as_far_as_told(&told, expected), *answer);
    }

    #[test]
    fn data_and_zeros_that_are_told_agree_with_the_map() {
        let agrees = Answer::Said(Mapping::Runs(vec![DATA, ZERO]));
        check(&[(0, 512, 0), (512, 512, 3)], &[DATA, ZERO], &agrees);
        check(&[(0, 256, 0), (256, 256, 0), (512, 512, 2)], &[DATA, ZERO], &agrees);
        let unallocated = MapRun { kind: MapKind::Unallocated, ..ZERO };
        let agrees = Answer::Said(Mapping::Runs(vec![DATA, unallocated.clone()]));
        check(&[(0, 512, 0), (512, 512, 3)], &[DATA, unallocated], &agrees);
    }

    #[test]
    fn data_that_is_told_to_be_zeros_and_bytes_that_are_not_told_differ() {
        let zeros = MapRun { at: 0, len: 1024, kind: MapKind::Zero };
        check(&[(0, 1024, 3)], &[DATA, ZERO], &Answer::Said(Mapping::Runs(vec![zeros])));
        check(&[(0, 512, 0)], &[DATA, ZERO], &Answer::Said(Mapping::Runs(vec![DATA])));
    }

    #[test]
    fn a_server_that_keeps_zeros_to_itself_says_nothing() {
        let silent = Answer::Silent("the server does not tell where zeros are");
        check(&[(0, 1024, 0)], &[DATA, ZERO], &silent);
    }
}
