//! The vector files: what is wrong with one is told with its file and the vector.

use std::path::Path;

use conformance::{Clauses, Header, Opening, lay, load};

use crate::support::Folder;

/// A vector in which nothing is wrong.
const GOOD: &str = r#"
    [[vector]]
    name = "good"
    clauses = ["QED-HDR-01"]
    what = "a sound image"
    file_len = 327680
    [vector.expect]
    open = "accept"
"#;

/// Loads one file with this text and returns what is said against it.
#[track_caller]
fn refused(text: &str) -> String {
    let folder = Folder::new();
    std::fs::write(folder.file("a.toml"), text).unwrap();
    load(folder.path(), &Clauses::of_specification()).unwrap_err().to_string()
}

/// What is said about the good vector with `from` replaced by `to`.
#[track_caller]
fn broken(from: &str, to: &str, says: &str) {
    let said = refused(&GOOD.replacen(from, to, 1));
    let place = said.contains("a.toml: ") && said.contains("good: ");
    assert!(place && said.contains(says), "{said}");
}

/// What is said about the good vector with more fields.
#[track_caller]
fn also(fields: &str, says: &str) {
    broken("file_len = 327680", &format!("file_len = 327680\n{fields}"), says);
}

/// What is said about the good vector with more expectations.
#[track_caller]
fn expecting(fields: &str, says: &str) {
    broken("open = \"accept\"", &format!("open = \"accept\"\n{fields}"), says);
}

#[test]
fn a_form_that_no_vector_has_is_told_with_file_vector_and_line() {
    also("file_length = 1", "unknown field `file_length`");
    also("header = { magic = 1 }", "unknown field `magic`");
    also("header = \"default\"", "a header is its fields or \"none\"");
    also("runs = [{ at = 0 }]", "one of u64, u32, hex, text and fill");
    also("runs = [{ at = 0, hex = \"00\", text = \"a\" }]", "one of u64, u32, hex, text and fill");
    also("runs = [{ at = 0, hex = \"0\" }]", "not pairs of hex digits");
    also("runs = [{ at = 0, text = \"\" }]", "no bytes");
    also("runs = [{ at = 0, fill = { byte = 256, len = 1 } }]", "256");
    expecting("chek = \"clean\"", "unknown field `chek`");
    expecting("check = \"good\"", "unknown variant `good`");
    expecting("map = [{ at = 0, len = 1048576, kind = \"data\" }]", "data has a host offset");
    expecting("map = \"none\"", "\"fails\", not \"none\"");
    expecting("content = [{ at = 0, fails = 1, hex = \"00\" }]", "stands alone");
    broken("open = \"accept\"", "open = \"refuse\"", "not \"refuse\"");
    broken("open = \"accept\"", "", "missing field `open`");
}

#[test]
fn a_vector_that_contradicts_itself_is_told() {
    broken("QED-HDR-01", "QED-HDR-99", "QED-HDR-99 is not a clause");
    broken("[\"QED-HDR-01\"]", "[]", "names no clause");
    broken("a sound image", " ", "what is one line");
    also("runs = [{ at = 327679, u32 = [1] }]", "at 327679 of image.qed ends past");
    also("runs = [{ at = 8, u32 = [1] }, { at = 5, u32 = [1] }]", "at 5 and 8");
    also("files = [{ name = \"../b\", len = 1 }]", "../b is not a name");
    also("files = [{ name = \"b\", len = 1, runs = [{ at = 1, hex = \"00\" }] }]", "at 1 of b");
    expecting("write = \"reject\"", "write is refused by no clause");
    broken("open = \"accept\"", "open = { reject = \"QED-HDR-99\" }", "QED-HDR-99 is not a clause");
    expecting("write = { reject = \"QED-CONS-01\" }\nafter_write = []", "after_write is expected");
    expecting("anchor = { valid = true, superblocks = { reject = \"QED-SB-99\" } }", "QED-SB-99");
    let refused = "open = { reject = \"QED-HDR-03\" }\nsize = 0";
    broken("open = \"accept\"", refused, "size is expected of an image that is to be refused");
}

