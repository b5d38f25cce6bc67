//! How changes of tables become durable.

pub(crate) mod dirty_bits;
pub(crate) mod home;
pub(crate) mod lock;
pub(crate) mod log;

#[cfg(test)]
mod tests;
