//! The namespace, over boards that the test writes on; time is virtual.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::*;
use crate::catalogue::{curation::Decision, overrides::Overrides, profiles::Profile};
use crate::upstream::{
    UpstreamSpec,
    board::Remembered,
    status::{Runtime, StateWord},
    testing,
};

const SECOND: Duration = Duration::from_secs(1);
const DEBOUNCE: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Memory {
    names: Mutex<Vec<String>>,
    hidden: Mutex<Vec<String>>,
}

impl NamesKeeper for Memory {
    fn named(&self, _: Uuid, kind: Kind, _: Naming, names: &KnownNames) {
        if kind != Kind::Tool {
            return;
        }
        let mut shown: Vec<String> = names.iter().map(|(_, _, shown)| shown.to_owned()).collect();
        shown.sort();
        *self.names.lock().unwrap() = shown;
    }

    fn hid(&self, hidden: HiddenTool<'_>) {
        let HiddenTool { tool, profile, why, .. } = hidden;
        let told = format!("{tool} {} {}", profile.as_str(), why.as_str());
        self.hidden.lock().unwrap().push(told);
    }
}

struct Scene {
    roster: Roster,
    memory: Arc<Memory>,
    handle: NamespaceHandle,
}

fn board(id: u128) -> Arc<Board> {
    let (spec, calls) = (testing::spec(id), testing::calls());
    Arc::new(Board::new(
        spec,
        Remembered::default(),
        calls,
        &testing::brakes(),
        Arc::new(testing::Deaf),
    ))
}

