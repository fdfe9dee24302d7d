//! The shapes that clients really write, and what becomes of each mistake.
#![allow(clippy::unwrap_used)]

use super::*;

fn entries(text: &str) -> Vec<Entry> {
    read(text).unwrap().entries
}

/// Reads a file of one server called `s`.
fn entry(fields: &str) -> Entry {
    entries(&format!(r#"{{"mcpServers":{{"s":{fields}}}}}"#)).remove(0)
}

fn server(fields: &str) -> ImportedServer {
    entry(fields).outcome.unwrap_or_else(|refusal| panic!("{fields}: {refusal}"))
}

/// The transport as one line: `stdio command args… KEY=value`, `http url key=value`, `sse …`.
pub(super) fn line(server: &ImportedServer) -> String {
    let pairs = |texts: &BTreeMap<String, String>| {
        texts.iter().map(|(name, value)| format!(" {name}={value}")).collect::<String>()
    };
    let remote = |word: &str, Remote { url, headers, bearer_token, .. }: &Remote| {
        let token = bearer_token.iter().map(|token| format!(" token={token}")).collect::<String>();
        format!("{word} {url}{}{token}", pairs(headers))
    };
    match &server.transport {
        Transport::Stdio { command, args, env } => {
            let args: String = args.iter().map(|arg| format!(" {arg}")).collect();
            format!("stdio {command}{args}{}", pairs(env))
        }
        Transport::StreamableHttp(server) => remote("http", server),
        Transport::Sse(server) => remote("sse", server),
    }
}

fn lines(text: &str) -> Vec<String> {
    let read = |entry: Entry| {
        let server = entry.outcome.unwrap_or_else(|refusal| panic!("{}: {refusal}", entry.name));
        format!("{}: {}", server.name, line(&server))
    };
    entries(text).into_iter().map(read).collect()
}

#[test]
fn a_file_of_claude_desktop_is_read() {
    let file = r#"{
      "mcpServers": {
        "filesystem": {
          "command": "npx",
          "args": ["-y", "@modelcontextprotocol/server-filesystem", "/Users/ann/Desktop"]
        },
        "brave-search": {
          "command": "npx",
          "args": ["-y", "@modelcontextprotocol/server-brave-search"],
          "env": { "BRAVE_API_KEY": "key" }
        }
      },
      "globalShortcut": "Ctrl+Space"
    }"#;
    assert_eq!(
        lines(file),
        [
            "filesystem: stdio npx -y @modelcontextprotocol/server-filesystem /Users/ann/Desktop",
            "brave-search: stdio npx -y @modelcontextprotocol/server-brave-search BRAVE_API_KEY=key",
        ]
    );
    assert_eq!(read(file).unwrap().warnings, [Warning::new("globalShortcut", "is left out")]);
}

#[test]
fn a_file_of_cursor_is_read() {
    let file = r#"{
      "mcpServers": {
        "py": { "type": "stdio", "command": "python", "args": ["/opt/mcp.py"],
                "env": { "API_KEY": "${env:API_KEY}" }, "envFile": ".env" },
        "remote": { "url": "https://example.com/mcp",
                    "headers": { "Authorization": "Bearer ${env:TOKEN}" } },
        "old": { "url": "http://localhost:3000/sse" }
      }
    }"#;
    assert_eq!(
        lines(file),
        [
            "py: stdio python /opt/mcp.py API_KEY=${API_KEY}",
            "remote: http https://example.com/mcp Authorization=Bearer ${TOKEN}",
            "old: sse http://localhost:3000/sse",
        ]
    );
    let warned: Vec<_> =
        entries(file)[0].warnings.iter().map(|warning| warning.field.clone()).collect();
    assert_eq!(warned, ["envFile", "env.API_KEY"]);
}

