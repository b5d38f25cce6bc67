//! The libraries of this workspace, asked in process.

mod device;
mod extensions;
mod reasons;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use qed_check::{CheckOptions, Report, check};
use qed_convert::chain::{Chain, ChainError, ChainOptions, FormatSource, ImageFormat};
use qed_core::{
    CrashLeft, GivenBacking, GuestExtentKind, Image, LockPolicy, OpenError, ReadContext,
    ReadOnlyImage, RecoveryPolicy, VirtualDisk, WriteContext, read_header, show_replayed,
};
use qed_io::{FileOptions, FileStorage, Storage};

use self::device::Device;
use crate::answer::{Answer, Answers, Case, DriveError, Implementation, Opened};
use crate::vector::{CheckOutcome, MapKind, MapRun, Mapping};

/// The libraries qed-spec, qed-core, qed-check and qed-convert.
#[derive(Debug, Clone, Copy)]
pub struct Library;

impl Implementation for Library {
    fn name(&self) -> &str {
        concat!("library ", env!("CARGO_PKG_VERSION"))
    }

    fn is_qemu(&self) -> bool {
        false
    }

    fn has_devices(&self) -> bool {
        true
    }

    fn read(&self, case: &Case<'_>) -> Result<Answers, DriveError> {
        let storage = open_file(case, FileOptions::READ_ONLY)?;
        let mut answers = Answers::none("there is no image to ask");
        match guarded(|| open_alone(&storage)) {
            Answer::Said(Ok(image)) => of_image(&mut answers, &image, case),
            Answer::Said(Err(error)) if is_of_the_log(&error) => {
                of_header(&mut answers, &storage, case);
            }
            Answer::Said(Err(error)) => answers.open = Answer::Said(reasons::refused(&error)),
            Answer::Broke(why) => answers.open = Answer::Broke(why),
            Answer::Silent(why) => answers.open = Answer::Silent(why),
        }
        let report = guarded(|| check_all(&storage));
        answers.check = report.map(|report| report.as_ref().map_or(CheckOutcome::Refused, outcome));
        answers.findings = report.map(|report| report.as_ref().map_or_else(Vec::new, numbers));
        if case.expect.superblock.is_some() || case.expect.anchor.is_some() {
            let asked = guarded(|| extensions::read(&*storage));
            answers.superblock = asked.map(|(superblock, _)| superblock.clone());
            answers.anchor = asked.map(|(_, anchor)| anchor.clone());
        }
        Ok(answers)
    }

    fn write(&self, case: &Case<'_>) -> Result<Answer<Opened>, DriveError> {
        let storage = open_file(case, FileOptions::READ_WRITE)?;
        Ok(guarded(|| {
            // A log is applied; a check that is asked for is not made.
            let refuse = |_: &dyn Storage, _: &CrashLeft| Err("the image needs a check".into());
            let context = WriteContext::new(
                &GivenBacking(None),
                LockPolicy::Take,
                RecoveryPolicy::Run(&refuse),
            );
            let closed = Image::open(storage, &context)
                .and_then(|image| image.close().map_err(OpenError::from));
            match closed {
                Ok(()) => Opened::Accepted,
                Err(error) => reasons::refused(&error),
            }
        }))
    }
}

/// A panic is an answer, too.
fn guarded<T>(ask: impl FnOnce() -> T) -> Answer<T> {
    match catch_unwind(AssertUnwindSafe(ask)) {
        Ok(answer) => Answer::Said(answer),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Answer::Broke(format!("panicked: {}", text.unwrap_or_default()))
        }
    }
}

fn open_file(case: &Case<'_>, options: FileOptions) -> Result<Arc<dyn Storage>, DriveError> {
    let failed = |error: qed_io::OpenError| std::io::Error::other(error);
    let file = FileStorage::open(case.image, options).map_err(failed)?;
    Ok(if case.vector.device { Arc::new(Device(file)) } else { Arc::new(file) })
}

fn open_alone(storage: &Arc<dyn Storage>) -> Result<ReadOnlyImage, OpenError> {
    let storage = Arc::clone(storage);
    ReadOnlyImage::open(storage, &ReadContext::new(&GivenBacking(None), LockPolicy::Take))
}

