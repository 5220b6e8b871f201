//! `natterjack passwd`: a password's bcrypt hash, for the config file.

use std::io::{BufRead as _, IsTerminal as _};

use bcrypt::Version;
use clap::Args;

use super::failure::{Failure, REFUSED};
use super::output::{remark, say};
use crate::auth::HASHED_BYTES_MAX;
use crate::types::id;

/// Hash a password for the config file
///
/// The hash takes the place of the password: `users: [{ user: ada, password: "$2a$11$..." }]`, or of a token. Whoever
/// reads the file then knows no password. Without a terminal the password is the first line of standard input.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  natterjack passwd
  natterjack passwd --generate
  printf '%s\\n' \"$PASSWORD\" | natterjack passwd > hash.txt")]
pub struct PasswdCommand {
    /// Make up a password, and print it on standard error.
    #[arg(short, long)]
    generate: bool,

    /// How much work a guess is: one more takes twice as long, for each log-in too.
    #[arg(short, long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u32).range(4..=20))]
    cost: u32,
}

impl PasswdCommand {
    /// # Errors
    /// There is no password, it is longer than bcrypt reads, or it is not typed twice alike.
    pub async fn run(self) -> Result<(), Failure> {
        let password = if self.generate {
            let made_up = id::unique();
            remark(&format!("Password: {made_up}"));
            made_up
        } else {
            ask()?
        };
        check(&password)?;
        let hashed = bcrypt::hash_with_result(&password, self.cost)
            .map_err(|error| Failure::new(REFUSED, format!("The password cannot be hashed: {error}.")))?;
        say(&hashed.format_for_version(Version::TwoA));
        Ok(())
    }
}

/// From a terminal, which shows nothing of it, twice; else the first line.
fn ask() -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| Failure::new(REFUSED, format!("The password cannot be read: {error}."));
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let password = rpassword::prompt_password("Password: ").map_err(unreadable)?;
        check(&password)?;
        let again = rpassword::prompt_password("Once more: ").map_err(unreadable)?;
        return match again == password {
            true => Ok(password),
            false => Err(Failure::new(REFUSED, "The two are not alike; nothing was hashed.")),
        };
    }
    let mut line = String::new();
    stdin.lock().read_line(&mut line).map_err(unreadable)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn check(password: &str) -> Result<(), Failure> {
    let refuse = |why: String| Err(Failure::new(2, why));
    match password.len() {
        0 => refuse("There is no password: type one, give one on standard input, or say --generate.".to_owned()),
        length if length > HASHED_BYTES_MAX => refuse(format!(
            "The password has {length} bytes, of which bcrypt reads {HASHED_BYTES_MAX}: the rest would count for nothing."
        )),
        _ => Ok(()),
    }
}
