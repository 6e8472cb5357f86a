//! AWS's JSON protocol 1.1, one request a connection.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::{Value, json};

/// A request, as it came.
#[derive(Debug)]
pub struct Request {
    /// The operation's name.
    pub operation: String,
    /// What it is asked with.
    pub body: Value,
    /// The same, as it was signed.
    bytes: Vec<u8>,
    /// What moto tells services and users apart by.
    headers: Vec<(String, String)>,
}

/// What AWS refuses with: its code, and why.
#[derive(Debug)]
pub struct Refusal(pub &'static str, pub String);

/// An answer, by its status and body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl From<Result<Value, Refusal>> for Answer {
    fn from(result: Result<Value, Refusal>) -> Self {
        let (status, body) = match result {
            Ok(body) => (200, body),
            Err(Refusal(code, message)) => (400, json!({"__type": code, "message": message})),
        };
        Self { status, body: body.to_string().into_bytes() }
    }
}

/// Reads a request and answers it.
pub fn answer(mut stream: TcpStream, answer: impl FnOnce(&Request) -> Answer) -> io::Result<()> {
    let (head, bytes) = read(&mut stream)?;
    let headers = headers(&head)?;
    let target = header(&headers, "x-amz-target").unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let body = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    let Answer { status, body } = answer(&Request { operation, body, bytes, headers });
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.into_bytes(), body].concat())
}

impl Request {
    /// The same question, asked at another address.
    pub fn ask(&self, address: SocketAddr) -> io::Result<Answer> {
        self.send(&self.operation, &self.bytes, address)
    }

    /// Another question, asked by the same user.
    pub fn ask_as(&self, operation: &str, body: &Value, address: SocketAddr) -> io::Result<Answer> {
        self.send(operation, body.to_string().as_bytes(), address)
    }

    fn send(&self, operation: &str, body: &[u8], address: SocketAddr) -> io::Result<Answer> {
        let mut head = "POST / HTTP/1.1\r\n".to_owned();
        let kept = |name: &str| !matches!(name, "content-length" | "connection" | "x-amz-target");
        for (name, value) in self.headers.iter().filter(|(name, _)| kept(name)) {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("x-amz-target: CodeDeploy_20141006.{operation}\r\n");
        head += &format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let (head, body) = read(&mut stream)?;
        let status = String::from_utf8_lossy(&head).split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok(Answer { status: status.ok_or_else(|| io::Error::other("no status"))?, body })
    }
}

/// A head, and a body of the length that it says.
fn read(stream: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let length = header(&headers(&head)?, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}

/// In lower case; the first line is of a request or an answer, and passed over.
fn headers(head: &[u8]) -> io::Result<Vec<(String, String)>> {
    let text = std::str::from_utf8(head).map_err(io::Error::other)?;
    let lines = text.lines().skip(1).filter_map(|line| line.split_once(':'));
    Ok(lines.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect())
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}