fn tools(names: &[&str]) -> Arc<Vec<Item>> {
    let tool =
        |name: &&str| Item::parse(Kind::Tool, format!(r#"{{"name":"{name}"}}"#).into()).unwrap();
    Arc::new(names.iter().map(tool).collect())
}

/// A namespace of two upstreams that nothing is known of yet.
fn scene(naming: Naming) -> Scene {
    tokio::time::pause();
    let roster = Roster::default();
    roster.store(Arc::new([1, 2].into_iter().map(|id| (Uuid::from_u128(id), board(id))).collect()));
    let memory = Arc::new(Memory::default());
    let options = NamespaceOptions {
        names_max: 48,
        first_wait: 2 * SECOND,
        debounce: DEBOUNCE,
        unknown_rest: 30 * SECOND,
        instructions_max: 100,
        links_max: 8,
        schema_max: 4_096,
    };
    let handle =
        Namespace::start(spec(naming, &[1, 2]), options, roster.clone(), memory.clone(), None);
    Scene { roster, memory, handle }
}

fn spec(naming: Naming, members: &[u128]) -> NamespaceSpec {
    let member = |id: &u128| MemberSpec { server: Uuid::from_u128(*id), active: true };
    NamespaceSpec {
        id: Uuid::from_u128(9),
        naming,
        uri_naming: Naming::Never,
        members: members.iter().map(member).collect(),
        known: PerKind::default(),
        curations: PerKind::default(),
    }
}

impl Scene {
    fn board(&self, id: u128) -> Arc<Board> {
        self.roster.load().get(&Uuid::from_u128(id)).cloned().unwrap()
    }

    /// An upstream lists its tools, and the namespace takes note of it.
    async fn lists(&self, id: u128, names: &[&str]) {
        self.lists_just_now(id, names).await;
        tokio::time::sleep(2 * DEBOUNCE).await;
    }

    async fn lists_just_now(&self, id: u128, names: &[&str]) {
        self.board(id).set_list(Kind::Tool, tools(names));
        self.handle.actor.send(UpstreamChanged(Uuid::from_u128(id))).await.unwrap();
    }

    fn snapshot(&self) -> Arc<Published> {
        self.handle.published.load_full()
    }

    /// An upstream lists its resources, and the namespace takes note of it.
    async fn lists_uris(&self, id: u128, uris: &[&str]) {
        let item = |uri: &&str| {
            Item::parse(Kind::Resource, format!(r#"{{"uri":"{uri}"}}"#).into()).unwrap()
        };
        self.board(id).set_list(Kind::Resource, Arc::new(uris.iter().map(item).collect()));
        self.board(id).set_list(Kind::Template, Arc::default());
        self.handle.actor.send(UpstreamChanged(Uuid::from_u128(id))).await.unwrap();
        tokio::time::sleep(2 * DEBOUNCE).await;
    }

    fn shows(&self, name: &str) -> bool {
        self.handle.published.load().find(name).is_some()
    }
}

/// The clock of the tests goes by milliseconds.
#[track_caller]
fn took(began: Instant, duration: Duration) {
    let elapsed = began.elapsed();
    assert!(elapsed >= duration && elapsed - duration < SECOND / 100, "it took {elapsed:?}");
}

#[actix::test]
async fn a_first_list_waits_for_what_may_still_come_and_no_longer_than_its_time() {
    let scene = scene(Naming::Always);
    assert!(!scene.handle.published.load().is_settled[Kind::Tool]);
    let began = Instant::now();
    scene.lists(1, &["a"]).await;
    let published = scene.handle.actor.send(AwaitFirst(Kind::Tool)).await.unwrap();
    took(began, 2 * SECOND);
    assert!(published.find("u1__a").is_some());

    // The wait is counted from the upstream's start, so a later list does not wait again.
    scene.handle.actor.send(AwaitFirst(Kind::Tool)).await.unwrap();
    took(began, 2 * SECOND);
}

#[actix::test]
async fn a_first_list_ends_its_wait_when_the_last_has_failed_or_come() {
    let scene = scene(Naming::Always);
    let began = Instant::now();
    let (published, ()) = tokio::join!(scene.handle.actor.send(AwaitFirst(Kind::Tool)), async {
        tokio::time::sleep(SECOND / 2).await;
        scene.lists(1, &["a"]).await;
        scene.board(2).settle(Kind::Tool);
    });
    took(began, SECOND / 2);
    let published = published.unwrap();
    assert!(published.is_settled[Kind::Tool] && published.find("u1__a").is_some());
}

#[actix::test]
async fn only_a_list_that_differs_is_announced() {
    let scene = scene(Naming::Always);
    scene.lists(1, &["a"]).await;
    let count = scene.handle.changes.borrow().of(Topic::Tools);
    scene.lists(1, &["a"]).await;
    assert_eq!(scene.handle.changes.borrow().of(Topic::Tools), count);
    scene.lists(1, &["a", "b"]).await;
    assert_eq!(scene.handle.changes.borrow().of(Topic::Tools), count + 1);
}

#[actix::test]
async fn a_name_is_kept_while_its_tool_is_away_and_given_back_when_its_server_leaves() {
    let scene = scene(Naming::OnConflict);
    scene.lists(1, &["same"]).await;
    scene.lists(2, &["same"]).await;
    assert_eq!(*scene.memory.names.lock().unwrap(), ["same", "u2__same"]);
    scene.lists(1, &[]).await;
    assert!(!scene.shows("same") && scene.shows("u2__same"));

    let left = spec(Naming::OnConflict, &[2]);
    scene.handle.actor.send(Reconfigure(left)).await.unwrap();
    scene.lists(2, &["same", "other"]).await;
    assert!(scene.shows("u2__same"), "a name that was given stays");
    scene.handle.actor.send(Reconfigure(spec(Naming::Never, &[2]))).await.unwrap();
    assert!(scene.shows("same"));
}

#[actix::test]
async fn a_name_that_is_not_listed_goes_on_only_where_it_can_mean_nothing_else() {
    let scene = scene(Naming::Never);
    let resolve = async |name: &str| {
        let resolve = Resolve { name: name.into() };
        scene.handle.actor.send(resolve).await.unwrap()
    };
    assert!(resolve("hidden").await.is_none(), "two servers could have it");
    scene.handle.actor.send(Reconfigure(spec(Naming::Never, &[1]))).await.unwrap();
    let (board, route) = resolve("hid\"den").await.unwrap();
    assert_eq!((board.id, &route.key_json[..]), (Uuid::from_u128(1), &br#""hid\"den""#[..]));
    scene.handle.actor.send(Reconfigure(spec(Naming::Always, &[1]))).await.unwrap();
    assert!(resolve("hidden").await.is_none());
}

#[actix::test]
async fn changes_that_come_close_together_make_one_list() {
    let scene = scene(Naming::Always);
    scene.lists_just_now(1, &["a"]).await;
    let (before, count) = (scene.snapshot(), scene.handle.changes.borrow().of(Topic::Tools));
    scene.lists_just_now(2, &["b"]).await;
    assert!(Arc::ptr_eq(&scene.snapshot(), &before), "nothing is made yet");
    tokio::time::sleep(2 * DEBOUNCE).await;
    assert!(scene.shows("u1__a") && scene.shows("u2__b"));
    assert_eq!(
        scene.handle.changes.borrow().of(Topic::Tools),
        count + 1,
        "one announcement for both"
    );
}

#[actix::test]
async fn whoever_waits_for_a_list_has_what_has_come_at_once() {
    let scene = scene(Naming::Always);
    scene.lists_just_now(1, &["a"]).await;
    scene.board(2).settle(Kind::Tool);
    let published = scene.handle.actor.send(AwaitFirst(Kind::Tool)).await.unwrap();
    assert!(published.find("u1__a").is_some());
}

#[actix::test]
async fn a_row_that_changes_takes_effect_before_whoever_changed_it_is_answered() {
    let scene = scene(Naming::Always);
    scene.lists(1, &["a"]).await;
    scene.lists_just_now(1, &["a", "b"]).await;
    let mut without = spec(Naming::Always, &[1, 2]);
    let off = Decision { is_active: false, name: None, overrides: Overrides::default() };
    without.curations[Kind::Tool].decide(Uuid::from_u128(1), "a", off);
    scene.handle.actor.send(Reconfigure(without)).await.unwrap();
    assert!(!scene.shows("u1__a") && scene.shows("u1__b"));
}

#[actix::test]
async fn a_snapshot_of_the_same_is_not_made_again() {
    let scene = scene(Naming::Always);
    scene.lists(1, &["a"]).await;
    scene.lists(2, &["b"]).await;
    let before = scene.snapshot();
    scene.handle.actor.send(UpstreamChanged(Uuid::from_u128(1))).await.unwrap();
    tokio::time::sleep(2 * DEBOUNCE).await;
    scene.handle.actor.send(Reconfigure(spec(Naming::Always, &[1, 2]))).await.unwrap();
    scene.handle.actor.send(AwaitFirst(Kind::Tool)).await.unwrap();
    scene.handle.actor.send(Resolve { name: "none".into() }).await.unwrap();
    assert!(Arc::ptr_eq(&scene.snapshot(), &before));

    // A new name of the upstream is another list, though no row of the namespace has changed.
    let renamed = UpstreamSpec { name: "other".into(), ..(*scene.board(1).spec()).clone() };
    scene.board(1).set_spec(renamed);
    scene.handle.actor.send(Reconfigure(spec(Naming::Always, &[1, 2]))).await.unwrap();
    assert!(scene.shows("other__a") && !scene.shows("u1__a"));
}

#[actix::test]
async fn calls_of_unknown_tools_have_upstreams_listed_anew_once_in_a_while() {
    let scene = scene(Naming::Always);
    scene.lists(1, &["a"]).await;
    let runtime = scene.board(1).runtime();
    scene.board(1).set_runtime(Runtime { state: StateWord::Ready, ..runtime });
    let call = async || {
        let resolve = Resolve { name: "u1__new".into() };
        assert!(scene.handle.actor.send(resolve).await.unwrap().is_none());
    };
    let asked = |id| scene.board(id).refresh[Kind::Tool].wanted().now_or_never().is_some();
    call().await;
    assert!(asked(1) && !asked(2), "what is not up cannot be asked");
    call().await;
    assert!(!asked(1), "it was asked just now");
    tokio::time::sleep(30 * SECOND).await;
    call().await;
    assert!(asked(1));
}

#[actix::test]
async fn a_tool_that_clients_of_a_profile_do_not_see_is_reported_once() {
    let scene = scene(Naming::Never);
    let list = |profile| {
        let published = scene.snapshot();
        let shaped = published.shaped(profile).map(|shaped| shaped.list().clone());
        shaped.unwrap_or_else(|| published.routes.list().clone())
    };
    scene.lists(1, &["a/b", "c"]).await;
    let seen = r#"[{"name":"c","inputSchema":{"type":"object"}}]"#;
    assert_eq!(list(Profile::Claude), seen);
    assert_eq!(list(Profile::Raw), r#"[{"name":"a/b"},{"name":"c"}]"#);

    scene.lists(1, &["a/b", "c", "d/e"]).await;
    assert_eq!(list(Profile::Claude), seen);
    let why = "claude name_not_accepted";
    assert_eq!(*scene.memory.hidden.lock().unwrap(), [format!("a/b {why}"), format!("d/e {why}")]);
}

#[actix::test]
async fn who_had_a_uri_first_is_decided_by_the_order_until_all_have_come_and_by_that_from_then_on()
{
    let scene = scene(Naming::Always);
    let rewriting = |members: &[u128]| NamespaceSpec {
        uri_naming: Naming::OnConflict,
        ..spec(Naming::Always, members)
    };
    let reconfigure = async |members: &[u128]| {
        scene.handle.actor.send(Reconfigure(rewriting(members))).await.unwrap();
    };
    reconfigure(&[1, 2]).await;
    let holder = |uri: &str| {
        let published = scene.snapshot();
        let (board, own) = published.find_resource(uri)?;
        Some((board.id.as_u128(), own.to_owned()))
    };
    scene.lists_uris(2, &["u:a", "u:b"]).await;
    assert_eq!(holder("u:a"), Some((2, "u:a".to_owned())), "nobody else has come yet");
    scene.lists_uris(1, &["u:a"]).await;
    assert_eq!(holder("u:a"), Some((1, "u:a".to_owned())));
    assert_eq!(holder("mcp+u2+u:a"), Some((2, "u:a".to_owned())));

    // `u:b` was shown for good, and never contested, so that nothing is remembered of it.
    reconfigure(&[1, 2]).await;
    scene.lists_uris(1, &["u:a", "u:b"]).await;
    assert_eq!(holder("u:b"), Some((2, "u:b".to_owned())), "whatever the order");
    assert_eq!(holder("mcp+u1+u:b"), Some((1, "u:b".to_owned())));
    reconfigure(&[2, 1]).await;
    assert_eq!(holder("u:a"), Some((1, "u:a".to_owned())));
    scene.lists_uris(1, &[]).await;
    assert_eq!(holder("u:a"), None, "it is kept for who had it");
    assert_eq!(holder("mcp+u2+u:a"), Some((2, "u:a".to_owned())));
}
