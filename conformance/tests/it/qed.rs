//! Where the `qed` program lies, built as these tests are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The program; cargo names it to the tests of its own package only.
pub(crate) static QED: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    // The whole workspace decides about features, so that nothing is built twice.
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--workspace", "--bin", "qed"])
        .env("CARGO_TARGET_DIR", target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "qed cannot be built");
    target.join("debug/qed")
});
