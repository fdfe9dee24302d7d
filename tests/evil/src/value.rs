//! Values of faults as they are written on a command line: `50ms`, `16MiB`, `200MB/s`, `SIGKILL`.

use std::{path::PathBuf, time::Duration};

use rustix::process::Signal;

/// What can stand behind the `=` of a fault.
pub trait Value: Sized {
    /// Reads it, or says what is wrong with it.
    fn read(text: &str) -> Result<Self, String>;
    /// Writes it so that it can be read again.
    fn write(&self) -> String;
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// How much of something there is in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(u8),
    Signal(Signal),
}

const SIGNALS: &[(&str, Signal)] = &[
    ("SIGKILL", Signal::KILL),
    ("SIGTERM", Signal::TERM),
    ("SIGSEGV", Signal::SEGV),
    ("SIGABRT", Signal::ABORT),
    ("SIGINT", Signal::INT),
    ("SIGHUP", Signal::HUP),
    ("SIGSTOP", Signal::STOP),
];

impl Value for Exit {
    fn read(text: &str) -> Result<Exit, String> {
        if let Some((_, signal)) = SIGNALS.iter().find(|(name, _)| *name == text) {
            return Ok(Exit::Signal(*signal));
        }
        text.parse().map(Exit::Code).map_err(|_| format!("{text} is no exit code and no signal"))
    }

    fn write(&self) -> String {
        match self {
            Exit::Code(code) => code.to_string(),
            Exit::Signal(signal) => {
                let named = SIGNALS.iter().find(|(_, one)| one == signal);
                named.map_or("SIGKILL", |(name, _)| name).to_owned()
            }
        }
    }
}

/// The number at the beginning of a text, and what follows it.
fn number(text: &str) -> Result<(u64, &str), String> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Ok((digits.parse().map_err(|_| format!("{text:?} does not begin with a number"))?, rest))
}

impl Value for Duration {
    fn read(text: &str) -> Result<Duration, String> {
        let (count, unit) = number(text)?;
        match unit {
            "us" => Ok(Duration::from_micros(count)),
            "" | "ms" => Ok(Duration::from_millis(count)),
            "s" => Ok(Duration::from_secs(count)),
            "m" => Ok(Duration::from_secs(count * 60)),
            _ => Err(format!("{unit} is none of us, ms, s, m")),
        }
    }

    fn write(&self) -> String {
        match self.as_micros() {
            micros if micros % 1_000 == 0 => format!("{}ms", micros / 1_000),
            micros => format!("{micros}us"),
        }
    }
}

impl Value for Bytes {
    fn read(text: &str) -> Result<Bytes, String> {
        let (count, unit) = number(text)?;
        let unit = match unit {
            "" | "B" => 1,
            "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(format!("{unit} is none of B, KB, MB, GB, KiB, MiB, GiB")),
        };
        count.checked_mul(unit).map(Bytes).ok_or_else(|| format!("{text} is too many"))
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

impl Value for Rate {
    fn read(text: &str) -> Result<Rate, String> {
        Bytes::read(text.strip_suffix("/s").unwrap_or(text)).map(|bytes| Rate(bytes.0))
    }

    fn write(&self) -> String {
        format!("{}/s", self.0)
    }
}

impl Value for u64 {
    fn read(text: &str) -> Result<u64, String> {
        text.parse().map_err(|_| format!("{text} is no number"))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn read(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    fn write(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    fn read(text: &str) -> Result<PathBuf, String> {
        match text {
            "" => Err("a path is missing".to_owned()),
            text => Ok(PathBuf::from(text)),
        }
    }

    fn write(&self) -> String {
        self.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood() {
        assert_eq!(Duration::read("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(Duration::read("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(Bytes::read("16MiB"), Ok(Bytes(16 << 20)));
        assert_eq!(Rate::read("200MB/s"), Ok(Rate(200_000_000)));
        assert_eq!(Exit::read("SIGKILL"), Ok(Exit::Signal(Signal::KILL)));
        assert_eq!(Exit::read("3"), Ok(Exit::Code(3)));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Duration::read("fast").is_err());
        assert!(Bytes::read("3 pounds").is_err());
        assert!(Exit::read("300").is_err());
        assert!(Bytes::read("99999999999GiB").is_err());
    }
}
