//! Calls of `qemu-img`, answered by ours and by QEMU's: same words, same exit codes, or a listed
//! reason why not. `BLESS=1` writes the listed answers anew.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::lab::{Lab, Ran, shell};
use crate::transcript::{Case, Difference, Transcript};

/// The suite is to have at least as many calls, and as many that are errors.
const LEAST_CALLS: usize = 150;
const LEAST_ERRORS: usize = 50;

#[test]
fn calls_are_answered_as_qemu_img_answers_them() {
    let files: Vec<_> = std::thread::scope(|scope| {
        let plays: Vec<_> =
            transcript_files().into_iter().map(|path| scope.spawn(move || play(&path))).collect();
        plays.into_iter().map(|play| play.join().expect("no panic")).collect()
    });
    let sum = |count: fn(&Played) -> usize| files.iter().map(count).sum::<usize>();
    let (calls, errors) = (sum(|file| file.calls), sum(|file| file.errors));
    let failures: String = files.into_iter().map(|file| file.failures).collect();
    assert!(failures.is_empty(), "\n{failures}");
    assert!(calls >= LEAST_CALLS, "only {calls} calls");
    assert!(errors >= LEAST_ERRORS, "only {errors} errors");
    println!("{calls} calls, {errors} of them errors");
}

/// What came of one file.
#[derive(Debug, Default)]
struct Played {
    calls: usize,
    /// Calls that QEMU answers with an error.
    errors: usize,
    failures: String,
}

fn play(path: &Path) -> Played {
    let bless = std::env::var_os("BLESS").is_some();
    let mut played = Played::default();
    let mut transcript = Transcript::read(path);
    let stage = Stage::new(&transcript);
    for case in &mut transcript.cases {
        let (ours, qemu) = stage.play(case);
        played.calls += 1;
        played.errors += usize::from(!qemu.starts_with("0\n"));
        if bless && let Some(difference) = &mut case.difference {
            (difference.ours, difference.qemu) = (ours.clone(), qemu.clone());
        }
        if let Some(fault) = fault(case, &ours, &qemu) {
            let (file, line) = (path.file_name().expect("a file"), case.line);
            writeln!(played.failures, "{}:{line}: {}\n{fault}", file.display(), case.call)
                .expect("a string");
        }
    }
    if bless {
        fs::write(&transcript.path, transcript.text()).expect("the transcript is written");
    }
    played
}

fn transcript_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let files = fs::read_dir(folder).expect("the transcripts");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths
}

/// What is wrong about the two answers.
fn fault(case: &Case, ours: &str, qemu: &str) -> Option<String> {
    match &case.difference {
        None if ours == qemu => None,
        None => Some(format!("ours {ours}qemu {qemu}")),
        Some(_) if ours == qemu => Some("the answers do not differ any more\n".to_owned()),
        Some(Difference { reason, .. }) if reason.is_empty() => {
            Some("a difference without a reason\n".to_owned())
        }
        Some(difference) if difference.ours != ours => {
            Some(format!("expected {}ours {ours}", difference.ours))
        }
        Some(difference) if difference.qemu != qemu => {
            Some(format!("expected {}qemu {qemu}", difference.qemu))
        }
        Some(_) => None,
    }
}

/// Where the calls of one file happen.
struct Stage {
    lab: Lab,
}

impl Stage {
    fn new(transcript: &Transcript) -> Self {
        let lab = Lab::new();
        for folder in ["bin", "setup"] {
            fs::create_dir(lab.path(folder)).expect("a folder");
        }
        symlink(env!("CARGO_BIN_EXE_qed"), lab.path("bin/qemu-img")).expect("a link");
        for command in &transcript.setup {
            let ran = shell(&lab.path("setup"), command, &[]);
            assert_eq!(ran.code, Some(0), "{command}: {}", ran.stderr);
        }
        Self { lab }
    }

    /// The answers of both programs.
    fn play(&self, case: &Case) -> (String, String) {
        let bin = self.lab.path("bin");
        (self.act(case, &[&bin]), self.act(case, &[]))
    }

    fn act(&self, case: &Case, path: &[&Path]) -> String {
        let copy = shell(&self.lab.path(""), "rm -rf twin && cp -a setup twin", &[]);
        assert_eq!(copy.code, Some(0), "{}", copy.stderr);
        let twin = self.lab.path("twin");
        let mut answer = self.answer(&shell(&twin, &format!("qemu-img {}", case.call), path));
        for command in &case.after {
            answer += "= ";
            answer += &self.answer(&shell(&twin, command, &[]));
        }
        answer
    }

    fn answer(&self, ran: &Ran) -> String {
        let code = ran.code.map_or("signal".to_owned(), |code| code.to_string());
        let mut answer = format!("{code}\n");
        for (mark, text) in [('>', &ran.stdout), ('!', &ran.stderr)] {
            let text = normal(text, &self.lab.path("twin"));
            for line in text.split_inclusive('\n') {
                // A last line without an end is marked, so that nothing is lost.
                let (line, end) = line.strip_suffix('\n').map_or((line, "-"), |line| (line, ""));
                answer += format!("{mark}{end} {line}").trim_end();
                answer += "\n";
            }
        }
        answer
    }
}

/// Replaces the folder and the sizes on disk, and nothing else.
fn normal(text: &str, folder: &Path) -> String {
    let text = text.replace(&folder.display().to_string(), "FOLDER");
    let lines = text.split_inclusive('\n').map(|line| {
        for mark in ["disk size: ", "\"actual-size\": "] {
            if let Some(at) = line.find(mark) {
                let end = if line.ends_with(",\n") { ",\n" } else { "\n" };
                return format!("{}{mark}SIZE{end}", &line[..at]);
            }
        }
        line.to_owned()
    });
    lines.collect()
}
