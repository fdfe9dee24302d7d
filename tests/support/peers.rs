//! Clients and servers that nobody here wrote, where they are installed.

use std::{path::PathBuf, process::Stdio};

use serde_json::Value;

use super::{SOON, wait_until, within};

pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

/// Says loudly that a test is skipped where the peers are not installed.
pub fn are_missing() -> bool {
    let wanted = ["node_modules/.bin/mcp-server-everything", ".venv/bin/mcp-server-time"];
    let absent = wanted.iter().any(|file| !directory().join(file).exists());
    absent
        && super::skipped(
            "peers",
            "official clients: run `npm install` and pip in tests/peers, see README",
        )
}

#[derive(Clone, Copy, Debug)]
pub enum Sdk {
    TypeScript,
    Python,
}

/// Runs the client and returns what it saw.
pub async fn seen(sdk: Sdk, url: &str, transport: &str, key: &str, plan: &Value) -> Value {
    said_by(sdk, "client", &[url, transport, key, &plan.to_string()]).await
}

/// Runs this program of the SDK, and returns the last line that it prints.
pub async fn said_by(sdk: Sdk, program: &str, args: &[&str]) -> Value {
    let (runs, ending) = match sdk {
        Sdk::TypeScript => (PathBuf::from("node"), "mjs"),
        Sdk::Python => (directory().join(".venv/bin/python"), "py"),
    };
    let mut command = tokio::process::Command::new(runs);
    command.arg(directory().join(format!("{program}.{ending}"))).args(args);
    command.env("NO_PROXY", "127.0.0.1").env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("METAMCPD", env!("CARGO_BIN_EXE_metamcpd"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = within("the client", SOON * 4, command.output()).await.expect("the client runs");
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{sdk:?} {program}: {said}\n{complained}");
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {said}\n{complained}"))
}

/// The reference server over HTTP, on a port of its own. It ends with this value.
pub struct Everything {
    pub url: String,
    _server: tokio::process::Child,
}

impl Everything {
    /// Over Streamable HTTP.
    pub async fn start() -> Everything {
        Everything::over("streamableHttp").await
    }

    /// Over the transport of this name, `streamableHttp` or `sse`. Returns when it listens.
    pub async fn over(transport: &str) -> Everything {
        let port = {
            let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
            listener.local_addr().expect("its address").port()
        };
        let mut command = tokio::process::Command::new("node");
        // Not through the shell script in .bin: what is killed at the end must be the server itself.
        let script = "node_modules/@modelcontextprotocol/server-everything/dist/index.js";
        command.arg(directory().join(script)).arg(transport).env("PORT", port.to_string());
        command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let _server = command.spawn().expect("node");
        wait_until("the server to listen", SOON, async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        let path = if transport == "sse" { "sse" } else { "mcp" };
        Everything { url: format!("http://127.0.0.1:{port}/{path}"), _server }
    }
}
