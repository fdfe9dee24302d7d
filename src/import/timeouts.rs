//! The time limits of an entry, in whatever unit its client has them.

use std::time::Duration;

use super::fields::Fields;

/// The longest that makes sense, and that can be stored.
const SECONDS_MAX: f64 = 24.0 * 3_600.0;

/// From here on a number without a unit means milliseconds: nobody means a call of a thousand
/// seconds, or of a few milliseconds.
const MILLISECONDS_FROM: f64 = 1_000.0;

/// How long a call may be silent.
pub(super) fn call(fields: &mut Fields) -> Option<Duration> {
    let named =
        in_seconds(fields, "call_timeout_sec").or(in_milliseconds(fields, "call_timeout_ms"));
    // Asked for in any case, so that it is not reported as unknown.
    let guessed = guessed(fields, "timeout");
    named.or(guessed)
}

/// How long a start may take.
pub(super) fn connect(fields: &mut Fields) -> Option<Duration> {
    let named = in_seconds(fields, "connect_timeout_sec");
    let milliseconds = in_milliseconds(fields, "startup_timeout_ms");
    let guessed =
        ["initTimeout", "startupTimeout"].into_iter().find_map(|name| guessed(fields, name));
    named.or(milliseconds).or(guessed)
}

fn in_seconds(fields: &mut Fields, field: &str) -> Option<Duration> {
    let seconds = fields.take(field)?.as_f64();
    usable(fields, field, seconds)
}

fn in_milliseconds(fields: &mut Fields, field: &str) -> Option<Duration> {
    let seconds = fields.take(field)?.as_f64().map(|milliseconds| milliseconds / 1_000.0);
    usable(fields, field, seconds)
}

/// Clients disagree on the unit, and the number itself tells it.
fn guessed(fields: &mut Fields, field: &str) -> Option<Duration> {
    let number = fields.take(field)?.as_f64();
    let is_milliseconds = number.is_some_and(|number| number >= MILLISECONDS_FROM);
    let seconds = number.map(|number| if is_milliseconds { number / 1_000.0 } else { number });
    let read = usable(fields, field, seconds)?;
    let unit = if is_milliseconds { "milliseconds" } else { "seconds" };
    let number = number.unwrap_or_default();
    fields.warn(field, format!("is taken as {number} {unit}"));
    Some(read)
}

fn usable(fields: &mut Fields, field: &str, seconds: Option<f64>) -> Option<Duration> {
    match seconds.filter(|seconds| (0.001..=SECONDS_MAX).contains(seconds)) {
        Some(seconds) => Some(Duration::from_secs_f64(seconds)),
        None => {
            fields.warn(field, "is no usable number and is left out");
            None
        }
    }
}
