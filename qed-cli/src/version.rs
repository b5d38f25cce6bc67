//! What `--version` says: version, commit, features.

/// `0.1.0 (commit abc, features: none)`, then what QEMU and the format make of it.
pub(crate) const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    env!("QED_COMMIT"),
    "\nimage formats: qed, qcow2, raw\n",
    "features: ",
    env!("QED_FEATURES"),
);
