//! A minimal HTTP client that can send invalid requests, such as one header twice.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const LIMIT: Duration = Duration::from_secs(20);

/// An HTTP response.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let pairs = self.head.lines().filter_map(|line| line.split_once(':'));
        pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

/// Sends one request on a new connection. Returns `None` if there is no response.
pub async fn ask(addr: SocketAddr, target: &str, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
    let method = if body.is_empty() { "GET" } else { "POST" };
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n");
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    let asking = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(format!("{text}\r\n{body}").as_bytes()).await?;
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer).await;
        if answer.is_empty() {
            ended?;
        }
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(LIMIT, asking).await.expect("an answer in time").ok()?;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        body.to_owned()
    };
    Some(Answer { code, head: head.to_owned(), body })
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("the length of a chunk");
        whole.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    whole
}
