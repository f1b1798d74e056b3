//! A minimal HTTP/1.1 connection: it writes bytes, and reads until the answer is complete.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Answer, Request};

/// The first line of a successful response.
const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\n";

/// An HTTP/1.1 connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens a connection.
    pub async fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).await.context("connecting")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(8192) })
    }

    /// Sends a request. The answer must be 200. Returns its size.
    pub async fn ask(&mut self, request: &Request) -> anyhow::Result<usize> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut whole = None;
        while whole.is_none_or(|whole| self.buffer.len() < whole) {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the server closed the connection");
            if whole.is_none() {
                whole = length(&self.buffer)?;
            }
        }
        ensure!(whole == Some(self.buffer.len()), "more than one answer");
        ensure!(self.buffer.starts_with(GOOD), "not 200: {}", String::from_utf8_lossy(&self.buffer));
        Ok(self.buffer.len())
    }

    /// The same. Returns the parsed answer.
    pub async fn probe(&mut self, request: &Request) -> anyhow::Result<Answer> {
        self.ask(request).await?;
        let text = String::from_utf8(self.buffer.clone())?;
        let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
        let headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        let headers = headers.filter(|(name, _)| name != "date" && name != "content-length").collect();
        Ok(Answer { headers, body: body.as_bytes().to_vec() })
    }
}

/// The length of an answer, once its head has arrived.
fn length(buffer: &[u8]) -> anyhow::Result<Option<usize>> {
    const FIELD: &[u8] = b"content-length: ";
    let Some(end) = find(buffer, b"\r\n\r\n") else { return Ok(None) };
    let head = &buffer[..end + 2];
    let value = find(head, FIELD).and_then(|at| {
        let rest = &head[at + FIELD.len()..];
        str::from_utf8(&rest[..find(rest, b"\r")?]).ok()?.parse::<usize>().ok()
    });
    Ok(Some(end + 4 + value.context("an answer without content-length")?))
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}
