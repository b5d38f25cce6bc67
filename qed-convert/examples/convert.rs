//! `convert SOURCE TARGET [flush] [THREADS]`: converts an image without a backing file to another
//! one, the formats being the ends of the names (`.qed`, `.qcow2`, anything else is raw). The
//! program that benchmarks time.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use qed_convert::qcow2::{Qcow2CreateOptions, Qcow2Image, Qcow2Options};
use qed_convert::{ConvertOptions, NoProgress, Target, convert};
use qed_core::{
    Layout, LockPolicy, RawFile, ReadContext, ReadOnlyImage, RefuseBacking, VirtualDisk,
};
use qed_io::{Existing, FileOptions, FileStorage, ImageLock, NewFileOptions};
use qed_spec::Geometry;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, target, rest @ ..] = &args[..] else {
        return Err("usage: convert SOURCE TARGET [flush] [THREADS]".into());
    };
    let mut options = ConvertOptions { durable: false, ..ConvertOptions::default() };
    for word in rest {
        match &**word {
            "flush" => options.durable = true,
            threads => options.threads = threads.parse()?,
        }
    }
    let source = open(Path::new(source))?;
    println!("{:?}", convert(&*source, create(Path::new(target))?, &options, &NoProgress)?);
    Ok(())
}

fn open(path: &Path) -> Result<Arc<dyn VirtualDisk>, Box<dyn Error>> {
    let storage = Arc::new(FileStorage::open(path, FileOptions::READ_ONLY)?);
    Ok(match path.extension().and_then(|extension| extension.to_str()) {
        Some("qed") => {
            let context = ReadContext::new(&RefuseBacking, LockPolicy::Take);
            Arc::new(ReadOnlyImage::open(storage, &context)?)
        }
        Some("qcow2") => {
            let options = Qcow2Options::new(&RefuseBacking, LockPolicy::Take);
            Arc::new(Qcow2Image::open(storage, &options)?)
        }
        _ => Arc::new(RawFile::open(storage)?),
    })
}

fn create(path: &Path) -> Result<Target<'static>, Box<dyn Error>> {
    let how =
        NewFileOptions { existing: Existing::Truncate, lock: ImageLock::WRITE, direct: false };
    let storage = Arc::new(FileStorage::create(path, how)?);
    Ok(match path.extension().and_then(|extension| extension.to_str()) {
        Some("qed") => {
            let geometry = Geometry::new(65536, 4).ok_or("a legal shape")?;
            Target::Qed { storage, geometry, layout: Layout::Classic, backing: None }
        }
        Some("qcow2") => Target::Qcow2 {
            storage,
            options: Qcow2CreateOptions::new(0),
            compress: path.to_string_lossy().contains("-c."),
        },
        _ => Target::Raw(storage),
    })
}