#[test]
fn an_expectation_that_cannot_hold_is_told() {
    let zero = |at: u64, len: u64| format!("{{ at = {at}, len = {len}, kind = \"zero\" }}");
    let map = |runs: &[String]| format!("map = [{}]", runs.join(", "));
    expecting(&map(&[zero(0, 512)]), "the map ends at 512, the disk at 1048576");
    expecting(&map(&[zero(512, 1_048_064)]), "the map at 512 has a gap");
    expecting(&map(&[zero(0, 512), zero(512, 1_048_064)]), "at 512 continues the one before");
    expecting("content = [{ at = 1048575, u32 = [1] }]", "the content at 1048575");
    expecting("content = [{ at = 0, u32 = [1] }, { at = 3, hex = \"00\" }]", "the content at 3");
    expecting("content = []", "content is expected at no place");
    let long = "content = [{ at = 0, fill = { byte = 0, len = 16777217 } }]\nsize = 16777728";
    expecting(long, "the content at 0 is longer than 16777216 bytes");
    expecting("findings = [207, 105]\ncheck = \"corrupt\"", "do not ascend");
    expecting("findings = [301]\ncheck = \"corrupt\"", "do not fit");
    expecting("findings = [303]", "do not fit");
    let why = "[vector.qemu]\nversion = \"10.0.2\"\nwhy = \"QED-QEMU-99: x\"\nopen = \"reject\"";
    expecting(why, "QED-QEMU-99 is not a clause");
    expecting("[vector.qemu]\nversion = \"10.0.2\"\nwhy = \"x\"", "no field that differs");
}

#[test]
fn names_are_unique_over_all_files_and_every_fault_is_told_at_once() {
    broken("\"good\"", "\"good: 1\"", "lower case words and numbers");
    let folder = Folder::new();
    std::fs::create_dir(folder.file("below")).unwrap();
    std::fs::write(folder.file("a.toml"), GOOD).unwrap();
    std::fs::write(folder.file("below/b.toml"), GOOD).unwrap();
    std::fs::write(folder.file("c.toml"), "").unwrap();
    let said = load(folder.path(), &Clauses::of_specification()).unwrap_err().to_string();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("below/b.toml: good: ") && lines[0].contains("a.toml has a vector"));
    assert!(lines[1].ends_with("c.toml: there is no vector in it"), "{said}");
    assert!(load(Path::new("/no/such/folder"), &Clauses::of_specification()).is_err());
}

#[test]
fn the_image_is_laid_as_it_is_written() {
    let text = GOOD.replacen(
        "file_len = 327680",
        "file_len = 327680
        header = { autoclear_features = 0x8000000000000000, image_size = 18446744073709551104 }
        runs = [
            { at = 100, fill = { byte = 0xa5, len = 100000 } },
            { at = 200, text = \"name\" },
            { at = 300, u64 = [0xffff_ffff_ffff_ffff, 1] },
            { at = 327676, u32 = [7] },
        ]
        files = [{ name = \"base\", len = 10 }, { name = \"over\", len = 80, header = {} }]",
        1,
    );
    let folder = Folder::new();
    std::fs::write(folder.file("a.toml"), text).unwrap();
    let vectors = load(folder.path(), &Clauses::of_specification()).unwrap();
    assert_eq!(vectors[0].expect.to_write(), Some(&Opening::Accept));
    assert!(matches!(vectors[0].header, Header::Fields(_)));

    let image = std::fs::read(lay(&vectors[0], folder.path()).unwrap()).unwrap();
    assert_eq!(image.len(), 327_680);
    assert_eq!(image[..16], *b"QED\0\0\0\x01\0\x04\0\0\0\x01\0\0\0");
    assert_eq!(image[32..40], (1_u64 << 63).to_le_bytes());
    assert_eq!(image[48..56], 18_446_744_073_709_551_104_u64.to_le_bytes());
    assert_eq!(image[99..101], [0, 0xa5]);
    assert_eq!(image[199..205], *b"\xa5name\xa5");
    assert_eq!(image[300..316], [u64::MAX.to_le_bytes(), 1_u64.to_le_bytes()].concat());
    assert_eq!(image[100_099..100_101], [0xa5, 0]);
    assert_eq!(image[327_676..], 7_u32.to_le_bytes());
    assert_eq!(std::fs::read(folder.file("base")).unwrap(), [0; 10]);
    assert_eq!(std::fs::read(folder.file("over")).unwrap()[..4], *b"QED\0");
}
