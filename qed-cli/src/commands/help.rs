//! `help`: the help of a subcommand, and the man pages.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::app::{self, Context};
use crate::failure::{Exit, shown};

/// Print this program's help or that of a subcommand, or write the man pages.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct HelpArgs {
    /// Write the man pages into this folder: one for the program and one for each subcommand
    #[arg(long, value_name = "FOLDER")]
    man: Option<PathBuf>,
    /// The subcommand
    #[arg(value_name = "SUBCOMMAND")]
    subcommand: Option<OsString>,
}

const NOTES: &str = "\
Where man looks for pages, `manpath` says. Those of a program in ~/.cargo/bin are found in
~/.cargo/share/man/man1.

Examples:
  qed help
  qed help convert
  qed help --man /usr/local/share/man/man1

Exit codes:
  0  the help was printed, or the man pages were written
  1  any error";

pub(crate) fn run(args: &HelpArgs, context: &Context) -> anyhow::Result<Exit> {
    if let Some(folder) = &args.man {
        write_man_pages(folder)?;
        return Ok(Exit::SUCCESS);
    }
    let mut command = app::command(context.console.program());
    command.build();
    let help = match &args.subcommand {
        None => command.render_long_help(),
        Some(name) => {
            let name = name.to_str().unwrap_or_default();
            match command.find_subcommand_mut(name) {
                Some(subcommand) => subcommand.render_long_help(),
                None => bail!(
                    "Command not found: {}",
                    shown(args.subcommand.as_deref().unwrap_or_default())
                ),
            }
        }
    };
    context.console.print(help.to_string())?;
    Ok(Exit::SUCCESS)
}

/// Pages are about the program as it is installed, whatever name it was called by.
fn write_man_pages(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("Could not create '{}'", shown(folder)))?;
    let mut command = app::command(env!("CARGO_BIN_NAME"));
    command.build();
    let subcommands = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    let mut pages = vec![command.clone()];
    pages.extend(subcommands.map(|sub| {
        let name = format!("{}-{}", env!("CARGO_BIN_NAME"), sub.get_name());
        sub.clone().name(name)
    }));
    for page in pages {
        let path = folder.join(format!("{}.1", page.get_name()));
        man_page(page)
            .and_then(|text| fs::write(&path, text))
            .with_context(|| format!("Could not write '{}'", shown(&path)))?;
    }
    Ok(())
}

/// One page; the paragraphs of the notes become sections of their own.
fn man_page(command: clap::Command) -> std::io::Result<Vec<u8>> {
    let notes = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let mut text = Vec::new();
    clap_mangen::Man::new(command.after_long_help(None::<&str>)).render(&mut text)?;
    for paragraph in notes.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        let (heading, body) = match paragraph.split_once('\n') {
            Some(("Examples:", body)) => ("EXAMPLES", body),
            Some(("Exit codes:", body)) => ("EXIT STATUS", body),
            _ => ("NOTES", paragraph),
        };
        let body = body.replace('\\', "\\(rs").replace('-', "\\-");
        let (begin, end) = if heading == "NOTES" { ("", "") } else { (".nf\n", ".fi\n") };
        text.extend_from_slice(format!(".SH \"{heading}\"\n{begin}{body}\n{end}").as_bytes());
    }
    Ok(text)
}
