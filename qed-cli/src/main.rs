//! The `qed` program: `qemu-img` for QED, QCOW2 and raw images, and what `qemu-img` has not.
//!
//! This file starts it and nothing more. What the program promises to scripts is in `docs/cli.md`.
#![forbid(unsafe_code)]

mod app;
mod args;
mod background;
mod chain;
mod commands;
mod compaction;
mod console;
mod disks;
mod failure;
mod image_name;
mod interrupts;
mod names;
mod new_file;
mod new_image;
mod open;
mod output;
mod output_image;
mod pending;
mod service;
mod work;

fn main() -> std::process::ExitCode {
    app::main(std::env::args_os().collect())
}
