//! The forms of a report.

use conformance::{
    Clauses, Difference, Field, Library, Report, Verdict, read_reports, to_json, to_markdown,
    to_table,
};

use super::{TWO, qemu_img, run_on, vectors_of};
use crate::support::Folder;

/// A report in which the size of one disk is not what the vector says.
fn failing() -> Report {
    let text = TWO.replace("size = 1048576\n    cluster", "size = 1049088\n    cluster");
    let text = text.replace("len = 917504", "len = 918016");
    run_on(&Library, &vectors_of(&text))
}

fn size_differs() -> Difference {
    Difference { field: Field::Size, expected: "1049088".into(), found: "1048576".into() }
}

#[test]
fn a_failure_stands_in_every_form_with_vector_field_expected_and_found() {
    let report = failing();
    let sound = report.vectors.iter().find(|result| result.name == "sound").unwrap();
    assert_eq!(sound.outcome, Verdict::Failed);
    assert!(sound.failed.contains(&size_differs()), "{:?}", sound.failed);

    let table = to_table(&report, &Clauses::of_specification());
    assert!(table.contains("QED-RW-01    must        0      1"), "{table}");
    assert!(table.contains("FAILED sound (QED-HDR-01, QED-RW-01)\n"), "{table}");
    assert!(table.contains("  size\n    expected 1049088\n    found    1048576\n"), "{table}");

    let markdown = to_markdown(&report);
    assert!(markdown.contains("| `sound` | size | 1049088 | 1048576 |"), "{markdown}");
}

#[test]
fn json_is_read_as_it_was_written() {
    let folder = Folder::new();
    let reports = [failing(), run_on(&Library, &vectors_of(TWO))];
    std::fs::write(folder.file("report.json"), to_json(&reports)).unwrap();
    assert_eq!(read_reports(&folder.file("report.json")).unwrap(), reports);
    std::fs::write(folder.file("report.json"), "{}").unwrap();
    assert!(read_reports(&folder.file("report.json")).is_err());
}

#[test]
fn a_failure_that_is_known_is_none_and_one_that_is_gone_is_told() {
    let clauses = Clauses::of_specification();
    let before = failing();
    let mut again = failing();
    assert_eq!(again.accept(&before, &clauses), []);
    assert_eq!((again.failures(), again.counts().known), (0, 1));

    let mut mended = run_on(&Library, &vectors_of(TWO));
    let gone = mended.accept(&before, &clauses);
    assert!(gone.contains(&("sound".to_owned(), Field::Size)), "{gone:?}");

    let mut other = failing();
    let size = other.vectors.iter_mut().find(|result| result.name == "sound").unwrap();
    size.failed.iter_mut().for_each(|it| it.found = "0".to_owned());
    other.accept(&before, &clauses);
    assert_eq!(other.failures(), 1, "it fails in another way than before");
}

#[test]
fn a_difference_of_qemu_is_explained_for_qemu_alone() {
    let qemu = "\n[vector.qemu]\nversion = \"10.0.2\"\nwhy = \"not so\"\nopen = \"accept\"\ncheck = \"clean\"\n";
    let vectors = vectors_of(&format!("{TWO}{qemu}"));
    let report = run_on(&Library, &vectors);
    assert_eq!(report.failures(), 0);

    let report = run_on(&qemu_img(), &vectors);
    let refused = report.vectors.iter().find(|result| result.name == "refused").unwrap();
    assert_eq!(refused.outcome, Verdict::Failed, "an explanation that is not true");
    assert!(refused.differs.is_empty() && refused.why.is_none());
}
