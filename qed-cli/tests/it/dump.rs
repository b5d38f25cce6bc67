//! `dump` accounts for every byte of the file, whatever state the image is in.

use std::fs;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use qed_spec::{
    Epoch, Generation, ImageOwner, ImageUuid, SectionType, SuperblockBuilder, SuperblockCopy,
};
use serde_json::Value;

use crate::lab::Lab;

fn lab() -> Lab {
    let lab = Lab::new();
    lab.shell(
        "truncate -s 3M base.raw
         qemu-img create -q -f qed -o cluster_size=4k,table_size=2 -b base.raw -F raw a.qed 4M
         qemu-io -f qed -c 'write 0 64k' -c 'write -z 1M 1M' -c 'write 3M 20k' a.qed
         qemu-img create -q -f qed empty.qed 64M
         qemu-img create -q -f qed -o cluster_size=4k,table_size=2 many.qed 64M
         qemu-io -f qed -c 'write 0 4k' -c 'write 20M 4k' -c 'write 60M 8k' -c 'write 4k 4k' many.qed
         truncate -s +5000 many.qed",
    );
    lab
}

/// The dump as JSON; its areas cover the file from front to back without gap or overlap, and the
/// fields of an area cover the area.
pub(crate) fn dump(lab: &Lab, name: &str) -> Value {
    let ran = lab.qed(["dump", "--output=json", name]);
    let json: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let mut at = 0;
    for area in json["areas"].as_array().expect("areas") {
        assert_eq!(area["offset"], at, "{name}: {area}");
        let len = area["length"].as_u64().expect("a number");
        assert!(len > 0, "{name}: {area}");
        if let Some(fields) = area["fields"].as_array() {
            let mut field_at = at;
            for field in fields {
                assert_eq!(field["offset"], field_at, "{name}: {field}");
                field_at += field["length"].as_u64().expect("a number");
            }
            assert_eq!(field_at, at + len, "{name}: {area}");
        }
        if let Some(entries) = area["entries"].as_array() {
            let mut index = 0;
            for run in entries {
                assert_eq!(run["index"], index, "{name}: {run}");
                index += run["count"].as_u64().expect("a number");
            }
            assert_eq!(index * 8, len, "{name}: {area}");
        }
        at += len;
    }
    let len = fs::metadata(lab.path(name)).expect("the image").len();
    assert_eq!(at, len, "{name}");
    json
}

