//! Hostile clients of `qed serve`: each case has a server of its own, which keeps its limits, goes
//! on serving others meanwhile and afterwards, ends in order, and leaves a sound image.

mod client;
mod crowds;
mod handshake;
mod requests;
mod server;

use std::panic::{AssertUnwindSafe, catch_unwind};

use server::Server;

/// What a client may do that nobody should.
pub(super) struct Case {
    /// As in the list.
    pub(super) name: &'static str,
    /// Further words of the server's command line.
    args: &'static str,
    /// The most memory that the server may ever have, in KiB.
    memory_kib: u64,
    /// Is hostile, and sees what the server does.
    attack: fn(&Server),
}

/// What an answer may cost: as of an image.
const MEMORY_KIB: u64 = 64 << 10;

impl Case {
    const fn new(name: &'static str, attack: fn(&Server)) -> Self {
        Self { name, args: "-f qed", memory_kib: MEMORY_KIB, attack }
    }

    const fn with_args(self, args: &'static str) -> Self {
        Self { args, ..self }
    }

    const fn with_memory(self, memory_kib: u64) -> Self {
        Self { memory_kib, ..self }
    }

    fn run(&self) {
        let server = Server::start(self.args);
        (self.attack)(&server);
        server.serves();
        let peak = server.peak_kib();
        assert!(peak <= self.memory_kib, "{peak} KiB, {} is the limit", self.memory_kib);
        server.end();
    }
}

const AREAS: [&[Case]; 3] = [handshake::CASES, requests::CASES, crowds::CASES];

/// All cases, in the order of the list.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    AREAS.into_iter().flatten()
}

/// All at once: some take as long as a handshake may.
#[test]
fn clients_over_nbd() {
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let start = |case: &'static Case| {
            let thread = scope.spawn(|| catch_unwind(AssertUnwindSafe(|| case.run())));
            (case.name, thread)
        };
        let started: Vec<_> = cases().map(start).collect();
        let failed = started.into_iter().filter_map(|(name, thread)| {
            let outcome = thread.join().expect("panics are caught");
            outcome.is_err().then_some(name)
        });
        failed.collect()
    });
    assert!(failed.is_empty(), "what is printed above is of {failed:?}");
}
