//! The command line of the runner.

use std::path::PathBuf;

use thiserror::Error;

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// The libraries of this workspace, in process.
    pub library: bool,
    /// Programs with the command line of qemu-img.
    pub programs: Vec<PathBuf>,
    /// An NBD server.
    pub nbd: Option<String>,
    /// The command that starts it for one image.
    pub serve: Option<String>,
    /// Where the vectors lie.
    pub vectors: PathBuf,
    /// Only vectors with this in their names.
    pub only: Option<String>,
    /// Where images are made.
    pub folder: PathBuf,
    /// Seconds until an answer counts as missing.
    pub seconds: Option<u32>,
    /// Where reports are written.
    pub json: Option<PathBuf>,
    /// As Markdown.
    pub markdown: Option<PathBuf>,
    /// A report whose failures are accepted.
    pub known: Option<PathBuf>,
}

/// Why the command line says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UsageError {
    /// There is no such option.
    #[error("there is no option {0}")]
    Unknown(String),
    /// An option stands without its value.
    #[error("{0} needs a value")]
    NoValue(String),
    /// A value is not what the option takes.
    #[error("{0} takes seconds from 1")]
    Seconds(String),
    /// Nothing to run.
    #[error("say what to run: --library, --program PATH or --nbd URI")]
    Nothing,
    /// A server is started of which no address is known.
    #[error("--serve needs --nbd URI")]
    ServeAlone,
}

/// How the runner is called.
pub const USAGE: &str = "\
usage: conformance [--library] [--program PATH].. [--nbd URI [--serve COMMAND]] [OPTION]..

  --library        the libraries of this workspace, in process
  --program PATH   a program with the command line of qemu-img
  --nbd URI        an NBD server; {name}, {path} and {socket} stand for the vector, its image, a socket
  --serve COMMAND  starts that server for one image; the same words stand for the same
  --vectors DIR    other vectors than those of this workspace
  --only WORD      only vectors with WORD in their names
  --dir DIR        make the images in DIR, not in /dev/shm
  --seconds N      an answer that takes longer is none; 60
  --json FILE      the whole report as JSON
  --markdown FILE  as Markdown
  --known FILE     a JSON report whose failures are accepted

exit codes: 0 all as expected, 1 a vector failed, 2 usage, or it could not be run";

impl Arguments {
    /// The words of the command line, without the name of the program.
    ///
    /// # Errors
    /// They are not a command line of this program.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, UsageError> {
        let mut arguments = Self {
            library: false,
            programs: Vec::new(),
            nbd: None,
            serve: None,
            vectors: concat!(env!("CARGO_MANIFEST_DIR"), "/vectors").into(),
            only: None,
            folder: "/dev/shm".into(),
            seconds: None,
            json: None,
            markdown: None,
            known: None,
        };
        let mut words = words.into_iter();
        while let Some(option) = words.next() {
            if option == "--library" {
                arguments.library = true;
                continue;
            }
            let value = words.next();
            arguments.set(option, value)?;
        }
        if arguments.serve.is_some() && arguments.nbd.is_none() {
            return Err(UsageError::ServeAlone);
        }
        if !arguments.library && arguments.programs.is_empty() && arguments.nbd.is_none() {
            return Err(UsageError::Nothing);
        }
        Ok(arguments)
    }

    fn set(&mut self, option: String, value: Option<String>) -> Result<(), UsageError> {
        let path = || value.clone().map(PathBuf::from);
        match &*option {
            "--program" => self.programs.extend(path()),
            "--nbd" => self.nbd = value.clone(),
            "--serve" => self.serve = value.clone(),
            "--vectors" => self.vectors = path().unwrap_or_default(),
            "--only" => self.only = value.clone(),
            "--dir" => self.folder = path().unwrap_or_default(),
            "--seconds" => {
                let seconds = value.as_ref().and_then(|value| value.parse().ok());
                self.seconds = seconds.filter(|seconds| *seconds > 0);
                if self.seconds.is_none() && value.is_some() {
                    return Err(UsageError::Seconds(option));
                }
            }
            "--json" => self.json = path(),
            "--markdown" => self.markdown = path(),
            "--known" => self.known = path(),
            _ => return Err(UsageError::Unknown(option)),
        }
        value.map(drop).ok_or(UsageError::NoValue(option))
    }
}
