//! Which request is given which space, with a file that is a counter.

use qed_spec::HostOffset;

use super::*;

const END: GuestCluster = GuestCluster::new(1 << 20);

/// Streams with a file whose next cluster is counted.
struct File {
    streams: Streams,
    end: std::cell::Cell<u64>,
    is_shared: bool,
}

impl File {
    fn new() -> Self {
        let streams = Streams::new(Geometry::new(65_536, 4).unwrap());
        Self { streams, end: std::cell::Cell::new(100), is_shared: true }
    }

    /// The place of one cluster.
    fn place(&self, guest: u64) -> u64 {
        let want = Want { guest: GuestCluster::new(guest), count: 1, end: END };
        let all = |_, count| Ok(count);
        let space = self.streams.reserve(
            want,
            |_| Ok(None),
            || self.is_shared,
            all,
            |count| {
                let first = HostCluster::new(self.end.replace(self.end.get() + count)).unwrap();
                Ok(HostRun { first, count, fresh: true })
            },
        );
        space.unwrap().first.get()
    }
}

#[test]
fn what_comes_in_order_takes_nothing_more() {
    let file = File::new();
    for guest in 0..1000 {
        assert_eq!(file.place(guest), 100 + guest);
    }
    assert!(file.streams.take_windows().is_empty());
}

#[test]
fn what_comes_nearly_in_order_lies_in_order() {
    let file = File::new();
    for guest in 0..8 {
        assert_eq!(file.place(guest), 100 + guest);
    }
    let places: Vec<u64> = [9, 8, 13, 11, 10, 12, 14].map(|guest| file.place(guest)).into();
    assert_eq!(places, [109, 108, 113, 111, 110, 112, 114]);
    assert!(file.streams.take_windows().is_empty());
}

#[test]
fn runs_that_take_turns_lie_in_pieces_of_some_length() {
    let file = File::new();
    let places: Vec<[u64; 2]> =
        (0..1000).map(|step| [step, 500_000 + step].map(|guest| file.place(guest))).collect();
    let steps = places.windows(2).flat_map(|pair| [0, 1].map(|run| pair[1][run] - pair[0][run]));
    let apart = steps.filter(|step| *step != 1).count();
    assert!(apart < 80, "{apart} of 2000 do not follow the one before");
    assert!(file.streams.take_windows().len() <= 64);
}

#[test]
fn random_places_take_nothing_more() {
    let file = File::new();
    let mut guest = 1_u64;
    for step in 0..1000 {
        guest = guest.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        assert_eq!(file.place(guest >> 44), 100 + step);
    }
}

#[test]
fn one_request_at_a_time_takes_nothing_more() {
    let file = File { is_shared: false, ..File::new() };
    for (step, guest) in [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 7, 40, 39].into_iter().enumerate() {
        assert_eq!(file.place(guest), 100 + step as u64);
    }
}

#[test]
fn what_has_no_room_for_others_has_room_for_itself() {
    let file = File::new();
    (0..8).for_each(|guest| assert_eq!(file.place(guest), 100 + guest));
    let want = Want { guest: GuestCluster::new(9), count: 1, end: END };
    let one = |count| match count {
        1 => Ok(HostRun { first: HostCluster::new(500).unwrap(), count, fresh: true }),
        clusters => Err(ImageError::NoSpace { clusters, end: HostOffset::new(0) }),
    };
    let space =
        file.streams.reserve(want, |_| Ok(None), || true, |_, count| Ok(count), one).unwrap();
    assert_eq!((space.first.get(), space.count), (500, 1));
    assert!(file.streams.take_windows().is_empty());
}

#[test]
fn nothing_is_kept_for_who_has_space_that_no_entry_tells_of_yet() {
    let file = File::new();
    (0..8).for_each(|guest| assert_eq!(file.place(guest), 100 + guest));
    // Another run gives space to cluster 10, and is forgotten.
    file.streams.state().remember(10, 1);
    assert_eq!(file.place(12), 108);
    assert!(file.streams.take_windows().is_empty());
}

#[test]
fn what_is_kept_is_kept_once() {
    let file = File::new();
    (0..8).for_each(|guest| assert_eq!(file.place(guest), 100 + guest));
    // For another run.
    let host = HostCluster::new(90).unwrap();
    file.streams.state().windows.insert(13, host);
    assert_eq!(file.place(15), 108);
    assert_eq!(file.place(13), 90, "its space is lost");
}
