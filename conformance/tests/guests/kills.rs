//! A guest dies while it writes.

use conformance::records::DISK_LEN;

use crate::lab::Lab;
use crate::machine::Machine;
use crate::server::Server;
use crate::writers::Writers;

/// How often something is killed in the ordinary run of the tests.
const KILLS: u64 = 3;

/// `cargo xtask guests` says more.
fn kills() -> u64 {
    std::env::var("QED_GUEST_KILLS").map_or(KILLS, |text| text.parse().expect("a number"))
}

#[test]
fn a_guest_that_dies_has_what_it_flushed() {
    let Some(lab) = Lab::new("journal=off", DISK_LEN) else { return };
    let mut writers = Writers::new(16);
    let server = Server::start(&lab, "s", &[]);
    for kill in 0..kills() {
        let guest = Machine::start(&lab, "a", &writers.plan(Server::disk(&lab, "s")), &[]);
        writers.listen(&guest, 20 + kill * 37 % 100);
        writers.kill(guest);
    }
    server.stop();
    writers.judge(&lab.checked_disk());
}

#[test]
fn writers_that_end_have_written_what_they_told() {
    let Some(lab) = Lab::new("journal=on", DISK_LEN) else { return };
    let mut writers = Writers::new(16);
    let server = Server::start(&lab, "s", &[]);
    let guest = Machine::start(&lab, "a", &writers.plan(Server::disk(&lab, "s")), &[]);
    writers.listen(&guest, 100);
    writers.stop(guest);
    server.stop();
    writers.judge(&lab.checked_disk());
}
