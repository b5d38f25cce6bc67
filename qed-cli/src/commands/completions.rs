//! `completions`: scripts that complete the program's command lines in a shell.

use clap::Args;
use clap_complete::Shell;

use crate::app::{self, Context};
use crate::failure::Exit;

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

const NOTES: &str = "\
Examples:
  qed completions bash > /etc/bash_completion.d/qed
  qed completions fish > ~/.config/fish/completions/qed.fish

Exit codes:
  0  the script was printed
  1  any error";

pub(crate) fn run(args: &CompletionsArgs, context: &Context) -> anyhow::Result<Exit> {
    let program = context.console.program();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut app::command(program), program, &mut script);
    context.console.print(script)?;
    Ok(Exit::SUCCESS)
}
