//! One order for several rows: all of them or none, with every problem named.

use super::*;

async fn states(house: &House) -> Vec<(String, bool)> {
    let rows = house.get("mcp-servers").await["items"].clone();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| (row["name"].as_str().unwrap().to_owned(), row["enabled"] == true)).collect()
}

async fn order(house: &House, action: &str, servers: &[&str]) -> (u16, Value) {
    let body = json!({"action": action, "servers": servers});
    house.ask(Method::POST, "mcp-servers/bulk", Some(body)).await
}

fn named(rows: &[(&str, bool)]) -> Vec<(String, bool)> {
    rows.iter().map(|(name, enabled)| ((*name).to_owned(), *enabled)).collect()
}

#[actix_web::test]
async fn several_servers_take_one_order() {
    let house = House::new().await;
    for name in ["a", "b", "c"] {
        house.server(name).await;
    }
    let b = house.get("mcp-servers/b").await["uuid"].as_str().unwrap().to_owned();
    let (status, done) = order(&house, "DISABLE", &["a", &b]).await;
    assert_eq!(status, 200, "{done}");
    let items = done["items"].as_array().unwrap();
    let names: Vec<_> = items.iter().map(|item| (&item["name"], &item["changed"])).collect();
    assert_eq!(names, [(&json!("a"), &json!(true)), (&json!("b"), &json!(true))]);
    assert_eq!(states(&house).await, named(&[("a", false), ("b", false), ("c", true)]));
    house.until("mcp-servers/a", |row| row["runtime"]["state"] == "DISABLED").await;

    let (_, done) = order(&house, "ENABLE", &["b", "c"]).await;
    let changed: Vec<_> =
        done["items"].as_array().unwrap().iter().map(|item| item["changed"].clone()).collect();
    assert_eq!(changed, [true, false]);
    house.until("mcp-servers/b", |row| row["runtime"]["state"] == "READY").await;

    let (status, done) = order(&house, "RESTART", &["b", "c"]).await;
    assert_eq!((status, done["items"].as_array().unwrap().len()), (202, 2));
    house.until("mcp-servers/c", |row| row["runtime"]["restarts"] == 1).await;

    let (status, _) = order(&house, "DELETE", &["a", "c"]).await;
    assert_eq!((status, states(&house).await), (200, named(&[("b", true)])));
}

#[actix_web::test]
async fn an_order_that_one_server_cannot_take_is_given_to_none() {
    let house = House::new().await;
    house.server("a").await;
    let off = json!({"name": "off", "type": "STDIO", "command": "x", "enabled": false});
    house.create("mcp-servers", off).await;
    let before = states(&house).await;
    let many: Vec<&str> = std::iter::repeat_n("a", 501).collect();
    for (action, servers, fields) in [
        ("DISABLE", &["a", "gone", "a"][..], &["servers[1]", "servers[2]"][..]),
        ("DELETE", &["gone"], &["servers[0]"]),
        ("RESTART", &["a", "off"], &["servers[1]"]),
        ("ENABLE", &[], &["servers"]),
        ("ENABLE", &many, &["servers"]),
        ("EXPLODE", &["a"], &["action"]),
    ] {
        let body = json!({"action": action, "servers": servers});
        let refused = house.refused(Method::POST, "mcp-servers/bulk", body).await;
        let fields = fields.iter().map(|field| (*field).to_owned()).collect();
        assert_eq!(refused, (422, "invalid".to_owned(), fields), "{action}");
    }
    assert_eq!(states(&house).await, before);
    let restarts = house.get("mcp-servers/a").await["runtime"]["restarts"].clone();
    assert_eq!(restarts, 0, "not even the one that could was restarted");
}

#[actix_web::test]
async fn a_server_may_be_called_bulk() {
    let house = House::new().await;
    house.server("bulk").await;
    assert_eq!(house.get("mcp-servers/bulk").await["name"], "bulk");
    house.change("mcp-servers/bulk", json!({"description": "x"})).await;
    house.remove("mcp-servers/bulk").await;
}

#[actix_web::test]
async fn some_members_get_another_status_and_the_others_stay_where_they_are() {
    let house = House::new().await;
    for name in ["a", "b", "c", "d"] {
        house.server(name).await;
    }
    let members = json!(["a", {"server": "b", "status": "INACTIVE"}, "c"]);
    house.create("namespaces", json!({"name": "team", "servers": members})).await;
    let few = json!([{"server": "c", "status": "INACTIVE"}, {"server": "b", "status": "ACTIVE"}]);
    let (status, row) = house.ask(Method::PATCH, "namespaces/team/servers", Some(few)).await;
    assert_eq!(status, 200, "{row}");
    let seen = |row: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let members = row["servers"].as_array().unwrap().iter();
        members.map(|member| (text(&member["name"]), text(&member["status"]))).collect()
    };
    let expected = [("a", "ACTIVE"), ("b", "ACTIVE"), ("c", "INACTIVE")]
        .map(|(name, status)| (name.to_owned(), status.to_owned()));
    assert_eq!(seen(&row), expected);

    for (body, fields) in [
        (
            json!([{"server": "a", "status": "INACTIVE"}, {"server": "d", "status": "ACTIVE"}]),
            vec!["servers[1].server"],
        ),
        (
            json!([{"server": "a", "status": "INACTIVE"}, {"server": "a", "status": "ACTIVE"}]),
            vec!["servers[1].server"],
        ),
        (json!([{"server": "nobody", "status": "ACTIVE"}]), vec!["servers[0].server"]),
    ] {
        let refused = house.refused(Method::PATCH, "namespaces/team/servers", body.clone()).await;
        let fields: Vec<String> = fields.into_iter().map(str::to_owned).collect();
        assert_eq!(refused, (422, "invalid".to_owned(), fields), "{body}");
    }
    assert_eq!(seen(&house.get("namespaces/team").await), expected);
}
