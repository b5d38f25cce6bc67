//! Any program with the command line of qemu-img, asked in a process of its own under limits.

mod dd;
mod parse;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use crate::answer::{Answer, Answers, Case, DriveError, Implementation, Opened};
use crate::limited::{self, Limits, Ran};
use crate::vector::{CheckOutcome, Content, Mapping, Opening};
use dd::{Blocks, CountFrom};

/// A program with the command line of qemu-img.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    name: String,
    kind: Kind,
    limits: Limits,
}

/// What is known of a program beyond the common command line, by what `--version` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `qed` of this workspace: it is told formats of backing files and numbers its findings.
    Qed,
    /// qemu-img.
    Qemu,
    /// Neither.
    Other,
}

impl Program {
    /// The program at this path, or of this name in `PATH`.
    ///
    /// # Errors
    /// It does not start.
    pub fn new(path: &Path, limits: Limits) -> Result<Self, DriveError> {
        // A name without a slash is looked for in PATH; a path must not depend on the folder.
        let is_path = path.components().count() > 1;
        let path = if is_path {
            fs::canonicalize(path).map_err(|error| start(path, &error))?
        } else {
            path.to_owned()
        };
        let scratch = tempfile::tempdir()?;
        let ran = limited::run(&path, ["--version"], scratch.path(), limits)?;
        if let Ok(126 | 127) = ran.ended {
            return Err(start(&path, &ran.said));
        }
        let version =
            String::from_utf8_lossy(&ran.stdout).lines().next().unwrap_or_default().to_owned();
        let (kind, name) = match version.split_once(" (").map_or(&*version, |(name, _)| name) {
            name if name.starts_with("qemu-img version ") => {
                (Kind::Qemu, name.replacen(" version", "", 1))
            }
            name if name.starts_with("qed ") => (Kind::Qed, name.to_owned()),
            _ => (Kind::Other, path.file_name().unwrap_or_default().display().to_string()),
        };
        Ok(Self { path, name, kind, limits })
    }

    /// Runs `SUBCOMMAND -f qed ..` on the image; `words` stand before its path.
    fn ask(&self, words: &[&str], case: &Case<'_>, more: &[&str]) -> Result<Ran, DriveError> {
        let (subcommand, words) = words.split_first().expect("a subcommand is named");
        let line: Vec<&OsStr> = [subcommand, "-f", "qed"]
            .into_iter()
            .chain(words.iter().copied())
            .map(OsStr::new)
            .chain([case.image.as_os_str()])
            .chain(more.iter().map(OsStr::new))
            .collect();
        limited::run(&self.path, line, case.scratch, self.limits)
    }

    /// The words that state the formats of the backing files; a program that guesses needs none.
    fn backing_formats<'a>(&self, case: &Case<'a>) -> Vec<&'a str> {
        let stated = if self.kind == Kind::Qed { &*case.vector.backing_format.0 } else { &[] };
        stated.iter().flat_map(|format| ["--backing-format", format]).collect()
    }

    /// What `info` says.
    fn info(&self, answers: &mut Answers, case: &Case<'_>) -> Result<(), DriveError> {
        let ran = self.ask(&["info", "--output=json"], case, &[])?;
        answers.open = opened(&ran);
        if !answers.is_open() {
            return Ok(());
        }
        let told = parse::info(&ran.stdout);
        if let Ok(info) = &told
            && let Some(said) = info.refusal()
        {
            answers.open = Answer::Said(Opened::Refused { clauses: None, said });
            return Ok(());
        }
        match told {
            Ok(info) => {
                answers.size = Answer::Said(info.virtual_size);
                answers.cluster_size = Answer::Said(info.cluster_size);
                answers.backing = Answer::Said(info.backing_filename.map(String::into_bytes));
            }
            Err(why) => answers.open = Answer::Broke(why),
        }
        if case.expect.backing.as_ref().is_some_and(|name| str::from_utf8(&name.0).is_err()) {
            answers.backing = Answer::Silent("JSON holds no name that is not UTF-8");
        }
        Ok(())
    }

    fn check(&self, answers: &mut Answers, case: &Case<'_>) -> Result<(), DriveError> {
        let ran = self.ask(&["check", "--output=json"], case, &[])?;
        answers.findings = Answer::Silent("the program does not number its findings");
        answers.check = match ran.ended {
            Ok(63) => Answer::Silent("the program has no check"),
            Ok(1) if refuses(&ran) && case.vector.stands_alone(&case.vector.expect) => {
                Answer::Silent("the backing file cannot be opened, and this check opens it")
            }
            Ok(1) if refuses(&ran) => Answer::Said(CheckOutcome::Refused),
            Ok(code @ (0 | 2 | 3)) => match parse::check(&ran.stdout, code) {
                Ok((outcome, numbers)) => {
                    if self.kind == Kind::Qed {
                        answers.findings = Answer::Said(numbers);
                    }
                    Answer::Said(match (outcome, case.expect.check) {
                        // The exit code of others says no more than that nothing is wrong.
                        (CheckOutcome::Clean, Some(CheckOutcome::Free))
                            if self.kind != Kind::Qed =>
                        {
                            CheckOutcome::Free
                        }
                        (outcome, _) => outcome,
                    })
                }
                Err(why) => Answer::Broke(why),
            },
            _ => broken(&ran),
        };
        Ok(())
    }

    fn map(&self, case: &Case<'_>) -> Result<Answer<Mapping>, DriveError> {
        if case.vector.stands_alone(&case.vector.expect) {
            return Ok(Answer::Silent("the backing file cannot be opened, and map opens it"));
        }
        let mut words = vec!["map", "--output=json"];
        words.extend(self.backing_formats(case));
        let ran = self.ask(&words, case, &[])?;
        Ok(match ran.ended {
            Ok(0) => match parse::map(&ran.stdout) {
                Ok(runs) => Answer::Said(Mapping::Runs(runs)),
                Err(why) => Answer::Broke(why),
            },
            Ok(1) if refuses(&ran) => Answer::Said(Mapping::Fails),
            _ => broken(&ran),
        })
    }

    fn content(&self, case: &Case<'_>) -> Result<Answer<Vec<Option<Vec<u8>>>>, DriveError> {
        let mut found = Vec::new();
        for place in case.places() {
            match self.read_place(place, case)? {
                Answer::Said(bytes) => found.push(bytes),
                Answer::Broke(why) => return Ok(Answer::Broke(why)),
                Answer::Silent(why) => return Ok(Answer::Silent(why)),
            }
        }
        Ok(Answer::Said(found))
    }

    /// Copies the blocks that have the place with `dd`.
    fn read_place(
        &self,
        place: &Content,
        case: &Case<'_>,
    ) -> Result<Answer<Option<Vec<u8>>>, DriveError> {
        let blocks = Blocks::of(place);
        let count_from = if self.kind == Kind::Qed { CountFrom::Skip } else { CountFrom::Start };
        let output = case.scratch.join("content");
        let mut words: Vec<OsString> = ["dd", "-f", "qed", "-O", "raw"].map(Into::into).to_vec();
        words.extend(self.backing_formats(case).into_iter().map(Into::into));
        words.extend(blocks.operands(count_from).map(Into::into));
        for (operand, path) in [("if=", case.image), ("of=", &output)] {
            let mut word = OsString::from(operand);
            word.push(path);
            words.push(word);
        }
        let file_bytes = self.limits.file_bytes.max(blocks.copied());
        let ran =
            limited::run(&self.path, words, case.scratch, Limits { file_bytes, ..self.limits })?;
        let copy = fs::read(&output).unwrap_or_default();
        // What failed may have left nothing behind.
        let _ = fs::remove_file(output);
        Ok(match ran.ended {
            Ok(0) => match blocks.place(&copy) {
                Some(bytes) => Answer::Said(Some(bytes.to_vec())),
                None => Answer::Broke(format!("dd wrote {} bytes", copy.len())),
            },
            Ok(1) if refuses(&ran) => Answer::Said(None),
            _ => broken(&ran),
        })
    }
}

