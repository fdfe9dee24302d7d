//! How a server is kept, as its row says it: how long it is waited for, when it runs, and how much it
//! is given to do at once.

use std::time::Duration;

use entity::mcp_server::{ActiveModel, Model};
use sea_orm::ActiveValue::Set;

use super::error::StoreError;
use super::rules::Problem;
use super::server::{NewServer, duration_of, millis_of};
use super::server_rules::TIMEOUT_MAX;
use super::words::{Profile, ServerKind, StartMode};

/// When a server runs, and how much it is given to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upkeep {
    /// Whether it is started with the daemon, or by the first call; STDIO only.
    pub start: StartMode,
    /// After so long without a call its process is stopped until the next one; STDIO only. None: never.
    pub idle_stop: Option<Duration>,
    /// Calls that it may have in flight; None follows the settings.
    pub concurrency_max: Option<u32>,
    /// What its process may do; STDIO only.
    pub profile: Profile,
}

impl Default for Upkeep {
    fn default() -> Self {
        Upkeep {
            start: StartMode::Eager,
            idle_stop: None,
            concurrency_max: None,
            profile: Profile::Standard,
        }
    }
}

/// What is to change of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpkeepPatch {
    pub start: Option<StartMode>,
    pub idle_stop: Option<Option<Duration>>,
    pub concurrency_max: Option<Option<u32>>,
    pub profile: Option<Profile>,
}

impl UpkeepPatch {
    /// What becomes of `upkeep`. A server of another kind has no process to be kept.
    pub(super) fn applied_to(self, upkeep: Upkeep, kind: ServerKind) -> Upkeep {
        let process = if kind == ServerKind::Stdio { upkeep } else { Upkeep::default() };
        Upkeep {
            start: self.start.unwrap_or(process.start),
            idle_stop: self.idle_stop.unwrap_or(process.idle_stop),
            concurrency_max: self.concurrency_max.unwrap_or(upkeep.concurrency_max),
            profile: self.profile.unwrap_or(process.profile),
        }
    }
}

impl Upkeep {
    pub(super) fn of(row: &Model) -> Result<Upkeep, StoreError> {
        Ok(Upkeep {
            start: StartMode::stored("mcp_servers.start", &row.start)?,
            idle_stop: duration_of(row.idle_stop_ms),
            concurrency_max: row.concurrency_max.and_then(|max| u32::try_from(max).ok()),
            profile: Profile::stored("mcp_servers.profile", &row.profile)?,
        })
    }
}

/// Writes the columns of all that is said here of `server`.
pub(super) fn write(server: &NewServer, row: &mut ActiveModel) {
    row.connect_timeout_ms = Set(millis_of(server.timeouts.connect));
    row.call_timeout_ms = Set(millis_of(server.timeouts.call));
    row.call_total_timeout_ms = Set(millis_of(server.timeouts.call_total));
    let Upkeep { start, idle_stop, concurrency_max, profile } = server.upkeep;
    row.profile = Set(profile.as_str().to_owned());
    row.start = Set(start.as_str().to_owned());
    row.idle_stop_ms = Set(millis_of(idle_stop));
    row.concurrency_max = Set(concurrency_max.map(|max| i32::try_from(max).unwrap_or(i32::MAX)));
}

pub(super) fn check(server: &NewServer, problems: &mut Vec<Problem>) {
    let durations = [
        ("connect_timeout_ms", server.timeouts.connect),
        ("call_timeout_ms", server.timeouts.call),
        ("call_total_timeout_ms", server.timeouts.call_total),
        ("idle_stop_ms", server.upkeep.idle_stop),
    ];
    for (field, duration) in durations {
        let accepted = Duration::from_millis(1)..=TIMEOUT_MAX;
        if duration.is_some_and(|duration| !accepted.contains(&duration)) {
            problems.push(
                Problem::new(field, "out of range")
                    .accepted(format!("1 to {}, or null", TIMEOUT_MAX.as_millis())),
            );
        }
    }
    if server.upkeep.concurrency_max.is_some_and(|max| max == 0 || i32::try_from(max).is_err()) {
        problems.push(
            Problem::new("concurrency_max", "out of range")
                .accepted(format!("1 to {}, or null", i32::MAX)),
        );
    }
    if server.kind == ServerKind::Stdio {
        return;
    }
    let only_processes = "only a STDIO server has a process of ours";
    if server.upkeep.start != StartMode::Eager {
        problems.push(Problem::new("start", only_processes).accepted("EAGER"));
    }
    if server.upkeep.profile != Profile::Standard {
        problems.push(Problem::new("profile", only_processes).accepted("STANDARD"));
    }
    if server.upkeep.idle_stop.is_some() {
        problems.push(Problem::new("idle_stop_ms", only_processes).accepted("null"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::testing::{on_both, process, refused};
    use super::super::{NewServer, ServerPatch};
    use super::*;

    fn kept() -> Upkeep {
        Upkeep {
            start: StartMode::Lazy,
            idle_stop: Some(Duration::from_secs(60)),
            concurrency_max: Some(3),
            profile: Profile::Strict,
        }
    }

    #[tokio::test]
    async fn how_a_server_is_kept_is_written_and_changed_field_by_field() {
        on_both(async |store| {
            let usual = store.create_server(process("usual")).await.unwrap();
            assert_eq!(usual.upkeep, Upkeep::default());
            let new = NewServer { upkeep: kept(), ..process("files") };
            let made = store.create_server(new).await.unwrap();
            assert_eq!(store.server("files").await.unwrap().upkeep, kept());

            let upkeep = UpkeepPatch { idle_stop: Some(None), ..UpkeepPatch::default() };
            let patch = ServerPatch { upkeep, ..ServerPatch::default() };
            let patched = store.patch_server(made.uuid, patch).await.unwrap();
            assert_eq!(patched.upkeep, Upkeep { idle_stop: None, ..kept() });

            let to_remote = ServerPatch {
                kind: Some(ServerKind::Sse),
                url: Some(Some("http://x".to_owned())),
                ..ServerPatch::default()
            };
            let remote = store.patch_server(made.uuid, to_remote).await.unwrap();
            let usual = Upkeep::default();
            assert_eq!(remote.upkeep, Upkeep { concurrency_max: Some(3), ..usual });

            let upkeep = UpkeepPatch {
                start: Some(StartMode::Lazy),
                idle_stop: Some(Some(Duration::from_secs(1))),
                concurrency_max: Some(Some(0)),
                profile: Some(Profile::Strict),
            };
            let patch = ServerPatch { upkeep, ..ServerPatch::default() };
            let refusal = store.patch_server(made.uuid, patch).await;
            assert_eq!(refused(refusal), ["concurrency_max", "start", "profile", "idle_stop_ms"]);
        })
        .await;
    }
}
