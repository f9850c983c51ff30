//! Metrics over HTTP: `/metrics` in Prometheus' text format, from a plain listener of the standard library.
//!
//! A service that has an HTTP server adds a route to it that answers with the same two lines: content type and page. The
//! example listens on 127.0.0.1 only, scrapes itself once and stops. Who may read the metrics of yours is up to you.
//!
//! `PKCS11_MODULE_PATH`, `TOKEN`, `PIN_FILE` and `KEY` (the label of a P-256 key) name your own token; without them the
//! example makes a throw-away token of SoftHSM2.

#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use hsmux::{Ecdsa, Engine, Snapshot};
use softhsm_fixtures::{ExampleHsm, TestKey};

type Failed = Box<dyn std::error::Error + Send + Sync>;

const SIGNATURES: u64 = 25;

/// Longest request that is read: a scrape has a few hundred bytes.
const REQUEST_MAX: u64 = 8_192;

/// A scraper that says nothing for so long is hung up on.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Failed> {
    let name = std::env::var("KEY").unwrap_or_else(|_| "order-signing".into());
    let Some(hsm) = ExampleHsm::open(1, &[(&name, TestKey::P256)])? else { return Ok(()) };
    let engine = Engine::builder().module(hsm.module()).tokens(hsm.tokens()).pin(hsm.pin()).build()?;
    let key = engine.key(&name)?;
    for order in 0..SIGNATURES {
        // The id is found again in the request's span, if a subscriber wants `hsmux::request` at level debug.
        key.sign(Ecdsa::P256_SHA256, &order.to_be_bytes()).request_id(order).wait()?;
    }

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    // Before the server waits for it: it never waits in vain.
    let scraper = TcpStream::connect(address)?;
    let page = std::thread::scope(|scope| {
        let server = scope.spawn(|| answer(&listener.accept()?.0, &engine));
        let page = scrape(scraper)?;
        server.join().map_err(|_| "the server panicked")??;
        Ok::<_, Failed>(page)
    })?;

    println!("http://{address}/metrics had, among {} lines:", page.lines().count());
    let signed = |line: &&str| line.starts_with("hsmux_operations_total") && line.contains("ok");
    let line = page.lines().find(signed).ok_or("no signature was counted")?;
    println!("{line}");
    engine.drain(Duration::from_secs(5));
    if line.ends_with(&format!(" {SIGNATURES}")) { Ok(()) } else { Err("signatures are missing".into()) }
}

/// Answers one request.
fn answer(mut stream: &TcpStream, engine: &Engine) -> Result<(), Failed> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.take(REQUEST_MAX)).lines();
    let request = lines.next().ok_or("no request")??;
    // The headers end with an empty line; none of them matters here.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let (status, body) = match request.split(' ').collect::<Vec<_>>()[..] {
        // Taking a snapshot and writing it out holds up nobody who signs.
        ["GET", "/metrics", _] => ("200 OK", engine.snapshot().to_prometheus()),
        _ => ("404 Not Found", String::new()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        Snapshot::PROMETHEUS_CONTENT_TYPE,
        body.len()
    )?;
    Ok(())
}

/// What Prometheus does every few seconds.
fn scrape(mut stream: TcpStream) -> Result<String, Failed> {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let (head, page) = reply.split_once("\r\n\r\n").ok_or("no reply")?;
    if head.starts_with("HTTP/1.1 200 ") { Ok(page.to_owned()) } else { Err(head.into()) }
}
