//! An upstream that puts what careless software changes everywhere: unknown members, integers of 23
//! digits, 1e400, duplicate keys, odd Unicode and spacing, content of unknown types. What arrives is
//! what was sent but for the ids, names and tokens that are ours, in both directions, whatever
//! transport is on either side.

use serde_json::{Value, json};

use crate::support::{
    Client, SOON, SseClient, TestGateway, exact::Exact, featured::Attached,
    fixtures::without_python, within,
};

const TOOL: &str = r#"{"zz":1e400,"inputSchema":{"type":"object","maximum":12345678901234567890123},"x":[1.0,1.50,-0,1E+2],"name":"od\u0064","title":"caf\u00e9 \ud83d\ude00 é 😀 \u2028","_meta":{"b":2,"a":1,"a":0}}"#;
const OTHERS: &str = r#"{"name":"fail","inputSchema":{}},{"name":"touch","inputSchema":{ }}"#;
const PROMPT: &str = r#"{"zz":1e400 , "name":"p\u0061", "arguments":[{"name":"a","x":0.10}],"icons":[{"src":"data:,"}],"_meta":{"b":12345678901234567890123,"a":-0}}"#;
const RESOURCE: &str =
    r#"{"uri":"u:\/\/caf\u00e9\ud83d\ude00","name":"é \u2028","size":1E400,"x":{"k":1,"k":2}}"#;
const TEMPLATE: &str =
    r#"{"uriTemplate":"t://{+odd}","name":"n","mimeType":"x/y;\u0000","_meta":{"n":1.50}}"#;

const GOT: &str = r#"{"messages":[{"role":"user","content":{"type":"hologram","beam":1e400,"\u0061":2}}],"description":"\u0000","zz":[12345678901234567890123]}"#;
const READ: &str = r#"{"contents":[{"uri":"v://other","blob":"","odd":1E-400},{"type":"future"}],"_meta":{"dup":1,"dup":2}}"#;
const COMPLETED: &str =
    r#"{"completion":{"values":["\u0000\ud800","e\u0301é"],"total":1.0,"odd":{ }},"zz":-0}"#;
const RESULT: &str = r#"{"structuredContent":{"big":12345678901234567890123,"huge":1e400,"dup":1,"dup":2},"content":[{"type":"smell","strength":1E-400 , "of":"\ud800"},{"type":"text","text":"\u0000 é😀\u2028"}],"future":[null, true],"isError":false}"#;
const ERROR: &str = r#"{"data":{"n":1e400,"dup":1,"dup":2,"t":"\udfff"},"code":-32077,"zz":[ ],"message":"n\u006f \/ é"}"#;

const PROGRESS: &str = r#"{"zz":1e400,"params":{"progress":0.10,"total":1e400,"progressToken":TOKEN,"message":"\u0000é","x":{"k":1,"k":2}},"method":"notifications\/progress","jsonrpc":"2.0"}"#;
const MESSAGE: &str = r#"{"jsonrpc":"2.0" , "method":"notifications/message","params":{"level":"info","data":{"n":12345678901234567890123,"t":"\ud800"},"zz":[1.0 ]},"é":-0}"#;
const SAMPLING: &str = r#"{"id":"s\u00e9-1","zz":1E400,"jsonrpc":"2.0","params":{"messages":[{"role":"user","content":{"type":"dream","depth":1.50}}],"maxTokens":12345678901234567890123,"metadata":{"k":1,"k":2}},"method":"sampling/createMessage"}"#;
const ELICITATION: &str = r#"{"method":"elicitation/create","params":{"message":"\u0000 é \ud800","requestedSchema":{"type":"object","properties":{"n":{"type":"integer","maximum":12345678901234567890123,"default":-0}}},"zz":[1e400]},"jsonrpc":"2.0","id":"e-\u0031"}"#;
const UPDATED: &str = r#"{"jsonrpc":"2.0","params":{"zz":1e400,"uri":"u:\/\/caf\u00e9\ud83d\ude00","n":[1.0 ,12345678901234567890123]},"method":"notifications/resources/updated","\u0000":{"k":1,"k":2}}"#;

