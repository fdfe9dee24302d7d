//! The upstream `exact.py`, which says exactly what the files of its directory hold, over whichever
//! transport it is attached by.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use super::{featured::Attached, python};

/// The server and its directory. It ends with this.
#[derive(Debug)]
pub struct Exact {
    directory: PathBuf,
    process: Option<Child>,
    row: Value,
}

impl Exact {
    /// Makes the directory with these files, and starts the server where it is attached by a URL.
    pub fn new(attached: Attached, directory: &Path, files: &[(&str, &str)]) -> Exact {
        std::fs::create_dir_all(directory).expect("its directory");
        for (name, content) in files {
            std::fs::write(directory.join(name), content).expect("the file");
        }
        let place = directory.display().to_string();
        let command = |transport: &str| python("exact.py", &[transport, &place]);
        let listening = |transport: &str, kind: &str| {
            let command = command(transport);
            let mut process = Command::new(&command[0]);
            process.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut process = process.spawn().expect("the server starts");
            let mut said = String::new();
            let stdout = process.stdout.take().expect("its stdout");
            BufReader::new(stdout).read_line(&mut said).expect("a line");
            let url = said.strip_prefix("listening ").expect("where it listens").trim();
            (Some(process), json!({"type": kind, "url": url}))
        };
        let (process, row) = match attached {
            Attached::StreamableHttp => listening("streamable-http", "STREAMABLE_HTTP"),
            Attached::Sse => listening("sse", "SSE"),
            Attached::Stdio => {
                let command = command("stdio");
                (None, json!({"type": "STDIO", "command": command[0], "args": command[1..]}))
            }
        };
        Exact { directory: directory.to_owned(), process, row }
    }

    /// Its row under this name.
    pub fn row(&self, name: &str) -> Value {
        let mut row = self.row.clone();
        row["name"] = json!(name);
        row
    }

    /// Every message that it heard so far, as it came.
    pub fn heard(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.join("heard")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Exact {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process
            && let Err(error) = process.kill().and_then(|()| process.wait().map(drop))
        {
            eprintln!("could not end the upstream: {error}");
        }
    }
}
