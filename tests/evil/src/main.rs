//! `evil-mcp stdio …`, `evil-mcp http --listen ADDRESS …`: a server with the faults that it is told.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a program for tests and people"
)]

use std::process::ExitCode;

use evil_mcp::{Character, Fault, Outcome, fault::Condition, http, process, stdio};

/// What the shell calls a wrong command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("evil-mcp: {problem}");
            ExitCode::from(USAGE)
        }
    }
}

fn run(arguments: &[String]) -> Outcome<ExitCode> {
    let (command, words) = arguments.split_first().map_or(("", &[][..]), |(one, rest)| (one, rest));
    match command {
        "stdio" => stdio::run(character(words)?),
        "http" => match words {
            [flag, address, words @ ..] if flag == "--listen" => {
                http::run(address, character(words)?)
            }
            words => http::run("127.0.0.1:0", character(words)?),
        },
        "linger" => process::lingering(words),
        "--help" => {
            println!(
                "evil-mcp stdio|http [--listen ADDRESS] [FAULT[=VALUE]…] [CONDITION[=VALUE]…]"
            );
            for (word, meaning) in Fault::MANUAL.iter().chain(Condition::MANUAL) {
                println!("  {word:22}{meaning}");
            }
            Ok(ExitCode::SUCCESS)
        }
        other => Err(format!("{other:?} is none of stdio, http, --help").into()),
    }
}

fn character(words: &[String]) -> Result<Character, String> {
    Character::read(words.iter().map(String::as_str))
}
