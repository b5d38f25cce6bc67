//! What a new QCOW2 image looks like, which options are refused, and how much its metadata takes.

use qed_spec::{BackingName, BackingNameError};
use thiserror::Error;

use crate::target::NewBacking;
use crate::target::qcow2::{header, refcounts};

/// Largest L1 table that QEMU opens.
const MAX_L1_LEN: u64 = 32 << 20;
/// Longest backing file name of the format.
const MAX_NAME_LEN: usize = 1023;

/// What a new QCOW2 image looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qcow2CreateOptions {
    /// Bytes of the virtual disk, a multiple of 512.
    pub size: u64,
    /// Version of the format.
    pub version: Qcow2Version,
    /// Bytes per cluster, a power of two in 512..=2 MiB.
    pub cluster_len: u32,
    /// Bits per refcount, a power of two in 1..=64; 16 in version 2.
    pub refcount_bits: u32,
    /// Lets later writers put off refcount updates. Version 3 only.
    pub lazy_refcounts: bool,
    /// Codec of compressed clusters. Version 2 has zlib only.
    pub compression: Qcow2Compression,
    /// The backing file, recorded and not opened.
    pub backing: Option<NewBacking>,
    /// Anything but [`Preallocation::Off`] is refused.
    pub preallocation: Preallocation,
    /// Subclusters; refused when set.
    pub extended_l2: bool,
    /// Name of an encryption format; refused when set.
    pub encryption: Option<String>,
}

/// Version of a QCOW2 image, `compat` in QEMU's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qcow2Version {
    /// `compat=0.10`: no feature bits, no zero clusters.
    V2,
    /// `compat=1.1`.
    V3,
}

/// Codec of the compressed clusters of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qcow2Compression {
    /// Raw deflate with a window of 4 KiB.
    Zlib,
    /// Zstandard.
    Zstd,
}

/// How much of a new image is allocated at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preallocation {
    /// Nothing.
    Off,
    /// The tables.
    Metadata,
    /// Tables, and space for all data.
    Falloc,
    /// Tables, and zeros for all data.
    Full,
}

/// Why a QCOW2 image with these options cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Qcow2OptionError {
    /// The cluster size is not legal.
    #[error("cluster size {found} is not a power of two in 512..=2097152")]
    ClusterSize {
        /// Bytes.
        found: u32,
    },
    /// The refcount width is not legal.
    #[error("refcount width {found} is not 1, 2, 4, 8, 16, 32 or 64 bits")]
    RefcountBits {
        /// Bits.
        found: u32,
    },
    /// The option needs version 3.
    #[error("{option} needs compat=1.1")]
    NeedsVersion3 {
        /// The option as the user writes it.
        option: &'static str,
    },
    /// The virtual disk is not whole sectors.
    #[error("image size {found} is not a multiple of 512")]
    SizeUnaligned {
        /// Bytes.
        found: u64,
    },
    /// The virtual disk is too large for clusters of this size.
    #[error("image size {found} is more than the {max} bytes that clusters of this size can map")]
    SizeTooLarge {
        /// Bytes.
        found: u64,
        /// Bytes.
        max: u64,
    },
    /// The backing file name breaks a rule.
    #[error("backing file name")]
    BackingName(#[source] BackingNameError),
    /// The backing file name has no room.
    #[error("backing file name of {found} bytes is longer than the {max} that fit")]
    BackingNameTooLong {
        /// Bytes.
        found: usize,
        /// Bytes.
        max: usize,
    },
    /// The option is legal and not supported for output.
    #[error("writing QCOW2 images with {option} is not supported")]
    Unsupported {
        /// The option as the user writes it.
        option: String,
    },
}