const ARGUMENTS: &str = r#""arguments":{"a":1e400, "b":"\u0041\ud800","c":12345678901234567890123,"dup":1,"dup":2},"zz":[ ]"#;
/// As every answer of the server is framed, but for the id.
const FRAME: [&str; 3] =
    [r#"{"zz":1e400 ,"id":"#, r#","\u00e9\u0000":[1.0 , null],"jsonrpc":"2.0","result":"#, "}"];

/// A client of either transport, as bytes.
enum Served {
    Streamable(Client),
    Sse(Box<SseClient>),
}

impl Served {
    async fn new(gateway: &TestGateway, key: &str, is_sse: bool) -> Served {
        let able = json!({"sampling": {}, "elicitation": {}});
        if is_sse {
            let client = SseClient::that_can(&gateway.sse_url("all"), key, able).await;
            Served::Sse(Box::new(client))
        } else {
            Served::Streamable(Client::that_can(&gateway.endpoint_url("all"), key, able).await)
        }
    }

    async fn post(&self, body: &str) {
        match self {
            Served::Streamable(client) => drop(client.post(body).await),
            Served::Sse(client) => drop(client.post(body).await),
        }
    }

    /// Every message up to the answer to the request with this id. What is asked meanwhile is answered
    /// by `answers`, in their order, with the id put in the place of `ID`.
    async fn said(&self, body: &str, id: &Value, answers: &[&str]) -> Vec<String> {
        let mut answers = answers.iter();
        let mut said = Vec::new();
        let mut exchange = match self {
            Served::Streamable(client) => Some(client.open(body).await),
            Served::Sse(client) => {
                client.post(body).await;
                None
            }
        };
        loop {
            let event = match (self, &mut exchange) {
                (Served::Sse(client), _) => client.stream().await.expect("the answer", SOON).await,
                (_, Some(exchange)) => exchange.events.expect("the answer", SOON).await,
                (Served::Streamable(_), None) => panic!("nothing was asked"),
            };
            let message = event.json();
            said.push(event.data);
            let is_method = said.last().is_some_and(|text| text.contains(r#""method""#));
            if !is_method && said.last().is_some_and(|text| text.contains(&format!("{id}"))) {
                return said;
            }
            // Numbers that fit no type of ours are no JSON to the reader here.
            let asked =
                message.get("id").cloned().or_else(|| said.last().and_then(|text| id_in(text)));
            if let Some(asked) = asked.filter(|_| is_method) {
                let answer = answers.next().expect("a question too many");
                self.post(&answer.replace("ID", &asked.to_string())).await;
            }
        }
    }

    async fn answer(&self, body: &str, id: &Value) -> String {
        self.said(body, id, &[]).await.pop().expect("an answer")
    }
}

/// The id that a message has, if it is a number, or a string without escapes.
fn id_in(text: &str) -> Option<Value> {
    let rest = text.split_once(r#""id":"#)?.1;
    let end = rest.find([',', '}'])?;
    serde_json::from_str(&rest[..end]).ok()
}

/// The text with this id in the place of its own.
fn with_id(text: &str, own: &str, id: &Value) -> String {
    assert!(text.contains(&format!(r#""id":{own}"#)), "{text}");
    text.replace(&format!(r#""id":{own}"#), &format!(r#""id":{id}"#))
}

fn framed(id: &Value, result: &str) -> String {
    format!("{}{id}{}{result}{}", FRAME[0], FRAME[1], FRAME[2])
}

async fn lists_arrive(client: &Served) {
    let tools = format!(
        "{},{}",
        TOOL.replace(r#""od\u0064""#, r#""odd__odd""#),
        OTHERS.replace(r#":"fail""#, r#":"odd__fail""#).replace(r#":"touch""#, r#":"odd__touch""#)
    );
    let prompt = PROMPT.replace(r#""p\u0061""#, r#""odd__pa""#);
    for (method, field, items) in [
        ("tools/list", "tools", &*tools),
        ("prompts/list", "prompts", &*prompt),
        ("resources/list", "resources", RESOURCE),
        ("resources/templates/list", "resourceTemplates", TEMPLATE),
    ] {
        let id = json!(method);
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}"#);
        let expected = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"{field}":[{items}]}}}}"#);
        assert_eq!(client.answer(&body, &id).await, expected);
    }
}

/// What is asked arrives upstream as it was asked, and what is answered here as it was answered.
async fn answers_arrive(client: &Served, server: &Exact) {
    let uri = r#""uri":"u:\/\/caf\u00e9\ud83d\ude00""#;
    let reference = r#""ref":{ "x":1e400,"name":"odd__pa" ,"type":"ref\/prompt"},"argument":{"name":"a","value":"\u0041"}"#;
    for (method, params, own, result) in [
        ("prompts/get", r#""name":"odd__p\u0061""#, r#""name":"p\u0061""#, GOT),
        ("resources/read", uri, uri, READ),
        (
            "completion/complete",
            reference,
            &*reference.replace(r#""odd__pa""#, r#""p\u0061""#),
            COMPLETED,
        ),
    ] {
        let id = json!(format!("{method} is asked"));
        let asked = |id: &str, params: &str| {
            let rest = format!(r#""method":"{method}","params":{{{params},{ARGUMENTS}}},"q":1.0"#);
            format!(r#"{{"id":{id},"jsonrpc":"2.0", {rest}}}"#)
        };
        let before = server.heard().len();
        let answer = client.answer(&asked(&id.to_string(), params), &id).await;
        assert_eq!(answer, framed(&id, result));
        let heard = server.heard().split_off(before);
        let came = heard.iter().find(|text| text.contains(method)).expect("the request");
        let theirs = id_in(came).expect("our id");
        assert_eq!(*came, asked(&theirs.to_string(), own));
    }
    let id = json!("it fails");
    let failing = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"odd__fail",{ARGUMENTS}}}}}"#
    );
    let expected = format!(r#"{{"zz":[ ],"error":{ERROR},"id":{id},"jsonrpc":"2.0"}}"#);
    assert_eq!(client.answer(&failing, &id).await, expected);
}

/// A call that reports, logs, and asks twice: each message arrives, and each answer of the client's.
async fn a_call_arrives(client: &Served, server: &Exact) {
    const SAMPLED: &str = r#"{"zz":1e400,"result":{"role":"assistant","model":"\ud800","content":{"type":"dream","n":12345678901234567890123},"k":1,"k":2},"id":ID,"jsonrpc":"2.0"}"#;
    const REFUSED: &str = r#"{"jsonrpc":"2.0","id":ID , "error":{"message":"n\u006f","code":-1,"data":{"n":1e400,"k":1,"k":2}},"\u0000":[ ]}"#;
    let id = json!("the odd call");
    let call = |id: &str, token: &str, name: &str| {
        format!(
            r#"{{"params":{{"_meta":{{"k":1.0,"progressToken":{token}}},{ARGUMENTS},"name":{name}}},"method":"tools\/call","jsonrpc":"2.0","id":{id}}}"#
        )
    };
    let (token, before) = (r#""t\u00f6k""#, server.heard().len());
    let body = call(&id.to_string(), token, r#""odd__o\u0064d""#);
    let said = client.said(&body, &id, &[SAMPLED, REFUSED]).await;
    assert_eq!(said.len(), 5, "{said:#?}");
    assert_eq!(said[0], PROGRESS.replace("TOKEN", token));
    assert_eq!(said[1], MESSAGE);
    let asked = [id_in(&said[2]).expect("an id"), id_in(&said[3]).expect("an id")];
    assert_eq!(said[2], with_id(SAMPLING, r#""s\u00e9-1""#, &asked[0]));
    assert_eq!(said[3], with_id(ELICITATION, r#""e-\u0031""#, &asked[1]));
    assert_eq!(said[4], framed(&id, RESULT));

    let heard = server.heard().split_off(before);
    let came = heard.iter().find(|text| text.contains(r#"tools\/call"#)).expect("the call");
    let theirs = id_in(came).expect("our id").to_string();
    assert_eq!(*came, call(&theirs, &theirs, r#""od\u0064""#));
    for answer in [SAMPLED.replace("ID", r#""s\u00e9-1""#), REFUSED.replace("ID", r#""e-\u0031""#)]
    {
        assert!(heard.contains(&answer), "{answer}\nis not in\n{heard:#?}");
    }
}

async fn an_update_arrives(client: &Served) {
    let (id, own) = (json!("subscribed"), json!("touched"));
    let uri = r#""uri":"u:\/\/caf\u00e9\ud83d\ude00""#;
    let mut standing = match client {
        Served::Streamable(client) => Some(client.listen().await),
        Served::Sse(_) => None,
    };
    let request = |id: &Value, method: &str, params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}}}}}"#)
    };
    client.answer(&request(&id, "resources/subscribe", uri), &id).await;
    client.post(&request(&own, "tools/call", r#""name":"odd__touch""#)).await;
    let told = within("the update", SOON, async {
        loop {
            let event = match (client, &mut standing) {
                (Served::Sse(client), _) => client.stream().await.expect("an update", SOON).await,
                (_, Some(standing)) => standing.events.expect("an update", SOON).await,
                (Served::Streamable(_), None) => panic!("nobody listens"),
            };
            if event.data.contains("updated") {
                return event.data;
            }
        }
    })
    .await;
    assert_eq!(told, UPDATED);
}

async fn everything_arrives_as_it_was_sent(attached: Attached) {
    if without_python() {
        return;
    }
    let gateway = TestGateway::start().await;
    let list = |items: &str| format!("[{items}]");
    let tools = list(&format!("{TOOL},{OTHERS}"));
    let files = [
        ("tools", &*tools),
        ("prompts", &*list(PROMPT)),
        ("resources", &*list(RESOURCE)),
        ("resourceTemplates", &*list(TEMPLATE)),
        ("prompt", GOT),
        ("contents", READ),
        ("completion", COMPLETED),
        ("result", RESULT),
        ("error", ERROR),
        ("progress", PROGRESS),
        ("message", MESSAGE),
        ("sampling", SAMPLING),
        ("elicitation", ELICITATION),
        ("updated", UPDATED),
    ];
    let server = Exact::new(attached, &gateway.scratch().join("odd"), &files);
    gateway.create("mcp-servers", server.row("odd")).await;
    gateway.publish("all", &["odd"]).await;
    gateway.ready("odd").await;
    let key = gateway.key("suite").await;
    for is_sse in [false, true] {
        let client = Served::new(&gateway, &key, is_sse).await;
        lists_arrive(&client).await;
        answers_arrive(&client, &server).await;
        a_call_arrives(&client, &server).await;
        an_update_arrives(&client).await;
    }
}

#[tokio::test]
async fn everything_arrives_as_it_was_sent_in_front_of_a_process() {
    everything_arrives_as_it_was_sent(Attached::Stdio).await;
}

#[tokio::test]
async fn everything_arrives_as_it_was_sent_in_front_of_streamable_http() {
    everything_arrives_as_it_was_sent(Attached::StreamableHttp).await;
}

#[tokio::test]
async fn everything_arrives_as_it_was_sent_in_front_of_sse() {
    everything_arrives_as_it_was_sent(Attached::Sse).await;
}
