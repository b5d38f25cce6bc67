//! A guest that writes moves from one QEMU and server to others, over and over; the image stays.

use std::time::{Duration, Instant};

use conformance::records::DISK_LEN;
use serde_json::{Value, json};

use crate::lab::{Lab, number};
use crate::machine::{Machine, Plan};
use crate::server::{Server, Way};
use crate::writers::Writers;

/// How often a guest moves in the ordinary run of the tests; `cargo xtask guests` says more.
const MOVES: u64 = 2;
/// What a hand-over may take, the median of as many as make one.
const HAND_OVER: Duration = Duration::from_millis(50);
const ENOUGH: usize = 20;

/// When the image is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// While the source waits to be told to go on.
    BeforeSwitchover,
    /// When it says that the guest has stopped; what the guest then asks of the other server waits.
    AtStop,
}

/// A QEMU and the server of its disk.
struct Host {
    server: Server,
    guest: Machine,
}

impl Host {
    fn start(lab: &Lab, way: Way, name: &str, plan: &Plan, server: &[&str], qemu: &[&str]) -> Self {
        let server = Server::start(lab, way, name, server);
        let plan = Plan { disk: way.disk(lab, name), ..plan.clone() };
        Self { server, guest: Machine::start(lab, name, &plan, qemu) }
    }

    /// Moves the guest to another host, by way of `socket`; how long the image was nobody's.
    fn move_to(&self, other: &Self, socket: &str, pause: Pause) -> Duration {
        let mut monitor = self.guest.monitor();
        let capability = |name, state| json!({ "capability": name, "state": state });
        let waits = pause == Pause::BeforeSwitchover;
        let capabilities =
            [capability("events", true), capability("pause-before-switchover", waits)];
        monitor.run("migrate-set-capabilities", json!({ "capabilities": capabilities }));
        other.guest.monitor().run("migrate-incoming", json!({ "uri": socket }));
        monitor.run("migrate", json!({ "uri": socket }));
        let is_status = |event: &Value, status: &str| {
            event["event"] == "MIGRATION" && event["data"]["status"] == status
        };
        if waits {
            monitor.wait_for(|event| is_status(event, "pre-switchover"));
        } else {
            monitor.wait_for(|event| event["event"] == "STOP");
        }
        other.server.refuses("activate");
        let start = Instant::now();
        self.server.ask("deactivate");
        other.server.ask("activate");
        let took = start.elapsed();
        if waits {
            monitor.run("migrate-continue", json!({ "state": "pre-switchover" }));
        }
        monitor.wait_for(|event| is_status(event, "completed"));
        took
    }
}

/// Moves a guest with sixteen writers as often as it is asked for.
#[track_caller]
fn moves(way: Way, options: &str, pause: Pause) {
    let Some(lab) = Lab::new(options, DISK_LEN) else { return };
    let mut writers = Writers::new(16);
    let plan = writers.plan(Vec::new());
    let mut host = Host::start(&lab, way, "h0", &plan, &[], &[]);
    let mut took = Vec::new();
    for number in 1..=number("QED_GUEST_MOVES", MOVES) {
        let name = format!("h{number}");
        let socket = format!("unix:{}", lab.path(&format!("{name}.move")).display());
        let other = Host::start(&lab, way, &name, &plan, &["--inactive"], &["-incoming", "defer"]);
        writers.listen(&host.guest, 20);
        took.push(host.move_to(&other, &socket, pause));
        writers.kill(host.guest);
        host.server.stop();
        host = other;
    }
    writers.listen(&host.guest, 20);
    writers.stop(host.guest);
    host.server.stop();
    writers.judge(&lab.checked_disk());
    took.sort_unstable();
    let median = took[took.len() / 2];
    println!("{way:?}, {options}, {pause:?}: {} moves, hand-over {median:?} {took:?}", took.len());
    assert!(took.len() < ENOUGH || median < HAND_OVER, "a hand-over takes {median:?}");
}

#[test]
fn a_guest_over_nbd_moves_before_switchover() {
    moves(Way::Nbd, "journal=off", Pause::BeforeSwitchover);
}

#[test]
fn a_guest_over_nbd_moves_at_stop() {
    moves(Way::Nbd, "journal=on", Pause::AtStop);
}

#[test]
fn a_guest_over_vhost_user_moves_before_switchover() {
    moves(Way::Vhost, "journal=on", Pause::BeforeSwitchover);
}

#[test]
fn a_guest_over_vhost_user_moves_at_stop() {
    moves(Way::Vhost, "journal=off", Pause::AtStop);
}
