//! `dislog completion`: scripts that let a shell complete commands and arguments.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::output::{Outcome, Output};

const EXAMPLES: &str = "\
Examples:
  source <(dislog completion bash)
  dislog completion zsh > ~/.zfunc/_dislog
  dislog completion fish > ~/.config/fish/completions/dislog.fish";

/// Arguments of `dislog completion`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionArgs {
    /// For which shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionArgs, output: &mut Output) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "dislog", &mut script);
    output.bytes(&script)
}
