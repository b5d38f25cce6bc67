//! The fuzz targets with fixed seeds, and everything that fuzzing ever found.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod kept;
mod seeded;
