//! The REST resources by which the operator says what is wanted and sees what is.
//!
//! One file each. A handler translates: it asks the store, which judges, and lets the conductor make
//! the daemon follow. Nothing here reaches into an upstream, and nothing waits for one to start.

mod operator;

mod mcp_servers;
mod oauth_session;
mod server_body;
mod server_bulk;
mod server_view;

mod namespace_items;
mod namespace_tools;
mod namespaces;
mod refresh;
mod tool_view;

mod api_keys;
mod config;
mod endpoint_tools;
mod endpoints;
mod events;
mod import;
mod logs;
mod probes;
mod sessions;

mod body;
mod error;
mod openapi;
mod paging;
mod stream;

#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    middleware::{DefaultHeaders, from_fn},
    rt,
    web::{self, Data},
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use utoipa_actix_web::{scope, service_config::ServiceConfig};

pub use error::ApiError;
pub use openapi::{Document, document};

use crate::{
    conductor::Conductor,
    failpoint,
    store::{Store, StoreError},
};

/// Resources of the contract that this version does not have.
const UNBUILT: &[&str] = &["users", "oauth-clients"];

/// How long a reader waits for the journal to write what has just happened.
const JOURNAL_WAIT: Duration = Duration::from_secs(1);

/// What the handlers share.
pub struct AdminState {
    pub conductor: Arc<Conductor>,
    pub prometheus: PrometheusHandle,
    /// Whether `/metrics` asks for no key.
    pub metrics_open: bool,
    /// What every URL we publish begins with, without a slash at its end.
    pub public_url: String,
    /// How long the database may take to answer whatever one request asks of it.
    pub answer_timeout: Duration,
    /// The pace of comments on an event stream that has nothing else to say.
    pub heartbeat: Duration,
    /// How long whoever orders a refresh waits for its outcome.
    pub refresh_wait: Duration,
    /// Cancelled when the daemon begins to stop.
    pub stopping: CancellationToken,
}

/// Mounts `/health`, `/ready`, `/metrics`, `/api/openapi.json` and `/api/v1`.
pub fn configure(config: &mut web::ServiceConfig, state: Data<AdminState>) {
    config.app_data(Data::new(document(&state.public_url)));
    config.app_data(state);
    routes(&mut ServiceConfig::new(config));
}

/// The address book. Everything that is registered as a service is in the OpenAPI document too.
fn routes(config: &mut ServiceConfig<'_>) {
    config.service(probes::health).service(probes::ready).service(probes::metrics);
    let v1 = scope("/api/v1")
        .wrap(from_fn(operator::in_bounded_time))
        .wrap(from_fn(operator::operators_only))
        .wrap(private())
        .app_data(body::limits())
        .app_data(paging::queries())
        .configure(|config| {
            config
                .service(mcp_servers::list)
                .service(mcp_servers::create)
                .service(mcp_servers::read)
                .service(mcp_servers::change)
                .service(mcp_servers::delete)
                .service(mcp_servers::restart)
                .service(server_bulk::order)
                .service(refresh::server)
                .service(mcp_servers::history)
                .service(mcp_servers::tools)
                .service(oauth_session::read)
                .service(oauth_session::put)
                .service(oauth_session::delete)
                .service(namespace_items::of_server);
            config
                .service(namespaces::list)
                .service(namespaces::create)
                .service(namespaces::read)
                .service(namespaces::change)
                .service(namespaces::delete)
                .service(namespaces::put_servers)
                .service(namespaces::patch_servers)
                .service(refresh::namespace)
                .service(namespace_tools::list)
                .service(namespace_tools::change)
                .service(namespace_tools::change_many)
                .service(namespace_items::list)
                .service(namespace_items::change)
                .service(namespace_items::change_many);
            config
                .service(endpoints::list)
                .service(endpoints::create)
                .service(endpoints::read)
                .service(endpoints::change)
                .service(endpoints::delete)
                .service(endpoint_tools::list);
            config
                .service(api_keys::list)
                .service(api_keys::create)
                .service(api_keys::read)
                .service(api_keys::change)
                .service(api_keys::delete);
            config
                .service(config::list)
                .service(config::read)
                .service(config::put)
                .service(events::watch);
            config.service(logs::read).service(logs::clear);
            config.service(sessions::list).service(sessions::read).service(sessions::delete);
            config.service(import::take);
            config.map(|raw| UNBUILT.iter().fold(raw, |raw, name| raw.service(unbuilt(name))));
        })
        .default_service(web::to(elsewhere));
    config.service(v1);
    config.map(|raw| {
        let api = web::scope("/api")
            .wrap(private())
            .route("/openapi.json", web::get().to(openapi::answer))
            .default_service(web::to(elsewhere));
        raw.service(api)
    });
}

/// What the operator reads is for the operator alone, and is what it says it is.
fn private() -> DefaultHeaders {
    DefaultHeaders::new()
        .add((header::CACHE_CONTROL, "no-store"))
        .add((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
}

fn unbuilt(name: &'static str) -> actix_web::Resource {
    let answer = move || async move {
        Err::<HttpResponse, _>(ApiError::not_implemented(format!("the resource `{name}`")))
    };
    web::resource([format!("/{name}"), format!("/{name}/{{rest:.*}}")]).to(answer)
}

/// A path that there is not, or one that does not take the method.
async fn elsewhere(
    request: HttpRequest,
    document: Data<Document>,
) -> Result<HttpResponse, ApiError> {
    match document.methods_of(request.path()) {
        Some(allow) => Err(ApiError::MethodNotAllowed { allow }),
        None => Err(ApiError::not_found("path", request.path())),
    }
}

impl AdminState {
    fn store(&self) -> &Store {
        &self.conductor.store
    }

    /// What the store answers in time: half of what the whole request has.
    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let answer = timeout(self.answer_timeout / 2, question).await;
        answer.unwrap_or_else(|elapsed| Err(StoreError::late(elapsed)))
    }

    /// Carries out a change and makes the daemon follow it, to the end, even when whoever asked goes
    /// away meanwhile. When the daemon cannot follow just now the change is still made, and the
    /// conductor repeats its reading until it has worked.
    async fn write<T, F>(&self, change: impl FnOnce(Store) -> F) -> Result<T, ApiError>
    where
        T: 'static,
        F: Future<Output = Result<T, StoreError>> + 'static,
    {
        let conductor = self.conductor.clone();
        let change = change(conductor.store.clone());
        let written = rt::spawn(async move {
            let owed = conductor.owe();
            let written = match change.await {
                Ok(written) => written,
                Err(error) => {
                    // Whether it was written after all, only the rows can tell.
                    if !error.is_passing() {
                        owed.paid();
                    }
                    return Err(error);
                }
            };
            failpoint::pass("change");
            match conductor.reconcile().await {
                Ok(()) => owed.paid(),
                Err(error) => {
                    tracing::warn!(%error, "a change was written; the daemon will follow it later");
                }
            }
            Ok::<_, StoreError>(written)
        });
        Ok(written.await.map_err(|panicked| ApiError::Internal(Box::new(panicked)))??)
    }

    /// Lets the journal write what has just happened, within bounds: what is read then is the newest
    /// there is, or a little older.
    async fn catch_up(&self) {
        if !self.conductor.journal.flush(JOURNAL_WAIT).await {
            tracing::debug!("the journal is behind; what is read is a little older");
        }
    }
}
