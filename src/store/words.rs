//! The closed lists of words that columns hold and the API speaks.
//!
//! The constraints of the migration name the same words, and a test holds the two together.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::StoreError;

macro_rules! words {
    (
        $(#[$about:meta])*
        $name:ident { $($(#[$about_word:meta])* $variant:ident = $word:literal,)+ }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        pub enum $name {
            $($(#[$about_word])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }

            pub fn parse(word: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|known| known.as_str() == word)
            }

            pub(super) fn stored(column: &'static str, word: &str) -> Result<$name, StoreError> {
                $name::parse(word).ok_or_else(|| StoreError::unknown_word(column, word))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// How an upstream is reached.
    ServerKind {
        Stdio = "STDIO",
        Sse = "SSE",
        StreamableHttp = "STREAMABLE_HTTP",
    }
}

words! {
    /// Who shares one process of, or one connection to, an upstream.
    Isolation {
        Shared = "SHARED",
        Session = "SESSION",
        User = "USER",
    }
}

words! {
    /// Whether a server is started with the daemon, or by the first call.
    StartMode {
        Eager = "EAGER",
        Lazy = "LAZY",
    }
}

words! {
    /// What the process of a server may do.
    Profile {
        Standard = "STANDARD",
        Strict = "STRICT",
    }
}

words! {
    /// Which era of the protocol is spoken with an upstream.
    Protocol {
        Auto = "AUTO",
        Legacy = "LEGACY",
        Modern = "MODERN",
    }
}

words! {
    /// A report on an upstream's health. It is never read back to decide anything.
    ErrorStatus {
        None = "NONE",
        Error = "ERROR",
        Crashed = "CRASHED",
    }
}

words! {
    /// How a namespace names the tools and prompts of its servers, and whether it rewrites their URIs.
    Naming {
        Always = "ALWAYS",
        OnConflict = "ON_CONFLICT",
        Never = "NEVER",
    }
}

words! {
    /// What a server may offer.
    ItemKind {
        Tool = "TOOL",
        Prompt = "PROMPT",
        Resource = "RESOURCE",
        ResourceTemplate = "RESOURCE_TEMPLATE",
    }
}

words! {
    /// Whether a server or a tool is used in a namespace.
    Status {
        Active = "ACTIVE",
        Inactive = "INACTIVE",
    }
}

words! {
    /// What an API key opens: endpoints, or the admin API.
    KeyKind {
        Client = "CLIENT",
        Admin = "ADMIN",
    }
}

words! {
    /// How a client says to a token endpoint who it is.
    AuthMethod {
        Basic = "client_secret_basic",
        Post = "client_secret_post",
        None = "none",
    }
}

words! {
    /// Which family of clients the tools of an endpoint are made fit for.
    SchemaProfile {
        /// None: they are shown as they come.
        Raw = "raw",
        StrictCommon = "strict-common",
        Claude = "claude",
        OpenAi = "openai",
        Gemini = "gemini",
        VsCode = "vscode",
        /// Each client's own, by its `clientInfo`.
        Auto = "auto",
    }
}
