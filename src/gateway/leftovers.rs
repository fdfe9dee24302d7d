//! What an earlier run of the daemon has left in containers, which no lifeline holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    store::{PageRequest, Server, ServerFilter, ServerKind, Store, StoreError},
    upstream::worker::lifeline::{child_environment, containers},
};

/// How long the start of the daemon waits for it. What takes longer goes on behind.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends the containers of an earlier run. Asks nobody where no server runs in one.
pub async fn end_containers(store: &Store, instance: &str) -> Result<(), StoreError> {
    let mut clients = BTreeSet::new();
    let filter = ServerFilter { kind: Some(ServerKind::Stdio), ..ServerFilter::default() };
    let mut request = PageRequest::default();
    loop {
        let page = store.servers(&filter, &request).await?;
        let left = page.items.iter().filter_map(|server| {
            let command = server.command.as_deref()?;
            let left = containers::left_by(command, &server.args, instance)?;
            Some((left, environment(server)))
        });
        clients.extend(left);
        match page.next_cursor {
            Some(cursor) => request.cursor = Some(cursor),
            None => break,
        }
    }
    if clients.is_empty() {
        return Ok(());
    }
    let ending = tokio::task::spawn_blocking(move || {
        let ended =
            clients.iter().map(|(left, environment)| containers::end(left, Some(environment)));
        ended.sum::<usize>()
    });
    match tokio::time::timeout(PATIENCE, ending).await {
        Ok(Ok(0)) => {}
        Ok(Ok(ended)) => {
            tracing::warn!(ended, "containers of an earlier run were still there and were ended");
        }
        Ok(Err(error)) => tracing::error!(%error, "containers of an earlier run were not ended"),
        Err(_elapsed) => tracing::warn!("containers of an earlier run are still being ended"),
    }
    Ok(())
}

/// What its client is told where the other daemon is. What stands for a variable is left out.
fn environment(server: &Server) -> BTreeMap<String, String> {
    let plain = server.env.iter().filter(|(_, value)| !value.expose().contains("${"));
    let plain = plain.map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    child_environment(std::env::vars(), &plain)
}
