use std::process::ExitCode;

fn main() -> ExitCode {
    natterjack::cli::main(std::env::args_os())
}
