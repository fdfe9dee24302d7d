//! The targets with bytes that are mutated from examples: bytes set, put in, taken out and doubled,
//! words of each language put in, and two examples grown together.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by ending")]

mod targets;

use proptest::{prelude::*, sample::Index};

#[derive(Clone, Debug)]
enum Mutation {
    Set(Index, u8),
    PutIn(Index, Vec<u8>),
    TakeOut(Index, u8),
    Double(Index, u8),
    Join(Index, Index, Index),
}

fn mutations(words: &'static [&'static str]) -> impl Strategy<Value = Vec<Mutation>> {
    let word = proptest::sample::select(words).prop_map(|word| word.as_bytes().to_vec());
    let some = prop_oneof![3 => word, 1 => proptest::collection::vec(any::<u8>(), 1..4)];
    let one = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<Index>(), some).prop_map(|(at, bytes)| Mutation::PutIn(at, bytes)),
        (any::<Index>(), 0_u8..12).prop_map(|(at, length)| Mutation::TakeOut(at, length)),
        (any::<Index>(), 0_u8..24).prop_map(|(at, length)| Mutation::Double(at, length)),
        (any::<Index>(), any::<Index>(), any::<Index>())
            .prop_map(|(other, cut, place)| Mutation::Join(other, cut, place)),
    ];
    proptest::collection::vec(one, 0..5)
}

fn mutated(
    examples: &'static [&'static str],
    words: &'static [&'static str],
) -> impl Strategy<Value = Vec<u8>> {
    let from_example = (any::<Index>(), mutations(words)).prop_map(move |(example, mutations)| {
        let mut bytes = example.get(examples).as_bytes().to_vec();
        for mutation in mutations {
            let place = |at: Index, bytes: &[u8]| at.index(bytes.len() + 1);
            match mutation {
                Mutation::Set(at, byte) => {
                    let at = place(at, &bytes);
                    if let Some(old) = bytes.get_mut(at) {
                        *old = byte;
                    }
                }
                Mutation::PutIn(at, some) => {
                    let at = place(at, &bytes);
                    bytes.splice(at..at, some);
                }
                Mutation::TakeOut(at, length) => {
                    let at = place(at, &bytes);
                    let end = (at + usize::from(length)).min(bytes.len());
                    bytes.drain(at..end);
                }
                Mutation::Double(at, length) => {
                    let at = place(at, &bytes);
                    let end = (at + usize::from(length)).min(bytes.len());
                    let twice = bytes[at..end].to_vec();
                    bytes.splice(at..at, twice);
                }
                Mutation::Join(other, cut, at) => {
                    let other = other.get(examples).as_bytes();
                    let at = place(at, &bytes);
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[cut.index(other.len() + 1)..]);
                }
            }
        }
        bytes
    });
    prop_oneof![9 => from_example, 1 => proptest::collection::vec(any::<u8>(), 0..120)]
}

const JSON_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "\\",
    "\n",
    "\r",
    " ",
    "null",
    "1e400",
    "-0",
    "\"id\":",
    "\"id\":7,",
    "\"i\\u0064\":1,",
    "\"method\":\"x\",",
    "\"result\":{},",
    "\"error\":1,",
    "\"name\":\"n\",",
    "\"uri\":\"u\",",
    "\"_meta\":{\"progressToken\":1},",
    "\"\\ud800\":1,",
    "\"progress\":\"inf\",",
    "\"progress\":2.5,",
    "\"requestId\":\"r\",",
    "\"params\":",
    "é",
    "\u{2028}",
    "[[[[[[[[[[[[[1]]]]]]]]]]]]]",
    "\"x\":{\"id\":5},",
    "\u{0}",
];

