//! One image, two servers: handed over, refused, taken from one that died, and from one that is stale.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::{Value, json};

use super::control::ask;
use super::{Served, clients, run_clients};
use crate::lab::Lab;

/// How an image is made in each mode.
const MODES: [&str; 3] = ["-o classic=on", "-o journal=off", "-o journal=on"];

fn done() -> Value {
    json!({"ok": true})
}

/// A server of `a.qed`, or of what `args` name, with the control socket `NAME.c`.
fn server(lab: &Lab, name: &str, args: &str) -> Served {
    Served::start(lab, &format!("--socket {name} --control {name}.c -f qed {args}"), 1)
}

/// As [`server`], on what looks to it like another host.
fn server_elsewhere(lab: &Lab, name: &str, args: &str) -> Served {
    let script = format!(
        "echo 11111111-2222-3333-4444-555555555555 > boot; mkdir -p -m 700 run; hostname elsewhere
         mount --bind boot /proc/sys/kernel/random/boot_id; mount -t tmpfs -o mode=700 run run
         export QED_RUNTIME_DIR=$PWD/run
         exec {} serve --socket {name} --control {name}.c -f qed {args}",
        env!("CARGO_BIN_EXE_qed")
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "-u", "sh", "-ec", &script]).current_dir(lab.path("."));
    Served::of(&mut command, 1)
}

fn activate(lab: &Lab, name: &str) -> Value {
    ask(lab, &format!("{name}.c"), &json!({"cmd": "activate"}))
}

fn deactivate(lab: &Lab, name: &str) -> Value {
    ask(lab, &format!("{name}.c"), &json!({"cmd": "deactivate"}))
}

fn state(lab: &Lab, name: &str) -> Value {
    ask(lab, &format!("{name}.c"), &json!({"cmd": "status"}))["exports"][0]["state"].clone()
}

#[track_caller]
fn io(lab: &Lab, served: &Served, commands: &str) {
    let said = clients(lab, &format!("qemu-io -f raw {commands} '{}'", served.uri()));
    assert_eq!(said, "", "{commands}");
}

// spec-test: QED-HAND-03, QED-HAND-04
#[test]
fn an_image_goes_to_another_server_and_back() {
    for mode in MODES {
        let lab = Lab::new();
        lab.shell(&format!("{} create -q -f qed {mode} a.qed 64M", env!("CARGO_BIN_EXE_qed")));
        let here = server(&lab, "here", "a.qed");
        let there = server(&lab, "there", "--inactive a.qed");
        assert_eq!(
            (state(&lab, "here"), state(&lab, "there")),
            (json!("active"), json!("inactive"))
        );
        for round in 1..=3 {
            let (old, new) = (2 * round, 2 * round + 1);
            io(
                &lab,
                &here,
                &format!("-c 'write -q -P {old} {round}M 1M' -c 'write -q -P {old} 33M 4k'"),
            );
            let refused = activate(&lab, "there");
            assert_eq!(refused["ok"], false, "{mode}: two have the image");
            assert!(refused["error"].as_str().expect("why").contains("lock"), "{refused}");
            assert_eq!(deactivate(&lab, "here"), done());
            assert_eq!(state(&lab, "here"), "ended");
            // Clean to every program, before anybody opens it for writing.
            lab.qed(["check", "-q", "-f", "qed", "a.qed"]).succeeded();
            lab.shell("qemu-img info -U a.qed > said; ! grep 'cleanly shut down: no' said");
            let ended =
                run_clients(&lab, &format!("qemu-io -f raw -c 'read 0 512' '{}'", here.uri()));
            assert!(ended.stdout.contains("read failed") || ended.code != Some(0), "{ended:?}");

            assert!(activate(&lab, "there")["ok"] == true, "{mode}");
            assert_eq!(activate(&lab, "here")["ok"], false, "{mode}: two have the image");
            io(
                &lab,
                &there,
                &format!("-c 'read -q -P {old} {round}M 1M' -c 'read -q -P {old} 33M 4k'"),
            );
            io(&lab, &there, &format!("-c 'write -q -P {new} {round}M 4k' -c flush"));
            assert_eq!(deactivate(&lab, "there"), done());
            assert!(activate(&lab, "here")["ok"] == true, "{mode}");
            io(&lab, &here, &format!("-c 'read -q -P {new} {round}M 4k'"));
        }
        // Nothing was recovered, or one of them had said so.
        here.stop();
        there.stop();
        lab.qed(["check", "-q", "-f", "qed", "a.qed"]).succeeded();
    }
}

/// What QEMU asks of its disk before it is told to go on: size and format, and no more.
// spec-test: QED-HAND-01
#[test]
fn a_destination_answers_qemu_while_the_source_writes() {
    let lab = Lab::new();
    lab.qed(["create", "-q", "-f", "qed", "a.qed", "64M"]).succeeded();
    let here = server(&lab, "here", "a.qed");
    let there = server(&lab, "there", "--inactive a.qed");
    io(&lab, &here, "-c 'write -q -P 7 0 64k' -c flush");
    let before = std::fs::read(lab.path("a.qed")).expect("the image");
    let said = clients(&lab, &format!("qemu-img info '{}'", there.uri()));
    assert!(said.contains("file format: raw\n") && said.contains("(67108864 bytes)"), "{said}");
    io(&lab, &there, "-r -c 'read -q -P 7 0 512'");
    assert!(std::fs::read(lab.path("a.qed")).expect("the image") == before, "it was written");
    there.stop();
    here.stop();
}

