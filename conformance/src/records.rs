//! What the writers of a test guest put on its disk, and what has to be there when they were told
//! that it is durable.
//!
//! Every byte follows from its writer and number, so that a disk is judged without a copy of it.
//! Knows no image format and no guest.

use std::fmt;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of the disk that writers need.
pub const DISK_LEN: u64 = WRITERS_MAX * REGION_LEN;
/// As many writers as have a region of the disk.
pub const WRITERS_MAX: u64 = 16;
/// Bytes of a record.
pub const RECORD_LEN: usize = 4096;
/// Bytes of the cluster that holds a group.
pub const CLUSTER_LEN: usize = 1 << 16;
/// Bytes that a guest writes whole or not at all.
pub const SECTOR_LEN: usize = 512;

/// Records that fill a cluster.
const RECORDS: usize = CLUSTER_LEN / RECORD_LEN;
const REGION_LEN: u64 = 4 << 30;
/// Groups of one region; each has a cluster of its own.
const GROUPS: u64 = NEIGHBOURS * JUMPS;
/// Groups that lie side by side, and the number of such rows, a prime.
const NEIGHBOURS: u64 = 8;
const JUMPS: u64 = 8179;
/// A group that is punched is so this many groups later.
const PUNCHED_AFTER: u64 = 16;

/// The records that a writer puts into one cluster: the first allocates it, the others lie in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Whose it is, below [`WRITERS_MAX`].
    pub writer: u64,
    /// Counts from 0.
    pub number: u64,
}

impl Group {
    /// Where its cluster begins on the disk.
    ///
    /// # Panics
    /// If the region of the writer has no room for so many groups.
    #[must_use]
    pub fn start(self) -> u64 {
        assert!(self.writer < WRITERS_MAX && self.number < GROUPS, "{self:?} has no place");
        let row = self.number / NEIGHBOURS * 1237 % JUMPS;
        // The first cluster holds the head.
        let cluster = 1 + row * NEIGHBOURS + self.number % NEIGHBOURS;
        self.writer * REGION_LEN + cluster * CLUSTER_LEN as u64
    }

    /// Where its records lie in its cluster, in the order in which they are written: one to four.
    pub fn places(self) -> impl Iterator<Item = usize> {
        let (count, first) = (1 + self.draw() % 4, self.draw() / 4 % RECORDS as u64);
        let from_first = (0..RECORDS).cycle().skip_while(move |place| *place as u64 != first);
        from_first.step_by(5).zip(0..count).map(|(place, _)| place * RECORD_LEN)
    }

    /// Whether the writer waits for a flush when it has written this group, and tells.
    #[must_use]
    pub fn is_flushed(self) -> bool {
        !(self.draw() / 64).is_multiple_of(3)
    }

    /// The earlier group whose cluster the writer punches before it writes this one.
    #[must_use]
    pub fn punches(self) -> Option<Self> {
        let number = self.number.checked_sub(PUNCHED_AFTER).filter(|number| number % 4 == 0)?;
        Some(Self { number, ..self })
    }

    /// Fills the bytes of the record at a place of the cluster.
    pub fn fill(self, place: usize, record: &mut [u8; RECORD_LEN]) {
        for (at, sector) in (place..).step_by(SECTOR_LEN).zip(record.chunks_exact_mut(SECTOR_LEN)) {
            self.fill_sector(at as u64, sector);
        }
    }

    /// The head that says that this group was written: one sector, always at the same place.
    #[must_use]
    pub fn head(self) -> [u8; SECTOR_LEN] {
        let mut sector = [0; SECTOR_LEN];
        self.fill_sector(u64::MAX, &mut sector);
        sector
    }

    /// Where the head of the writer lies on the disk.
    #[must_use]
    pub fn head_offset(self) -> u64 {
        self.writer * REGION_LEN
    }

    /// Each sector names writer, group and place, which the rest follows from.
    fn fill_sector(self, at: u64, sector: &mut [u8]) {
        let mut state = mix(mix(mix(self.writer) ^ self.number) ^ at);
        let names = [self.writer + 1, self.number, at];
        let rest = std::iter::from_fn(|| {
            state = mix(state);
            Some(state)
        });
        for (bytes, word) in sector.chunks_exact_mut(8).zip(names.into_iter().chain(rest)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// A number that follows from the group and looks random.
    fn draw(self) -> u64 {
        mix(self.writer << 32 ^ self.number) >> 8
    }
}

/// The finaliser of splitmix64.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// What a writer did between its start and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first group, or a later one that is the first to look at.
    pub from: Group,
    /// The last group that was told to be durable.
    pub told: Option<Group>,
}

/// Something that a disk has to hold and does not, or the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The group that is wrong.
    pub group: Group,
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub what: Wrong,
}

/// What may be wrong with a sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It was told to be durable and reads as zeros.
    Lost,
    /// It was told to be punched and reads as before.
    Back,
    /// It holds neither what was written nor zeros.
    Foreign,
    /// The head is of an older group than the one that was told last.
    Stale,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group: Group { writer, number }, offset, what } = self;
        write!(f, "writer {writer}, group {number}, at {offset:#x}: {what:?}")
    }
}