const MESSAGES: &[&str] = &[
    r#"{"jsonrpc":"2.0","id":-7,"method":"ping"}"#,
    r#"{"jsonrpc":"2.0","id":1.5,"method":"ping","params":[{"name":1}]}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a__b","arguments":{"x":[1.0,{"name":2}]},"_meta":{"progressToken":"t","z":1}}}"#,
    r#"{"jsonrpc":"2.0","id":"é\n","result":{"content":[{"type":"text","text":"\u0000 \ud800"}],"n":12345678901234567890123}}"#,
    r#"{"error":{"code":-32602,"message":"no","data":{"a":1,"a":2}},"id":7,"jsonrpc":"2.0"}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":0.50,"total":1e400}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3,"reason":"x"}}"#,
    r#"{"jsonrpc":"2.0","id":2,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":""}}}"#,
    r#"{"jsonrpc":"2.0","id":2,"method":"resources/read","params":{"uri":"u:\/\/\u0061"}}"#,
    "{\r\n \"jsonrpc\" : \"2.0\" ,\n \"id\" : null , \"error\" : {} }",
];

const BATCHES: &[&str] = &[
    r#"[1,2,3,4,5,6]"#,
    r#"[{"jsonrpc":"2.0","method":"a"},2,3,4,5,6,7]"#,
    r#"[{"jsonrpc":"2.0","id":1,"method":"a"}, 7 ,{"jsonrpc":"2.0","method":"b","params":[]}]"#,
    r#" [ {"jsonrpc":"2.0","id":1,"result":{}} ] "#,
    "[[],{\"jsonrpc\":\"2.0\",\n\"method\":\"b\"}]",
];

/// The first bytes say how it is cut.
const STREAMS: &[&str] = &[
    "\u{2}\u{3}\u{0}{\"a\":\"}{\\\"\"}\r\n[[],{}] {}\n",
    "\u{1}\u{1}[1]{\"a\":[\"\\\\\"]}",
    "\u{2}\u{3}\u{0}{\"a\":1}\r\n\r\n{\"b\":[\"}\\\"\"]} [1,2]\nlonger than a line may be, by far\nshort\n",
    "\u{1}\u{4}event: message\ndata: {\"a\":1}\ndata: two\n\n: so\r\n\r\nid: 7\nretry: 500\rdata\r\r",
    "\u{0}\u{feff}data:x\n\nid: a\u{0}b\ndata: y\n\nretry: +5\nretry: 12x\n\nretry: 3\nretry: no\n\n",
    "\u{3}\u{0}\u{1}\u{2}{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"id\":8,\"method\":\"x\"}}\n",
    "\u{0}{\"result\":{\"a\":[1,{\"id\":9}]},\"jsonrpc\":\"2.0\",\"id\":7}\n",
    "\u{0}{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"roots/list\",\"params\":{\"result\":1}}\n",
    "\u{0}{\"params\":{\"result\":1},\"jsonrpc\":\"2.0\",\"method\":\"x\",\"id\":7}\n",
];

const STREAM_WORDS: &[&str] = &[
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    "data:",
    "data: ",
    "id:",
    "event: e\n",
    "retry:",
    "retry: 7\n",
    ":",
    "\u{feff}",
    "\u{0}",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    "\"id\":7,",
    "\"id\":\"7\",",
    "\"x\":{\"id\":5},",
    "\"method\":\"m\",",
    "\"result\":1,",
    "\"\\\"id\":5,",
    "xxxxxxxxxxxxxxxxxxxxxxxxx",
];

const TEMPLATES: &[&str] = &[
    "a{/b}\na/1/2",
    "a{/b}{.c}\na/1.2/3",
    "a{;b}\na;1/2",
    "{a}{b}\n/",
    "a{#b}\na#/?#",
    "test://{id}/data\ntest://123/data",
    "file:///{+path}\nfile:///a/b?x#y",
    "x://a{?q,r}\nx://a?q=1&r=/",
    "file://{/path*}\nfile:///a/b",
    "{+a}{+b}\nxy",
    "x{;p}{.e}{#f}{&g}\nx;p=1.e#f&g",
    "é{x}\né%20",
];

const TEMPLATE_WORDS: &[&str] = &[
    "{", "}", "{a}", "{+a}", "{#a}", "{/a}", "{/a*}", "{?a,b}", "{&a}", "{;a}", "{.a}", "/", "?",
    "#", "a", ".", "&", ";", "\n", "é",
];

