//! The plain reverse proxy that the gateway is compared with: one worker, no log, kept connections,
//! HTTP/1.1, and its own buffering.

use std::{
    fs,
    io::ErrorKind,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{Outcome, process};

/// A running nginx. It ends when this is dropped.
#[derive(Debug)]
pub struct Nginx {
    process: Child,
    pub port: u16,
    _directory: TempDir,
}

/// Starts nginx in front of a port of this host; `None` where it is not installed.
pub fn start(upstream: u16) -> Outcome<Option<Nginx>> {
    let directory = tempfile::tempdir()?;
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let place = directory.path().display();
    let configuration = format!(
        "daemon off;
worker_processes 1;
pid {place}/pid;
error_log {place}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {place}/body;
  proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi;
  scgi_temp_path {place}/scgi;
  keepalive_requests 1000000000;
  upstream bench {{
    server 127.0.0.1:{upstream};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://bench;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
    }}
  }}
}}
"
    );
    let file = directory.path().join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&file).arg("-p").arg(directory.path());
    command.arg("-e").arg(directory.path().join("error.log"));
    let process = match command.stdin(Stdio::null()).stderr(Stdio::null()).spawn() {
        Ok(process) => process,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let nginx = Nginx { process, port, _directory: directory };
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if begun.elapsed() > Duration::from_secs(10) {
            return Err("nginx does not listen".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some(nginx))
}

impl Nginx {
    /// The process that carries the requests; the one we started only watches over it.
    pub fn worker(&self) -> Outcome<u32> {
        process::child_of(self.process.id())?.ok_or_else(|| "nginx has no worker".into())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A master that is asked takes its worker along; one that is killed does not.
        let asked = rustix::process::Pid::from_raw(self.process.id().cast_signed())
            .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        if !matches!(asked, Some(Ok(()))) {
            drop(self.process.kill());
        }
        drop(self.process.wait());
    }
}
