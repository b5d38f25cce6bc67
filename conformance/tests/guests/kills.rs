//! The server of a guest's disk dies, or the guest does, while it writes.

use conformance::records::DISK_LEN;

use crate::lab::{Lab, number};
use crate::machine::Machine;
use crate::server::{Server, Way};
use crate::writers::Writers;

/// How often something is killed in the ordinary run of the tests; `cargo xtask guests` says more.
const KILLS: u64 = 3;

fn kills() -> u64 {
    number("QED_GUEST_KILLS", KILLS)
}

/// Flushes to wait for before the next one is killed.
fn pause(kill: u64) -> u64 {
    10 + kill * 37 % 60
}

/// Kills the server of a guest with writers again and again; the guest goes on with the next one.
#[track_caller]
fn kill_servers(way: Way, options: &str, count: u64) {
    let Some(lab) = Lab::new(options, DISK_LEN) else { return };
    let mut writers = Writers::new(count);
    let mut server = Server::start(&lab, way, "s", &[]);
    let guest = Machine::start(&lab, "a", &writers.plan(way.disk(&lab, "s")), &[]);
    for kill in 0..kills() {
        writers.listen(&guest, pause(kill));
        server.kill();
        server = Server::start(&lab, way, "s", &[]);
    }
    writers.listen(&guest, pause(0));
    writers.stop(guest);
    server.stop();
    writers.judge(&lab.checked_disk());
}

/// Kills a guest with writers again and again; the next one writes on.
#[track_caller]
fn kill_guests(way: Way, options: &str) {
    let Some(lab) = Lab::new(options, DISK_LEN) else { return };
    let mut writers = Writers::new(16);
    let server = Server::start(&lab, way, "s", &[]);
    for kill in 0..kills().min(20) {
        let guest = Machine::start(&lab, "a", &writers.plan(way.disk(&lab, "s")), &[]);
        writers.listen(&guest, pause(kill));
        writers.kill(guest);
    }
    server.stop();
    writers.judge(&lab.checked_disk());
}

#[test]
fn one_writer_over_nbd_loses_nothing_with_its_server() {
    kill_servers(Way::Nbd, "journal=off", 1);
}

#[test]
fn sixteen_writers_over_nbd_lose_nothing_with_their_server() {
    kill_servers(Way::Nbd, "journal=on", 16);
}

#[test]
fn one_writer_over_vhost_user_loses_nothing_with_its_server() {
    kill_servers(Way::Vhost, "journal=on", 1);
}

#[test]
fn sixteen_writers_over_vhost_user_lose_nothing_with_their_server() {
    kill_servers(Way::Vhost, "journal=off", 16);
}

#[test]
fn a_guest_over_nbd_that_dies_has_what_it_flushed() {
    kill_guests(Way::Nbd, "journal=off");
}

#[test]
fn a_guest_over_vhost_user_that_dies_has_what_it_flushed() {
    kill_guests(Way::Vhost, "journal=on");
}
