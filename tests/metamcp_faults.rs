//! What MetaMCP's users suffer from that is wrong rather than missing: each fault of its code, by the
//! number that our inventory of it gives it, with the tests that show that we do not have it. Those
//! that no other chapter tells are told here. Where a fault is in something that is not built yet, its
//! row says so, and whoever builds it adds the tests.

use std::{fs, path::Path};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway, client,
    fixtures::without_python,
    gateway::Start,
    processes, python,
    remote::{Knobs, Remote},
    wait_until,
};

/// One fault, and the chapters and sentences that deny it.
struct Fault {
    number: u8,
    what: &'static str,
    denied_by: &'static [&'static str],
    /// The part of the fault that has nothing here to be in yet.
    not_built: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        number: 15,
        what: "tools are not synchronised, and only their names are compared",
        denied_by: &["metamcp_faults::a_tool_whose_description_changes_is_remembered_so"],
        not_built: "",
    },
    Fault {
        number: 16,
        what: "a name that was chosen for one server's tool takes another server's calls",
        denied_by: &[
            "metamcp_faults::a_name_with_one_servers_prefix_never_reaches_anothers_tool",
            "curation::each_shown_name_reaches_its_own_tool_in_every_mode_and_after_a_restart",
        ],
        not_built: "",
    },
    Fault {
        number: 17,
        what: "an edited list of servers loses overrides, and inactive servers become active",
        denied_by: &[
            "metamcp_faults::an_edited_list_of_servers_keeps_what_was_decided",
            "curation::decisions_outlive_whatever_happens_to_their_tool",
        ],
        not_built: "",
    },
    Fault {
        number: 18,
        what: "titles are lost, and an empty description cannot be given",
        denied_by: &["curation::a_title_that_nobody_overrides_is_the_upstreams"],
        not_built: "",
    },
    Fault {
        number: 19,
        what: "limits of the rate count wrongly, and some never",
        denied_by: &["metamcp_faults::a_limit_that_would_not_limit_is_refused"],
        not_built: "rate limits; until then nothing that would switch one on is accepted",
    },
    Fault {
        number: 20,
        what: "failures to authenticate are counted twice and lock good keys out",
        denied_by: &["metamcp_faults::a_good_key_enters_after_any_number_of_bad_ones"],
        not_built: "a limit for failures to authenticate; until then a failure costs its own request",
    },
    Fault {
        number: 21,
        what: "progress does not extend a call",
        denied_by: &["calls::progress_extends_a_call_up_to_its_total"],
        not_built: "",
    },
    Fault {
        number: 22,
        what: "only the first page is listed, and a client's cursor goes round for ever",
        denied_by: &[
            "lists::every_page_of_an_upstream_is_listed",
            "lists::pages_that_go_round_in_circles_come_to_an_end",
            "features::every_page_of_every_kind_is_listed_and_no_cursor_of_others_is_taken",
            "metamcp_faults::a_cursor_that_was_never_given_is_refused",
        ],
        not_built: "",
    },
    Fault {
        number: 23,
        what: "what was not listed in a session cannot be used in it",
        denied_by: &[
            "metamcp_faults::a_tool_can_be_called_by_a_session_that_never_listed_it",
            "features::what_a_session_never_listed_it_can_use_all_the_same",
        ],
        not_built: "",
    },
    Fault {
        number: 24,
        what: "after a crash a session's calls go to a closed connection",
        denied_by: &[
            "supervision::calls_in_flight_when_a_child_is_killed_each_end_once_and_the_next_succeeds",
            "remote_upstreams::a_lost_session_is_begun_again_once_for_fifty_calls_and_nobody_notices",
        ],
        not_built: "",
    },
    Fault {
        number: 25,
        what: "one crash disables a server for everyone until a person edits it",
        denied_by: &[
            "metamcp_faults::one_crash_leaves_a_server_enabled_and_used_by_every_session",
            "restarts::every_enabled_upstream_is_tried_again_whatever_its_last_status_was",
        ],
        not_built: "",
    },
    Fault {
        number: 26,
        what: "tools over plain HTTP fail in their own ways",
        denied_by: &["access::what_is_not_built_yet_says_so"],
        not_built: "tools over plain HTTP",
    },
    Fault {
        number: 27,
        what: "pages of other origins cannot speak to an endpoint that allows them",
        denied_by: &[
            "streamable_http::a_page_of_an_allowed_origin_may_ask_and_read_the_session_id",
        ],
        not_built: "",
    },
    Fault {
        number: 28,
        what: "authorization is announced that does not work",
        denied_by: &[
            "metamcp_faults::no_authorization_is_announced_that_is_not_there",
            "access::what_is_not_built_yet_says_so",
        ],
        not_built: "the OAuth server",
    },
    Fault {
        number: 29,
        what: "a session ends with the request that began it",
        denied_by: &["metamcp_faults::a_session_outlives_the_connection_that_began_it"],
        not_built: "",
    },
    Fault {
        number: 30,
        what: "an import drops tokens and takes impossible names; fields cannot be cleared",
        denied_by: &[
            "metamcp_faults::an_import_keeps_the_token_and_survives_an_impossible_name",
            "metamcp_faults::what_is_optional_can_be_cleared",
        ],
        not_built: "limits of the rate, which could not be cleared",
    },
    Fault {
        number: 31,
        what: "`localhost` is replaced wherever it stands in a URL",
        denied_by: &["metamcp_faults::a_url_is_used_as_it_was_written"],
        not_built: "",
    },
    Fault {
        number: 32,
        what: "cookies overwrite each other",
        denied_by: &["metamcp_faults::no_answer_sets_a_cookie"],
        not_built: "users and their logins, which set cookies",
    },
    Fault {
        number: 33,
        what: "a start that fails leaves a process that never listens",
        denied_by: &[
            "first_run::a_first_start_that_finds_its_port_taken_makes_no_key_that_nobody_saw",
            "command_line::a_data_directory_in_use_is_refused",
        ],
        not_built: "",
    },
];

