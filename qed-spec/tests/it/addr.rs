//! The numbers that do not mix: their neighbours, and how messages show them.

use qed_spec::{
    ClusterCount, Generation, GuestOffset, HostCluster, HostOffset, JournalSequence, L1Index,
    L2Index, SectionType, SuperblockCopy,
};

#[test]
fn an_addition_gives_the_sum_or_nothing() {
    let max = u64::MAX;
    for (start, len, expected) in [
        (1, 0, Some(1)),
        (1, 2, Some(3)),
        (max - 1, 1, Some(max)),
        (max - 1, 2, None),
        (max, 0, Some(max)),
        (max, 1, None),
        (max, max, None),
    ] {
        let host = HostOffset::new(start).checked_add(len);
        assert_eq!(host.map(HostOffset::get), expected, "{start} + {len}");
        let guest = GuestOffset::new(start).checked_add(len);
        assert_eq!(guest.map(GuestOffset::get), expected, "{start} + {len}");
        let cluster = HostCluster::new(start).expect("not zero");
        let cluster = cluster.checked_add(ClusterCount::new(len));
        assert_eq!(cluster.map(HostCluster::get), expected, "{start} + {len}");
    }
}

#[test]
fn offsets_are_shown_in_hex_and_slots_with_their_table() {
    let generation = Generation::new(12).expect("not zero");
    let cases = [
        (HostOffset::new(0x3_0000).to_string(), "0x30000"),
        (GuestOffset::new(0x200).to_string(), "0x200"),
        (L1Index::new(7).to_string(), "L1[7]"),
        (L2Index::new(511).to_string(), "L2[511]"),
        (generation.to_string(), "12"),
        (JournalSequence::new(13).to_string(), "13"),
        (SuperblockCopy::A.to_string(), "A"),
        (SuperblockCopy::B.to_string(), "B"),
        (SectionType::JOURNAL.to_string(), "3 (JOURNAL)"),
        (SectionType::new(99).to_string(), "99"),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
}
