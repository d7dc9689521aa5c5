//! As much HTTP/1.1 as a scrape takes: one request, one answer, the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::metrics;
use crate::service::Service;

/// A request's largest head in bytes.
const HEAD_BYTES_MAX: usize = 8192;

/// Scrapes at a time. More are not accepted, and wait in the kernel.
const CLIENTS_MAX: usize = 16;

/// The whole of a conversation may take so long.
const CLIENT_MAX: Duration = Duration::from_secs(20);

/// Serves scrapes of `service` until dropped.
pub async fn serve(listener: TcpListener, service: impl Service) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = service.clone();
                tokio::spawn(async move {
                    let done = timeout(CLIENT_MAX, converse(stream, &service)).await;
                    if let Ok(Err(error)) = done {
                        tracing::debug!(%error, "a scrape broke off");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a scrape was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, service: &impl Service) -> std::io::Result<()> {
    let mut head = vec![0; HEAD_BYTES_MAX];
    let mut filled = 0;
    let answer = loop {
        if let Some(end) = head[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break respond(&head[..end], service).await;
        }
        if filled == head.len() {
            break answer("431 Request Header Fields Too Large", "text/plain", "too long\n", true);
        }
        let received = stream.read(&mut head[filled..]).await?;
        if received == 0 {
            return Ok(());
        }
        filled += received;
    };
    stream.write_all(&answer).await?;
    stream.shutdown().await
}

async fn respond(head: &[u8], service: &impl Service) -> Vec<u8> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, path, version] = words[..] else {
        return answer("400 Bad Request", "text/plain", "no HTTP request\n", true);
    };
    if !version.starts_with(b"HTTP/1.") {
        return answer("400 Bad Request", "text/plain", "no HTTP/1.1 request\n", true);
    }
    let with_body = method == b"GET";
    if !with_body && method != b"HEAD" {
        return answer("405 Method Not Allowed", "text/plain", "GET /metrics\n", true);
    }
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    if path != b"/metrics" && path != b"/" {
        return answer("404 Not Found", "text/plain", "GET /metrics\n", with_body);
    }
    match service.figures().await {
        Some(page) => answer("200 OK", metrics::CONTENT_TYPE, &page, with_body),
        None => answer(
            "503 Service Unavailable",
            "text/plain",
            "the serving threads do not answer\n",
            with_body,
        ),
    }
}

fn answer(status: &str, kind: &str, body: &str, with_body: bool) -> Vec<u8> {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}Connection: \
         close\r\n\r\n",
        body.len()
    );
    let mut bytes = head.into_bytes();
    if with_body {
        bytes.extend_from_slice(body.as_bytes());
    }
    bytes
}
