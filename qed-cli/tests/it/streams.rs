//! Standard input and standard output as images, and `bench`.

use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;

use crate::lab::{Lab, Ran};

fn disk() -> Vec<u8> {
    let mut disk = vec![0; 300_000];
    disk[1000..70_000].fill(7);
    disk[299_999] = 9;
    disk
}

#[test]
fn a_pipe_becomes_an_image_and_an_image_a_pipe() {
    let lab = Lab::new();
    let mut command = lab.command(["convert", "-f", "raw", "-O", "qed", "-", "a.qed"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the program starts");
    child.stdin.take().expect("piped").write_all(&disk()).expect("written");
    assert!(child.wait().expect("ended").success());

    let args = ["convert", "-f", "qed", "-O", "raw", "a.qed", "-"];
    let output = lab.command(args).stdin(Stdio::null()).output().expect("the program starts");
    assert!(output.status.success());
    let mut expected = disk();
    expected.resize(expected.len().next_multiple_of(512), 0);
    assert_eq!(output.stdout, expected);
}

#[test]
fn a_file_on_standard_input_is_read_too() {
    let lab = Lab::new();
    fs::write(lab.path("disk.raw"), disk()).expect("written");
    let mut command = lab.command(["convert", "-f", "raw", "-O", "raw", "-", "copy.raw"]);
    let file = File::open(lab.path("disk.raw")).expect("the disk");
    Ran::of(command.stdin(file)).succeeded();
    assert_eq!(fs::read(lab.path("copy.raw")).expect("the copy")[..300_000], disk()[..]);
}

#[test]
fn only_raw_data_goes_through_pipes() {
    let lab = Lab::new();
    lab.shell("qemu-img create -q -f qed a.qed 1M");
    for args in ["convert -f qed -O raw - x", "convert -f qed -O qed a.qed -"] {
        let ran = lab.qed(args.split(' '));
        assert_eq!(ran.code, Some(1), "{args}");
        assert!(!ran.stderr.is_empty() && ran.stdout.is_empty(), "{args}");
    }
}

#[test]
fn bench_serves_all_requests_and_says_how_long_it_took() {
    let lab = Lab::new();
    lab.shell("qemu-img create -q -f qed a.qed 1M && truncate -s 1M a.raw");
    let calls = [
        "bench -c 100 -d 4 -f qed a.qed",
        "bench -c 20 -d 2 -s 64k -S 64k -w --pattern 7 --flush-interval 4 -f qed a.qed",
        "bench -c 20 -d 2 -w --flush-interval 4 --no-drain -f raw a.raw",
        "bench -c 3 -o 512k -f raw a.raw",
    ];
    for call in calls {
        let text = lab.qed(call.split(' ')).succeeded().stdout;
        assert!(text.starts_with("Sending "), "{call}: {text}");
        assert!(text.contains("\nRun completed in ") && text.ends_with(" seconds.\n"), "{text}");
    }
    lab.shell("qemu-io -f qed -c 'read -P 7 0 1M' a.qed | grep -q -v verification");
    lab.shell("qemu-img check -q -f qed a.qed");
}

#[test]
fn bench_writes_every_request_whatever_the_engine_the_cache_and_the_order() {
    let lab = Lab::new();
    let requests = "bench -w -c 64 -d 8 -s 4k -S 64k --pattern 7 --flush-interval 9";
    for engine in ["threads", "io_uring"] {
        for cache in ["none", "writeback"] {
            for order in ["", " --random", " --no-drain"] {
                lab.shell(
                    "rm -f a.* && truncate -s 4M a.raw && qemu-img create -q -f qcow2 a.qcow2 4M
                     head -c 4M /dev/zero | tr '\\0' '\\3' > base.raw
                     qemu-img create -q -f qed -b base.raw -F raw a.qed",
                );
                for format in ["qed", "raw"] {
                    let call =
                        format!("{requests} -i {engine} -t {cache}{order} -f {format} a.{format}");
                    lab.qed(call.split(' ')).succeeded();
                }
                lab.shell(
                    "qemu-img check -q -f qed a.qed
                     for at in $(seq 0 64 4032); do echo \"read -P 7 ${at}k 4k\"; \
                       echo \"read -P 3 $((at + 4))k 60k\"; done > reads
                     qemu-io -f qed a.qed < reads > out; ! grep -q failed out
                     sed -i 's/-P 3/-P 0/' reads; qemu-io -f raw a.raw < reads > out; ! grep -q failed out",
                );
                for format in ["qed", "raw", "qcow2"] {
                    let call = format!(
                        "bench -c 64 -d 8 -S 64k -i {engine} -t {cache} -f {format} a.{format}"
                    );
                    lab.qed(call.split(' ')).succeeded();
                }
            }
        }
    }
    let far = lab.qed("bench -i io_uring -c 2 -o 1G -f raw a.raw".split(' '));
    assert_eq!(far.code, Some(1));
    assert!(far.stderr.ends_with("Failed request: Input/output error\n"), "{}", far.stderr);
}