const ADDRESSES: &[&str] = &[
    "\u{7f}\u{0}\u{0}\u{1}",
    "\n\u{0}\u{0}\u{1}",
    "dd@d",
    "    ",
    "\u{0}",
    " \u{1}\r\u{8}",
    " \u{2}\u{7f}\u{0}\u{0}\u{1}",
    "http://127.0.0.1/",
    "https://[::ffff:10.0.0.1]:8080/x",
    "http://0x7f.1",
    "http://user@localhost/",
    "ftp://8.8.8.8/",
    "http://[2001:0:808:808::f5ff:fffe]/",
    "http://xn--nxasmq6b/",
    "http://１２７.0.0.1/",
];

const ADDRESS_WORDS: &[&str] = &[
    "127.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "8.8.8.8",
    "[::1]",
    "[::ffff:7f00:1]",
    "[fd00:ec2::254]",
    "0x",
    "0",
    "1",
    ".",
    ":",
    "@",
    "/",
    "#",
    "?",
    "%31",
    "\u{0}",
    "\u{7f}",
    " \u{2}",
    " \u{1}",
    "d",
    "2130706433",
    "https://",
];

const CREDENTIALS: &[&str] = &[
    "k\nBearer k\n\n",
    "\nbearer\tk \nk\nk",
    " \nBasic k\n\nother",
    "a\nBearer  b\nc\nd",
    "\nBearer\n\n",
];
const CREDENTIAL_WORDS: &[&str] =
    &["Bearer ", "bearer\t", "BEARER", "k", " ", "\t", "\n", "Basic ", "é", "\u{a0}"];

const HOSTS: &[&str] = &[
    "localhost:12008\nhttp://localhost:12008",
    "127.0.0.1\nhttps://tool.example",
    "[::1]:1\nhttp://[::1]:1",
    "gateway.lan\nhttps://mcp.example",
    "evil.example\nhttp://evil.example",
    "mcp.example:443\nnull",
];
const HOST_WORDS: &[&str] = &[
    "localhost",
    "127.1",
    "[::1]",
    ".evil.example",
    "evil@",
    ":80",
    ":",
    "/",
    "#",
    "?",
    "\\",
    "\n",
    "http://",
    "https://",
    "null",
    "tool.example",
    ".",
    "%",
    " ",
    "file://",
    "ⓛ",
];

const FILES: &[&str] = &[
    r#"{"mcpServers":{"a":7,"b":null,"c d":{"command":"x y"},"":{"command":"x"},"e":[]}}"#,
    r#"{"mcpServers":{"a":{"command":"c"}}}"#,
    r#"{"mcpServers":{"a b":{"command":"npx","args":["-y","x"],"env":{"K":"${env:K}"}},"b":{"url":"https://x.example/mcp","headers":{"Authorization":"Bearer t"}}}}"#,
    r#"{"mcpServers":{"a":{"command":"x"},"a":{"command":"y"},"A.":{"command":""}}}"#,
    "{ // so\n servers: { 'x': { type: 'sse', url: 'http://h/sse', }, }, inputs: [] }",
    "[mcp_servers.time]\ncommand = 'uvx'\nargs = [\"t\"]\nenv = { A = 'b' }\n",
    r#"[{"name":"n","command":"c"},{"url":"http://u"},7]"#,
    "mcpServers:\n  - name: a\n",
    r#"{"mcp":{"servers":{"z":{"httpUrl":"http://z","timeout":5000,"disabled":true}}},"projects":{"/p":{"mcpServers":{}}}}"#,
];
const FILE_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "'",
    "//",
    "/*",
    "*/",
    "#",
    "=",
    "\n",
    "\"command\":\"c\",",
    "\"url\":\"http://x\",",
    "\"mcpServers\":",
    "\"servers\":",
    "\"mcp\":",
    "\"a\":{\"command\":\"c\"},",
    "\"name\":\"a\",",
    "${X}",
    "$",
    "1e400",
    "---",
    "\u{feff}",
    "67e55044-10b1-426f-9247-bb680e5fe0c8",
    "__",
    "null",
];

