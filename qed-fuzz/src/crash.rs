//! What a crash may leave of a recorded run, and a disk to put it on.

pub(crate) mod disk;
pub(crate) mod states;