fn names(json: &Value) -> Vec<String> {
    let areas = json["areas"].as_array().expect("areas");
    areas.iter().map(|area| area["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn every_byte_has_a_name() {
    let lab = lab();
    let header = ["header", "backing_filename", "header_unused", "l1_table"];
    assert_eq!(names(&dump(&lab, "a.qed"))[..4], header);
    assert_eq!(names(&dump(&lab, "empty.qed")), ["header", "header_unused", "l1_table"]);
    let many = names(&dump(&lab, "many.qed"));
    assert!(many.iter().filter(|name| *name == "l2_table").count() == 3, "{many:?}");
    assert_eq!(many.last().expect("areas"), "unreferenced");
    for (name, spec) in [("cluster_size", 4096_u64), ("table_size", 2), ("image_size", 4 << 20)] {
        let json = dump(&lab, "a.qed");
        let fields = json["areas"][0]["fields"].as_array().expect("fields");
        let field = fields.iter().find(|field| field["name"] == name).expect("a field");
        assert_eq!(field["value"], spec);
    }
}

#[test]
fn text_and_json_name_the_same_areas() {
    let lab = lab();
    for name in ["a.qed", "empty.qed", "many.qed"] {
        let json = dump(&lab, name);
        let text = lab.qed(["dump", name]).succeeded().stdout;
        let areas = text.lines().filter(|line| line.starts_with("0x"));
        for (line, area) in areas.zip(json["areas"].as_array().expect("areas")) {
            let start = area["offset"].as_u64().expect("a number");
            let end = start + area["length"].as_u64().expect("a number");
            assert!(line.starts_with(&format!("{start:#x}..{end:#x} ")), "{line}: {area}");
            assert!(line.contains(area["name"].as_str().expect("a name")), "{line}: {area}");
        }
    }
}

#[test]
fn damaged_images_are_covered_as_well() {
    let lab = lab();
    let original = fs::read(lab.path("many.qed")).expect("the image");
    let l1 = 0x1000;
    let l2 = u64::from_le_bytes(original[l1..l1 + 8].try_into().expect("eight bytes"));
    let places = [0x20, l1 as u64, l1 as u64 + 8, l1 as u64 + 80, l2, l2 + 8, l2 + 16];
    let values =
        [0, 1, 7, 512, 0x1000, 0x2000, 0x3000, l2, l2 + 0x1000, 1 << 40, 1 << 63, u64::MAX];
    for at in places {
        for value in values {
            fs::write(lab.path("x.qed"), &original).expect("written");
            let file = fs::OpenOptions::new().write(true).open(lab.path("x.qed")).expect("it");
            file.write_all_at(&u64::to_le_bytes(value), at).expect("written");
            dump(&lab, "x.qed");
        }
    }
}

#[test]
fn a_header_that_breaks_a_rule_is_shown_before_the_error() {
    let lab = lab();
    let file = fs::OpenOptions::new().write(true).open(lab.path("empty.qed")).expect("it");
    file.write_all_at(&3_u32.to_le_bytes(), 8).expect("written");
    let json = dump(&lab, "empty.qed");
    assert_eq!(names(&json), ["header", "unknown"]);
    let ran = lab.qed(["dump", "empty.qed"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("table_size = 3"), "{}", ran.stdout);
    assert!(ran.stderr.contains("table size 3 at byte 8"), "{}", ran.stderr);
}

#[test]
fn superblocks_are_shown_field_by_field() {
    let lab = lab();
    let mut builder = SuperblockBuilder::new(ImageUuid::new([7; 16]), Epoch::new(9));
    let sizes = [7_u64 << 20, 8 << 20].map(u64::to_le_bytes);
    builder.set_section(SectionType::PHYSICAL_SIZE, sizes.as_flattened()).expect("room");
    builder.set_section(SectionType::CODEC, b"zstd!").expect("room");
    let owner = ImageOwner::new(NonZeroU64::MAX, 7, [1; 16], b"h\xff");
    builder.set_section(SectionType::OWNER, &owner.encode()).expect("room");
    builder.set_section(SectionType::new(99), b"unknown").expect("room");
    let superblock = builder.encode(Generation::FIRST);
    let file = fs::OpenOptions::new().write(true).open(lab.path("empty.qed")).expect("it");
    file.write_all_at(&superblock, SuperblockCopy::A.offset().get()).expect("written");
    let mut damaged = superblock;
    damaged[100] ^= 1;
    file.write_all_at(&damaged, SuperblockCopy::B.offset().get()).expect("written");

    let json = dump(&lab, "empty.qed");
    let expected =
        ["header", "header_unused", "superblock_a", "superblock_b", "header_unused", "l1_table"];
    assert_eq!(names(&json), expected);
    let fields = |area: usize| {
        let fields = json["areas"][area]["fields"].as_array().expect("fields");
        let pair = |field: &Value| format!("{}={}", field["name"], field["value"]).replace('"', "");
        fields.iter().map(pair).collect::<Vec<_>>()
    };
    let intact = fields(2);
    for field in ["magic=QEDX", "generation=1", "epoch=9", "section_99=756e6b6e6f776e"] {
        assert!(intact.iter().any(|found| found == field), "{field}: {intact:?}");
    }
    let notes = json["areas"][2]["fields"].as_array().expect("fields");
    for note in [
        "section of type 4: physical size 7340032, device size 8388608",
        "section of type 11: token 0xffffffffffffffff, host h\\xff, since 7",
    ] {
        assert!(notes.iter().any(|field| field["note"] == note), "{note}: {notes:?}");
    }
    let damaged = json["areas"][3]["fields"].as_array().expect("fields");
    let last = damaged.last().expect("a field");
    assert_eq!(last["name"], "sections");
    assert!(last["note"].as_str().expect("a note").starts_with("not valid: "), "{last}");
}