const NAMES: &[&str] = &[
    "\u{0}0time now convert_time\nweb search now",
    "\u{1}\u{14}a x x__y\nb x\na__x y",
    "\u{2}\u{0}a x\nb x y\n\n c",
    "\u{0}\u{14}long_server_name_that_goes_on a_tool_with_a_rather_long_name\nlong_server_name_that_goes_on_ a_tool_with_a_rather_long_name_",
];
const NAME_WORDS: &[&str] = &[
    " ",
    "\n",
    "__",
    "a",
    "x",
    "é",
    ".",
    "/",
    "-",
    "now",
    "\u{0}",
    "\"",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

const LISTS: &[&str] = &[
    r#"{"tools":[{"name":"a","x":1e400},{"name":"b","name":"c"},null,{"name":"a"}],"nextCursor":"n"}"#,
    "{\"resources\":[{\"uri\":\"u:\\/\\/a\",\n\"name\":\"n\"}],\"resourceTemplates\":[{\"uriTemplate\":\"u://{x}\"}],\"prompts\":[{\"name\":\"\"}]}",
    r#"{"prompts":[{"na\u006de":"p","_meta":{"name":"q"}}],"tools":{}}"#,
];

const OVERRIDDEN: &[&str] = &[
    "{\"name\":\"n\",\"title\":\"T\", \"annotations\" : {\"title\":\"A\",\"x\":1.50, \"y\":null},\"z\":1e400}\n{\"x\":null,\"readOnlyHint\":true}\nNew \"t\"\n",
    "{ \"description\":\"d\",\"name\":\"n\",\"title\":1,\"title\":2 }\n{}\n-\nwords",
    "{\"name\":\"n\",\"annotations\":[1]}\n{\"a\":null}\n-\n-",
    "{\"annotations\":{},\"name\":\"n\"}\n{\"a\":{\"b\":1},\"title\":\"x\"}\né\n-",
];

macro_rules! hold {
    ($($name:ident: $target:ident of $examples:ident with $words:ident;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig {
                // A failure shows its smallest case; a file beside the sources would only be forgotten.
                failure_persistence: None,
                cases: ProptestConfig::default().cases * 8,
                ..ProptestConfig::default()
            })]
            $(
                #[test]
                fn $name(bytes in mutated($examples, $words)) {
                    targets::$target(&bytes);
                }
            )*
        }
    };
}

hold! {
    a_message_is_what_a_simpler_reader_makes_of_it: frame of MESSAGES with JSON_WORDS;
    a_batch_is_its_messages_one_by_one: batch of BATCHES with JSON_WORDS;
    lines_are_those_of_the_whole_text: lines of STREAMS with STREAM_WORDS;
    events_are_those_that_the_standard_has: sse of STREAMS with STREAM_WORDS;
    documents_are_cut_where_they_end: documents of STREAMS with STREAM_WORDS;
    what_is_torn_never_names_another_request: torn of STREAMS with STREAM_WORDS;
    a_template_matches_what_its_regular_expression_does: template of TEMPLATES with TEMPLATE_WORDS;
    an_address_is_judged_by_the_longest_prefix: address of ADDRESSES with ADDRESS_WORDS;
    a_url_is_judged_by_the_address_that_it_spells: url of ADDRESSES with ADDRESS_WORDS;
    a_credential_is_the_one_that_all_places_agree_on: credential of CREDENTIALS with CREDENTIAL_WORDS;
    no_host_and_no_origin_is_ours_by_what_follows_our_name: edge of HOSTS with HOST_WORDS;
    every_entry_of_a_file_has_one_outcome: import of FILES with FILE_WORDS;
    names_lead_back_to_one_thing_each: names of NAMES with NAME_WORDS;
    a_list_is_read_as_it_came: listing of LISTS with JSON_WORDS;
    an_override_changes_its_words_and_no_byte_beside_them: overrides of OVERRIDDEN with JSON_WORDS;
}
