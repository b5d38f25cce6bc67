//! What is left of an engine whose ring has failed.

use qed_core::{
    CreateOptions, LockPolicy, Prepared, RecoveryPolicy, RefuseBacking, WriteContext, create,
};
use qed_io::{Existing, ImageLock, NewFileOptions};

use super::*;

const CLUSTER: u64 = 64 << 10;

#[test]
fn nobody_is_given_the_clusters_that_the_kernel_may_still_write_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qed");
    let new = NewFileOptions { existing: Existing::Refuse, lock: ImageLock::WRITE, direct: false };
    let file = Arc::new(FileStorage::create(&path, new).unwrap());
    create(&*file, &CreateOptions::new(64 * CLUSTER)).unwrap();
    let context = WriteContext::new(&RefuseBacking, LockPolicy::None, RecoveryPolicy::Refuse);
    let image = Arc::new(Image::open(file, &context).unwrap());
    image.write_at(&[1; 4096], GuestOffset::new(9 * CLUSTER)).unwrap();

    let mut engine = Engine::for_image(image.clone(), 8).unwrap();
    for tag in 0..4 {
        let buffer = engine.buffer(4096);
        let at = tag * CLUSTER;
        engine.start(EngineRequest { tag, direction: Direction::Write, at, buffer });
    }
    let taken: Vec<_> = engine.works.iter().flatten().map(host_of).collect();
    assert_eq!(taken.len(), 4);
    engine.ring.fail();
    engine.wait().unwrap_err();
    drop(engine);

    let request = image.request();
    assert!(request.try_prepare(GuestOffset::new(0), 4096).unwrap().is_none());
    for cluster in 16..24 {
        let at = GuestOffset::new(cluster * CLUSTER);
        let Some(Prepared::Allocating(new)) = request.try_prepare(at, 4096).unwrap() else {
            panic!("cluster {cluster} is claimed or mapped")
        };
        assert!(!taken.contains(&new.host()), "{taken:?} is given away");
        new.commit().unwrap();
    }
    drop(request);
    image.flush().unwrap();
    image.close().unwrap();
    let len = std::fs::metadata(&path).unwrap().len();
    assert!(taken.iter().all(|host| host.get() + CLUSTER <= len), "cut off");
}

fn host_of(work: &Work<AlignedBuf>) -> qed_spec::HostOffset {
    work.host().expect("its transfer is under way")
}