#[test]
fn a_file_of_vs_code_is_read_with_its_comments() {
    let file = r#"{
      // asked for once, then remembered
      "inputs": [{ "type": "promptString", "id": "key", "password": true }],
      "servers": {
        "github": { "type": "http", "url": "https://api.githubcopilot.com/mcp/" },
        "fetch": { "type": "stdio", "command": "uvx", "args": ["mcp-server-fetch",], },
        /* needs the editor */
        "asks": { "command": "x", "env": { "KEY": "${input:key}" } },
        "here": { "command": "x", "args": ["${workspaceFolder}"] },
      },
    }"#;
    let entries = entries(file);
    let outcomes: Vec<_> = entries
        .iter()
        .map(|entry| match &entry.outcome {
            Ok(server) => line(server),
            Err(refusal) => format!("refused for {}", refusal.field),
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            "http https://api.githubcopilot.com/mcp/",
            "stdio uvx mcp-server-fetch",
            "stdio x KEY=${KEY}",
            "refused for args[0]",
        ]
    );
    assert_eq!(entries[2].warnings[0].field, "env.KEY");

    let settings = r#"{"editor.fontSize":12,"mcp":{"servers":{"a":{"command":"x"}},"inputs":[]}}"#;
    assert_eq!(lines(settings), ["a: stdio x"]);
}

#[test]
fn a_file_of_windsurf_is_read() {
    let file = r#"{
      "mcpServers": {
        "remote-http-mcp": { "serverUrl": "https://example.com/mcp",
                             "headers": { "API_KEY": "value" } },
        "local": { "command": "npx", "args": ["-y", "x"], "disabled": true,
                   "disabledTools": ["a"] }
      }
    }"#;
    let entries = entries(file);
    let servers: Vec<_> = entries.iter().map(|entry| entry.outcome.as_ref().unwrap()).collect();
    assert_eq!(line(servers[0]), "http https://example.com/mcp API_KEY=value");
    assert!(servers[0].enabled && !servers[1].enabled);
    assert_eq!(entries[1].warnings[0].field, "disabledTools");
}

#[test]
fn an_export_of_metamcp_is_read() {
    let file = r#"{"mcpServers":{
      "a":{"type":"STDIO","description":"first","command":"npx","args":["x"],"env":{},"url":null},
      "b":{"type":"STREAMABLE_HTTP","command":"","args":[],"env":{},"url":"https://b.example/mcp",
           "bearerToken":"secret","headers":{}},
      "c":{"type":"SSE","url":"https://c.example/events","bearerToken":""}}}"#;
    assert_eq!(
        lines(file),
        [
            "a: stdio npx x",
            "b: http https://b.example/mcp token=secret",
            "c: sse https://c.example/events",
        ]
    );
    let entries = entries(file);
    assert!(entries.iter().all(|entry| entry.warnings.is_empty()), "{entries:?}");
    assert_eq!(entries[0].outcome.as_ref().unwrap().description.as_deref(), Some("first"));
}

