//! The tools of the demo server: what each says of itself and does.
//!
//! Between them they show what a gateway has to carry: text, structured output, progress,
//! cancellation, and mistakes in the arguments. Framing, ids and cancelling are left to
//! `demo_upstream`.

use std::{future::Future, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use time::{
    OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, macros::format_description,
};
use tokio::{sync::mpsc, time::sleep};

const REPEAT_MAX: u32 = 1_000;
const STEPS_MAX: u32 = 10_000;
const SECONDS_MAX: f64 = 3_600.0;
const DELAY_MAX_MS: u64 = 600_000;
/// The most characters an echo answers with: a few bytes of request are not to become a gigabyte.
const ECHO_MAX: usize = 4 * 1024 * 1024;

/// One notification of progress, still to be written.
pub(super) struct Step {
    /// The call that made the step.
    pub call: String,
    pub params: Value,
}

/// Where a call reports its progress; silent if nobody asked for it.
pub(super) struct Progress {
    call: String,
    token: Option<Value>,
    steps: mpsc::Sender<Step>,
}

impl Progress {
    pub fn new(call: String, token: Option<Value>, steps: mpsc::Sender<Step>) -> Self {
        let token = token.filter(|token| token.is_string() || token.is_number());
        Self { call, token, steps }
    }

    async fn report(&self, done: u32, total: u32, message: &str) {
        let Some(token) = &self.token else { return };
        let params = json!({
            "progressToken": token, "progress": done, "total": total, "message": message,
        });
        // The other end is gone only when the server is, and then nobody waits for this.
        if self.steps.send(Step { call: self.call.clone(), params }).await.is_err() {
            tracing::debug!("progress after the end of the conversation");
        }
    }
}

/// What `tools/list` answers.
pub(super) fn descriptions() -> Value {
    let hints = json!({
        "readOnlyHint": true, "destructiveHint": false, "idempotentHint": true,
        "openWorldHint": false,
    });
    json!([
        {
            "name": "current_time",
            "title": "Current time",
            "description": "Tells the date and time, in UTC or at an offset from it.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "timezone": {
                        "type": "string",
                        "description": "`UTC`, or an offset such as `+02:00`",
                        "default": "UTC",
                    },
                },
                "additionalProperties": false,
            },
            "outputSchema": {
                "type": "object",
                "properties": {
                    "datetime": { "type": "string", "format": "date-time" },
                    "timezone": { "type": "string" },
                    "unix_seconds": { "type": "integer" },
                },
                "required": ["datetime", "timezone", "unix_seconds"],
            },
            // Asked twice, it answers differently.
            "annotations": {
                "title": "Current time", "readOnlyHint": true, "destructiveHint": false,
                "idempotentHint": false, "openWorldHint": false,
            },
        },
        {
            "name": "echo",
            "title": "Echo",
            "description": "Returns a message, repeated if wished, and reports progress with each \
                repetition.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "message": { "type": "string" },
                    "repeat": {
                        "type": "integer", "minimum": 1, "maximum": REPEAT_MAX, "default": 1,
                    },
                    "delay_ms": {
                        "type": "integer", "minimum": 0, "maximum": DELAY_MAX_MS, "default": 0,
                        "description": "milliseconds to wait before each repetition",
                    },
                },
                "required": ["message"],
                "additionalProperties": false,
            },
            "annotations": hints,
        },
        {
            "name": "long_task",
            "title": "Long task",
            "description": "Works for some seconds in equal steps, reports each of them, and can \
                be cancelled.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "seconds": { "type": "number", "minimum": 0, "maximum": SECONDS_MAX },
                    "steps": {
                        "type": "integer", "minimum": 1, "maximum": STEPS_MAX, "default": 10,
                    },
                },
                "required": ["seconds"],
                "additionalProperties": false,
            },
            "annotations": hints,
        },
        {
            "name": "sum",
            "title": "Sum",
            "description": "Adds numbers, and returns their sum, count and mean as structured \
                output.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "numbers": { "type": "array", "items": { "type": "number" }, "minItems": 1 },
                },
                "required": ["numbers"],
                "additionalProperties": false,
            },
            "outputSchema": {
                "type": "object",
                "properties": {
                    "sum": { "type": "number" },
                    "count": { "type": "integer" },
                    "mean": { "type": "number" },
                },
                "required": ["sum", "count", "mean"],
            },
            "annotations": hints,
        },
    ])
}

/// Begins a call, and answers the work that leads to its result; `None` if no tool has that name.
pub(super) fn call(
    name: &str,
    arguments: Value,
    progress: Progress,
) -> Option<BoxFuture<'static, Value>> {
    match name {
        "current_time" => Some(with(arguments, async |arguments| current_time(&arguments)).boxed()),
        "echo" => Some(with(arguments, move |arguments| echo(arguments, progress)).boxed()),
        "long_task" => {
            Some(with(arguments, move |arguments| long_task(arguments, progress)).boxed())
        }
        "sum" => Some(with(arguments, async |arguments| sum(&arguments)).boxed()),
        _ => None,
    }
}

