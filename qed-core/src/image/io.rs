//! Guest writes and write-zeroes, built on [`crate::Request`].

use qed_spec::{GuestOffset, HostOffset, L2Entry};

use crate::error::{ImageError, IoAction};
use crate::image::Image;
use crate::image::request::Prepared;
use crate::map::tables::ExtentKind;
use crate::space::claims::{Claim, Wait};

/// Zeros that a partial write-zeroes writes at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Image {
    /// Writes `buf` to the virtual disk at `at`, allocating clusters as needed.
    ///
    /// Visible to every read that starts after it returns; durable after the next
    /// [`Image::flush`]. Allocating writes to different clusters run in parallel.
    ///
    /// # Errors
    /// [`ImageError::OutOfRange`] unless the whole range lies inside the virtual disk,
    /// [`ImageError::WritesStopped`] after a failed flush, no space, errors of tables, data and
    /// backing file. Part of the range may then hold the new bytes.
    // spec: QED-RW-02
    pub fn write_at(&self, buf: &[u8], at: GuestOffset) -> Result<(), ImageError> {
        let _request = self.request();
        self.view.check_range(at, buf.len() as u64)?;
        let (mut rest, mut at) = (buf, at);
        while !rest.is_empty() {
            self.begin_write()?;
            let done = self.write_some(rest, at)?;
            at = at.checked_add(done as u64).expect("inside the virtual disk");
            rest = &rest[done..];
        }
        Ok(())
    }

    /// Makes `len` bytes of the virtual disk from `at` read as zeros.
    ///
    /// Whole clusters that are not allocated become zero clusters where the backing file could
    /// show through, and stay as they are elsewhere; allocated bytes are zeroed in place. Durable
    /// after the next [`Image::flush`].
    ///
    /// # Errors
    /// As [`Image::write_at`].
    // spec: QED-RW-03
    pub fn write_zeroes(&self, at: GuestOffset, len: u64) -> Result<(), ImageError> {
        self.zero_steps(at, len, |at, left, size| self.zero_some(at, left, size))
    }

    /// Makes `len` bytes of the virtual disk from `at` read as zeros whatever backing file the
    /// image has later: as [`Image::write_zeroes`], and whole clusters that are not allocated
    /// always become zero clusters.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    pub fn write_zeroes_over_any_backing(
        &self,
        at: GuestOffset,
        len: u64,
    ) -> Result<(), ImageError> {
        self.zero_steps(at, len, |at, left, size| {
            let extent = self.view.run(at, left)?;
            match extent.kind {
                ExtentKind::Unallocated => self.zero_backed(at, extent.len, size),
                ExtentKind::Data(_) | ExtentKind::Zero => self.zero_some(at, left, size),
            }
        })
    }

    /// Runs `step`, which zeroes the first part of a range on a disk of a given size, until the
    /// whole range is zero.
    fn zero_steps(
        &self,
        at: GuestOffset,
        len: u64,
        step: impl Fn(GuestOffset, u64, u64) -> Result<u64, ImageError>,
    ) -> Result<(), ImageError> {
        self.view.check_range(at, len)?;
        let (mut at, mut left) = (at, len);
        while left > 0 {
            // A request a step: a range may be the whole disk, and a resize waits for requests.
            let _request = self.request();
            self.view.check_range(at, left)?;
            self.begin_write()?;
            let done = step(at, left, self.view.image_size())?;
            at = at.checked_add(done).expect("inside the virtual disk");
            left -= done;
        }
        Ok(())
    }

    fn write_some(&self, buf: &[u8], at: GuestOffset) -> Result<usize, ImageError> {
        match self.prepare(at, buf.len() as u64)? {
            Prepared::InPlace { host, len } => {
                let len = usize::try_from(len).expect("at most the buffer's length");
                self.write_data(&buf[..len], host)?;
                Ok(len)
            }
            Prepared::Allocating(mut allocation) => {
                let len = usize::try_from(allocation.len()).expect("at most the buffer's length");
                allocation.write(&buf[..len])?;
                allocation.commit()?;
                Ok(len)
            }
        }
    }

    fn write_data(&self, buf: &[u8], host: HostOffset) -> Result<(), ImageError> {
        let storage = &self.view.tables.storage;
        storage.write_at(buf, host.get()).map_err(ImageError::io(IoAction::WriteData, host))
    }

    /// Zeroes the first part of a range on a disk of `disk_end` bytes; how many bytes.
    pub(crate) fn zero_some(
        &self,
        at: GuestOffset,
        len: u64,
        disk_end: u64,
    ) -> Result<u64, ImageError> {
        let extent = self.view.run(at, len)?;
        match extent.kind {
            ExtentKind::Data(host) => {
                let range = host.get()..host.get() + extent.len;
                let zeroed = self.view.tables.storage.write_zeroes(range);
                zeroed.map_err(ImageError::io(IoAction::WriteData, host))?;
                Ok(extent.len)
            }
            ExtentKind::Zero => Ok(extent.len),
            ExtentKind::Unallocated if !self.view.backing_covers(at) => Ok(extent.len),
            ExtentKind::Unallocated => self.zero_backed(at, extent.len, disk_end),
        }
    }

    /// Hides the backing file for the first part of a range of unallocated bytes; how many bytes.
    fn zero_backed(&self, at: GuestOffset, len: u64, disk_end: u64) -> Result<u64, ImageError> {
        let tables = &self.view.tables;
        let cluster = tables.geometry.cluster_size_bytes();
        let within = tables.within_cluster(at);
        let to_end = disk_end - at.get();
        if within > 0 || len < cluster.min(to_end) {
            let part = len.min(cluster - within).min(ZEROS.len() as u64);
            let part = usize::try_from(part).expect("at most 64 KiB");
            return self.write_some(&ZEROS[..part], at).map(|done| done as u64);
        }
        // The last cluster of the disk may be partial and still be replaced as a whole.
        let whole = if len == to_end { len } else { len - len % cluster };
        let (range, clusters) = self.to_claim(at, whole);
        let _claim = Claim::take(&self.writer.in_flight, range, Wait::Yes);
        self.ensure_table(at)?;
        let unallocated = |entry| entry == L2Entry::Unallocated;
        let count = tables.entries(at, clusters, unallocated)?.unwrap_or(0);
        if count == 0 {
            // Another write was faster: look again.
            return Ok(0);
        }
        let zeros = (0..count).map(|_| L2Entry::Zero);
        tables.publish(at, zeros, false)?;
        Ok((count * cluster).min(whole))
    }
}
