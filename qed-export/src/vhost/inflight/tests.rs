//! Requests in flight of servers that died at each step.

use super::super::testing::memory_file;
use super::*;

fn shape() -> Shape {
    Shape::new(2, 8, 2).unwrap()
}

fn region(file: &File) -> Arc<Inflight> {
    let file = file.try_clone().unwrap();
    Arc::new(Inflight::new(shape(), file, 0, shape().bytes()).unwrap())
}

fn queue(file: &File, index: u16) -> QueueInflight {
    region(file).of_queue(index).unwrap()
}

/// A queue that is opened for the first time, with its used index at 5.
fn fresh(file: &File) -> QueueInflight {
    let mut queue = queue(file, 0);
    assert_eq!(queue.open(8, 5).unwrap(), None);
    queue
}

#[test]
fn what_was_not_given_back_is_found_in_the_order_in_which_it_was_taken() {
    let file = shape().make().unwrap();
    let mut first = fresh(&file);
    for head in [3, 1, 7, 0] {
        first.taken(head);
    }
    first.returns(1);
    first.returned(1, 6);
    let mut second = queue(&file, 0);
    assert_eq!(second.open(8, 6).unwrap(), Some(vec![3, 7, 0]));
    // What it takes comes after those, also for a third one.
    second.taken(2);
    assert_eq!(queue(&file, 0).open(8, 6).unwrap(), Some(vec![3, 7, 0, 2]));
    // Another queue has its own.
    assert_eq!(queue(&file, 1).open(8, 0).unwrap(), None);
    assert!(region(&file).of_queue(2).is_none());
}

#[test]
fn a_death_at_any_step_of_giving_back_neither_loses_nor_repeats_it() {
    // Taken and not in the used ring; in the ring and not noted; noted.
    for (step, used, left) in [(0, 5, vec![4]), (1, 5, vec![4]), (2, 6, vec![]), (3, 6, vec![])] {
        let file = shape().make().unwrap();
        let mut dying = fresh(&file);
        dying.taken(4);
        if step >= 1 {
            dying.returns(4);
        }
        if step >= 3 {
            dying.returned(4, 6);
        }
        assert_eq!(queue(&file, 0).open(8, used).unwrap(), Some(left), "step {step}");
    }
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    let file = shape().make().unwrap();
    let mut queue = fresh(&file);
    queue.taken(2);
    queue.taken(1);
    queue.returns(1);
    let bytes = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, at).unwrap();
        bytes
    };
    // Features, version, descriptors, last head of the last batch, used index.
    assert_eq!(bytes(0, 16), [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 8, 0, 1, 0, 5, 0]);
    // Descriptor 1: in flight, the second that was taken.
    assert_eq!(bytes(32, 16), [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes(48, 16), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // 16 + 8 * 16, to the next cache line.
    assert_eq!(shape().queue_bytes(), 192);
}

#[test]
fn shapes_and_lengths_out_of_bounds_are_refused() {
    for (queues, size) in [(0, 8), (3, 8), (u16::MAX, 8), (1, 0), (1, 1025), (1, u16::MAX)] {
        let refused = Shape::new(queues, size, 2);
        assert!(matches!(refused, Err(InflightError::Shape { .. })), "{queues} {size}");
    }
    let of = |len: u64, file_len: u64| Inflight::new(shape(), memory_file(file_len), 0, len);
    for (len, file_len) in [(0, 4096), (383, 4096), (1 << 40, 4096)] {
        assert!(matches!(of(len, file_len), Err(InflightError::Length { .. })), "{len}");
    }
    assert!(matches!(of(448, 447), Err(InflightError::Memory(_))));
    of(384, 384).expect("one of another server, which keeps nothing of ours");
}

#[test]
fn a_version_or_size_of_another_kind_is_refused() {
    let file = shape().make().unwrap();
    let opened = fresh(&file);
    for (at, value) in [(8, 2), (8, 0xffff), (10, 4), (10, 0)] {
        let old = opened.word(at);
        opened.set_word(at, value);
        let refused = queue(&file, 0).open(8, 5);
        assert!(matches!(refused, Err(InflightError::Version { .. })), "{at} {value}");
        opened.set_word(at, old);
    }
    let larger = queue(&file, 0).open(16, 5);
    assert!(matches!(larger, Err(InflightError::Version { .. })));
}

#[test]
fn heads_that_no_queue_has_change_nothing_outside() {
    let file = shape().make().unwrap();
    let mut queue = fresh(&file);
    queue.returns(u16::MAX);
    queue.taken(u16::MAX);
    assert!(!queue.is_taken(1) && !queue.is_taken(7));
    assert_eq!(region(&file).of_queue(1).unwrap().word(8), 0, "the next queue is untouched");
}

#[test]
fn the_write_cache_is_kept_for_the_next_server() {
    let file = shape().make().unwrap();
    assert_eq!(region(&file).write_cache(), None);
    for is_on in [false, true] {
        region(&file).keep_write_cache(is_on);
        assert_eq!(region(&file).write_cache(), Some(is_on));
    }
    // A region of another server has no place for it.
    let theirs = Inflight::new(shape(), memory_file(384), 0, 384).unwrap();
    theirs.keep_write_cache(false);
    assert_eq!(theirs.write_cache(), None);
}

#[test]
fn nobody_can_cut_the_file() {
    let file = shape().make().unwrap();
    assert!(file.set_len(0).is_err());
    assert!(file.set_len(1 << 20).is_err());
}
