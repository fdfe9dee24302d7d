//! The files of `tests/fixtures/import`: what clients and gateways really write, and what becomes of
//! each entry.
#![allow(clippy::unwrap_used)]

use super::*;

/// One line for each entry: `name = transport …`, with `off` for one that is disabled, or
/// `name ! field` for one that is refused; and then the fields that were warned of.
fn told(entry: &Entry) -> String {
    let mut line = match &entry.outcome {
        Err(refusal) => format!("{} ! {}", entry.name, refusal.field),
        Ok(server) => {
            let off = if server.enabled { "" } else { " off" };
            let seconds = |word: &str, time: Option<Duration>| {
                time.map(|time| format!(" {word}={}s", time.as_secs())).unwrap_or_default()
            };
            let call = seconds("call", server.call_timeout);
            let connect = seconds("connect", server.connect_timeout);
            format!("{} = {}{off}{call}{connect}", server.name, super::tests::line(server))
        }
    };
    if !entry.warnings.is_empty() {
        let fields: Vec<&str> = entry.warnings.iter().map(|warning| &*warning.field).collect();
        line.push_str(&format!(" ? {}", fields.join(" ")));
    }
    line
}

fn judge(file: &str, text: &str, expected: &[&str], about_the_file: &[&str]) {
    let imported = read(text).unwrap();
    let lines: Vec<String> = imported.entries.iter().map(told).collect();
    assert_eq!(lines, expected, "{file}");
    let warned: Vec<&str> =
        imported.warnings.iter().map(|warning| warning.field.as_str()).collect();
    assert_eq!(warned, about_the_file, "{file}");
}

/// What each entry of a file becomes, and which of its members are left out.
macro_rules! check {
    ($file:literal, $expected:expr, $about_the_file:expr $(,)?) => {
        let text = include_str!(concat!("../../tests/fixtures/import/", $file));
        judge($file, text, $expected, $about_the_file);
    };
}

#[test]
fn anthropics_clients_are_read() {
    check!(
        "claude_desktop.json",
        &[
            "filesystem = stdio npx -y @modelcontextprotocol/server-filesystem /home/ann",
            "brave-search = stdio npx -y @modelcontextprotocol/server-brave-search BRAVE_API_KEY=key",
        ],
        &["globalShortcut"],
    );
    check!(
        "claude_code_project.json",
        &[
            "notion = http https://mcp.notion.com/mcp",
            "asana = sse https://mcp.asana.com/sse X-API-Key=${ASANA_KEY:-none}",
            "db = stdio npx -y @bytebase/dbhub DSN=${DSN}",
        ],
        &[],
    );
    check!(
        "claude_code_home.json",
        &[
            "everywhere = stdio uvx mcp-server-time",
            "only-a = stdio a-server",
            "only-b = http https://b.example/mcp",
            "everywhere ! name",
        ],
        &["numStartups"],
    );
}

#[test]
fn editors_are_read() {
    check!(
        "cursor.json",
        &[
            "py = stdio python /opt/mcp.py API_KEY=${API_KEY} ? envFile env.API_KEY",
            "remote = http https://example.com/mcp Authorization=Bearer ${TOKEN} ? headers.Authorization",
            "old = sse http://localhost:3000/sse ? url",
        ],
        &[],
    );
    check!(
        "vscode_mcp.json",
        &[
            "github = http https://api.githubcopilot.com/mcp/",
            "perplexity = stdio docker run -i --rm mcp/perplexity PERPLEXITY_API_KEY=${PERPLEXITY_KEY} ? env.PERPLEXITY_API_KEY",
            "here ! args[0] ? dev",
        ],
        &[],
    );
    check!("vscode_settings.json", &["time = stdio uvx mcp-server-time"], &["editor.fontSize"]);
    check!("vscode_settings_flat.json", &["time = stdio uvx mcp-server-time"], &["files.autoSave"]);
    check!(
        "windsurf.json",
        &[
            "remote-http-mcp = http https://example.com/mcp API_KEY=value",
            "local = stdio npx -y x off ? disabledTools",
        ],
        &[],
    );
    check!(
        "zed.json",
        &[
            "custom = stdio node server.js A=1",
            "remote = http https://example.com/mcp Authorization=Bearer t",
        ],
        &["theme"],
    );
    check!(
        "zed_older.json",
        &["postgres = stdio pg-server --ro URL=postgres://x", "from-the-store ! source"],
        &[],
    );
    check!(
        "amp.json",
        &["playwright = stdio npx -y @playwright/mcp@latest"],
        &["amp.notifications.enabled"],
    );
}

