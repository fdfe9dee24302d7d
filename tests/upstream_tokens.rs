//! Remote upstreams with an OAuth session: their tokens are renewed once for all who find them too old, kept
//! before they are used, and a person is asked for only where nothing else helps.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    fragile::Fragile,
    gateway::Start,
    outage::Outage,
    remote::{Knobs, Remote},
    sse_remote::{SseKnobs, SseRemote},
    token_endpoint::{
        TokenEndpoint, access_token, needs_auth, put, refresh_token, session, upstream, with,
    },
    wait_until,
};

/// The settings of most tests: what failed is tried again soon.
const SOON_AGAIN: &str = "[oauth]\nretry_min = \"100ms\"\nretry_max = \"100ms\"";

fn reason(answer: &Value) -> &str {
    answer["error"]["data"]["reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_call_whose_token_has_expired_is_sent_again_with_a_new_one_and_executed_once() {
    let gateway = TestGateway::start().await;
    let (tokens, remote, client) = with(&gateway).await;
    let before = remote.seen_of("tools/call").len();
    tokens.expire_all();

    assert_eq!(client.text_of("remote__echo", json!({"value": "hi"})).await, "hi");

    let calls = remote.seen_of("tools/call").split_off(before);
    let sent = |at: usize| calls[at].header("authorization").unwrap_or_default().to_owned();
    assert_eq!(calls.len(), 2, "refused, and sent once more: {calls:?}");
    assert_eq!(sent(0), "Bearer canary-access-first");
    assert_eq!(sent(1), format!("Bearer {}", access_token(1)));
    assert_eq!(calls[0].body, calls[1].body, "the very same request");
    let asked = tokens.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let form: Vec<_> = asked[0].form.iter().map(|(name, value)| (&**name, &**value)).collect();
    let expected = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &refresh_token(0)),
        ("resource", &remote.url),
    ];
    assert_eq!(form, expected);
    // RFC 6749, 2.3.1: each is form-encoded before the two are joined.
    let basic = "Basic dGhlK2NsaWVudDpjYW5hcnktY2xpZW50JTNBJTJCJTJGKzk=";
    assert_eq!(asked[0].authorization.as_deref(), Some(basic));
    let counted = gateway.metric("metamcpd_oauth_refreshes_total{outcome=\"refreshed\"}").await;
    assert_eq!(counted, Some(1.0));
    assert_eq!(gateway.server("remote").await["runtime"]["state"], "READY");
}

#[tokio::test]
async fn a_hundred_calls_that_find_their_token_expired_have_it_renewed_once() {
    let settings = "[calls]\nin_flight_max = 200\n[sessions]\nin_flight_max = 200";
    let gateway = Start::new().settings(settings).run().await;
    let (tokens, _remote, client) = with(&gateway).await;
    tokens.turn(|knobs| knobs.delay = Duration::from_millis(300));
    tokens.expire_all();
    let values: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let calls = values.iter().map(|value| client.text_of("remote__echo", json!({"value": value})));
    assert_eq!(join_all(calls).await, values);
    assert_eq!(tokens.asked().len(), 1);
}

