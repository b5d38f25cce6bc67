//! When a check starts threads: not for a few tables, and as many as the caller asks for.

use std::num::NonZeroUsize;
use std::thread;

use qed_check::{CheckOptions, check};

use crate::image::TestImage;
use crate::watched::Watched;

/// An image with this many tables, each one read of its own.
fn image(tables: u64) -> TestImage {
    let mut image = TestImage::new(1, 512 * 512, 2 + tables);
    (0..tables).for_each(|l1| image.table(l1, 2 + l1));
    image
}

/// The tables of an image, the threads that the caller wants, and whether some are started.
const CASES: [(u64, Option<usize>, bool); 9] = [
    (0, Some(8), false),
    (1, Some(8), false),
    (2, Some(8), true),
    (2, Some(2), true),
    (100, Some(1), false),
    (1, None, false),
    (3, None, false),
    (4, None, true),
    (100, None, true),
];

#[test]
fn a_few_tables_are_read_by_the_caller_and_many_by_as_many_threads_as_are_wanted() {
    for (tables, wanted, starts) in CASES {
        let storage = Watched::new(image(tables).storage());
        let mut options = CheckOptions::default();
        options.threads = wanted.and_then(NonZeroUsize::new);
        assert!(check(&storage, &options).unwrap().is_clean());
        let mut readers = storage.readers();
        assert!(readers.remove(&thread::current().id()), "the header is read by the caller");
        assert_eq!(!readers.is_empty(), starts, "{tables} tables, {wanted:?} threads");
        assert!(
            readers.len() <= wanted.unwrap_or(usize::MAX),
            "{tables} tables, {wanted:?} threads"
        );
    }
}
