//! New images: the `-o` options of each format and what is made of them.
//!
//! Owns the tables of options and their translation into what the libraries take; does no I/O.

mod layout;
mod options;

use anyhow::bail;
use qed_convert::NewBacking;
use qed_convert::qcow2::{Preallocation, Qcow2Compression, Qcow2CreateOptions, Qcow2Version};
use qed_core::{DEFAULT_RING_LEN_BYTES, Layout};
use qed_spec::Geometry;

pub(crate) use self::layout::{JournalOption, LayoutOptions, random_identity};
pub(crate) use self::options::AMEND_QED as AMEND_OPTIONS;

use crate::args::{Format, OptionList, OptionSpec, OptionType, OptionValues};
use crate::console::Console;
use crate::failure::unsupported;

/// What a new image is to look like.
#[derive(Debug)]
pub(crate) struct NewImage {
    pub(crate) format: Format,
    pub(crate) options: OptionValues,
}

impl NewImage {
    /// Holds `-o` lists against the options of `format`.
    pub(crate) fn new(format: Format, list: OptionList) -> anyhow::Result<Self> {
        Ok(Self { format, options: list.values(options::of(format))? })
    }

    /// Whether images of this format can have a backing file.
    pub(crate) fn can_have_backing(&self) -> bool {
        self.options.knows("backing_file")
    }

    /// The cluster and table size of a new QED image.
    pub(crate) fn geometry(&self) -> anyhow::Result<Geometry> {
        let cluster_size = self.narrow("cluster_size");
        if cluster_size.and_then(|cluster_size| Geometry::new(cluster_size, 1)).is_none() {
            bail!("QED cluster size must be within range [4096, 67108864] and power of 2");
        }
        let table_size = self.narrow("table_size");
        let geometry = cluster_size.zip(table_size).and_then(|(c, t)| Geometry::new(c, t));
        match geometry {
            Some(geometry) => Ok(geometry),
            None => bail!("QED table size must be within range [1, 16] and power of 2"),
        }
    }

    /// The options of a new QCOW2 image of `size` bytes.
    pub(crate) fn qcow2(
        &self,
        size: u64,
        backing: Option<NewBacking>,
    ) -> anyhow::Result<Qcow2CreateOptions> {
        let text = |name| self.options.text(name).unwrap_or_default();
        let options = Qcow2CreateOptions {
            version: match text("compat").as_str() {
                "" | "1.1" | "v3" => Qcow2Version::V3,
                "0.10" | "v2" => Qcow2Version::V2,
                other => bail!("Parameter 'version' does not accept value '{other}'"),
            },
            cluster_len: match self.narrow("cluster_size") {
                Some(len) if len.is_power_of_two() && (512..=2 << 20).contains(&len) => len,
                _ => bail!("Cluster size must be a power of two between 512 and 2048k"),
            },
            refcount_bits: match self.narrow("refcount_bits") {
                Some(bits) if bits.is_power_of_two() && bits <= 64 => bits,
                _ => bail!("Refcount width must be a power of two and may not exceed 64 bits"),
            },
            compression: match text("compression_type").as_str() {
                "zlib" => Qcow2Compression::Zlib,
                "zstd" => Qcow2Compression::Zstd,
                other => bail!("Parameter 'compression-type' does not accept value '{other}'"),
            },
            preallocation: match text("preallocation").as_str() {
                "" | "off" => Preallocation::Off,
                "metadata" => Preallocation::Metadata,
                "falloc" => Preallocation::Falloc,
                "full" => Preallocation::Full,
                other => bail!("Parameter 'preallocation' does not accept value '{other}'"),
            },
            lazy_refcounts: self.options.is_on("lazy_refcounts"),
            extended_l2: self.options.is_on("extended_l2"),
            backing,
            ..Qcow2CreateOptions::new(size)
        };
        options.validate()?;
        Ok(options)
    }

    /// The layout of a new QED image.
    pub(crate) fn layout(&self) -> anyhow::Result<Layout> {
        let asked = LayoutOptions::of(&self.options)?;
        if asked.classic == Some(true) {
            return Ok(Layout::Classic);
        }
        let identity = random_identity()?;
        Ok(match asked.journal {
            Some(JournalOption::On { len: ring_len_bytes }) => {
                let ring_len_bytes = ring_len_bytes.unwrap_or(DEFAULT_RING_LEN_BYTES);
                Layout::Journal { identity, ring_len_bytes }
            }
            None | Some(JournalOption::Off) => Layout::Compat(identity),
        })
    }

    /// Refuses what neither QED nor raw images can have yet: preallocation.
    pub(crate) fn refuse_preallocation(&self) -> anyhow::Result<()> {
        match self.options.text("preallocation").as_deref() {
            None | Some("off") => Ok(()),
            Some(mode @ ("falloc" | "full")) => {
                Err(unsupported(format_args!("preallocation={mode}")))
            }
            Some(other) => bail!("invalid parameter value: {other}"),
        }
    }

    fn narrow(&self, name: &str) -> Option<u32> {
        match self.options.number(name) {
            Some(number) => u32::try_from(number).ok(),
            None if name == "table_size" => Some(options::DEFAULT_TABLE_SIZE),
            None => None,
        }
    }
}

/// Prints the options that `-o` takes for a new image of `format`.
pub(crate) fn print_options(console: &Console, format: Format) -> anyhow::Result<()> {
    print_specs(console, &format!("Supported {} options:", format.name()), options::of(format))
}

/// Prints the options of QED images that can be changed.
pub(crate) fn print_amend_options(console: &Console) -> anyhow::Result<()> {
    print_specs(console, "Amend options for 'qed':", AMEND_OPTIONS)
}

fn print_specs(console: &Console, title: &str, specs: &[OptionSpec]) -> anyhow::Result<()> {
    let mut specs: Vec<_> =
        specs.iter().filter(|spec| spec.kind != OptionType::CreateOnly).collect();
    specs.sort_by_key(|spec| spec.name);
    console.print(format!("{title}\n"))?;
    for spec in specs {
        let option = format!("{}={}", spec.name, options::value_name(spec.kind));
        console.print(format!("  {option:<22} - {}\n", spec.help))?;
    }
    Ok(())
}
