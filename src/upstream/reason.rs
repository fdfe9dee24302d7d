//! The closed list of reasons for an upstream's transitions, and what each asks for.

use serde::Serialize;
use utoipa::ToSchema;

/// Why an upstream changed its state. The words are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The row came into being, or the daemon started.
    Started,
    /// The handshake is done and the tools are known.
    Ready,
    /// The rest after a failure is over, or a probe is due.
    Retry,
    /// The operator, or a change of the row, asked for it.
    Asked,
    /// Nobody has needed it for as long as its row says, or since the daemon started.
    Idle,
    /// A call needs it.
    Wanted,
    /// Its first start may have to fetch a program, and is given the time for that.
    Prefetching,
    /// The row's `enabled` was switched off.
    Disabled,
    /// The daemon is stopping.
    Stopping,
    /// `command` names no program. Mend the row, or install the program.
    CommandNotFound,
    /// `command` may not be executed by the daemon's user.
    CommandNotExecutable,
    /// The operating system refused to start it: too many processes, too little memory.
    SpawnFailed,
    /// A `${VAR}` in the row names a variable that the daemon does not have.
    VariableMissing,
    /// The row cannot be used: a malformed URL or header, an argument with a NUL byte.
    ConfigInvalid,
    /// The process ended by itself; `last_exit.code` has its exit code.
    Exited,
    /// The process was killed by a signal; `last_exit.signal` has its number.
    Killed,
    /// The process closed its stdout and lived on; it was ended.
    StdoutClosed,
    /// The process read no input for too long; it was ended.
    StdinStalled,
    /// The helper that guards the process was killed; the process was ended.
    GuardLost,
    /// `initialize` was not answered in time.
    HandshakeTimeout,
    /// `initialize` was answered by an error, or by something that is no answer.
    HandshakeFailed,
    /// The server speaks no revision of MCP that we do.
    Incompatible,
    /// The tools could not be listed, and no earlier list is known.
    ListFailed,
    /// It is an endpoint that offers this very server, directly or by other gateways.
    NestingCycle,
    /// The egress rules forbid the address.
    AddressRefused,
    /// The name could not be resolved, or nothing listens there.
    ConnectFailed,
    /// No connection within the time.
    ConnectTimeout,
    /// No trusted certificate.
    TlsFailed,
    /// An HTTP status that is no answer, redirects among them.
    HttpStatus,
    /// It asked to be left alone for a while: 429, or 503 with `Retry-After`.
    Throttled,
    /// 401 or 403: a credential is missing, wrong or expired.
    Unauthorized,
    /// 403: the credential is good, and has not the rights that are needed. `last_error` has the scope.
    InsufficientScope,
    /// No new access token was to be had of the token endpoint, which may give one another time.
    TokenFailed,
    /// The server stopped answering pings, or its connection broke.
    Unreachable,
    /// It did too often what the protocol does not allow; it was ended.
    ProtocolError,
    /// Our own code panicked. Please report it.
    Panicked,
}

impl Reason {
    /// Whether it tells of something that went wrong.
    pub fn is_failure(self) -> bool {
        !matches!(
            self,
            Self::Started
                | Self::Ready
                | Self::Retry
                | Self::Asked
                | Self::Idle
                | Self::Wanted
                | Self::Prefetching
                | Self::Disabled
                | Self::Stopping
        )
    }

    /// Whether trying again soon is pointless, because a person has to change something first.
    pub fn needs_a_person(self) -> bool {
        matches!(
            self,
            Self::CommandNotFound
                | Self::CommandNotExecutable
                | Self::VariableMissing
                | Self::ConfigInvalid
                | Self::NestingCycle
                | Self::AddressRefused
                | Self::Incompatible
        )
    }

    /// Whether what the process wrote last may say why.
    pub fn is_of_the_process(self) -> bool {
        matches!(
            self,
            Self::Exited
                | Self::Killed
                | Self::StdoutClosed
                | Self::StdinStalled
                | Self::HandshakeTimeout
                | Self::HandshakeFailed
                | Self::ListFailed
                | Self::ProtocolError
        )
    }

    /// The word that the contract has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Ready => "ready",
            Self::Retry => "retry",
            Self::Asked => "asked",
            Self::Idle => "idle",
            Self::Wanted => "wanted",
            Self::Prefetching => "prefetching",
            Self::Disabled => "disabled",
            Self::Stopping => "stopping",
            Self::CommandNotFound => "command_not_found",
            Self::CommandNotExecutable => "command_not_executable",
            Self::SpawnFailed => "spawn_failed",
            Self::VariableMissing => "variable_missing",
            Self::ConfigInvalid => "config_invalid",
            Self::Exited => "exited",
            Self::Killed => "killed",
            Self::StdoutClosed => "stdout_closed",
            Self::StdinStalled => "stdin_stalled",
            Self::GuardLost => "guard_lost",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeFailed => "handshake_failed",
            Self::Incompatible => "incompatible",
            Self::ListFailed => "list_failed",
            Self::NestingCycle => "nesting_cycle",
            Self::AddressRefused => "address_refused",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::TlsFailed => "tls_failed",
            Self::HttpStatus => "http_status",
            Self::Throttled => "throttled",
            Self::Unauthorized => "unauthorized",
            Self::InsufficientScope => "insufficient_scope",
            Self::TokenFailed => "token_failed",
            Self::Unreachable => "unreachable",
            Self::ProtocolError => "protocol_error",
            Self::Panicked => "panicked",
        }
    }
}
