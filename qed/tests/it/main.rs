//! Images in files through the facade alone, as a program sees them that knows nothing else.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod backing;
mod hand_over;
mod life;
