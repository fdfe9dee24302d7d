//! Tasks of a remote server, which may outlive the daemon in front of it.

use serde_json::json;

use crate::support::{
    Client, SOON, TestGateway,
    remote::{Answers, Knobs, Remote},
    wait_until,
};

async fn in_front_of(isolation: &str) -> (TestGateway, Remote, String) {
    let gateway = TestGateway::start().await;
    let remote = Remote::start(Knobs { tasks: true, ..Knobs::default() });
    let row = json!({
        "name": "far", "type": "STREAMABLE_HTTP", "url": remote.url, "isolation": isolation,
    });
    gateway.create("mcp-servers", row).await;
    gateway.publish("all", &["far"]).await;
    gateway.ready("far").await;
    let key = gateway.key("suite").await;
    (gateway, remote, key)
}

async fn make(client: &Client) -> String {
    let call = json!({"name": "far__must", "arguments": {}, "task": {}});
    let made = client.request("tools/call", call).await;
    let id = made["result"]["task"]["taskId"].as_str();
    id.unwrap_or_else(|| panic!("no task: {made}")).to_owned()
}

async fn status(client: &Client, id: &str) -> Option<String> {
    let got = client.request("tasks/get", json!({"taskId": id})).await;
    got["result"]["status"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_task_goes_on_after_a_restart_and_is_still_its_owner_s_alone() {
    for isolation in ["SESSION", "SHARED", "USER"] {
        let (mut gateway, remote, key) = in_front_of(isolation).await;
        let other_key = gateway.key("other").await;
        let mut client = gateway.client("all", &key).await;
        let id = make(&client).await;
        match isolation {
            "SESSION" => drop(gateway.kill9().await),
            _ => drop(gateway.stop().await),
        }
        gateway.restart().await;
        client.url = gateway.endpoint_url("all");
        let other = gateway.client("all", &other_key).await;
        gateway.ready("far").await;

        // Not before its owner, or the id would be known by then.
        assert_eq!(status(&other, &id).await, None);
        assert_eq!(status(&client, &id).await.as_deref(), Some("working"), "{isolation}");
        remote.tasks().finish();
        let result = client.request("tasks/result", json!({"taskId": id})).await;
        assert_eq!(result["result"]["content"][0]["text"], "the outcome of remote-1", "{result}");
        let listed = client.request("tasks/list", json!({})).await;
        assert_eq!(listed["result"]["tasks"][0]["taskId"], id, "{listed}");
        let listed = other.request("tasks/list", json!({})).await;
        assert_eq!(listed["result"]["tasks"], json!([]));
    }
}

#[tokio::test]
async fn a_task_is_asked_after_in_the_session_that_made_it_while_there_is_one() {
    let (gateway, remote, key) = in_front_of("SESSION").await;
    let (a, again) = (gateway.client("all", &key).await, gateway.client("all", &key).await);
    let id = make(&a).await;
    assert_eq!(status(&again, &id).await.as_deref(), Some("working"));
    let session = |method: &str| {
        let seen = remote.seen_of(method);
        seen.last().and_then(|seen| seen.header("mcp-session-id").map(str::to_owned))
    };
    assert_eq!(session("tasks/get"), session("tools/call"));
    assert!(session("tasks/get").is_some());
    // When that has ended, it is asked after in the session of whoever asks.
    let before = session("tasks/get");
    a.end().await;
    wait_until("the session to be given back", SOON, async || {
        (remote.count("DELETE") > 0).then_some(())
    })
    .await;
    assert_eq!(status(&again, &id).await.as_deref(), Some("working"));
    assert_ne!(session("tasks/get"), before);
    let listed = again.request("tasks/list", json!({})).await;
    assert_eq!(listed["result"]["tasks"][0]["taskId"], id, "{listed}");
}

#[tokio::test]
async fn a_tool_of_a_remote_server_that_can_only_be_a_task_is_called_plainly() {
    for answers in [Answers::Json, Answers::Sse] {
        let (gateway, remote, key) = in_front_of("SESSION").await;
        remote.turn(|knobs| knobs.answers = answers);
        let client = gateway.client("all", &key).await;
        let calling = client.call("far__must", json!({}));
        let finishing = async {
            wait_until("it is asked after twice", SOON, async || {
                (remote.seen_of("tasks/get").len() > 1).then_some(())
            })
            .await;
            remote.tasks().finish();
        };
        let (answer, ()) = tokio::join!(calling, finishing);
        let expected =
            json!({"content": [{"type": "text", "text": "the outcome of remote-1"}], "_meta": {}});
        assert_eq!(answer["result"], expected, "{answers:?}");
    }
}

#[tokio::test]
async fn a_task_that_its_server_has_lost_is_answered_by_its_server() {
    let (gateway, remote, key) = in_front_of("SHARED").await;
    let client = gateway.client("all", &key).await;
    let id = make(&client).await;
    remote.tasks().lose();
    let lost = client.request("tasks/get", json!({"taskId": id})).await;
    assert_eq!(lost["error"]["message"], "no such task", "{lost}");
    let listed = client.request("tasks/list", json!({})).await;
    assert_eq!(listed["result"]["tasks"], json!([]));
}