/// A source that is killed while it hands over; the moment is another one each time.
// spec-test: QED-HAND-03
#[test]
fn a_destination_takes_over_from_a_source_that_was_killed() {
    for mode in MODES {
        let lab = Lab::new();
        lab.shell(&format!("{} create -q -f qed {mode} a.qed 64M", env!("CARGO_BIN_EXE_qed")));
        for round in 1..=8_u32 {
            let mut here = server(&lab, "here", "a.qed");
            let there = server(&lab, "there", "--inactive a.qed");
            io(&lab, &here, &format!("-c 'write -q -P {round} {round}M 1M' -c flush"));
            io(&lab, &here, &format!("-c 'write -q -P {round} {}M 300k'", 32 + round));
            let mut control = UnixStream::connect(lab.path("here.c")).expect("it listens");
            control.write_all(b"{\"cmd\":\"deactivate\"}\n").expect("sent");
            for spin in 0..(round - 1) * 400_000 {
                std::hint::black_box(spin);
            }
            here.signal("KILL");
            here.wait();
            let taken = activate(&lab, "there");
            assert_eq!(taken["ok"], true, "{mode} {round}: {taken}");
            // Acknowledged, so it outlives the process.
            let late = 32 + round;
            io(
                &lab,
                &there,
                &format!(
                    "-c 'read -q -P {round} {round}M 1M' -c 'read -q -P {round} {late}M 300k'"
                ),
            );
            there.stop();
            // A classic image leaks what nobody named.
            let checked = lab.qed(["check", "-q", "-f", "qed", "a.qed"]).code;
            assert!(checked == Some(0) || (mode == MODES[0] && checked == Some(3)), "{checked:?}");
        }
    }
}

#[test]
fn what_cannot_be_handed_over_is_refused_when_the_server_starts() {
    let lab = Lab::new();
    lab.qed(["create", "-q", "-f", "qed", "a.qed", "1M"]).succeeded();
    let cases = [
        ("--inactive", "--inactive needs --control"),
        ("--inactive --control c -r", "are for images that are written"),
        ("--shared -r", "are for images that are written"),
        ("--no-lock", "--shared"),
    ];
    for (args, why) in cases {
        let args = format!("serve --socket s -f qed {args} a.qed");
        let ran = lab.qed(args.split(' '));
        assert_ne!(ran.code, Some(0), "{args}");
        assert!(ran.stderr.contains(why), "{args}: {}", ran.stderr);
    }
    // A server without a control socket cannot be asked.
    server(&lab, "s", "a.qed").stop();
}

/// Two devices over one file stand for a disk that two hosts see: no lock reaches from one to the other.
// spec-test: QED-HAND-05
#[test]
fn a_stale_server_on_another_host_ends_when_it_is_replaced() {
    let test = "a_stale_server_on_another_host_ends_when_it_is_replaced";
    let lab = Lab::new();
    lab.shell(&format!(
        "if [ $(id -u) != 0 ] && [ -n \"$QED_SKIPPED\" ]; then
             echo {test}: needs root and loop devices >> $QED_SKIPPED
             exit
         fi
         truncate -s 64M disk; losetup --find --show disk > first; losetup --find --show disk > second"
    ));
    let device = |name: &str| std::fs::read_to_string(lab.path(name)).ok();
    let Some((first, second)) = device("first").zip(device("second")) else { return };
    let (first, second) = (first.trim(), second.trim());
    let _devices = Devices([first.to_owned(), second.to_owned()]);
    for mode in &MODES[1..] {
        lab.shell(&format!("{} create -q -f qed {mode} {first} 16M", env!("CARGO_BIN_EXE_qed")));
        let buffered = lab.qed(["serve", "--socket", "s", "--shared", "-f", "qed", first]);
        assert!(buffered.stderr.contains("--shared needs -t none"), "{buffered:?}");
        let here = server(&lab, "here", &format!("-t none --shared {first}"));
        let there =
            server_elsewhere(&lab, "there", &format!("-t none --shared --inactive {second}"));
        io(&lab, &here, "-c 'write -q -P 5 0 64k' -c flush -c 'write -q -P 6 1M 64k'");
        let activate =
            |take_over| ask(&lab, "there.c", &json!({"cmd": "activate", "take_over": take_over}));
        let refused = activate(false);
        assert_eq!(refused["ok"], false, "{refused}");
        assert!(refused["error"].as_str().expect("why").contains("host"), "{refused}");
        let taken = activate(true);
        assert_eq!(taken["ok"], true, "{taken}");
        io(&lab, &there, "-c 'write -q -P 7 2M 64k' -c flush");
        // The one that was cut off comes back.
        let stale = ask(&lab, "here.c", &json!({"cmd": "flush"}));
        assert_eq!(stale["ok"], false, "{mode}: {stale}");
        assert!(stale["error"].as_str().expect("why").contains("taken the image"), "{stale}");
        let late =
            run_clients(&lab, &format!("qemu-io -f raw -c 'write -P 8 3M 64k' '{}'", here.uri()));
        assert!(late.stdout.contains("failed") || late.code != Some(0), "{late:?}");
        drop(here);
        io(
            &lab,
            &there,
            "-c 'read -q -P 5 0 64k' -c 'read -q -P 7 2M 64k' -c 'write -q -P 9 4M 1M' -c flush",
        );
        assert_eq!(deactivate(&lab, "there"), done());
        drop(there);
        lab.qed(["check", "-q", "-f", "qed", second]).succeeded();
    }
}

/// Devices that go away with the test.
struct Devices([String; 2]);

impl Drop for Devices {
    fn drop(&mut self) {
        for device in &self.0 {
            drop(Command::new("losetup").args(["--detach", device]).status());
        }
    }
}
