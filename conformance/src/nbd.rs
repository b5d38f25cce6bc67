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

/// The largest disk that is copied to compare it.
const COPY_MAX: u64 = 1 << 30;
/// How long is waited for a server to come up, and how often it is tried meanwhile.
const COMES_UP_WITHIN: Duration = Duration::from_secs(20);
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

    /// Opens the export, as soon as the server is there.
    fn open(
        &self,
        uri: &str,
        server: &mut Option<Server>,
        case: &Case<'_>,
    ) -> Result<Answer<Opened>, DriveError> {
        let deadline = Instant::now() + COMES_UP_WITHIN;
        loop {
            let ended = match server {
                Some(server) => server.ended()?,
                None => None,
            };
            if let Some(answer) = ended {
                return Ok(answer);
            }
            let ran = self.client("nbdinfo", &["--size", uri], case)?;
            let is_absent = ["No such file or directory", "Connection refused"]
                .iter()
                .any(|text| ran.said.contains(text));
            match ran.ended {
                Ok(0) => return Ok(Answer::Said(Opened::Accepted)),
                Err(why) => return Ok(Answer::Broke(why)),
                Ok(_) if !is_absent => {
                    return Ok(Answer::Said(Opened::Refused { clauses: None, said: ran.said }));
                }
                Ok(_) if server.is_none() => {
                    return Err(DriveError::Start { program: uri.to_owned(), why: ran.said });
                }
                Ok(_) if Instant::now() > deadline => {
                    return Ok(Answer::Broke("the server neither listens nor ends".to_owned()));
                }
                Ok(_) => std::thread::sleep(TRY_EVERY),
            }
        }
    }

    fn ask(&self, uri: &str, answers: &mut Answers, case: &Case<'_>) -> Result<(), DriveError> {
        answers.size = self.size(uri, case)?;
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

    fn size(&self, uri: &str, case: &Case<'_>) -> Result<Answer<u64>, DriveError> {
        let ran = self.client("nbdinfo", &["--size", uri], case)?;
        let text = String::from_utf8_lossy(&ran.stdout);
        Ok(match (ran.ended, text.trim().parse()) {
            (Ok(0), Ok(size)) => Answer::Said(size),
            (Err(why), _) => Answer::Broke(why),
            _ => Answer::Broke(ran.said),
        })
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
        let ran = self.client("nbdcopy", &[uri, &to], case)?;
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

impl Implementation for Nbd {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_qemu(&self) -> bool {
        self.is_qemu
    }

    fn read(&self, case: &Case<'_>) -> Result<Answers, DriveError> {
        let mut answers = Answers::none("NBD has no words for it");
        if case.vector.lacks_backing() && case.expect.open == Opening::Accept {
            return Ok(Answers::none("the backing file is not there, and servers open it"));
        }
        let uri = fill(&self.uri, case);
        let mut server = match &self.serve {
            Some(words) => Some(Server::start(words, self.limits, case)?),
            None => None,
        };
        answers.open = self.open(&uri, &mut server, case)?;
        if answers.is_open() {
            self.ask(&uri, &mut answers, case)?;
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
    let is_qemu = version.starts_with("qemu-nbd version ");
    Ok(is_qemu.then(|| version.replacen(" version", "", 1)))
}
