//! A program that writes an image and stops at any moment: killed, or with the power of its disk cut.
//! What was flushed has to be there. A killed program proves nothing about flushes, since the system
//! keeps what it wrote; the disk that loses its power does.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod cut;
mod disk;
mod killed;
mod mounts;
mod victim;