/// Whether it is the log that cannot be applied, so that the header is all that there is.
fn is_of_the_log(error: &OpenError) -> bool {
    matches!(error, OpenError::JournalRecovery(_) | OpenError::JournalCutsTables)
}

fn of_header(answers: &mut Answers, storage: &Arc<dyn Storage>, case: &Case<'_>) {
    match guarded(|| read_header(&**storage)) {
        Answer::Said(Ok(header)) => {
            answers.open = Answer::Said(Opened::Accepted);
            answers.size = Answer::Said(header.image_size());
            answers.cluster_size = Answer::Said(header.geometry().cluster_size_bytes());
        }
        Answer::Said(Err(error)) => answers.open = Answer::Said(reasons::refused(&error)),
        Answer::Broke(why) => answers.open = Answer::Broke(why),
        Answer::Silent(why) => answers.open = Answer::Silent(why),
    }
    answers.map = Answer::Said(Mapping::Fails);
    if case.expect.content.is_some() {
        answers.content = guarded(|| content(open_chain(case).ok().as_deref(), case));
    }
}

fn of_image(answers: &mut Answers, image: &ReadOnlyImage, case: &Case<'_>) {
    answers.open = Answer::Said(Opened::Accepted);
    answers.size = Answer::Said(image.image_size());
    answers.cluster_size = Answer::Said(image.geometry().cluster_size_bytes());
    answers.backing = Answer::Said(image.backing_name());
    if case.expect.map.is_some() {
        answers.map = guarded(|| mapping(image));
    }
    if case.expect.content.is_some() {
        answers.content = guarded(|| match case.vector.device {
            true => content(Some(image), case),
            false => content(open_chain(case).ok().as_deref(), case),
        });
    }
}

fn mapping(image: &ReadOnlyImage) -> Mapping {
    let mut runs: Vec<MapRun> = Vec::new();
    let mut at = 0;
    while at < image.image_size() {
        let Ok(extent) = image.extent_at(at, image.image_size() - at) else {
            return Mapping::Fails;
        };
        let kind = match extent.kind {
            GuestExtentKind::Data { host_offset } | GuestExtentKind::Hole { host_offset } => {
                MapKind::Data { host: host_offset }
            }
            GuestExtentKind::Zero => MapKind::Zero,
            // Without a backing file nothing else is left.
            GuestExtentKind::Unallocated | GuestExtentKind::Compressed => MapKind::Unallocated,
        };
        MapRun::append(&mut runs, MapRun { at, len: extent.len, kind });
        at += extent.len;
    }
    Mapping::Runs(runs)
}

/// The bytes of each place of `disk`, which is the whole chain.
fn content(disk: Option<&dyn VirtualDisk>, case: &Case<'_>) -> Vec<Option<Vec<u8>>> {
    let read = |at: u64, len: u64| {
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        disk?.read_at(&mut bytes, at).ok()?;
        Some(bytes)
    };
    case.places().iter().map(|place| read(place.at, place.bytes.len())).collect()
}

fn open_chain(case: &Case<'_>) -> Result<Arc<dyn VirtualDisk>, ChainError> {
    let stated = case.vector.backing_format.0.iter();
    let options = ChainOptions {
        backing_formats: stated.filter_map(|it| ImageFormat::from_name(it.as_bytes())).collect(),
        ..ChainOptions::default()
    };
    Chain::walk(case.image, FormatSource::Stated(ImageFormat::Qed), &options)?.open(None)
}

/// The check of what a reader sees: with the log applied in memory.
fn check_all(storage: &Arc<dyn Storage>) -> Option<Report> {
    let shown = show_replayed(storage).ok()?.map_or_else(|| Arc::clone(storage), |it| it.storage);
    let mut options = CheckOptions::default();
    options.findings_limit = usize::MAX;
    check(&*shown, &options).ok()
}

fn outcome(report: &Report) -> CheckOutcome {
    match (report.corruptions(), report.leaks()) {
        (0, 0) if report.unnamed_clusters() > 0 => CheckOutcome::Free,
        (0, 0) => CheckOutcome::Clean,
        (0, _) => CheckOutcome::Leaks,
        _ => CheckOutcome::Corrupt,
    }
}

fn numbers(report: &Report) -> Vec<u16> {
    let mut numbers: Vec<u16> =
        report.findings.iter().map(|finding| finding.kind.number()).collect();
    numbers.sort_unstable();
    numbers
}
