//! `snapshot` as JSON: what `qemu-img info` says of the same snapshots.

use serde_json::Value;

use crate::lab::Lab;

#[test]
fn snapshots_as_json_are_those_of_qemu() {
    let lab = Lab::new();
    lab.shell(
        "qemu-img create -q -f qcow2 a 4M; qemu-img snapshot -c one a; qemu-img snapshot -c '\"2' a
         qemu-img info --output=json a > wanted",
    );
    let wanted = std::fs::read(lab.path("wanted")).expect("QEMU's answer");
    let wanted: Value = serde_json::from_slice(&wanted).expect("JSON");
    let found = lab.qed(["snapshot", "--output=json", "a"]).succeeded().stdout;
    let found: Value = serde_json::from_str(&found).expect(&found);
    assert_eq!(found.as_array().map(Vec::len), Some(2));
    assert_eq!(found, wanted["snapshots"]);
}
