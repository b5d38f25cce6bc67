//! `amend`: another layout for an image, with or without a journal.

use std::ffi::{OsStr, OsString};

use anyhow::{Context as _, bail};
use clap::Args;
use qed_core::{Consistency, DEFAULT_RING_LEN_BYTES, Layout, LockPolicy, amend};
use qed_spec::ConsistencyMode;

use crate::app::Context;
use crate::args::{CacheMode, Format, OptionList, OptionValues, parse_target, refuse_qcow2};
use crate::failure::{Exit, shown, unsupported, usage};
use crate::image_name::ImageArgs;
use crate::new_image::{
    AMEND_OPTIONS, JournalOption, LayoutOptions, print_amend_options, random_identity,
};
use crate::open::{OpenHow, open_image, storage_of};
use crate::work::{Work, WorkArgs};

/// Change options of the format of an image.
///
/// The content of the virtual disk stays. An image that QEMU made gets what it needs to be checked
/// quickly after a crash, or a journal; clusters that are in the way are moved. What is interrupted
/// leaves an image that works, and another call finishes.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct AmendArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// Options to change, separated by commas; 'help' lists them
    #[arg(short, long, value_name = "OPTIONS")]
    options: Vec<OsString>,
    /// Cache mode of the image
    #[arg(short = 't', long, value_name = "CACHE")]
    cache: Option<OsString>,
    #[command(flatten)]
    work: WorkArgs,
    #[arg(long, hide = true)]
    force: bool,
}

const NOTES: &str = "\
journal=on keeps a journal that is there, or makes one of 1 MiB; a size makes one of that size.
journal=off keeps marks of single tables instead. classic=off gives an image of QEMU's layout such
marks. classic=on takes both away: the image is as QEMU would have made it, but for the size of
its header.

Examples:
  qed amend -f qed -o journal=on disk.qed
  qed amend -f qed -o journal=16M disk.qed
  qed amend -f qed -o classic=on disk.qed

Exit codes:
  0  the image has these options
  1  any error";

pub(crate) fn run(args: AmendArgs, context: &Context) -> anyhow::Result<Exit> {
    args.image.named.refused.check()?;
    if args.force {
        return Err(unsupported("the option '--force'"));
    }
    if args.options.is_empty() {
        return Err(usage("Must specify options (-o)"));
    }
    let list = OptionList::parse(&args.options)?;
    if let Some(format) = args.image.format.as_deref().filter(|_| list.asks_for_help()) {
        refuse_other_formats(parse_target(format)?)?;
        print_amend_options(&context.console)?;
        return Ok(Exit::SUCCESS);
    }
    let [name] = args.image.operands.as_slice() else { bail!("Expecting one image file name") };
    let cache = CacheMode::parse(args.cache.as_deref(), "Invalid cache option")?;
    let named = args.image.named()?;
    let image = open_image(&named, OpenHow { cache, ..OpenHow::WRITE })?;
    refuse_other_formats(image.format())?;
    let options = list.values(AMEND_OPTIONS)?;
    crate::pending::take_over(&image).with_context(|| could_not_amend(name))?;
    let storage = storage_of(&image);
    let consistency = Consistency::read(&*storage).with_context(|| could_not_amend(name))?;
    let layout = wanted(&options, consistency.mode())?;
    let work = Work::start_writing(context, args.work)?;
    let amended = match layout {
        Some(layout) => amend(&storage, layout, LockPolicy::None, qed::RECOVER),
        None => Ok(()),
    };
    work.finish(amended).with_context(|| could_not_amend(name))?;
    Ok(Exit::SUCCESS)
}

fn could_not_amend(name: &OsStr) -> String {
    format!("Could not amend '{}'", shown(name))
}

fn refuse_other_formats(format: Format) -> anyhow::Result<()> {
    refuse_qcow2(format, "amending")?;
    if format != Format::Qed {
        bail!("Format driver '{}' does not support option amendment", format.name());
    }
    Ok(())
}

/// The layout that the options ask of an image in `mode`; none if it has what they ask for.
fn wanted(options: &OptionValues, mode: Option<ConsistencyMode>) -> anyhow::Result<Option<Layout>> {
    let LayoutOptions { classic, journal } = LayoutOptions::of(options)?;
    let has_journal = mode == Some(ConsistencyMode::Journal);
    let identity = random_identity()?;
    Ok(match (classic, journal) {
        (Some(true), _) => Some(Layout::Classic),
        (_, Some(JournalOption::On { len: None })) if has_journal => None,
        (_, Some(JournalOption::On { len })) => {
            let ring_len_bytes = len.unwrap_or(DEFAULT_RING_LEN_BYTES);
            Some(Layout::Journal { identity, ring_len_bytes })
        }
        (_, Some(JournalOption::Off)) if has_journal => Some(Layout::Compat(identity)),
        (Some(false), _) if mode.is_none() => Some(Layout::Compat(identity)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_ask_for_a_layout_only_where_it_is_another() {
        use ConsistencyMode::{Compat, Journal};
        let cases: &[(&str, Option<ConsistencyMode>, &str)] = &[
            ("journal=on", None, "journal 1048576"),
            ("journal=on", Some(Compat), "journal 1048576"),
            ("journal=on", Some(Journal), "none"),
            ("journal", Some(Compat), "journal 1048576"),
            ("journal=64k", Some(Journal), "journal 65536"),
            ("journal=off", None, "none"),
            ("journal=off", Some(Compat), "none"),
            ("nojournal", Some(Journal), "compat"),
            ("classic=off", None, "compat"),
            ("classic=off", Some(Journal), "none"),
            ("classic=off,journal=off", None, "compat"),
            ("classic=off,journal=off", Some(Journal), "compat"),
            ("classic=off,journal=on", None, "journal 1048576"),
            ("classic=on", Some(Journal), "classic"),
            ("classic,journal=off", Some(Compat), "classic"),
        ];
        for (list, mode, layout) in cases {
            let list = OptionList::parse(&[list.into()]).and_then(|it| it.values(AMEND_OPTIONS));
            let found = match wanted(&list.expect("a list"), *mode).expect("options") {
                None => "none".to_owned(),
                Some(Layout::Classic) => "classic".to_owned(),
                Some(Layout::Compat(_)) => "compat".to_owned(),
                Some(Layout::Journal { ring_len_bytes, .. }) => format!("journal {ring_len_bytes}"),
            };
            assert_eq!(found, *layout, "{mode:?}");
        }
    }
}