impl Implementation for Program {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_qemu(&self) -> bool {
        self.kind == Kind::Qemu
    }

    fn read(&self, case: &Case<'_>) -> Result<Answers, DriveError> {
        let mut answers = Answers::none("only the library is asked");
        self.info(&mut answers, case)?;
        // Each question to one that breaks down may take long.
        if matches!(answers.open, Answer::Broke(_)) {
            return Ok(answers);
        }
        if case.expect.check.is_some() || case.expect.findings.is_some() {
            self.check(&mut answers, case)?;
        }
        if answers.is_open() && case.expect.map.is_some() {
            answers.map = self.map(case)?;
        }
        if answers.is_open() && case.expect.content.is_some() {
            answers.content = self.content(case)?;
        }
        Ok(answers)
    }

    fn write(&self, case: &Case<'_>) -> Result<Answer<Opened>, DriveError> {
        if case.vector.stands_alone(&case.vector.expect) {
            return Ok(Answer::Silent("the backing file cannot be opened, and resize opens it"));
        }
        if let Some(Opening::Reject(Some(clause))) = case.expect.to_write()
            && ["QED-CONS-01", "QED-DIRTY-08"].contains(&clause.as_str())
        {
            return Ok(Answer::Silent("a program may check or mend the image first"));
        }
        let size = match case.vector.disk_len() {
            Some(0) => return Ok(Answer::Silent("resize takes no size of 0")),
            Some(size) => size.to_string(),
            None => 512.to_string(),
        };
        let mut words = vec!["resize", "-q"];
        words.extend(self.backing_formats(case));
        // The image may be longer than any file that is written otherwise.
        let limits = Limits {
            file_bytes: case.vector.file_len.saturating_add(self.limits.file_bytes),
            ..self.limits
        };
        let unlimited = Self { limits, ..self.clone() };
        Ok(opened(&unlimited.ask(&words, case, &[&size])?))
    }
}

/// A refusal is exit code 1 with a reason.
fn refuses(ran: &Ran) -> bool {
    ran.ended == Ok(1) && !ran.said.is_empty()
}

fn opened(ran: &Ran) -> Answer<Opened> {
    match ran.ended {
        Ok(0) => Answer::Said(Opened::Accepted),
        Ok(1) if refuses(ran) => {
            Answer::Said(Opened::Refused { clauses: None, said: ran.said.clone() })
        }
        _ => broken(ran),
    }
}

fn broken<T>(ran: &Ran) -> Answer<T> {
    Answer::Broke(match &ran.ended {
        Ok(1) => "exit code 1 without a reason".to_owned(),
        Ok(code) => format!("exit code {code}: {}", ran.said),
        Err(why) => why.clone(),
    })
}

fn start(program: &Path, why: &dyn std::fmt::Display) -> DriveError {
    DriveError::Start { program: program.display().to_string(), why: why.to_string() }
}
