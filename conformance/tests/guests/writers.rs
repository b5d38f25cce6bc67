//! The writers of a guest: what they told the host, and whether it is there.

use std::fs::File;
use std::path::PathBuf;

use conformance::records::{Group, Stretch, judge};

use crate::machine::{Machine, Plan};

/// Groups between the first of one guest and that of the next.
const STRIDE: u64 = 3000;

/// What the writers of all guests on one disk have told.
pub(crate) struct Writers {
    /// What each writer of each guest did, the last guest last.
    stretches: Vec<Vec<Stretch>>,
    count: u64,
    /// Groups that were told to be durable.
    told: u64,
}

impl Writers {
    pub(crate) fn new(count: u64) -> Self {
        Self { stretches: Vec::new(), count, told: 0 }
    }

    /// The plan of the next guest with these writers.
    pub(crate) fn plan(&mut self, disk: Vec<String>) -> Plan {
        let first = self.stretches.len() as u64 * STRIDE;
        let stretch = |writer| Stretch { from: Group { writer, number: first }, told: None };
        self.stretches.push((0..self.count).map(stretch).collect());
        Plan {
            job: format!("/programs/guest /dev/vda /dev/vport0p1 {} {first}\n", self.count),
            programs: vec![PathBuf::from(env!("CARGO_BIN_EXE_guest"))],
            disk,
            reboots: false,
        }
    }

    /// Takes lines of the guest; how many of its writers have ended.
    #[track_caller]
    pub(crate) fn heard(&mut self, lines: impl IntoIterator<Item = String>) -> u64 {
        let mut ended = 0;
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["durable", writer, number] => {
                    self.durable(writer.parse().unwrap(), number.parse().unwrap());
                }
                ["end"] => ended += 1,
                _ => panic!("the guest says: {line}"),
            }
        }
        ended
    }

    fn durable(&mut self, writer: u64, number: u64) {
        let stretches = self.stretches.last_mut().expect("a guest");
        let told = &mut stretches[usize::try_from(writer).unwrap()].told;
        assert!(
            told.is_none_or(|group| group.number < number),
            "writer {writer} told {number} late"
        );
        *told = Some(Group { writer, number });
        self.told += 1;
    }

    /// Listens until the guest has told of so many more groups.
    #[track_caller]
    pub(crate) fn listen(&mut self, guest: &Machine, groups: u64) {
        let end = self.told + groups;
        while self.told < end {
            assert_eq!(self.heard([guest.line()]), 0, "a writer ended");
        }
    }

    /// Ends the guest in order.
    #[track_caller]
    pub(crate) fn stop(&mut self, mut guest: Machine) {
        guest.say("stop");
        assert_eq!(self.heard(guest.ended()), self.count, "some writers did not end");
    }

    /// Ends QEMU.
    pub(crate) fn kill(&mut self, guest: Machine) {
        self.heard(guest.kill());
    }

    /// Everything that was told is on the disk.
    #[track_caller]
    pub(crate) fn judge(&self, disk: &File) {
        let faults: Vec<String> = self.faults(disk);
        let shown = faults.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        assert!(faults.is_empty(), "{} faults of {} groups:\n{shown}", faults.len(), self.told);
        println!(
            "{} writers, {} guests, {} groups told",
            self.count,
            self.stretches.len(),
            self.told
        );
    }

    fn faults(&self, disk: &File) -> Vec<String> {
        let last = self.stretches.len() - 1;
        let mut faults = Vec::new();
        for (number, stretches) in self.stretches.iter().enumerate() {
            for stretch in stretches {
                let found = judge(disk, *stretch, number == last).unwrap();
                faults.extend(found.iter().map(|fault| format!("guest {number}, {fault}")));
            }
        }
        faults
    }
}
