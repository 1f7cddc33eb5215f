//! Reads the lab's cases and plays connections from bytes.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test binary uses its part"
)]

use std::fmt::Write as _;
use std::path::PathBuf;

use kgw_h1::{
    BodyDecoder, BodyError, Framing, Limits, Request, RequestContext, RequestError, Response,
    ResponseError, Status,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Bytes of a case: text of one byte a character, with long runs packed.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Data {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Part {
    Text(String),
    Run { repeat: String, times: usize },
}

impl Data {
    pub fn bytes(&self) -> Vec<u8> {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::Parts(parts) => parts.iter().fold(String::new(), |mut text, part| {
                match part {
                    Part::Text(part) => text.push_str(part),
                    Part::Run { repeat, times } => text.push_str(&repeat.repeat(*times)),
                }
                text
            }),
        };
        latin1(&text)
    }
}

pub fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).expect("cases hold one byte a character"))
        .collect()
}

pub fn load<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data")
        .join(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// One request as it was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub method: String,
    pub target: String,
    pub authority: String,
    pub headers: String,
    pub framing: Framing,
    pub body: Vec<u8>,
}

/// How a client's connection went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All bytes were used, between two messages.
    Clean,
    /// The client said that this was its last message.
    Closed,
    /// A message is unfinished.
    Waiting,
    Head(RequestError),
    Body(BodyError),
}

pub struct Client {
    pub request: Request,
    pub messages: Vec<Message>,
    limits: Limits,
    buffer: Vec<u8>,
    body: Option<BodyDecoder>,
    end: Option<End>,
}

impl Client {
    pub fn new(accept_http_10: bool) -> Self {
        let mut request = Request::new();
        request.set_accept_http_10(accept_http_10);
        Self {
            request,
            messages: Vec::new(),
            limits: Limits::REQUEST,
            buffer: Vec::new(),
            body: None,
            end: None,
        }
    }

    /// Feeds bytes as a connection would: buffered until a head is complete, then streamed.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.end.is_some() {
            return;
        }
        self.buffer.extend_from_slice(bytes);
        loop {
            if let Some(decoder) = &mut self.body {
                let mut at = 0;
                let outcome = loop {
                    match decoder.decode(&self.buffer[at..]) {
                        Ok(step) => {
                            let message = self.messages.last_mut().expect("a body follows a head");
                            let data = at + step.data.start..at + step.data.end;
                            message.body.extend_from_slice(&self.buffer[data]);
                            at += step.consumed;
                            if step.done {
                                break Ok(true);
                            }
                            if at == self.buffer.len() {
                                break Ok(false);
                            }
                        }
                        Err(error) => break Err(error),
                    }
                };
                self.buffer.drain(..at);
                match outcome {
                    Ok(true) => self.body = None,
                    Ok(false) => return,
                    Err(error) => {
                        self.end = Some(End::Body(error));
                        return;
                    }
                }
                if !self.request.keep_alive() {
                    self.end = Some(End::Closed);
                    return;
                }
            }
            if self.buffer.is_empty() {
                return;
            }
            match self.request.parse(&self.buffer, &self.limits) {
                Ok(Status::Complete(len)) => {
                    self.buffer.drain(..len);
                    self.messages.push(message(&self.request));
                    self.body = Some(BodyDecoder::new(self.request.framing()));
                }
                Ok(Status::Incomplete) => return,
                Err(error) => {
                    self.end = Some(End::Head(error));
                    return;
                }
            }
        }
    }

    pub fn end(&self) -> End {
        self.end.clone().unwrap_or_else(|| {
            let only_line_ends = self.buffer.iter().all(|byte| b"\r\n".contains(byte));
            if self.body.is_none() && only_line_ends {
                End::Clean
            } else {
                End::Waiting
            }
        })
    }
}

pub fn message(request: &Request) -> Message {
    Message {
        method: String::from_utf8_lossy(request.method()).into_owned(),
        target: String::from_utf8_lossy(request.path()).into_owned(),
        authority: String::from_utf8_lossy(request.authority()).into_owned(),
        headers: format!("{:?}", request.headers()),
        framing: request.framing(),
        body: Vec::new(),
    }
}

/// Plays a client's bytes, whole or one at a time.
pub fn play(bytes: &[u8], piece: usize, accept_http_10: bool) -> (Vec<Message>, End) {
    let mut client = Client::new(accept_http_10);
    for piece in bytes.chunks(piece) {
        client.feed(piece);
    }
    let end = client.end();
    (client.messages, end)
}

/// What a backend's bytes came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub headers: String,
    pub interim: usize,
    /// Bytes behind the response: the connection must not be used again.
    pub leftover: Vec<u8>,
    pub keep_alive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Head(ResponseError),
    Body(BodyError),
    /// The connection ended inside a head.
    HeadTruncated,
    /// More interim responses than a proxy should follow.
    TooManyInterim,
}

/// Plays a backend's bytes, which end with an orderly close.
pub fn answer(bytes: &[u8], piece: usize, context: RequestContext) -> Result<Answer, Fault> {
    let mut response = Response::new();
    let mut buffer = Vec::new();
    let mut interim = 0;
    let mut pieces = bytes.chunks(piece);
    loop {
        match response
            .parse(&buffer, &Limits::RESPONSE, context)
            .map_err(Fault::Head)?
        {
            Status::Complete(len) => {
                buffer.drain(..len);
                if !response.is_interim() {
                    break;
                }
                interim += 1;
                if interim > 16 {
                    return Err(Fault::TooManyInterim);
                }
            }
            Status::Incomplete => {
                buffer.extend_from_slice(pieces.next().ok_or(Fault::HeadTruncated)?);
            }
        }
    }
    let mut decoder = BodyDecoder::new(response.framing());
    let mut body = Vec::new();
    loop {
        let step = decoder.decode(&buffer).map_err(Fault::Body)?;
        body.extend_from_slice(&buffer[step.data.clone()]);
        buffer.drain(..step.consumed);
        if step.done {
            break;
        }
        if buffer.is_empty() {
            if let Some(piece) = pieces.next() {
                buffer.extend_from_slice(piece);
            } else {
                decoder.finish_eof().map_err(Fault::Body)?;
                break;
            }
        }
    }
    for piece in pieces {
        buffer.extend_from_slice(piece);
    }
    Ok(Answer {
        status: response.status(),
        framing: response.framing(),
        body,
        headers: format!("{:?}", response.headers()),
        interim,
        leftover: buffer,
        keep_alive: response.keep_alive(),
    })
}

/// Collects failures, so that one run shows them all.
#[derive(Default)]
pub struct Failures(String);

impl Failures {
    pub fn add(&mut self, id: &str, what: impl std::fmt::Display) {
        writeln!(self.0, "{id}: {what}").expect("strings take everything");
    }

    pub fn check(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}
