//! Real clients in their own languages: each is prepared once under the target folder, whichever test needs it first.
//!
//! A machine without a toolchain runs the rest. What did not run is said past the test harness's capture, and on CI
//! (`CI=true`) it is a failure.

use super::{lock, target_dir};
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Writes a line to the terminal even where the test harness captures output.
pub fn announce(text: &str) {
    // Nobody to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The prepared tool, or `None` after saying loudly that `test` does not run.
///
/// # Panics
/// With `CI=true`, when it cannot be prepared.
pub fn or_skip<T>(test: &str, prepared: Result<T, String>) -> Option<T> {
    match prepared {
        Ok(tool) => Some(tool),
        Err(reason) if std::env::var("CI").is_ok_and(|value| value == "true") => panic!("{test} cannot run: {reason}"),
        Err(reason) => {
            announce(&format!("\n!!!! NOT RUN: {test}\n!!!! {reason}\n"));
            None
        }
    }
}

/// The tests' folder of client projects.
pub fn clients_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("clients")
}

/// The folder of the examples, of which those in other languages are projects of their own.
pub fn examples_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn toolchains_dir() -> PathBuf {
    target_dir().join("toolchains")
}

/// A Python interpreter with nats-py of `version` (`latest` for the newest that the registry has).
pub fn python(version: &str) -> Result<PathBuf, String> {
    let venv = toolchains_dir().join(format!("python-nats-py-{version}"));
    let package = if version == "latest" { "nats-py".into() } else { format!("nats-py=={version}") };
    lock::once(&venv, &package, || {
        announce(&format!("setting up Python with {package} ..."));
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", &package]))
    })?;
    Ok(venv.join("bin/python"))
}

/// A folder with the packages of `tests/clients/node/<name>` installed, its own modules and those all projects share.
pub fn node(name: &str) -> Result<PathBuf, String> {
    let shared = clients_dir().join("node");
    let (project, copy) = (shared.join(name), toolchains_dir().join("node").join(name));
    let manifest = read(&project.join("package.json"))?;
    lock::once(&copy, &manifest, || {
        announce(&format!("installing the packages of {name} ..."));
        write(&copy.join("package.json"), &manifest)?;
        run(Command::new("npm").args(["install", "--no-audit", "--no-fund", "--no-package-lock"]).current_dir(&copy))
    })?;
    // Modules are found beside the script that imports them, so scripts are copied to where the packages are.
    for folder in [&shared, &project] {
        for entry in std::fs::read_dir(folder).map_err(|e| e.to_string())?.flatten() {
            if entry.path().extension() == Some(OsStr::new("mjs")) {
                let script = read(&entry.path())?;
                write(&copy.join(entry.file_name()), &script)?;
            }
        }
    }
    Ok(copy)
}

/// The folder of the TypeScript project `examples/typescript`, compiled: checked by tsc, run by any Node.
pub fn typescript_example() -> Result<PathBuf, String> {
    let (project, copy) = (examples_dir().join("typescript"), toolchains_dir().join("example-typescript"));
    let files = ["package.json", "tsconfig.json", "agent.ts", "dispatcher.ts"];
    let texts: Vec<String> = files.iter().map(|file| read(&project.join(file))).collect::<Result<_, _>>()?;
    let (modules, compiled) = (copy.join("node_modules"), copy.join("node_modules").join("compiled"));
    lock::once(&modules, &texts[0], || {
        announce("installing the packages of the TypeScript example ...");
        write(&copy.join("package.json"), &texts[0])?;
        run(Command::new("npm").args(["install", "--no-audit", "--no-fund", "--no-package-lock"]).current_dir(&copy))
    })?;
    lock::once(&compiled, &texts.concat(), || {
        files.iter().zip(&texts).try_for_each(|(file, text)| write(&copy.join(file), text))?;
        run(Command::new("node").arg(modules.join("typescript/bin/tsc")).current_dir(&copy))
    })?;
    Ok(copy)
}

