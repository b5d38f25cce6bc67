//! What `--version` says: version, commit, features; to callers of `qemu-img`, its version first.

/// The name by which this program stands for QEMU's.
const QEMU_IMG: &str = "qemu-img";

/// What callers of `qemu-img` read at the start of its version and its help, and take anything else
/// for no `qemu-img`: the version of the one whose answers are those of this program.
const COMPATIBLE: &str = "version 10.0.2";

/// `0.1.0 (commit abc, features: none)`, then what QEMU and the format make of it.
const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    env!("QED_COMMIT"),
    "\nimage formats: qed, qcow2, raw\n",
    "features: ",
    env!("QED_FEATURES"),
);

/// The command with its version, and with what callers of the program by this name look for.
pub(crate) fn stated(command: clap::Command, program: &str) -> clap::Command {
    if program != QEMU_IMG {
        return command.version(LONG);
    }
    command
        .version(format!("{COMPATIBLE}\n{} {LONG}", env!("CARGO_BIN_NAME")))
        .before_help(format!("{QEMU_IMG} {COMPATIBLE}"))
        .after_help("Supported formats: qcow2 qed raw")
}