/// A mistake in the arguments, in words that help the model to mend them.
struct Mistake(String);

type Outcome = Result<Value, Mistake>;

/// Reads the arguments and does the work. A mistake is a result too: the model, not the client, has
/// to read it.
async fn with<A: DeserializeOwned, F: Future<Output = Outcome>>(
    arguments: Value,
    work: impl FnOnce(A) -> F,
) -> Value {
    let outcome = match serde_json::from_value(arguments) {
        Ok(arguments) => work(arguments).await,
        Err(error) => Err(Mistake(format!("the arguments are not valid: {error}"))),
    };
    outcome
        .unwrap_or_else(|Mistake(text)| json!({ "content": [text_block(&text)], "isError": true }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeArguments {
    timezone: Option<String>,
}

fn current_time(arguments: &TimeArguments) -> Outcome {
    let timezone = arguments.timezone.as_deref().unwrap_or("UTC");
    let offset = offset(timezone).ok_or_else(|| {
        Mistake(format!("`{timezone}` is no timezone: give `UTC` or an offset such as `+02:00`"))
    })?;
    let whole_second = OffsetDateTime::now_utc().replace_nanosecond(0).map_err(out_of_range)?;
    let now = whole_second.checked_to_offset(offset).ok_or_else(|| out_of_range("offset"))?;
    let datetime = now.format(&Rfc3339).map_err(out_of_range)?;
    let structured = json!({
        "datetime": datetime, "timezone": timezone, "unix_seconds": now.unix_timestamp(),
    });
    Ok(json!({ "content": [text_block(&datetime)], "structuredContent": structured }))
}

fn offset(timezone: &str) -> Option<UtcOffset> {
    if timezone.eq_ignore_ascii_case("utc") || timezone == "Z" {
        return Some(UtcOffset::UTC);
    }
    let shape = format_description!("[offset_hour sign:mandatory]:[offset_minute]");
    UtcOffset::parse(timezone, &shape).ok()
}

fn out_of_range(what: impl std::fmt::Display) -> Mistake {
    Mistake(format!("the time cannot be shown there: {what}"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EchoArguments {
    message: String,
    #[serde(default = "one")]
    repeat: u32,
    #[serde(default)]
    delay_ms: u64,
}

fn one() -> u32 {
    1
}

async fn echo(arguments: EchoArguments, progress: Progress) -> Outcome {
    let EchoArguments { message, repeat, delay_ms } = arguments;
    within("repeat", repeat, 1, REPEAT_MAX)?;
    within("delay_ms", delay_ms, 0, DELAY_MAX_MS)?;
    if message.len().saturating_mul(repeat as usize) > ECHO_MAX {
        return Err(Mistake(format!("message times repeat is over {ECHO_MAX} bytes")));
    }
    for done in 1..=repeat {
        sleep(Duration::from_millis(delay_ms)).await;
        progress.report(done, repeat, &format!("{done} of {repeat}")).await;
    }
    let text = vec![message; repeat as usize].join("\n");
    Ok(json!({ "content": [text_block(&text)] }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskArguments {
    seconds: f64,
    #[serde(default = "ten")]
    steps: u32,
}

fn ten() -> u32 {
    10
}

async fn long_task(arguments: TaskArguments, progress: Progress) -> Outcome {
    let TaskArguments { seconds, steps } = arguments;
    within("seconds", seconds, 0.0, SECONDS_MAX)?;
    within("steps", steps, 1, STEPS_MAX)?;
    let step = Duration::from_secs_f64(seconds / f64::from(steps));
    for done in 1..=steps {
        sleep(step).await;
        progress.report(done, steps, &format!("step {done} of {steps}")).await;
    }
    let text = format!("worked for {seconds} seconds in {steps} steps");
    Ok(json!({ "content": [text_block(&text)] }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SumArguments {
    numbers: Vec<f64>,
}

fn sum(arguments: &SumArguments) -> Outcome {
    let numbers = &arguments.numbers;
    if numbers.is_empty() {
        return Err(Mistake("numbers needs at least one number: none have no mean".to_owned()));
    }
    let sum: f64 = numbers.iter().sum();
    if !sum.is_finite() {
        return Err(Mistake("the sum is too large to be shown".to_owned()));
    }
    let count = numbers.len();
    let structured =
        json!({ "sum": number(sum), "count": count, "mean": number(sum / count as f64) });
    Ok(json!({
        "content": [text_block(&structured.to_string())],
        "structuredContent": structured,
    }))
}

/// A whole number without a fraction, as people write it.
fn number(value: f64) -> Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
        json!(value as i64)
    } else {
        json!(value)
    }
}

fn within<N: PartialOrd + std::fmt::Display>(
    name: &str,
    value: N,
    min: N,
    max: N,
) -> Result<(), Mistake> {
    if (&min..=&max).contains(&&value) {
        return Ok(());
    }
    Err(Mistake(format!("{name} is {value}, and has to be from {min} to {max}")))
}

fn text_block(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}
