//! Where QEMU is wrong: each fault shown in the installed QEMU, so that one that is mended is
//! noticed, and beside it what this workspace does.
//!
//! Faults in reading headers are beside the header's tests in qed-spec, too long backing file names
//! beside those of `create`.

mod big;
mod corrupt;
mod overlays;
mod size;

use std::path::{Path, PathBuf};

use qed_fuzz::{Answer, Operation, qemu_img, qemu_io};

use crate::support::words;

/// Runs `qemu-io` on a QED image.
fn qemu_does(image: &Path, commands: &[&str]) -> Answer {
    let commands: Vec<String> = commands.iter().map(|&command| command.to_owned()).collect();
    qemu_io(&["-f", "qed"], image, &commands)
}

/// Runs `qemu-img` on one image.
fn img(options: &[&str], image: &Path) -> Answer {
    let paths: [PathBuf; 1] = [image.to_owned()];
    qemu_img(words(options, &paths))
}

fn write(range: std::ops::Range<u64>, fill: u8) -> Operation {
    Operation::Write { range, fill }
}