#[test]
fn every_spelling_of_a_transport_is_understood() {
    for (word, expected) in [
        ("http", "http"),
        ("HTTP", "http"),
        ("streamable-http", "http"),
        ("streamable_http", "http"),
        ("streamableHttp", "http"),
        ("STREAMABLE_HTTP", "http"),
        ("Streamable HTTP", "http"),
        ("sse", "sse"),
        ("SSE", "sse"),
    ] {
        for field in ["type", "transport", "transportType"] {
            let fields = format!(r#"{{"{field}":"{word}","url":"https://x.example/sse"}}"#);
            assert_eq!(line(&server(&fields)), format!("{expected} https://x.example/sse"));
        }
    }
    for word in ["stdio", "STDIO", "std"] {
        assert_eq!(line(&server(&format!(r#"{{"type":"{word}","command":"x"}}"#))), "stdio x");
    }
}

#[test]
fn the_odd_shapes_of_values_are_understood() {
    for (fields, expected) in [
        (r#"{"command":["npx","-y","x"],"args":["z"]}"#, "stdio npx -y x z"),
        (r#"{"command":"x","args":["--port",8080,true]}"#, "stdio x --port 8080 true"),
        (r#"{"command":"x","env":{"PORT":8080,"GONE":null}}"#, "stdio x PORT=8080"),
        (
            r#"{"command":"x","env":{"A":18446744073709551615,"B":.5}}"#,
            "stdio x A=18446744073709551615 B=0.5",
        ),
        (r#"{"command":"sh","args":["-c","echo ${FOO} $BAR"]}"#, "stdio sh -c echo ${FOO} $BAR"),
        (r#"{"command":"x","cwd":"/tmp","headers":{"A":"b"}}"#, "stdio x"),
        (r#"{"httpUrl":"http://x/mcp","env":{"A":"b"}}"#, "http http://x/mcp"),
        (r#"{"url":"http://x/a?key=${KEY}"}"#, "http http://x/a?key=${KEY}"),
        (r#"{"url":"http://x/sse/?a=b"}"#, "sse http://x/sse/?a=b"),
        (r#"{"url":"http://x","headers":[{"key":"A","value":"b"}]}"#, "http http://x A=b"),
        (r#"{"url":"http://x","bearer_token":"Bearer t"}"#, "http http://x token=t"),
        (r#"{"url":"http://x","bearerToken":"t","bearer_token":"t"}"#, "http http://x token=t"),
    ] {
        assert_eq!(line(&server(fields)), expected);
    }
}

#[test]
fn authorities_are_taken_for_a_url_and_left_out_for_a_command() {
    for field in ["caCertificates", "ca_certificates"] {
        let read = server(&format!(r#"{{"url":"https://x","{field}":" PEM\n"}}"#));
        let Transport::StreamableHttp(remote) = read.transport else { panic!("{field}") };
        assert_eq!(remote.ca_certificates.as_deref(), Some("PEM"), "{field}");
        let entry = entry(&format!(r#"{{"command":"x","{field}":"PEM"}}"#));
        assert_eq!(entry.warnings.len(), 1, "{field}: {:?}", entry.warnings);
    }
}

#[test]
fn a_timeout_is_read_in_the_unit_its_number_suggests() {
    for (number, expected) in [
        ("60", Some(Duration::from_secs(60))),
        ("1.5", Some(Duration::from_millis(1500))),
        ("60000", Some(Duration::from_secs(60))),
        ("0", None),
        ("-1", None),
        ("1e300", None),
        (r#""60""#, None),
    ] {
        let entry = entry(&format!(r#"{{"command":"x","timeout":{number}}}"#));
        assert_eq!(entry.outcome.unwrap().call_timeout, expected, "{number}");
        assert_eq!(entry.warnings[0].field, "timeout");
    }
}

#[test]
fn enabled_and_disabled_say_the_same() {
    for (fields, expected) in [
        ("", true),
        (r#","disabled":true"#, false),
        (r#","disabled":false"#, true),
        (r#","enabled":false"#, false),
        (r#","enabled":true,"disabled":false"#, true),
    ] {
        let server = server(&format!(r#"{{"command":"x"{fields}}}"#));
        assert_eq!(server.enabled, expected, "{fields}");
    }
}

#[test]
fn a_bad_entry_names_the_field_that_is_to_be_mended() {
    for (fields, field) in [
        ("[]", "entry"),
        ("{}", "command"),
        (r#"{"type":"stdio"}"#, "command"),
        (r#"{"type":"stdio","url":"http://x"}"#, "command"),
        (r#"{"type":"http"}"#, "url"),
        (r#"{"type":"http","command":"x"}"#, "url"),
        (r#"{"command":"x","url":"http://x"}"#, "url"),
        (r#"{"command":7}"#, "command"),
        (r#"{"command":[]}"#, "command"),
        (r#"{"command":["x",7]}"#, "command"),
        (r#"{"command":"a\u0000"}"#, "command"),
        (r#"{"command":"x","args":{}}"#, "args"),
        (r#"{"command":"x","args":["a",[]]}"#, "args[1]"),
        (r#"{"command":"x","args":["${userHome}/a"]}"#, "args[0]"),
        (r#"{"command":"x","env":"A=b"}"#, "env"),
        (r#"{"command":"x","env":{"A":{}}}"#, "env.A"),
        (r#"{"command":"x","env":{"A":123456789012345678901}}"#, "env.A"),
        (r#"{"command":"x","args":[1e300]}"#, "args[0]"),
        (r#"{"command":"x","args":[NaN]}"#, "args[0]"),
        (r#"{"command":"x","env":{"A=":"b"}}"#, "env.A="),
        (r#"{"command":"x","disabled":"true"}"#, "disabled"),
        (r#"{"command":"x","enabled":true,"disabled":true}"#, "disabled"),
        (r#"{"command":"x","type":"ws"}"#, "type"),
        (r#"{"command":"x","type":"stdio","transport":"sse"}"#, "transport"),
        (r#"{"url":"x.example/mcp"}"#, "url"),
        (r#"{"url":"ftp://x"}"#, "url"),
        (r#"{"url":"http://a:b@x"}"#, "url"),
        (r#"{"url":"http://x#a"}"#, "url"),
        (r#"{"url":"http://x","serverUrl":"http://y"}"#, "serverUrl"),
        (r#"{"url":"http://x","headers":{"a b":"c"}}"#, "headers.a b"),
        (r#"{"url":"http://x","headers":{"a":"b\nc"}}"#, "headers.a"),
        (r#"{"url":"http://x","headers":[{"A":"b"}]}"#, "headers"),
        (r#"{"url":"http://x","bearerToken":"a","bearer_token":"b"}"#, "bearer_token"),
        (r#"{"url":"http://x","caCertificates":"a","ca_certificates":"b"}"#, "ca_certificates"),
        (r#"{"url":"http://x","bearerToken":"a","headers":{"authorization":"b"}}"#, "bearerToken"),
        (r#"{"command":"x","description":[]}"#, "description"),
    ] {
        let refusal = entry(fields).outcome.unwrap_err();
        assert_eq!(refusal.field, field, "{fields}: {refusal}");
        assert!(!refusal.accepted.is_empty());
    }
}

#[test]
fn a_bad_entry_fails_alone() {
    let file = r#"{"mcpServers":{"a":{"command":"x"},"b":{},"c":{"url":"http://x"}}}"#;
    let good: Vec<_> = entries(file).iter().map(|entry| entry.outcome.is_ok()).collect();
    assert_eq!(good, [true, false, true]);
}

#[test]
fn names_are_mended_and_the_one_that_was_good_goes_first() {
    let file = r#"{"mcpServers":{
      "my server":{"command":"mended"}, "my-server":{"command":"good"},
      "a.b":{"command":"first"}, "a/b":{"command":"second"},
      "t":{"command":"first"}, "t":{"command":"second"},
      "文件":{"command":"x"}}}"#;
    let outcomes: Vec<_> = entries(file)
        .iter()
        .map(|entry| match &entry.outcome {
            Ok(server) => format!("{} {}", server.name, line(server)),
            Err(refusal) => format!("{} refused", refusal.field),
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            "name refused",
            "my-server stdio good",
            "a-b stdio first",
            "name refused",
            "t stdio first",
            "name refused",
            "name refused",
        ]
    );
    assert_eq!(entries(file)[2].warnings, [Warning::new("name", "is changed to `a-b`")]);
}

#[test]
fn several_places_for_servers_are_read_together() {
    let file = r#"{"servers":{"a":{"command":"x"}},"mcpServers":{"b":{"command":"y"}}}"#;
    assert_eq!(lines(file), ["a: stdio x", "b: stdio y"]);
    assert_eq!(lines("\u{feff}{mcpServers:{a:{command:'x'}}}"), ["a: stdio x"]);
    assert!(entries(r#"{"mcpServers":{}}"#).is_empty());
}

#[test]
fn a_server_that_is_called_like_a_field_is_one_of_many() {
    for (file, expected) in [
        (r#"{"mcpServers":{"url":{"command":"x"}}}"#, vec!["url: stdio x"]),
        (r#"{"servers":{"command":{"url":"http://x"}}}"#, vec!["command: http http://x"]),
        (
            r#"{"mcpServers":{"cmd":{"cmd":"x"},"a":{"cmd":"y"}}}"#,
            vec!["cmd: stdio x", "a: stdio y"],
        ),
        (r#"{"mcp":{"url":{"type":"local","command":["x","y"]}}}"#, vec!["url: stdio x y"]),
        (r#"{"mcp":{"servers":{"url":{"command":"x"}}}}"#, vec!["url: stdio x"]),
        // A text is a single server's, and its name is that of a place.
        (r#"{"mcpServers":{"command":"x"}}"#, vec!["mcpServers: stdio x"]),
        (r#"{"servers":{"command":["x","y"]}}"#, vec!["servers: stdio x y"]),
        (r#"{"mcp":{"servers":{"command":"x"}}}"#, vec!["servers: stdio x"]),
        // Zed's older form, where there is no place for servers.
        (r#"{"a":{"command":{"path":"x","args":["y"]}}}"#, vec!["a: stdio x y"]),
    ] {
        assert_eq!(lines(file), expected, "{file}");
    }
    // One that is no server fails alone.
    let mixed = entries(r#"{"mcpServers":{"command":"y","url":{"command":"x"}}}"#);
    let outcomes: Vec<_> = mixed.iter().map(|one| (&*one.name, one.outcome.is_ok())).collect();
    assert_eq!(outcomes, [("command", false), ("url", true)]);
}

#[test]
fn a_file_that_cannot_be_read_says_where() {
    for (text, expected) in [
        ("{}", BadFile::NoServers),
        (r#"{"theme":"dark"}"#, BadFile::NoServers),
        ("model = 'o3'", BadFile::NoServers),
        ("null", BadFile::NoServers),
        ("name: continue\nmcpServers:\n", BadFile::Yaml),
        (&format!("{{{}}}", " ".repeat(FILE_MAX)), BadFile::TooLarge),
        (&"[".repeat(100_000), BadFile::TooDeep),
        (&"{a:".repeat(100_000), BadFile::TooDeep),
        (&format!("x = {}", "[".repeat(100_000)), BadFile::TooDeep),
    ] {
        assert_eq!(read(text), Err(expected));
    }
    let Err(BadFile::Unreadable { line, reason, .. }) = read("{\n\"mcpServers\": {\n\"a\" {}\n")
    else {
        panic!("read what cannot be read");
    };
    assert_eq!((line, reason.as_str()), (3, "expected colon"));
    for text in ["", r#"{"mcpServers": secret}"#, "[mcp_servers.a]\nenv = {K = 'secret"] {
        let error = read(text).unwrap_err();
        assert!(matches!(error, BadFile::Unreadable { .. }), "{text}: {error}");
        assert!(!error.to_string().contains("secret"));
    }
}

#[test]
fn brackets_in_what_a_client_remembers_are_no_levels() {
    let remembered = "{[".repeat(1_000);
    let file = format!(r#"{{"history":["{remembered}"],"mcpServers":{{"a":{{"command":"x"}}}}}}"#);
    assert_eq!(lines(&file), ["a: stdio x"]);
}

#[test]
fn a_server_with_its_secrets_is_never_printed() {
    let imported = read(
        r#"{"mcpServers":{"a":{"command":"x","env":{"K":"s3cret"}},
            "b":{"url":"http://x","bearerToken":"s3cret","headers":{"H":"s3cret"}},
            "c":{"command":"x","env":{"K":"s3cret${workspaceFolder}"}}}}"#,
    )
    .unwrap();
    assert!(!format!("{imported:?}").contains("s3cret"));
}
