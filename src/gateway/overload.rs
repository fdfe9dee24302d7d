//! Memory that runs short: nobody new is let in, and what is kept just in case is let go, before the kernel
//! ends the daemon.

use std::{io, time::Duration};

use crate::session::Sessions;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Bytes that no allocator takes from what it keeps for small things. They are never written.
const LARGE: usize = 8 << 20;

/// Whether memory is short when `resident` bytes of it are taken. What began at `max` ends at nine tenths of
/// it, so that it does not come and go. `max` 0: it never is.
fn is_short(was_short: bool, resident: u64, max: u64) -> bool {
    let above = if was_short { max / 10 * 9 } else { max };
    max > 0 && resident > above
}

/// Looks after it for as long as the daemon runs.
pub async fn watch(sessions: &Sessions, max: u64) {
    let mut was_short = false;
    metrics::gauge!("metamcpd_overload").set(0.0);
    if max == 0 {
        return std::future::pending().await;
    }
    loop {
        match resident() {
            Ok(resident) => {
                let is_now = is_short(was_short, resident, max);
                metrics::gauge!("metamcpd_overload").set(f64::from(u8::from(is_now)));
                sessions.set_memory_is_short(is_now);
                if is_now {
                    sessions.shed();
                    give_back();
                }
                if is_now && !was_short {
                    tracing::warn!(
                        resident,
                        "memory is short (`server.memory_soft_max`): new sessions are refused"
                    );
                }
                if was_short && !is_now {
                    tracing::info!(resident, "memory is no longer short");
                }
                was_short = is_now;
            }
            Err(error) => tracing::debug!(%error, "how much memory is taken is not known"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Has the allocator return to the kernel what is free: it looks for that only when something large is freed,
/// which may be long in coming once nobody new is let in.
fn give_back() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
}

/// The bytes of memory that this process has.
fn resident() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = kilobytes.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok());
    let kilobytes: u64 = kilobytes.ok_or(io::ErrorKind::InvalidData)?;
    Ok(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_at_the_limit_ends_well_below_it() {
        for (was_short, resident, max, is_now) in [
            (false, u64::MAX, 0, false),
            (true, u64::MAX, 0, false),
            (false, 99, 100, false),
            (false, 100, 100, false),
            (false, 101, 100, true),
            (true, 99, 100, true),
            (true, 91, 100, true),
            (true, 90, 100, false),
            (false, 91, 100, false),
        ] {
            assert_eq!(is_short(was_short, resident, max), is_now, "{was_short} {resident} {max}");
        }
    }

    #[test]
    fn the_memory_of_this_process_is_known() {
        assert!(resident().is_ok_and(|bytes| bytes > 1_000_000));
    }
}
