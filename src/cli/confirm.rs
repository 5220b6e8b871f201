//! Asking before something is destroyed.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use clap::Args;

use super::failure::{Failure, REFUSED};

/// Whether the answer is yes already.
#[derive(Clone, Copy, Debug, Args)]
pub struct Confirm {
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

impl Confirm {
    /// # Errors
    /// The person said no; nobody can be asked.
    pub fn ask(self, question: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Err(Failure::new(2, format!("{question}\nThere is no terminal to ask at; say --yes if so.")));
        }
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "{question} [y/N] ");
        let _ = stderr.flush();
        let mut answer = String::new();
        let _ = stdin.lock().read_line(&mut answer);
        if matches!(answer.trim(), "y" | "Y" | "yes") {
            Ok(())
        } else {
            Err(Failure::new(REFUSED, "Nothing was done."))
        }
    }
}