/// Headless Chromium: the machine's own, or Debian's, unpacked below the target folder, which takes no root.
pub fn chromium() -> Result<Command, String> {
    const PACKAGE: &str = "chromium-headless-shell";
    for program in [PACKAGE, "chromium", "google-chrome"] {
        if run(Command::new(program).arg("--version")).is_ok() {
            return Ok(Command::new(program));
        }
    }
    let folder = toolchains_dir().join("chromium");
    let root = folder.join("root");
    lock::once(&folder, PACKAGE, || {
        announce("fetching Chromium from Debian's packages ...");
        // Lists and packages of our own: those of the machine stay as they are, and may be of last year or absent.
        let (lists, cache) = (folder.join("lists"), folder.join("cache"));
        for path in [&lists, &cache, &root] {
            std::fs::create_dir_all(path.join("partial")).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        let apt_get = || {
            let mut command = Command::new("apt-get");
            command.args(["-qq", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"]);
            command.args(["-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20"]);
            command.arg("-o").arg(format!("Dir::State::Lists={}", lists.display()));
            command.arg("-o").arg(format!("Dir::Cache={}", cache.display()));
            command.arg("-o").arg(format!("Dir::Cache::Archives={}", cache.display()));
            command
        };
        run(apt_get().arg("update"))?;
        run(apt_get().args(["install", "--download-only", "--yes", "--no-install-recommends", PACKAGE]))?;
        for entry in std::fs::read_dir(&cache).map_err(|e| e.to_string())?.flatten() {
            if entry.path().extension() == Some(OsStr::new("deb")) {
                run(Command::new("dpkg-deb").arg("--extract").arg(entry.path()).arg(&root))?;
            }
        }
        [lists, cache].iter().try_for_each(std::fs::remove_dir_all).map_err(|e| e.to_string())
    })?;
    let libraries = format!("{}/usr/lib/{}-linux-gnu", root.display(), std::env::consts::ARCH);
    let mut command = Command::new(root.join("usr/lib/chromium").join(PACKAGE));
    command.env("LD_LIBRARY_PATH", format!("{libraries}:{libraries}/pulseaudio"));
    Ok(command)
}

/// The program built from the Go module `tests/clients/<name>`.
pub fn go(name: &str) -> Result<PathBuf, String> {
    go_build(&clients_dir().join(name), ".", &toolchains_dir().join(name).join("program"))
}

/// The program `agent` or `dispatcher` of the Go module `examples/go`.
pub fn go_example(name: &str) -> Result<PathBuf, String> {
    let program = toolchains_dir().join("example-go").join(name).join("program");
    go_build(&examples_dir().join("go"), &format!("./{name}"), &program)
}

/// The example `name` of this package.
pub fn cargo_example(name: &str) -> Result<PathBuf, String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--example", name]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    // What Cargo tells of this package would have build scripts run again.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_", "CARGO_CRATE_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    // Where this very test was built.
    let test = std::env::current_exe().map_err(|e| e.to_string())?;
    let profile = test.parent().and_then(Path::parent).ok_or("a test lies in a folder of its profile")?;
    run(command.arg("--target-dir").arg(target_dir()))?;
    Ok(profile.join("examples").join(name))
}

/// The program built from the package `package` of the Go module `tests/clients/<name>`.
pub fn go_package(name: &str, package: &str) -> Result<PathBuf, String> {
    let program = toolchains_dir().join(format!("{name}-{package}")).join("program");
    go_build(&clients_dir().join(name), &format!("./{package}"), &program)
}

/// The `nats` command at the release that `tests/tools/go.mod` pins.
pub fn nats_cli() -> Result<PathBuf, String> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("tools");
    go_build(&module, "github.com/nats-io/natscli/nats", &toolchains_dir().join("nats-cli").join("nats"))
}

fn go_build(module: &Path, package: &str, program: &Path) -> Result<PathBuf, String> {
    let folder = program.parent().expect("a program lies in a folder");
    let _lock = lock::DirLock::take(folder).map_err(|e| e.to_string())?;
    if !program.exists() {
        announce(&format!("building {package} of {} with Go, which takes a while ...", module.display()));
    }
    run(Command::new("go").args(["build", "-buildvcs=false", "-o"]).arg(program).arg(package).current_dir(module))?;
    Ok(program.into())
}

/// The program built from the Cargo project `tests/clients/<name>`, which is no member of this package.
pub fn cargo(name: &str) -> Result<PathBuf, String> {
    let target = target_dir().join("clients");
    let _lock = lock::DirLock::take(&target).map_err(|e| e.to_string())?;
    let manifest = clients_dir().join(name).join("Cargo.toml");
    // Package names have no dots.
    let program = target.join("debug").join(name.replace('.', "_"));
    if !program.exists() {
        announce(&format!("building {name}, which takes a while ..."));
    }
    run(Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(target)
        .env_remove("CARGO_TARGET_DIR"))?;
    Ok(program)
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{program} cannot be run: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{command:?} failed, {}\n{out}{err}", output.status))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
