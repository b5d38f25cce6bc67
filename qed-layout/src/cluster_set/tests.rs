//! The sets against plain lists of `bool`, and what they cost.

use super::*;

/// Numbers below `end`, the same ones every time.
fn numbers(count: u64, end: u64) -> impl Iterator<Item = u64> {
    (1..=count).map(move |n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % end)
}

/// The gaps of a set that is a plain list of `bool`.
fn plain_gaps(members: &[bool]) -> Vec<Range<u64>> {
    let mut gaps: Vec<Range<u64>> = Vec::new();
    for (cluster, _) in (0..).zip(members).filter(|(_, member)| !**member) {
        match gaps.last_mut() {
            Some(last) if last.end == cluster => last.end += 1,
            _ => gaps.push(cluster..cluster + 1),
        }
    }
    gaps
}

#[test]
fn runs_of_any_place_and_length_are_members_once() {
    for clusters in [1, 63, 64, 65, 4096, 10_000, 20_000] {
        let set = ClusterSet::new(clusters, u64::MAX);
        let mut plain = vec![false; usize::try_from(clusters).unwrap()];
        for (start, len) in numbers(60, clusters).zip(numbers(60, 300)) {
            let run = start..start + len;
            let range = word_index(start)..word_index((start + len).min(clusters));
            let expected = (start..).zip(&plain[range.clone()]).find(|(_, member)| **member);
            assert_eq!(set.insert(run), Ok(expected.map(|(cluster, _)| cluster)));
            plain[range].fill(true);
            assert_eq!(set.gaps(clusters).collect::<Vec<_>>(), plain_gaps(&plain));
        }
        for (cluster, member) in (0..).zip(&plain) {
            assert_eq!(set.contains(cluster), *member);
        }
        assert!(!set.contains(clusters));
    }
}

#[test]
fn local_sets_add_up_to_one_set() {
    let clusters = 9000;
    for overlap in [false, true] {
        let mut set = ClusterSet::new(clusters, u64::MAX);
        set.insert(0..3).unwrap();
        let mut plain = vec![false; 9000];
        plain[..3].fill(true);
        let mut parts = [LocalSet::new(clusters), LocalSet::new(clusters)];
        for (n, start) in (0..).zip((5..8900).step_by(70)) {
            let count = 1 + n % 64;
            assert!(parts[word_index(n) % 2].insert(start, count));
            plain[word_index(start)..word_index(start + count)].fill(true);
        }
        assert!(!parts[0].insert(5, 1) && !parts[1].insert(76, 1));
        if overlap {
            parts[1].insert(2, 1);
        }
        let absorbed = parts.map(|part| set.absorb(&part).unwrap());
        assert_eq!(absorbed, [true, !overlap]);
        assert_eq!(set.gaps(clusters).collect::<Vec<_>>(), plain_gaps(&plain));
    }
}

#[test]
fn a_local_set_takes_runs_of_any_length_at_any_bit() {
    for (first, count) in (0..64).flat_map(|first| (1..=64).map(move |count| (first, count))) {
        let mut set = LocalSet::new(128);
        assert!(set.insert(first, count));
        let expected = (u128::from(u64::MAX) >> (64 - count)) << first;
        let found = u128::from(set.words[1]) << 64 | u128::from(set.words[0]);
        assert_eq!(found, expected, "{count} from {first}");
        let last = first + count - 1;
        assert!(!set.insert(first, 1) && !set.insert(last, 1) && !set.insert(last, 64));
        let mut next_word = LocalSet::new(128);
        assert!(next_word.insert(64, 1));
        assert_eq!(next_word.insert(first, count), first + count <= 64, "{count} from {first}");
        assert!(LocalSet::new(64).insert(first, count), "what lies past the end is ignored");
    }
}

#[test]
fn memory_stays_within_the_budget_however_long_the_file() {
    for clusters_bits in [20, 30, 40, 50, 52] {
        let set = ClusterSet::new(1 << clusters_bits, 1 << 20);
        assert!(set.chunks.len() <= 1 << MAX_CHUNKS_BITS);
        let result =
            numbers(5000, 1 << clusters_bits).try_for_each(|n| set.insert(n..n + 1).map(drop));
        let used = set.used_bytes.load(Ordering::Relaxed);
        assert!(used <= 1 << 20, "{used} bytes for 2^{clusters_bits} clusters");
        assert_eq!(result.is_ok(), clusters_bits == 20, "2^{clusters_bits} clusters");
    }
}

#[test]
fn a_full_set_costs_a_bit_for_each_cluster_in_whole_chunks() {
    const G: u64 = 1 << 30;
    let cases = [
        (0, 0),
        (1, 512),
        (4096, 512),
        (4097, 1024),
        (G - 1, 1 << 27),
        (G, 1 << 27),
        (G + 1, (1 << 27) + 1024),
    ];
    for (clusters, bytes) in cases {
        assert_eq!(ClusterSet::full_bytes(clusters), bytes, "{clusters} clusters");
    }
}

#[test]
fn the_first_that_two_sets_have_is_the_lowest() {
    let set = |clusters: &[u64]| {
        let set = ClusterSet::unlimited(9000);
        clusters.iter().for_each(|cluster| assert_eq!(set.insert(*cluster..cluster + 1), Ok(None)));
        set
    };
    let first = |ours: &[u64], theirs: &[u64]| set(ours).first_common(&set(theirs));
    assert_eq!(first(&[1, 70, 8500], &[0, 71]), None);
    assert_eq!(first(&[1, 70, 8999], &[0, 70, 8999]), Some(70));
    assert_eq!(first(&[64, 5000], &[0, 5000]), Some(5000));
}

#[test]
fn long_runs_cost_few_steps() {
    let set = ClusterSet::new(1 << 20, u64::MAX);
    for run in [5000..5001, 9000..20_000] {
        set.insert(run).unwrap();
    }
    let chunks = 1 << (20 - MIN_CHUNK_BITS);
    let steps = set.runs(1 << 20).count();
    assert!(steps <= chunks + 8, "{steps} steps through {chunks} chunks");
}
