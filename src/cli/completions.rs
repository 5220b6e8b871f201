//! `natterjack completions`: what a shell needs to complete our commands.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::flags::CommandLine;

/// Print the completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  natterjack completions bash > ~/.local/share/bash-completion/completions/natterjack
  natterjack completions zsh > ~/.zfunc/_natterjack
  natterjack completions fish > ~/.config/fish/completions/natterjack.fish")]
pub struct CompletionsCommand {
    shell: Shell,
}

impl CompletionsCommand {
    pub fn print(&self) {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut CommandLine::command(), "natterjack", &mut script);
        super::output::say(String::from_utf8_lossy(&script).trim_end());
    }
}
