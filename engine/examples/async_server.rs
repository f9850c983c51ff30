//! An async server: each connection is a task that awaits its signatures; no task ever blocks a runtime thread.
//!
//! The protocol is one line each way: a client sends a text and gets the signature of it in hex, or `error` and
//! whether to try again. The example is its own client and stops when that has what it wants.
//!
//! `PKCS11_MODULE_PATH`, `TOKEN`, `PIN_FILE` and `KEY` (the label of a P-256 key) name your own token; without
//! them the example makes two throw-away tokens of SoftHSM2.

#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::net::SocketAddr;
use std::time::Duration;

use hsmux::{Ecdsa, Engine, Key};
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use softhsm_fixtures::{ExampleHsm, TestKey};
use spki::DecodePublicKey;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

type Failed = Box<dyn std::error::Error + Send + Sync>;

const CLIENTS: u32 = 64;
const LINES_EACH: u32 = 20;

/// Longest line that is read: a client cannot make the server collect an endless one.
const LINE_MAX: u64 = 1_024;

fn main() -> Result<(), Failed> {
    // Before the runtime starts: logging in blocks, and the set-up of SoftHSM2 changes the environment.
    let name = std::env::var("KEY").unwrap_or_else(|_| "receipt-signing".into());
    let Some(hsm) = ExampleHsm::open(2, &[(&name, TestKey::P256)])? else { return Ok(()) };
    let engine = Engine::builder().module(hsm.module()).tokens(hsm.tokens()).pin(hsm.pin()).build()?;
    let key = engine.key(&name)?;
    let public = VerifyingKey::from_public_key_der(&key.public_key_der()?)?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let checked = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(serve(listener, key));
        let checked = ask_all(address, public).await;
        server.abort();
        checked
    })?;

    // Draining blocks: it belongs outside the runtime, or into `spawn_blocking`.
    let left = engine.drain(Duration::from_secs(5));
    println!("{CLIENTS} connections got {checked} signatures, all checked; drained, {left} sessions left");
    if checked == CLIENTS * LINES_EACH { Ok(()) } else { Err("answers are missing".into()) }
}

/// Accepts connections until it is aborted, which ends them too: they belong to its set.
async fn serve(listener: TcpListener, key: Key) -> std::io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A key is a reference: each connection has its own.
                let (stream, key) = (accepted?.0, key.clone());
                connections.spawn(async move { answer(stream, &key).await });
            }
            // Takes finished ones out of the set. A connection that failed is its client's affair.
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection: reads lines, answers each.
async fn answer(mut stream: TcpStream, key: &Key) -> std::io::Result<()> {
    let (reading, mut writing) = stream.split();
    let mut reading = BufReader::new(reading);
    loop {
        let mut line = Vec::new();
        if (&mut reading).take(LINE_MAX).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        if line.pop() != Some(b'\n') {
            // Cut off by the limit or by the client: what would come next is no line.
            return writing.write_all(b"error never\n").await;
        }
        // If the client hangs up while this waits, the task and with it the request go: one that no session has
        // begun is withdrawn.
        let request = key.sign(Ecdsa::P256_SHA256, line).deadline_in(Duration::from_secs(2));
        let reply = match request.await {
            Ok(signature) => hex(&signature) + "\n",
            // The reason stays in our log; the client learns what it can do.
            Err(error) => format!("error {:?}\n", error.retry()).to_lowercase(),
        };
        writing.write_all(reply.as_bytes()).await?;
    }
}

/// Many clients at once; how many signatures they got.
async fn ask_all(address: SocketAddr, public: VerifyingKey) -> Result<u32, Failed> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(async move { ask(address, client, &public).await });
    }
    let mut checked = 0;
    while let Some(client) = clients.join_next().await {
        checked += client??;
    }
    Ok(checked)
}

/// One client: checks every answer with software that is not the engine's.
async fn ask(address: SocketAddr, client: u32, public: &VerifyingKey) -> Result<u32, Failed> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    for line in 0..LINES_EACH {
        let text = format!("receipt {client}/{line}");
        stream.write_all(format!("{text}\n").as_bytes()).await?;
        let mut reply = String::new();
        stream.read_line(&mut reply).await?;
        let signature = unhex(reply.trim_end()).ok_or_else(|| format!("no signature: {reply}"))?;
        public.verify(text.as_bytes(), &Signature::from_slice(&signature)?)?;
    }
    Ok(LINES_EACH)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).map(byte).collect()
}
