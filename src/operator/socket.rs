//! The operator's own door: a socket in the data directory, one JSON line in and one out.

use std::{io, path::Path, rc::Rc, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::{
    Imports, Wanted, apply, make_key, read_apart,
    report::{self, DaemonReport},
};
use crate::{conductor::Conductor, data_dir::socket_address, failpoint, import, store::KeyKind};

/// How long either side waits for the other. An import of hundreds of servers takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of one order. A file that is imported takes at most twice its size in it, but for control
/// characters that no such file holds.
const LINE_MAX: u64 = 4 * import::FILE_MAX as u64;

/// Bytes of one answer: a report of ten thousand upstreams.
const ANSWER_MAX: u64 = 16 * 1024 * 1024;

/// What is asked of the running daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    CreateKey {
        name: String,
        kind: Kind,
    },
    /// How the daemon is.
    Report,
    /// The text of any client's file.
    Import {
        text: String,
        namespace: Option<String>,
        dry_run: bool,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    Client,
    Admin,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Key(String),
    Report(Box<DaemonReport>),
    Imported(Imports),
    Refused(String),
}

impl From<Kind> for KeyKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Client => Self::Client,
            Kind::Admin => Self::Admin,
        }
    }
}

/// Opens the socket. What an earlier daemon left there is taken away: the directory is ours.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let address = socket_address(data_dir)?;
    let path = &address.path;
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, owner_only)?;
    Ok(listener)
}

/// Serves the socket for as long as the daemon runs, one order at a time. `url` is what the URLs that
/// we publish begin with.
pub async fn serve(listener: Rc<UnixListener>, conductor: Arc<Conductor>, url: String) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                failpoint::pass("operator");
                if let Ok(Err(error)) =
                    timeout(PATIENCE, take_order(stream, &conductor, &url)).await
                {
                    tracing::warn!(%error, "an order by the operator's socket was not taken");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the operator's socket does not accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn take_order(mut stream: UnixStream, conductor: &Conductor, url: &str) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(LINE_MAX)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(Order::CreateKey { name, kind }) => create_key(conductor, &name, kind).await,
        Ok(Order::Import { text, namespace, dry_run }) => {
            take_file(conductor, text, &Wanted { namespace, dry_run }).await
        }
        Ok(Order::Report) => Answer::Report(Box::new(report::of(conductor, url).await)),
        Err(error) => Answer::Refused(format!("the order cannot be read: {error}")),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    write.write_all(&line).await
}

async fn create_key(conductor: &Conductor, name: &str, kind: Kind) -> Answer {
    let owed = conductor.owe();
    match make_key(&conductor.store, name, kind.into()).await {
        Ok(key) => {
            failpoint::pass("order");
            follow(conductor).await;
            owed.paid();
            Answer::Key(key.expose().to_owned())
        }
        Err(error) => Answer::Refused(error.to_string()),
    }
}

async fn take_file(conductor: &Conductor, text: String, wanted: &Wanted) -> Answer {
    let imported = match read_apart(text).await {
        Ok(imported) => imported,
        Err(error) => return Answer::Refused(error.to_string()),
    };
    let owed = conductor.owe();
    let applied = apply(&conductor.store, imported, wanted).await;
    // Also after a failure: some of it may have been written.
    if !wanted.dry_run {
        follow(conductor).await;
    }
    owed.paid();
    applied.map_or_else(|error| Answer::Refused(error.to_string()), Answer::Imported)
}

async fn follow(conductor: &Conductor) {
    if let Err(error) = conductor.reconcile().await {
        tracing::warn!(%error, "an order takes effect when the database is back");
    }
}

/// Gives an order to the daemon that uses this data directory. `None` when none does.
pub async fn ask(data_dir: &Path, order: &Order) -> io::Result<Option<Answer>> {
    let connected = match socket_address(data_dir) {
        Ok(address) => UnixStream::connect(&address.path).await,
        Err(error) => Err(error),
    };
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let exchange = async {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut answer).await?;
        match answer.is_empty() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(serde_json::from_str(&answer)?),
        }
    };
    // It may have done some of it, and lets the same order go on where it ended.
    let late = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut => io::Error::new(
            io::ErrorKind::TimedOut,
            "it gave no answer in time; what it has done stays, so give the order again",
        ),
        _ => error,
    };
    timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|elapsed| Err(elapsed.into()))
        .map_err(late)
        .map(Some)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_socket_is_found_though_its_path_is_longer_than_any_address() {
        let place = tempfile::tempdir().unwrap();
        let long = place.path().join("d".repeat(200));
        assert!(ask(&long, &Order::Report).await.unwrap().is_none(), "there is no such directory");
        std::fs::create_dir(&long).unwrap();
        assert!(ask(&long, &Order::Report).await.unwrap().is_none(), "nobody is there");
        let listener = bind(&long).unwrap();
        assert!(crate::data_dir::socket_path(&long).exists());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = serde_json::to_string(&Answer::Key("found".into())).unwrap() + "\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        });
        let answer = ask(&long, &Order::Report).await.unwrap();
        assert!(matches!(answer, Some(Answer::Key(found)) if found == "found"));
    }

    #[tokio::test]
    async fn a_daemon_that_gives_up_an_order_is_told_of_in_words() {
        let place = tempfile::tempdir().unwrap();
        assert!(ask(place.path(), &Order::Report).await.unwrap().is_none(), "nobody is there");
        let listener = bind(place.path()).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_buf(&mut Vec::new()).await.unwrap();
        });
        let error = ask(place.path(), &Order::Report).await.unwrap_err();
        assert!(error.to_string().contains("no answer in time"), "{error}");
    }
}
