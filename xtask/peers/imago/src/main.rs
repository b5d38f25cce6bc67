//! 4 KiB writes to new clusters of 64 KiB of a QCOW2 image by imago, so many at a time.
//!
//! `imago-bench COUNT DEPTH FILE` writes to an image that is there, and says how long it took as
//! `qemu-img bench` does. Nothing is flushed before the time is taken.
#![forbid(unsafe_code)]

use std::error::Error;
use std::rc::Rc;
use std::time::Instant;

use imago::file::File;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate};

const BLOCK: usize = 4 << 10;
const STEP: u64 = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [count, depth, file] = words.as_slice() else { return Err("COUNT DEPTH FILE".into()) };
    let (count, depth): (u64, u64) = (count.parse()?, depth.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The futures of imago stay in one thread.
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let gate = PermissiveImplicitOpenGate::default();
        let image = Qcow2::<File>::builder_path(file).write(true).open(gate).await?;
        let image = Rc::new(FormatAccess::new(image));
        let start = Instant::now();
        let tasks: Vec<_> = (0..depth)
            .map(|first| {
                let image = Rc::clone(&image);
                tokio::task::spawn_local(async move {
                    let bytes = vec![7; BLOCK];
                    let mut number = first;
                    while number < count {
                        image.write(&bytes[..], number * STEP).await?;
                        number += depth;
                    }
                    Ok::<(), std::io::Error>(())
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        println!("Run completed in {:.3} seconds.", start.elapsed().as_secs_f64());
        image.flush().await?;
        Ok(())
    })
}