impl Qcow2CreateOptions {
    /// The options that QEMU takes by default: version 3, clusters of 64 KiB, refcounts of 16 bits.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            size,
            version: Qcow2Version::V3,
            cluster_len: 64 << 10,
            refcount_bits: 16,
            lazy_refcounts: false,
            compression: Qcow2Compression::Zlib,
            backing: None,
            preallocation: Preallocation::Off,
            extended_l2: false,
            encryption: None,
        }
    }

    /// Whether an image with these options can be written.
    ///
    /// # Errors
    /// The first rule that is broken, then the first option that is not supported.
    pub fn validate(&self) -> Result<(), Qcow2OptionError> {
        self.check_shape()?;
        self.check_version()?;
        self.check_supported()?;
        if let Some(backing) = &self.backing {
            BackingName::new(&backing.name).map_err(Qcow2OptionError::BackingName)?;
            let found = backing.name.len();
            let max = header::room_for_name(self).min(MAX_NAME_LEN);
            if found > max {
                return Err(Qcow2OptionError::BackingNameTooLong { found, max });
            }
        }
        Ok(())
    }

    fn check_shape(&self) -> Result<(), Qcow2OptionError> {
        let (cluster_len, bits) = (self.cluster_len, self.refcount_bits);
        if !cluster_len.is_power_of_two() || !(512..=2 << 20).contains(&cluster_len) {
            return Err(Qcow2OptionError::ClusterSize { found: cluster_len });
        }
        if !bits.is_power_of_two() || bits > 64 {
            return Err(Qcow2OptionError::RefcountBits { found: bits });
        }
        if !self.size.is_multiple_of(512) {
            return Err(Qcow2OptionError::SizeUnaligned { found: self.size });
        }
        let max = (MAX_L1_LEN / 8).saturating_mul(self.table_reach());
        if self.size > max {
            return Err(Qcow2OptionError::SizeTooLarge { found: self.size, max });
        }
        Ok(())
    }

    fn check_version(&self) -> Result<(), Qcow2OptionError> {
        if self.version == Qcow2Version::V3 {
            return Ok(());
        }
        let options = [
            (self.refcount_bits != 16, "a refcount width other than 16 bits"),
            (self.lazy_refcounts, "lazy_refcounts"),
            (self.compression != Qcow2Compression::Zlib, "compression_type=zstd"),
        ];
        match options.iter().find(|(set, _)| *set) {
            Some((_, option)) => Err(Qcow2OptionError::NeedsVersion3 { option }),
            None => Ok(()),
        }
    }

    fn check_supported(&self) -> Result<(), Qcow2OptionError> {
        let preallocation = match self.preallocation {
            Preallocation::Off => None,
            Preallocation::Metadata => Some("preallocation=metadata"),
            Preallocation::Falloc => Some("preallocation=falloc"),
            Preallocation::Full => Some("preallocation=full"),
        };
        let extended = self.extended_l2.then_some("extended_l2");
        let refused = preallocation.or(extended).map(str::to_owned);
        let encryption = self.encryption.as_ref().map(|name| format!("encryption ({name})"));
        match refused.or(encryption) {
            Some(option) => Err(Qcow2OptionError::Unsupported { option }),
            None => Ok(()),
        }
    }

    /// Guest bytes behind one L2 table.
    fn table_reach(&self) -> u64 {
        let cluster_len = u64::from(self.cluster_len);
        cluster_len / 8 * cluster_len
    }

    /// L1 entries: one per L2 table that the size needs.
    pub(crate) fn l1_entries(&self) -> u64 {
        self.size.div_ceil(self.table_reach())
    }

    /// Clusters of the L1 table.
    pub(crate) fn l1_clusters(&self) -> u64 {
        (self.l1_entries() * 8).div_ceil(self.cluster_len.into())
    }
}

/// Bytes of all metadata of an image whose data takes `data_len` bytes and whose tables are all
/// there, as QEMU computes them.
pub(crate) fn metadata_len(options: &Qcow2CreateOptions) -> u64 {
    let cluster_len = u64::from(options.cluster_len);
    let per_cluster = cluster_len / 8;
    let data = options.size.div_ceil(cluster_len);
    let l2 = data.div_ceil(per_cluster);
    let l1 = l2.div_ceil(per_cluster);
    let plain = 1 + l2 + l1;
    let refcounts = refcounts::Sizes::of(plain + data, cluster_len, options.refcount_bits);
    (plain + refcounts.blocks + refcounts.table_clusters) * cluster_len
}
