//! What a server that is killed leaves to the next one, and to other commands.

use std::fs;

use super::{Served, clients, python};
use crate::lab::Lab;

const MODES: [&str; 3] = ["-o classic=on", "", "-o journal=on"];

/// A server that was killed after it acknowledged a hundred writes, of which the first ten were flushed.
fn killed(lab: &Lab, options: &str, args: &str) {
    lab.qed(
        ["create", "-q", "-f", "qed"]
            .into_iter()
            .chain(options.split_whitespace())
            .chain(["a.qed", "64M"]),
    )
    .succeeded();
    let mut served = Served::start(lab, &format!("--socket s{args} -f qed a.qed"), 1);
    python(
        lab,
        served.uri(),
        &format!(
            "import os\nh.connect_uri(uri)\n\
             for n in range(100):\n  h.pwrite(bytes([n + 1]) * 4096, n * 65536 * 5 + 512)\n  \
             if n == 9: h.flush()\n\
             os.kill({}, 9)",
            served.id()
        ),
    );
    assert_eq!(served.wait().code, None, "killed");
}

/// What the guest was told is there.
fn has_all(lab: &Lab, uri: &str) {
    python(
        lab,
        uri,
        "h.connect_uri(uri)\n\
         for n in range(100): assert h.pread(4096, n * 65536 * 5 + 512) == bytes([n + 1]) * 4096, n",
    );
}

// spec-test: QED-PEND-01, QED-PEND-12
#[test]
fn the_next_server_has_what_it_acknowledged() {
    for mode in MODES {
        for cache in ["", " -t none"] {
            let lab = Lab::new();
            killed(&lab, mode, cache);
            for _ in 0..2 {
                let mut served = Served::start(&lab, &format!("--socket s{cache} -f qed a.qed"), 1);
                has_all(&lab, served.uri());
                served.signal("KILL");
                served.wait();
            }
            let served = Served::start(&lab, "--socket s -f qed a.qed", 1);
            has_all(&lab, served.uri());
            served.stop();
            let left: Vec<_> = fs::read_dir(lab.memory()).unwrap().flatten().collect();
            assert!(left.is_empty(), "{mode}{cache}: a server that ended in order left {left:?}");
            let code = lab.qed(["check", "-q", "-f", "qed", "a.qed"]).code;
            // Space that the dead had taken is free, or leaked in a classic image.
            assert_eq!(code, Some(if mode == MODES[0] { 3 } else { 0 }), "{mode}");
        }
    }
}

#[test]
fn other_commands_say_what_waits_or_add_it() {
    let lab = Lab::new();
    killed(&lab, "", "");
    let info = lab.qed(["info", "-f", "qed", "a.qed"]).succeeded().stdout;
    assert!(info.contains("changes that wait in memory for the next writer: 90"), "{info}");
    let info = lab.qed(["info", "--output", "json", "-f", "qed", "a.qed"]).succeeded().stdout;
    assert!(info.contains("\"pending-changes\": 90"), "{info}");
    let warned = "warning: 'a.qed' lacks 90 changes";
    let checked = lab.qed(["check", "-f", "qed", "a.qed"]);
    assert!(checked.stderr.contains(warned), "{checked:?}");
    let converted = lab.qed(["convert", "-f", "qed", "-O", "raw", "a.qed", "a.raw"]).succeeded();
    assert!(converted.stderr.contains(warned), "{converted:?}");
    for command in [
        &["amend", "-f", "qed", "-o", "journal=on", "a.qed"][..],
        &["resize", "-q", "-f", "qed", "a.qed", "+64M"],
        &["check", "-q", "-r", "all", "-f", "qed", "a.qed"],
        &["convert-in-place", "-q", "-f", "qed", "--to", "qcow2", "a.qed"],
    ] {
        let lab = Lab::new();
        killed(&lab, "", "");
        lab.qed(command).succeeded();
        assert_eq!(fs::read_dir(lab.memory()).unwrap().count(), 0, "{command:?}");
        let served = Served::start(&lab, "--socket s -r a.qed", 1);
        has_all(&lab, served.uri());
        served.stop();
    }
}

#[test]
fn other_commands_do_not_hide_that_a_log_is_lost() {
    for command in [
        &["amend", "-f", "qed", "-o", "journal=on", "a.qed"][..],
        &["convert-in-place", "-q", "-f", "qed", "--to", "qcow2", "a.qed"],
        &["check", "-q", "-r", "all", "-f", "qed", "a.qed"],
    ] {
        let lab = Lab::new();
        killed(&lab, "", "");
        lose_logs(&lab);
        let ran = lab.qed(command);
        // A repair goes on: nobody could open an image otherwise that has to be repaired.
        assert_eq!(ran.code == Some(1), command[0] != "check", "{ran:?}");
        assert!(ran.stderr.contains("its log is not found"), "{ran:?}");
    }
}

fn lose_logs(lab: &Lab) {
    for log in fs::read_dir(lab.memory()).expect("the folder of logs") {
        fs::remove_file(log.expect("a log").path()).expect("it goes");
    }
}

// spec-test: QED-PEND-13
#[test]
fn an_image_whose_log_is_lost_is_served_only_if_that_is_accepted() {
    for mode in &MODES[1..] {
        let lab = Lab::new();
        killed(&lab, mode, "");
        lose_logs(&lab);
        let refused = lab.qed(["serve", "--socket", "s", "-f", "qed", "a.qed"]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("may be lost"), "{refused:?}");
        let served = Served::start(&lab, "--socket s --pending-lost fail-flush -f qed a.qed", 1);
        let said = clients(
            &lab,
            &format!(
                "/usr/bin/python3 -c 'import nbd\nh = nbd.NBD(); h.connect_uri(\"{}\")\n\
                 assert h.pread(1, 512) == bytes([1])\n\
                 try: h.flush(); print(\"kept\")\n\
                 except nbd.Error as e: print(e.errno)\n\
                 h.flush()'",
                served.uri()
            ),
        );
        assert_eq!(said, "EIO\n");
        let mut served = served;
        served.signal("TERM");
        assert_eq!(served.wait().code, Some(0));
    }
}
