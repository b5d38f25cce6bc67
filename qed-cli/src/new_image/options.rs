//! The tables of `-o` options, in the order in which `create` shows them.

use crate::args::{Format, OptionSpec, OptionType};

/// Clusters per table of a new QED image unless stated.
pub(super) const DEFAULT_TABLE_SIZE: u32 = 4;

/// The options of a format.
pub(super) fn of(format: Format) -> &'static [OptionSpec] {
    match format {
        Format::Raw => RAW,
        Format::Qed => QED,
        Format::Qcow2 => QCOW2,
    }
}

/// How `help` writes the value of an option.
pub(super) fn value_name(kind: OptionType) -> &'static str {
    match kind {
        OptionType::Size => "<size>",
        OptionType::Number => "<num>",
        OptionType::Switch => "<on|off>",
        OptionType::Text => "<str>",
        OptionType::Later | OptionType::CreateOnly => "...",
    }
}

const fn spec(
    name: &'static str,
    kind: OptionType,
    default: Option<&'static str>,
    help: &'static str,
) -> OptionSpec {
    OptionSpec { name, kind, default, help }
}

const SIZE: OptionSpec = spec("size", OptionType::Size, None, "Bytes of the virtual disk");
const BACKING_FILE: OptionSpec =
    spec("backing_file", OptionType::Text, None, "Image that unallocated clusters are read from");
const BACKING_FMT: OptionSpec =
    spec("backing_fmt", OptionType::Text, None, "Format of the backing file: raw, qed or qcow2");
const PREALLOCATION: OptionSpec =
    spec("preallocation", OptionType::Text, None, "Only 'off' is supported yet");
const NOCOW: OptionSpec = later("nocow");
const EXTENT_SIZE_HINT: OptionSpec = later("extent_size_hint");

const CLASSIC: OptionSpec =
    spec("classic", OptionType::Switch, None, "Write QEMU's layout, without superblock");
const JOURNAL: OptionSpec =
    spec("journal", OptionType::Text, None, "Journal of metadata: off, on (1 MiB) or its size");

const fn later(name: &'static str) -> OptionSpec {
    spec(name, OptionType::Later, None, "Not supported yet")
}

const RAW: &[OptionSpec] = &[SIZE, PREALLOCATION, NOCOW, EXTENT_SIZE_HINT];

const QED: &[OptionSpec] = &[
    SIZE,
    BACKING_FILE,
    BACKING_FMT,
    spec("cluster_size", OptionType::Size, Some("65536"), "Bytes per cluster, 4 KiB to 64 MiB"),
    spec("table_size", OptionType::Size, None, "Clusters per L1 and L2 table: 1, 2, 4, 8 or 16"),
    PREALLOCATION,
    NOCOW,
    EXTENT_SIZE_HINT,
    CLASSIC,
    JOURNAL,
    later("compression_type"),
    later("encryption"),
    later("encrypt.format"),
    later("encrypt.key-secret"),
];

const fn create_only(name: &'static str) -> OptionSpec {
    spec(name, OptionType::CreateOnly, None, "")
}

/// The options of QED images that can be changed, and those that cannot.
pub(crate) const AMEND_QED: &[OptionSpec] = &[
    CLASSIC,
    JOURNAL,
    create_only("size"),
    create_only("backing_file"),
    create_only("backing_fmt"),
    create_only("cluster_size"),
    create_only("table_size"),
    create_only("preallocation"),
    create_only("nocow"),
    create_only("extent_size_hint"),
    later("compression_type"),
    later("encryption"),
    later("encrypt.format"),
    later("encrypt.key-secret"),
];

const QCOW2: &[OptionSpec] = &[
    later("encryption"),
    later("encrypt.format"),
    later("encrypt.key-secret"),
    spec("cluster_size", OptionType::Size, Some("65536"), "Bytes per cluster, 512 to 2 MiB"),
    spec("extended_l2", OptionType::Switch, Some("off"), "Only 'off' is supported yet"),
    PREALLOCATION,
    spec(
        "compression_type",
        OptionType::Text,
        Some("zlib"),
        "Codec of compressed clusters: zlib or zstd",
    ),
    SIZE,
    spec("compat", OptionType::Text, None, "Version of the format: 0.10 (v2) or 1.1 (v3)"),
    later("data_file"),
    later("data_file_raw"),
    BACKING_FILE,
    BACKING_FMT,
    spec("lazy_refcounts", OptionType::Switch, Some("off"), "Refcount updates may be put off"),
    spec("refcount_bits", OptionType::Number, Some("16"), "Bits per refcount, 1 to 64"),
    NOCOW,
    EXTENT_SIZE_HINT,
];
