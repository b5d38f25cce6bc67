//! The crate links where there is neither `std` nor an allocator.
//!
//! A library that brings its own panic handler cannot link `std`, whose handler would be a second
//! one; and one for a bare machine cannot link `alloc` without an allocator. So the compiler is
//! the judge, also of the dependencies, and no further target needs to be installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

/// Builds the crate without default features, and gives the folder of what was built.
fn build() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-std");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--lib", "--no-default-features"])
        .args(["--manifest-path", manifest, "--target-dir"])
        .arg(&target)
        .env_remove("CARGO_BUILD_TARGET")
        // It is linked and never run.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "0")
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("debug")
}

/// Compiles a library for a bare machine that links the crate and `also`.
fn probe(built: &Path, also: &str) -> Output {
    let source = built.join(format!("probe_{}.rs", also.len()));
    let text = format!(
        "#![no_std]\nextern crate qed_spec as _;\n{also}\n#[panic_handler]\n\
         fn panic(_: &core::panic::PanicInfo<'_>) -> ! {{ loop {{}} }}\n"
    );
    fs::write(&source, text).expect("the target folder is writable");
    let built = built.to_str().expect("the target folder has a plain name");
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition", "2024", "--crate-type", "staticlib", "--emit", "metadata"])
        .args(["-C", "panic=abort", "--out-dir", built])
        .args(["--extern", &format!("qed_spec={built}/libqed_spec.rlib")])
        .args(["-L", &format!("dependency={built}/deps")])
        .arg(source)
        .output()
        .expect("rustc runs")
}

#[test]
fn the_crate_links_without_std_and_without_an_allocator() {
    let built = build();
    let cases = [
        ("", None),
        ("extern crate std;", Some("panic_impl")),
        ("extern crate alloc as _;", Some("global memory allocator")),
    ];
    for (also, refused) in cases {
        let output = probe(&built, also);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), refused.is_none(), "{also} {text}");
        assert!(text.contains(refused.unwrap_or_default()), "{also} {text}");
    }
}