#[test]
fn every_fault_has_its_tests() {
    let numbers: Vec<u8> = FAULTS.iter().map(|fault| fault.number).collect();
    assert_eq!(numbers, (15..=33).collect::<Vec<u8>>());
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for Fault { number, what, denied_by, not_built } in FAULTS {
        assert!(!denied_by.is_empty(), "{number}: {what}");
        if !not_built.is_empty() {
            eprintln!("{number}, {what}: not built yet: {not_built}");
        }
        for path in *denied_by {
            let (chapter, sentence) = path.split_once("::").expect("a chapter and a sentence");
            let text = fs::read_to_string(tests.join(format!("{chapter}.rs"))).expect("a chapter");
            assert!(text.contains(&format!("fn {sentence}()")), "{number}, {what}: no {path}");
        }
    }
}

/// The demo behind an endpoint named `all`, and a key.
async fn demo() -> (TestGateway, String) {
    let gateway = TestGateway::start().await;
    gateway.demo("demo").await;
    gateway.publish("all", &["demo"]).await;
    gateway.ready("demo").await;
    let key = gateway.key("suite").await;
    (gateway, key)
}

#[tokio::test]
async fn a_tool_whose_description_changes_is_remembered_so() {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let book = gateway.scratch().join("words");
    fs::write(&book, "before").expect("the words");
    gateway.stdio("wordy", &python("wordy.py", &[&book.display().to_string()])).await;
    gateway.ready("wordy").await;
    let description = async || {
        let tools = gateway.items("mcp-servers/wordy/tools").await;
        tools.first().map(|tool| (tool["uuid"].clone(), tool["description"].clone()))
    };
    let described = async |words: &str| {
        wait_until("the description", SOON, async || {
            description().await.filter(|(_, text)| text == words).map(|(uuid, _)| uuid)
        })
        .await
    };
    let before = described("before").await;

    fs::write(&book, "after").expect("the words");
    assert_eq!(described("after").await, before, "the same row, with its status and overrides");

    fs::write(&book, "").expect("the words");
    wait_until("an empty list to be remembered", SOON, async || {
        let tools = gateway.items("mcp-servers/wordy/tools").await;
        tools.iter().all(|tool| !tool["vanished_at"].is_null()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_name_with_one_servers_prefix_never_reaches_anothers_tool() {
    let gateway = TestGateway::start().await;
    gateway.demo("left").await;
    gateway.demo("right").await;
    let client = gateway.client_of(&["left", "right"]).await;
    let rows = gateway.items("namespaces/all/tools?server=left&name=echo").await;
    let path = format!("namespaces/all/tools/{}", rows[0]["uuid"].as_str().expect("a uuid"));
    gateway.change(&path, json!({"override_name": "sum"})).await;
    wait_until("the chosen name", SOON, async || {
        client.tools().await.contains(&"sum".to_owned()).then_some(())
    })
    .await;
    assert_eq!(client.text_of("sum", json!({"message": "left's echo"})).await, "left's echo");
    for server in ["left", "right"] {
        let answer = client.call(&format!("{server}__sum"), json!({"numbers": [2, 3]})).await;
        assert_eq!(answer["result"]["structuredContent"]["sum"], 5, "{server}: {answer}");
    }
    let gone = client.call("left__echo", json!({"message": "its own name"})).await;
    assert_eq!(gone["error"]["code"], -32602, "{gone}");
}

#[tokio::test]
async fn an_edited_list_of_servers_keeps_what_was_decided() {
    let gateway = TestGateway::start().await;
    for name in ["one", "two", "three"] {
        gateway.demo(name).await;
    }
    let client = gateway.client_of(&["one", "two"]).await;
    let rows = gateway.items("namespaces/all/tools?server=one&name=echo").await;
    let path = format!("namespaces/all/tools/{}", rows[0]["uuid"].as_str().expect("a uuid"));
    gateway.change(&path, json!({"override_name": "say"})).await;
    let off = json!(["one", {"server": "two", "status": "INACTIVE"}]);
    gateway.replace("namespaces/all/servers", off).await;

    let longer = json!(["three", "two", {"server": "one"}]);
    let row = gateway.replace("namespaces/all/servers", longer).await;
    let statuses: Vec<&Value> = row["servers"]
        .as_array()
        .expect("servers")
        .iter()
        .map(|member| &member["status"])
        .collect();
    assert_eq!(statuses, ["ACTIVE", "INACTIVE", "ACTIVE"], "{row}");
    wait_until("the tools of three", SOON, async || {
        let tools = client.tools().await;
        tools.contains(&"three__echo".to_owned()).then_some(tools)
    })
    .await;
    let tools = client.tools().await;
    assert!(tools.contains(&"say".to_owned()), "{tools:?}");
    assert!(!tools.iter().any(|tool| tool.starts_with("two__")), "{tools:?}");
}

#[tokio::test]
async fn a_limit_that_would_not_limit_is_refused() {
    let (gateway, _key) = demo().await;
    for limit in ["enable_max_rate", "enable_client_max_rate"] {
        let body = json!({limit: true, "max_rate": 1, "max_rate_seconds": 1});
        let (status, answer) = gateway.admin(Method::PATCH, "endpoints/all", Some(body)).await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{limit}: {answer}");
        assert_eq!(gateway.get("endpoints/all").await[limit], false);
    }
}

#[tokio::test]
async fn an_import_keeps_the_token_and_survives_an_impossible_name() {
    let token = "upstream-token-0123456789";
    let remote = Remote::start(Knobs { bearer: Some(token.to_owned()), ..Knobs::default() });
    let file = tempfile::NamedTempFile::new().expect("a file");
    let servers = json!({"mcpServers": {
        "remote": {"type": "STREAMABLE_HTTP", "url": remote.url, "bearerToken": token},
        "no__such": {"type": "STDIO"},
    }});
    fs::write(file.path(), servers.to_string()).expect("the export");
    let gateway = Start::new().import(file.path()).run().await;
    gateway.ready("remote").await;
    assert_eq!(gateway.items("mcp-servers").await.len(), 1, "what has no command is no server");
}

#[tokio::test]
async fn what_is_optional_can_be_cleared() {
    let gateway = TestGateway::start().await;
    let server = json!({
        "name": "idle", "type": "STDIO", "command": "true", "description": "words",
        "args": ["a"], "env": {"A": "b"}, "call_timeout_ms": 1000, "enabled": false,
    });
    gateway.create("mcp-servers", server).await;
    let cleared = json!({"description": null, "args": null, "env": null, "call_timeout_ms": null});
    let row = gateway.change("mcp-servers/idle", cleared).await;
    assert_eq!(row["description"], Value::Null, "{row}");
    assert_eq!(row["call_timeout_ms"], Value::Null, "{row}");
    assert_eq!((&row["args"], &row["env"]), (&json!([]), &json!({})), "{row}");

    let elsewhere = json!({"type": "STREAMABLE_HTTP", "url": "http://127.0.0.1:9/mcp"});
    let row = gateway.change("mcp-servers/idle", elsewhere).await;
    assert_eq!(row["command"], Value::Null, "nothing of another type stays: {row}");
}

#[tokio::test]
async fn a_good_key_enters_after_any_number_of_bad_ones() {
    let (gateway, key) = demo().await;
    for number in 0..40 {
        let mut stranger = Client::new(&gateway.endpoint_url("all"), Some(&format!("bad{number}")));
        assert_eq!(stranger.initialize(client::LATEST).await.status, StatusCode::UNAUTHORIZED);
    }
    let friend = gateway.client("all", &key).await;
    assert!(friend.tools().await.contains(&"demo__echo".to_owned()));
}

#[tokio::test]
async fn a_cursor_that_was_never_given_is_refused() {
    let (gateway, key) = demo().await;
    let client = gateway.client("all", &key).await;
    let answer = client.request("tools/list", json!({"cursor": "made up"})).await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
}

#[tokio::test]
async fn a_tool_can_be_called_by_a_session_that_never_listed_it() {
    let (gateway, key) = demo().await;
    let client = gateway.client("all", &key).await;
    assert_eq!(client.text_of("demo__echo", json!({"message": "first"})).await, "first");
}

#[tokio::test]
async fn one_crash_leaves_a_server_enabled_and_used_by_every_session() {
    let (gateway, key) = demo().await;
    let sessions = [gateway.client("all", &key).await, gateway.client("all", &key).await];
    let pid = gateway.server_pid("demo").await;
    processes::signal(pid, rustix::process::Signal::KILL);
    gateway
        .server_until("demo", "READY again", |server| {
            server["runtime"]["state"] == "READY" && server["runtime"]["pid"] != pid
        })
        .await;
    assert_eq!(gateway.server("demo").await["enabled"], true);
    for session in &sessions {
        assert_eq!(session.text_of("demo__echo", json!({"message": "again"})).await, "again");
    }
}

#[tokio::test]
async fn no_authorization_is_announced_that_is_not_there() {
    let (gateway, _key) = demo().await;
    for path in [
        ".well-known/oauth-protected-resource",
        ".well-known/oauth-protected-resource/metamcp/all/mcp",
        ".well-known/oauth-authorization-server",
        ".well-known/openid-configuration",
    ] {
        let answer = gateway.http.get(format!("{}/{path}", gateway.base)).send().await;
        assert_eq!(answer.expect("an answer").status(), StatusCode::NOT_FOUND, "{path}");
    }
    let mut stranger = Client::new(&gateway.endpoint_url("all"), None);
    let refused = stranger.initialize(client::LATEST).await;
    let challenge = refused.header("www-authenticate").unwrap_or_default();
    assert!(!challenge.contains("resource_metadata"), "{challenge}");
}

#[tokio::test]
async fn a_session_outlives_the_connection_that_began_it() {
    let (gateway, key) = demo().await;
    let mut client = gateway.client("all", &key).await;
    client.http = client::http();
    assert_eq!(client.text_of("demo__echo", json!({"message": "still"})).await, "still");
}

#[tokio::test]
async fn a_url_is_used_as_it_was_written() {
    let remote = Remote::start(Knobs::default());
    let gateway = TestGateway::start().await;
    let url = remote.url.replace("/mcp", "/my-localhost.example/localhost/mcp");
    let row = gateway.remote("remote", &url).await;
    assert_eq!(row["url"], Value::from(url));
    gateway.ready("remote").await;
}

#[tokio::test]
async fn no_answer_sets_a_cookie() {
    let (gateway, key) = demo().await;
    let mut client = Client::new(&gateway.endpoint_url("all"), Some(&key));
    assert_eq!(client.initialize(client::LATEST).await.header("set-cookie"), None);
    for path in ["health", "ready", "metrics", "api/v1/mcp-servers", "api/openapi.json"] {
        let answer = gateway.http.get(format!("{}/{path}", gateway.base)).send().await;
        assert_eq!(answer.expect("an answer").headers().get("set-cookie"), None, "{path}");
    }
}
