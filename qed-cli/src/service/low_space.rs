//! `--extend-below`: when it is told that there is little room left on the device.

/// Whether there was little room when it was last looked at.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Room {
    is_low: bool,
}

impl Room {
    /// Whether there is little now, and was not before.
    pub(super) fn gets_low(&mut self, room: u64, below: u64) -> bool {
        let was_low = std::mem::replace(&mut self.is_low, room < below);
        self.is_low && !was_low
    }
}

#[cfg(test)]
mod tests {
    use qed_export::SpaceUsage;

    use super::*;

    #[test]
    fn it_is_told_once_until_there_was_enough() {
        let mut room = Room::default();
        let rooms = [100, 10, 9, 0, 5, 10, 9, 9, 11, 3];
        let told = rooms.map(|now| room.gets_low(now, 10));
        let want = [false, false, true, false, false, false, true, false, false, true];
        assert_eq!(told, want);
        assert!(Room::default().gets_low(0, 1), "one that begins low is told");
        assert!(!Room::default().gets_low(0, 0), "nothing is below nothing");
    }

    #[test]
    fn room_is_what_the_device_has_behind_the_end_and_what_is_free_below() {
        let room = |end, free, capacity| SpaceUsage { end, free, capacity, finding: None }.room();
        assert_eq!(room(60, Some(30), Some(100)), Some(70));
        assert_eq!(room(60, None, Some(100)), Some(40));
        assert_eq!(room(120, Some(30), Some(100)), Some(30), "a device that shrank");
        assert_eq!(room(60, Some(30), None), None, "a file");
    }
}