#[tokio::test]
async fn sessions_of_several_clients_share_the_tokens() {
    let gateway = TestGateway::start().await;
    let (tokens, _remote, client) = with(&gateway).await;
    let key = gateway.key("another").await;
    let others = join_all((0..5).map(|_| gateway.client("all", &key))).await;
    tokens.turn(|knobs| knobs.delay = Duration::from_millis(300));
    tokens.expire_all();
    let calls = others.iter().chain([&client]);
    let calls = calls.map(|client| client.text_of("remote__echo", json!({"value": "hi"})));
    assert_eq!(join_all(calls).await, ["hi"; 6]);
    assert_eq!(tokens.asked().len(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end_and_no_call_meets_a_401() {
    let gateway = Start::new().settings("[oauth]\nrefresh_ahead = \"1h\"").run().await;
    let tokens = TokenEndpoint::start();
    tokens.turn(|knobs| knobs.expires_in = Some(86_400));
    tokens.accept("canary-access-first");
    let remote = upstream(&tokens);
    gateway.remote("remote", &remote.url).await;
    let mut session = session(&tokens, Some("canary-access-first"));
    session["expires_in"] = json!(1_800);
    let shown = put(&gateway, "remote", session).await;
    let client = gateway.client_of(&["remote"]).await;
    for _ in 0..3 {
        client.text_of("remote__echo", json!({"value": "hi"})).await;
    }
    assert_eq!(tokens.asked().len(), 1, "its next end is a day away");
    let with_first = remote
        .seen()
        .iter()
        .filter(|seen| seen.header("authorization").is_some_and(|value| value.ends_with("first")))
        .count();
    assert_eq!(with_first, 0);
    let now = gateway.get("mcp-servers/remote/oauth-session").await;
    assert_ne!(now["expires_at"], shown["expires_at"], "{now}");
}

#[tokio::test]
async fn what_needs_no_answer_is_told_with_a_new_token_too() {
    let gateway = TestGateway::start().await;
    let (tokens, remote, _client) = with(&gateway).await;
    let roots = json!({"roots": {"listChanged": true}});
    let key = gateway.key("another").await;
    let client = Client::that_can(&gateway.endpoint_url("all"), &key, roots).await;
    assert_eq!(client.text_of("remote__echo", json!({"value": "hi"})).await, "hi");
    tokens.expire_all();
    client.notify("notifications/roots/list_changed", json!({})).await;
    let told = wait_until("the notification with a good token", SOON, async || {
        let told = remote.seen_of("notifications/roots/list_changed");
        (told.len() == 2).then_some(told)
    })
    .await;
    let sent = told[1].header("authorization").unwrap_or_default();
    assert_eq!(sent, format!("Bearer {}", access_token(1)));
}

#[tokio::test]
async fn a_change_beside_a_session_that_was_renewed_restarts_nothing() {
    let gateway = TestGateway::start().await;
    let (tokens, remote, client) = with(&gateway).await;
    tokens.expire_all();
    client.text_of("remote__echo", json!({"value": "hi"})).await;
    let before = remote.seen_of("initialize").len();
    let row = gateway.change("mcp-servers/remote", json!({"description": "another"})).await;
    assert_eq!(row["runtime"]["state"], "READY", "{row}");
    client.text_of("remote__echo", json!({"value": "hi"})).await;
    assert_eq!(remote.seen_of("initialize").len(), before);
    assert_eq!(tokens.asked().len(), 1);
}

#[tokio::test]
async fn the_handshake_with_a_stale_token_is_made_with_a_new_one_over_both_transports() {
    let gateway = TestGateway::start().await;
    let tokens = TokenEndpoint::start();
    let remote = upstream(&tokens);
    gateway.remote("remote", &remote.url).await;
    needs_auth(&gateway).await;
    put(&gateway, "remote", session(&tokens, Some("stale"))).await;
    gateway.ready("remote").await;
    assert_eq!(tokens.asked().len(), 1);

    let others = TokenEndpoint::start();
    let old = SseRemote::start(SseKnobs { bearers: Some(others.bearers()), ..SseKnobs::default() });
    let body = json!({"name": "old", "type": "SSE", "url": old.url});
    gateway.create("mcp-servers", body).await;
    put(&gateway, "old", session(&others, None)).await;
    let client = gateway.client_of(&["old"]).await;
    assert_eq!(client.text_of("old__echo", json!({"value": "one"})).await, "one");
    assert_eq!(others.asked().len(), 1, "there was no access token yet");
    others.expire_all();
    assert_eq!(client.text_of("old__echo", json!({"value": "two"})).await, "two");
    assert_eq!(others.asked().len(), 2);
}

#[tokio::test]
async fn rotated_tokens_outlive_a_kill() {
    let mut gateway = TestGateway::start().await;
    let (tokens, _remote, client) = with(&gateway).await;
    for value in ["1", "2"] {
        tokens.expire_all();
        assert_eq!(client.text_of("remote__echo", json!({"value": value})).await, value);
    }
    gateway.kill9().await;
    tokens.expire_all();
    gateway.restart().await;
    gateway.ready("remote").await;
    let given: Vec<_> =
        tokens.asked().iter().map(|asked| asked.form["refresh_token"].clone()).collect();
    assert_eq!(given, [0, 1, 2].map(refresh_token), "each is good once");
}

#[tokio::test]
async fn a_kill_between_the_issue_of_tokens_and_their_writing_ends_in_needs_auth() {
    let mut fragile = Fragile::start("").await;
    let (tokens, _remote, client) = with(&fragile.gateway).await;
    // What it offers is written down when this is answered.
    fragile.gateway.get("mcp-servers/remote/tools").await;
    tokens.expire_all();
    fragile.arm_to("token-issued", "kill");
    let id = json!(client.next_id());
    let call = crate::support::client::call(id, "remote__echo", json!({"value": "hi"}));
    drop(client.try_open(&call).await);
    fragile.gateway.ended().await;
    tokens.expire_all();
    fragile.gateway.restart().await;
    let server = needs_auth(&fragile.gateway).await;
    let why = server["runtime"]["last_error"].as_str().unwrap_or_default();
    assert!(why.contains("`invalid_grant`"), "{server}");
    let asked = tokens.asked().len();
    assert_eq!(asked, 2, "the one that was lost, and one that found that out");
    let client = Client::connect(
        &fragile.gateway.endpoint_url("all"),
        Some(&fragile.gateway.key("k").await),
    )
    .await;
    for _ in 0..5 {
        assert_eq!(reason(&client.call("remote__echo", json!({})).await), "upstream_unauthorized");
    }
    assert_eq!(tokens.asked().len(), asked, "no loop");
}

#[tokio::test]
async fn a_session_that_has_ended_needs_a_person_and_a_new_one_is_used_at_once() {
    let gateway = Start::new().settings("[supervision]\nprobe_every = \"1h\"").run().await;
    let (tokens, remote, client) = with(&gateway).await;
    tokens.expire_all();
    tokens.turn(|knobs| {
        knobs.trouble = Some((400, r#"{"error":"invalid_grant","x":"canary-description"}"#.into()));
    });
    let answer = client.call("remote__echo", json!({"value": "hi"})).await;
    assert_eq!(reason(&answer), "upstream_unauthorized", "{answer}");
    let server = needs_auth(&gateway).await;
    assert_eq!(server["error_status"], "ERROR");
    let why = server["runtime"]["last_error"].as_str().unwrap_or_default();
    assert!(why.contains("`invalid_grant`") && why.contains("OAuth session has ended"), "{server}");
    assert!(!server.to_string().contains("canary"), "{server}");

    let (seen, asked) = (remote.seen().len(), tokens.asked().len());
    for _ in 0..5 {
        let answer = client.call("remote__echo", json!({"value": "hi"})).await;
        assert_eq!(reason(&answer), "upstream_unauthorized", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        let place = format!("{}/api/v1/mcp-servers/remote/oauth-session", gateway.base);
        assert!(message.contains(&place), "{message}");
    }
    assert_eq!((remote.seen().len(), tokens.asked().len()), (seen, asked), "no request");
    assert_eq!(asked, 1);

    tokens.turn(|knobs| knobs.trouble = None);
    put(&gateway, "remote", session(&tokens, None)).await;
    gateway.ready("remote").await;
    assert_eq!(client.text_of("remote__echo", json!({"value": "hi"})).await, "hi");
}

#[tokio::test]
async fn an_operators_restart_has_a_session_that_had_ended_tried_once_more() {
    let gateway = Start::new().settings("[supervision]\nprobe_every = \"1h\"").run().await;
    let (tokens, _remote, client) = with(&gateway).await;
    tokens.expire_all();
    tokens.turn(|knobs| knobs.trouble = Some((401, "{}".into())));
    client.call("remote__echo", json!({"value": "hi"})).await;
    needs_auth(&gateway).await;
    tokens.turn(|knobs| knobs.trouble = None);
    gateway.admin(Method::POST, "mcp-servers/remote/restart", None).await;
    gateway.ready("remote").await;
    assert_eq!(client.text_of("remote__echo", json!({"value": "hi"})).await, "hi");
}

#[tokio::test]
async fn a_new_token_that_is_refused_too_needs_a_person_after_one_renewal_and_heals_by_itself() {
    let gateway = Start::new().settings("[supervision]\nprobe_every = \"300ms\"").run().await;
    let (tokens, _remote, client) = with(&gateway).await;
    tokens.expire_all();
    tokens.turn(|knobs| knobs.is_void = true);
    let answer = client.call("remote__echo", json!({"value": "hi"})).await;
    assert_eq!(reason(&answer), "upstream_unauthorized", "{answer}");
    let server = needs_auth(&gateway).await;
    let why = server["runtime"]["last_error"].as_str().unwrap_or_default();
    assert!(why.contains("just renewed"), "{server}");
    // It is probed all the while.
    let restarts = server["runtime"]["restarts"].as_u64();
    let is_probed =
        |server: &Value| server["runtime"]["restarts"].as_u64() > restarts.map(|n| n + 2);
    gateway.server_until("remote", "probed", is_probed).await;
    assert_eq!(tokens.asked().len(), 1, "one renewal");
    tokens.accept(&access_token(1));
    gateway.ready("remote").await;
    assert_eq!(client.text_of("remote__echo", json!({"value": "hi"})).await, "hi");
    assert_eq!(tokens.asked().len(), 1);
}

#[tokio::test]
async fn while_the_token_endpoint_is_away_calls_fail_with_the_cause_and_later_they_work() {
    let gateway = Start::new().settings(SOON_AGAIN).run().await;
    let (tokens, _remote, client) = with(&gateway).await;
    tokens.expire_all();
    tokens.turn(|knobs| knobs.trouble = Some((503, "canary-description".into())));
    for _ in 0..5 {
        let answer = client.call("remote__echo", json!({"value": "hi"})).await;
        assert_eq!(reason(&answer), "upstream_token_unavailable", "{answer}");
        assert_eq!(answer["error"]["data"]["retry"], true, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("HTTP status 503") && !message.contains("canary"), "{message}");
    }
    assert_eq!(gateway.server("remote").await["runtime"]["state"], "READY");
    tokens.turn(|knobs| knobs.trouble = None);
    wait_until("a call that works", SOON, async || {
        let answer = client.call("remote__echo", json!({"value": "hi"})).await;
        answer["result"].is_object().then_some(())
    })
    .await;
}

#[tokio::test]
async fn calls_are_no_storm_on_a_token_endpoint_that_is_away() {
    let gateway =
        Start::new().settings("[oauth]\nretry_min = \"1h\"\nretry_max = \"1h\"").run().await;
    let (tokens, _remote, client) = with(&gateway).await;
    tokens.expire_all();
    tokens.turn(|knobs| knobs.trouble = Some((500, String::new())));
    for _ in 0..10 {
        let answer = client.call("remote__echo", json!({"value": "hi"})).await;
        assert_eq!(reason(&answer), "upstream_token_unavailable", "{answer}");
    }
    assert_eq!(tokens.asked().len(), 1);
}

#[tokio::test]
async fn a_start_without_the_token_endpoint_is_tried_again_by_itself() {
    let settings = format!("{SOON_AGAIN}\n[supervision]\nprobe_every = \"300ms\"");
    let gateway = Start::new().settings(&settings).run().await;
    let tokens = TokenEndpoint::start();
    tokens.turn(|knobs| knobs.trouble = Some((302, String::new())));
    let remote = upstream(&tokens);
    gateway.remote("remote", &remote.url).await;
    put(&gateway, "remote", session(&tokens, None)).await;
    let is_so = |server: &Value| server["runtime"]["reason"] == "token_failed";
    let server = gateway.server_until("remote", "without a token", is_so).await;
    let why = server["runtime"]["last_error"].as_str().unwrap_or_default();
    assert!(why.contains("HTTP status 302"), "{server}");
    tokens.turn(|knobs| knobs.trouble = None);
    gateway.ready("remote").await;
}

#[tokio::test]
async fn a_token_endpoint_is_reached_by_the_rules_of_egress_and_may_not_say_everything() {
    let settings = format!("{SOON_AGAIN}\n[supervision]\nprobe_every = \"300ms\"");
    let gateway = Start::new().settings(&settings).run().await;
    let tokens = TokenEndpoint::start();
    let remote = upstream(&tokens);
    gateway.remote("remote", &remote.url).await;
    let mut forbidden = session(&tokens, None);
    forbidden["token_endpoint"] = json!("https://169.254.169.254/token");
    tokens.turn(|knobs| knobs.trouble = Some((200, "x".repeat(300_000))));
    for (session, expected) in
        [(forbidden, "not connecting to 169.254.169.254"), (session(&tokens, None), "262144 bytes")]
    {
        put(&gateway, "remote", session).await;
        let says_so = |server: &Value| {
            let why = server["runtime"]["last_error"].as_str().unwrap_or_default();
            why.contains(expected)
        };
        gateway.server_until("remote", expected, says_so).await;
    }
    let hit = "metamcpd_limit_hit_total{limit=\"oauth.answer_max\"}";
    assert!(gateway.metric(hit).await.unwrap_or_default() >= 1.0);
    tokens.turn(|knobs| knobs.trouble = None);
    gateway.ready("remote").await;
}

#[tokio::test]
async fn tokens_that_are_renewed_while_the_database_is_away_are_used_and_written_later() {
    let mut gateway = Start::new().settings("[oauth]\npersist_wait = \"200ms\"").run().await;
    let (tokens, _remote, client) = with(&gateway).await;
    let outage = Outage::begin(&gateway).await;
    tokens.expire_all();
    assert_eq!(client.text_of("remote__echo", json!({"value": "hi"})).await, "hi");
    assert_eq!(gateway.metric("metamcpd_oauth_tokens_unwritten_total").await, Some(1.0));
    outage.end().await;
    // What waits for the database waits for it at a stop, too.
    gateway.stop().await;
    tokens.expire_all();
    gateway.restart().await;
    gateway.ready("remote").await;
    assert_eq!(tokens.asked().last().unwrap().form["refresh_token"], refresh_token(1));
}

#[tokio::test]
async fn an_upstream_without_a_session_says_where_it_is_given_one() {
    let gateway = Start::new().settings("[supervision]\nprobe_every = \"1h\"").run().await;
    let remote = Remote::start(Knobs { bearer: Some("good".to_owned()), ..Knobs::default() });
    let body = json!({"name": "remote", "type": "STREAMABLE_HTTP", "url": remote.url, "bearer_token": "good"});
    gateway.create("mcp-servers", body).await;
    let client = gateway.client_of(&["remote"]).await;
    client.text_of("remote__echo", json!({"value": "hi"})).await;
    remote.turn(|knobs| knobs.bearer = Some("another".to_owned()));
    let answer = client.call("remote__echo", json!({"value": "hi"})).await;
    assert_eq!(reason(&answer), "upstream_unauthorized", "{answer}");
    needs_auth(&gateway).await;
    let seen = remote.seen().len();
    let answer = client.call("remote__echo", json!({"value": "hi"})).await;
    assert_eq!(reason(&answer), "upstream_unauthorized", "{answer}");
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    let place = format!("{}/api/v1/mcp-servers/remote", gateway.base);
    assert!(message.contains(&place), "{message}");
    assert_eq!(remote.seen().len(), seen, "no request");
    gateway.change("mcp-servers/remote", json!({"bearer_token": "another"})).await;
    gateway.ready("remote").await;
}