/// Judges one stretch of a writer on a disk; its last one, if `is_last`. Reads nothing else than
/// the clusters of its groups.
///
/// # Errors
/// When the disk cannot be read.
pub fn judge(disk: &impl FileExt, stretch: Stretch, is_last: bool) -> io::Result<Vec<Fault>> {
    let Stretch { from, told } = stretch;
    let groups = |range: std::ops::Range<u64>| range.map(|number| Group { number, ..from });
    let durable_end = told.map_or(from.number, |group| group.number + 1);
    // What was on its way to the next flush may be there or not.
    let on_the_way = groups(durable_end..GROUPS).find(|group| group.is_flushed());
    let end = on_the_way.map_or(GROUPS, |group| group.number + 1);
    // A writer punches nothing from before it started.
    let punched = |until: u64| -> Vec<Group> {
        groups(from.number..until)
            .filter_map(Group::punches)
            .filter(|punched| punched.number >= from.number)
            .collect()
    };
    let (surely, maybe) = (punched(durable_end), punched(end));
    let mut faults = Vec::new();
    for group in groups(from.number..end) {
        let expected = Expected {
            zeros: maybe.contains(&group) || group.number >= durable_end,
            records: !surely.contains(&group),
        };
        judge_cluster(disk, group, expected, &mut faults)?;
    }
    if let Some(group) = told.filter(|_| is_last) {
        let mut head = [0; SECTOR_LEN];
        disk.read_exact_at(&mut head, group.head_offset())?;
        if !groups(group.number..end).any(|group| group.head() == head) {
            faults.push(Fault { group, offset: group.head_offset(), what: Wrong::Stale });
        }
    }
    Ok(faults)
}

/// What the places of records of a cluster may hold; all others hold zeros.
#[derive(Clone, Copy)]
struct Expected {
    zeros: bool,
    records: bool,
}

fn judge_cluster(
    disk: &impl FileExt,
    group: Group,
    expected: Expected,
    faults: &mut Vec<Fault>,
) -> io::Result<()> {
    let mut found = vec![0; CLUSTER_LEN];
    disk.read_exact_at(&mut found, group.start())?;
    let mut records = vec![0; found.len()];
    for place in group.places() {
        for at in (place..).step_by(SECTOR_LEN).take(RECORD_LEN / SECTOR_LEN) {
            group.fill_sector(at as u64, &mut records[at..at + SECTOR_LEN]);
        }
    }
    let sectors = found.chunks_exact(SECTOR_LEN).zip(records.chunks_exact(SECTOR_LEN));
    for (at, (found, record)) in (group.start()..).step_by(SECTOR_LEN).zip(sectors) {
        let zeros = found.iter().all(|byte| *byte == 0);
        let is_place = record.iter().any(|byte| *byte != 0);
        let what = match (zeros, found == record) {
            (true, _) if expected.zeros || !is_place => continue,
            (false, true) if expected.records => continue,
            (true, _) => Wrong::Lost,
            (false, true) => Wrong::Back,
            (false, false) => Wrong::Foreign,
        };
        faults.push(Fault { group, offset: at, what });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk on which a writer wrote some groups, each to its end.
    fn written(groups: u64) -> std::fs::File {
        let disk = tempfile::tempfile_in("/dev/shm").unwrap();
        disk.set_len(DISK_LEN).unwrap();
        for number in 0..groups {
            write(&disk, Group { writer: 2, number });
        }
        disk
    }

    fn write(disk: &std::fs::File, group: Group) {
        if let Some(punched) = group.punches() {
            disk.write_all_at(&[0; CLUSTER_LEN], punched.start()).unwrap();
        }
        let mut record = [0; RECORD_LEN];
        for place in group.places() {
            group.fill(place, &mut record);
            disk.write_all_at(&record, group.start() + place as u64).unwrap();
        }
        disk.write_all_at(&group.head(), group.head_offset()).unwrap();
    }

    fn judged(disk: &std::fs::File, told: u64) -> Vec<Fault> {
        let group = |number| Group { writer: 2, number };
        let stretch = Stretch { from: group(0), told: Some(group(told)) };
        judge(disk, stretch, true).unwrap()
    }

    #[test]
    fn groups_have_a_place_each() {
        let mut starts: Vec<u64> =
            (0..GROUPS).map(|number| Group { writer: 15, number }.start()).collect();
        starts.sort_unstable();
        starts.dedup();
        assert_eq!(starts.len() as u64, GROUPS);
        assert!(*starts.last().unwrap() + CLUSTER_LEN as u64 <= DISK_LEN);
    }

    #[test]
    fn what_was_told_is_there_and_what_is_on_its_way_may_be() {
        let is_flushed = |number: &u64| Group { writer: 2, number: *number }.is_flushed();
        for told in (40..60).filter(is_flushed) {
            let next = (told + 1..).find(is_flushed).unwrap();
            for last in told..=next {
                assert_eq!(judged(&written(last + 1), told), [], "{told} was told, {last} written");
            }
        }
    }

    #[test]
    fn each_fault_is_told() {
        let group = Group { writer: 2, number: 97 };
        let at = group.start() + group.places().next().unwrap() as u64;
        let what = |disk: &std::fs::File, told| {
            let faults = judged(disk, told);
            assert!(faults.iter().all(|fault| fault.group.writer == 2));
            faults.first().map(|fault| fault.what)
        };

        let disk = written(100);
        disk.write_all_at(&[0; SECTOR_LEN], at).unwrap();
        assert_eq!(what(&disk, 99), Some(Wrong::Lost));
        disk.write_all_at(&[1; SECTOR_LEN], at).unwrap();
        assert_eq!(what(&disk, 99), Some(Wrong::Foreign));

        let disk = written(100);
        let punched = Group { writer: 2, number: 80 };
        let mut record = [0; RECORD_LEN];
        let place = punched.places().next().unwrap();
        punched.fill(place, &mut record);
        disk.write_all_at(&record, punched.start() + place as u64).unwrap();
        assert_eq!(what(&disk, 99), Some(Wrong::Back));

        let disk = written(100);
        disk.write_all_at(&group.head(), group.head_offset()).unwrap();
        assert_eq!(what(&disk, 99), Some(Wrong::Stale));
    }
}
