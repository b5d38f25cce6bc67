//! Runs in a test guest: writers that fill a disk with records and tell the host, over a port, which
//! are durable. `guest DISK PORT WRITERS FROM`; ends when the host says `stop`.
//!
//! What it writes is [`conformance::records`]'s; the host judges it.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, io, thread};

use conformance::records::{CLUSTER_LEN, Group, RECORD_LEN, SECTOR_LEN};
use rustix::fs::{FallocateFlags, OFlags, fallocate};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> io::Result<()> {
    let [disk, port, writers, from] = words else {
        return Err(io::Error::other("guest DISK PORT WRITERS FROM"));
    };
    let number = |word: &String| word.parse::<u64>().map_err(io::Error::other);
    let (writers, number) = (number(writers)?, number(from)?);
    // A port can be opened once.
    let port = File::options().read(true).write(true).open(port)?;
    let mut said = BufReader::new(port.try_clone()?);
    let (port, stop) = (Port(Mutex::new(port)), AtomicBool::new(false));
    thread::scope(|scope| {
        for writer in 0..writers {
            let (port, stop) = (&port, &stop);
            scope.spawn(move || {
                let written = write(disk, Group { writer, number }, port, stop);
                port.tell(
                    &written.map_or_else(|error| format!("failed {error}"), |()| "end".into()),
                );
            });
        }
        let stopped = said.read_line(&mut String::new());
        stop.store(true, Ordering::Relaxed);
        stopped.map(drop)
    })
}

/// The way to the host, a whole line at a time.
struct Port(Mutex<File>);

impl Port {
    fn tell(&self, line: &str) {
        let mut port = self.0.lock().expect("nobody panics with it");
        port.write_all(format!("{line}\n").as_bytes()).expect("the host listens");
    }
}

/// Direct I/O takes memory that is aligned.
#[repr(align(4096))]
struct Aligned([u8; RECORD_LEN]);

/// Writes groups from the first on until it is told to stop, and then to the next that is flushed.
fn write(disk: &str, first: Group, port: &Port, stop: &AtomicBool) -> io::Result<()> {
    let direct = OFlags::DIRECT.bits().cast_signed();
    let disk = File::options().read(true).write(true).custom_flags(direct).open(disk)?;
    let mut buffer = Box::new(Aligned([0; RECORD_LEN]));
    for number in first.number.. {
        let group = Group { number, ..first };
        if let Some(punched) = group.punches().filter(|punched| punched.number >= first.number) {
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&disk, mode, punched.start(), CLUSTER_LEN as u64)?;
        }
        for place in group.places() {
            group.fill(place, &mut buffer.0);
            disk.write_all_at(&buffer.0, group.start() + place as u64)?;
        }
        let head = &mut buffer.0[..SECTOR_LEN];
        head.copy_from_slice(&group.head());
        disk.write_all_at(head, group.head_offset())?;
        if group.is_flushed() {
            disk.sync_data()?;
            port.tell(&format!("durable {} {number}", group.writer));
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    Ok(())
}