#[test]
fn agents_are_read() {
    check!(
        "cline.json",
        &[
            "remote = http https://example.com/mcp K=v call=60s ? autoApprove timeout",
            "local = stdio node /x/index.js off",
        ],
        &[],
    );
    check!(
        "roo.json",
        &[
            "remote = http https://example.com/mcp ? alwaysAllow",
            "local = stdio npx -y y call=300s ? watchPaths timeout cwd",
        ],
        &[],
    );
    check!(
        "gemini.json",
        &[
            "http = http https://example.com/mcp Authorization=Bearer ${MY_TOKEN} call=5s ? trust timeout headers.Authorization",
            "local = stdio python -m server DB=${DB_URL} ? includeTools env.DB cwd",
        ],
        &["selectedAuthType"],
    );
    check!(
        "opencode.json",
        &[
            "local = stdio bun x my-mcp A=${A_KEY} call=5s ? timeout env.A",
            "remote = http https://example.com/mcp Authorization=Bearer ${TOKEN} off ? headers.Authorization",
        ],
        &["$schema"],
    );
    check!(
        "continue.json",
        &[
            "sqlite = stdio npx -y mcp-sqlite /db",
            "far = http https://example.com/mcp Authorization=Bearer t",
            "[2] ! name",
        ],
        &["name", "version", "schema"],
    );
    check!("continue_experimental.json", &["sqlite = stdio uvx mcp-server-sqlite"], &[]);
    check!(
        "lm_studio.json",
        &["hf = http https://huggingface.co/mcp Authorization=Bearer hf_x"],
        &[],
    );
    check!(
        "cherry_studio.json",
        &[
            "Fetch-Web = stdio uvx mcp-server-fetch off ? name",
            "remote = http https://example.com/mcp A=b",
        ],
        &[],
    );
    check!(
        "codex.toml",
        &[
            "context7 = stdio npx -y @upstash/context7-mcp LOCAL_TOKEN=${LOCAL_TOKEN} MY_ENV_VAR=MY_ENV_VALUE call=45s connect=20s ? enabled_tools",
            "figma = http https://mcp.figma.com/mcp X-Figma-Region=us-east-1 X-Secret=${FIGMA_SECRET} token=${FIGMA_OAUTH_TOKEN} off",
        ],
        &["model"],
    );
}

#[test]
fn other_gateways_are_read() {
    check!(
        "metamcp_export.json",
        &[
            "a = stdio npx x",
            "b = http https://b.example/mcp X-A=1 token=secret",
            "c = sse https://c.example/events",
            "has_two = stdio x ? name",
        ],
        &[],
    );
    check!(
        "mcpo.json",
        &[
            "memory = stdio npx -y @modelcontextprotocol/server-memory",
            "sse = sse http://127.0.0.1:8001/events A=b",
            "http = http http://127.0.0.1:8002/mcp ? disabledTools",
        ],
        &[],
    );
    check!(
        "tbxark.json",
        &[
            "github = stdio npx -y @modelcontextprotocol/server-github T=x ? options",
            "amap = http https://mcp.amap.com/mcp",
        ],
        &["mcpProxy"],
    );
    check!("docker_desktop.json", &["MCP_DOCKER = stdio docker mcp gateway run"], &[]);
}

#[test]
fn what_people_write_by_hand_is_read() {
    check!(
        "bare_map.json",
        &["time = stdio uvx mcp-server-time", "far = http https://example.com/mcp"],
        &[],
    );
    check!(
        "bare_list.json",
        &["time = stdio uvx mcp-server-time ? command", "far = http https://example.com/mcp A=b"],
        &[],
    );
    check!("windows.json", &["time = stdio uvx mcp-server-time"], &[]);
    check!(
        "twice.json",
        &[
            "time = stdio first ? command",
            "time ! name",
            "a b ! name ? name",
            "a-b = stdio as it is ? command",
            "文件 ! name",
        ],
        &[],
    );
    check!(
        "broken_entries.json",
        &[
            "good = stdio x",
            "neither ! command",
            "both ! url",
            "odd ! type",
            "text ! entry",
            "far = http https://example.com/mcp token=t",
        ],
        &[],
    );
}
