#!/usr/bin/env bash
# The thread sanitizer: the tests of the crates that several threads use, with every access to memory
# watched, those of the standard library included. Needs a nightly toolchain with the sources of that
# library. Words go to the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly FLAG=-Zsanitizer=thread
# A program of the nightly toolchain, whatever toolchain runs this.
nightly() { env -u CARGO -u RUSTC -u RUSTUP_TOOLCHAIN -u CARGO_ENCODED_RUSTFLAGS rustup run nightly "$@"; }

sysroot=$(nightly rustc --print sysroot || true)
if [[ ! -e $sysroot/lib/rustlib/src/rust/library/Cargo.lock ]]; then
    echo "missing: rustup toolchain install nightly --component rust-src" >&2
    exit 1
fi
folder=$PWD/target/sanitize
mkdir -p "$folder"

# Two threads that add to one number without a word between them: that is found, or nothing is.
cat >"$folder/race.rs" <<'RACE'
static mut SUM: u64 = 0;
fn main() {
    let add = || (0..1000).for_each(|_| unsafe { SUM += 1 });
    let threads = [std::thread::spawn(add), std::thread::spawn(add)];
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
RACE
nightly rustc "$FLAG" -Cunsafe-allow-abi-mismatch=sanitizer --edition=2024 "$folder/race.rs" -o "$folder/race"
if "$folder/race" 2>"$folder/race.log" || ! grep -q 'WARNING: ThreadSanitizer: data race' "$folder/race.log"; then
    echo "the thread sanitizer does not find a race" >&2
    exit 1
fi

# The standard library takes part: what it does between threads would look like races else. With a target
# named, build scripts are built without the sanitizer. Not the interleavings, whose threads take turns on
# stacks that the sanitizer does not know.
host=$(nightly rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS=$FLAG CARGO_TARGET_DIR=$folder nightly cargo test --locked -Zbuild-std --target "$host" \
    -p qed-core -p qed-journal -p qed-export --lib --test it -- "$@"
