//! Help, version, completions and man pages.

use std::fs;

use crate::lab::{Lab, Ran};

const SUBCOMMANDS: &[&str] = &[
    "amend",
    "bench",
    "check",
    "commit",
    "compare",
    "completions",
    "convert",
    "create",
    "dd",
    "dump",
    "help",
    "info",
    "map",
    "measure",
    "rebase",
    "resize",
    "serve",
];

#[test]
fn each_subcommand_has_help_with_examples_and_exit_codes() {
    let lab = Lab::new();
    let overview = lab.qed(["help"]).succeeded().stdout;
    for name in SUBCOMMANDS {
        let help = lab.qed(["help", name]).succeeded().stdout;
        assert!(overview.contains(&format!("\n  {name} ")), "{name} is not in the overview");
        assert!(help.contains("Examples:\n  ") && help.contains("Exit codes:\n  0"), "{name}");
        let option = lab.qed([*name, "--help"]).succeeded().stdout;
        assert_eq!(option, help, "{name} --help");
    }
    assert_eq!(lab.qed(["help", "nope"]).code, Some(1));
}

#[test]
fn version_names_commit_and_features() {
    let text = Lab::new().qed(["--version"]).succeeded().stdout;
    assert!(text.starts_with(concat!("qed ", env!("CARGO_PKG_VERSION"))), "{text}");
    assert!(text.contains("\nfeatures: "), "{text}");
}

#[test]
fn callers_of_qemu_img_read_its_version_first() {
    let lab = Lab::new();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_qed"), lab.path("qemu-img")).expect("a link");
    for option in ["--version", "-V", "--help"] {
        let text = Ran::of(std::process::Command::new(lab.path("qemu-img")).arg(option));
        let text = text.succeeded().stdout;
        assert!(text.starts_with("qemu-img version 10.0.2\n"), "{option}: {text}");
        let behind = if option == "--help" { "\nSupported formats: " } else { "\nqed " };
        assert!(text.contains(behind), "{option}: {text}");
    }
}

#[test]
fn help_tells_how_to_get_the_man_pages() {
    let lab = Lab::new();
    for call in [["help", "--help"], ["help", "help"]] {
        let text = lab.qed(call).succeeded().stdout;
        assert!(text.contains("--man <FOLDER>") && text.contains("man pages"), "{text}");
    }
    // A folder that is not there yet is made.
    lab.qed(["help", "--man", "share/man/man1"]).succeeded();
    assert!(lab.path("share/man/man1/qed-convert.1").exists());
    let ran = lab.qed(["help", "--man", "share/man/man1/qed.1/below"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("Not a directory"), "{}", ran.stderr);
}

#[test]
fn man_pages_format_without_a_warning() {
    let lab = Lab::new();
    fs::create_dir(lab.path("man")).expect("a folder");
    lab.qed(["help", "--man", "man"]).succeeded();
    let mut names: Vec<String> = SUBCOMMANDS.iter().map(|name| format!("qed-{name}.1")).collect();
    names.push("qed.1".to_owned());
    for name in names {
        let page = fs::read_to_string(lab.path("man").join(&name)).expect("a page");
        let is_subcommand = name != "qed.1";
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "EXIT STATUS"] {
            let there = page.contains(&format!(".SH {section}"))
                || page.contains(&format!(".SH \"{section}\""));
            assert!(there || !is_subcommand, "{name}: no {section}");
        }
        assert!(page.is_ascii() || name == "qed.1", "{name}: not plain text");
    }
}

#[test]
fn completions_are_accepted_by_bash() {
    let lab = Lab::new();
    let script = lab.qed(["completions", "bash"]).succeeded().stdout;
    fs::write(lab.path("script"), script).expect("written");
    let mut bash = std::process::Command::new("bash");
    let ran = Ran::of(bash.arg("-n").arg(lab.path("script")));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(lab.qed(["completions", shell]).succeeded().stdout.contains("convert"), "{shell}");
    }
    assert_eq!(lab.qed(["completions", "nope"]).code, Some(1));
}
