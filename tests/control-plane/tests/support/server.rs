//! A file server on loopback that misbehaves as a test wants.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// How the server answers a request.
pub enum Reply {
    /// With this status and no body.
    Status(u16),
    /// With a redirect to this path.
    Redirect(&'static str),
    /// With this file.
    File(Vec<u8>),
    /// With the first half of this file; then it closes the connection.
    CutOff(Vec<u8>),
    /// With the first half of this file; then it sends nothing and keeps the connection open.
    Stall(Vec<u8>),
    /// With this file, byte by byte, too slowly to ever finish.
    Drip(Vec<u8>),
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts a server that asks `reply` how to answer a request for a path.
    pub fn start(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let (seen, reply) = (Arc::clone(&requests), Arc::new(reply));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, reply) = (Arc::clone(&seen), Arc::clone(&reply));
                // An error is a client that has gone.
                thread::spawn(move || answer(stream, &seen, &*reply));
            }
        });
        Ok(Self { address, requests })
    }

    /// The URL of the server, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The paths requested so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(mut stream: TcpStream, seen: &Mutex<Vec<String>>, reply: &dyn Fn(&str) -> Reply) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    while !lines.next().unwrap_or_else(|| Ok(String::new()))?.is_empty() {}
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
    let head =
        |status: &str, length: usize| format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n");
    match reply(&path) {
        Reply::Status(code) => write!(stream, "{}\r\n", head(&format!("{code} Status"), 0)),
        Reply::Redirect(to) => write!(stream, "{}Location: {to}\r\n\r\n", head("302 Found", 0)),
        Reply::File(file) => {
            write!(stream, "{}\r\n", head("200 OK", file.len()))?;
            stream.write_all(&file)
        }
        Reply::CutOff(file) => {
            write!(stream, "{}\r\n", head("200 OK", file.len()))?;
            stream.write_all(&file[..file.len() / 2])
        }
        Reply::Stall(file) => {
            write!(stream, "{}\r\n", head("200 OK", file.len()))?;
            stream.write_all(&file[..file.len() / 2])?;
            // Returns when the client closes the connection.
            stream.read(&mut [0]).map(drop)
        }
        Reply::Drip(file) => {
            write!(stream, "{}\r\n", head("200 OK", file.len()))?;
            file.iter().try_for_each(|byte| {
                thread::sleep(Duration::from_millis(5));
                stream.write_all(&[*byte])
            })
        }
    }
}
