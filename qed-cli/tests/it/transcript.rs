//! The transcript files: what is called, and where our answer differs by decision.
//!
//! A file is read line by line:
//!
//! ```text
//! # a comment
//! setup COMMAND      shell, with QEMU's tools, once for the file
//! $ ARGUMENTS        a call of `qemu-img ARGUMENTS`, ours and QEMU's, each in a copy of the setup
//! & COMMAND          shell, with QEMU's tools, after the call: has to print the same in both copies
//! ~ REASON           our answer differs for this reason; both answers follow
//! ours CODE          exit code, then `>` lines of standard output, `!` lines of standard error,
//!                    `=` lines with the exit codes of the commands after the call
//! qemu CODE
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// One transcript file.
#[derive(Debug)]
pub(crate) struct Transcript {
    pub(crate) path: PathBuf,
    pub(crate) setup: Vec<String>,
    pub(crate) cases: Vec<Case>,
}

/// One call.
#[derive(Debug, Default)]
pub(crate) struct Case {
    /// Line of the file, from 1.
    pub(crate) line: usize,
    /// Lines of the file up to the call, for writing it again.
    lead: Vec<String>,
    pub(crate) call: String,
    pub(crate) after: Vec<String>,
    pub(crate) difference: Option<Difference>,
}

/// A difference by decision.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    pub(crate) reason: String,
    pub(crate) ours: String,
    pub(crate) qemu: String,
}

impl Transcript {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("a transcript");
        let mut this = Self { path: path.to_path_buf(), setup: Vec::new(), cases: Vec::new() };
        let mut lead = Vec::new();
        let mut answer: Option<String> = None;
        for (number, line) in text.lines().enumerate() {
            let case = this.cases.last_mut();
            match (line.split_once(' ').unwrap_or((line, "")), case) {
                (("$", call), _) => {
                    let lead = std::mem::take(&mut lead);
                    let line = number + 1;
                    this.cases.push(Case { line, lead, call: call.to_owned(), ..Case::default() });
                    answer = None;
                }
                (("setup", command), None) => {
                    this.setup.push(command.to_owned());
                    lead.push(line.to_owned());
                }
                (("&", command), Some(case)) => case.after.push(command.to_owned()),
                (("~", reason), Some(case)) => {
                    case.difference =
                        Some(Difference { reason: reason.to_owned(), ..Difference::default() });
                }
                (("ours" | "qemu", _), Some(case)) if case.difference.is_some() => {
                    answer = Some(line[..4].to_owned());
                    case.answer(answer.as_deref(), &line[5..]);
                }
                ((">" | "!" | ">-" | "!-" | "=", _), Some(case)) => {
                    case.answer(answer.as_deref(), line);
                }
                (("#" | "", _), _) => lead.push(line.to_owned()),
                _ => panic!("{}:{}: {line}", path.display(), number + 1),
            }
        }
        this
    }

    /// The file with the answers as they are now.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for case in &self.cases {
            for line in &case.lead {
                writeln!(text, "{line}").expect("a string");
            }
            writeln!(text, "$ {}", case.call).expect("a string");
            for command in &case.after {
                writeln!(text, "& {command}").expect("a string");
            }
            if let Some(difference) = &case.difference {
                let Difference { reason, ours, qemu } = difference;
                write!(text, "~ {reason}\nours {ours}qemu {qemu}").expect("a string");
            }
        }
        text
    }
}

impl Case {
    fn answer(&mut self, who: Option<&str>, line: &str) {
        let difference = self.difference.as_mut().expect("answers follow a reason");
        let answer = match who {
            Some("ours") => &mut difference.ours,
            Some("qemu") => &mut difference.qemu,
            _ => panic!("line {}: an answer of nobody: {line}", self.line),
        };
        writeln!(answer, "{line}").expect("a string");
    }
}
