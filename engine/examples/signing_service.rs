//! A signing service: worker threads take orders from a channel, sign them with a key of the HSM and answer.
//!
//! What to copy: how each kind of error is handled, and how the service stops without losing an order.
//!
//! `PKCS11_MODULE_PATH`, `TOKEN`, `PIN_FILE` and `KEY` (the label of a P-256 key) name your own token; without
//! them the example makes two throw-away tokens of SoftHSM2.

#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::sync::mpsc;
use std::time::Duration;

use crossbeam::channel;
use hsmux::{Ecdsa, Engine, Error, ErrorKind, Key, Outcome, Retry, Signature};
use p256::ecdsa::VerifyingKey;
use p256::ecdsa::signature::Verifier;
use softhsm_fixtures::{ExampleHsm, TestKey};
use spki::DecodePublicKey;

/// An order to sign, and where the answer goes.
struct Order {
    number: u64,
    text: Vec<u8>,
    answer: mpsc::Sender<Answer>,
}

type Answer = (u64, Vec<u8>, hsmux::Result<Signature>);
type Failed = Box<dyn std::error::Error>;

const ORDERS: u64 = 4_000;

/// Far more than there are sessions: while all sessions are busy, requests of many workers share the wait.
const WORKERS: usize = 16;

fn main() -> Result<(), Failed> {
    let name = std::env::var("KEY").unwrap_or_else(|_| "order-signing".into());
    let Some(hsm) = ExampleHsm::open(2, &[(&name, TestKey::P256)])? else { return Ok(()) };
    // A small limit, so that overload shows. In production it is what the service's memory and patience allow.
    let engine = Engine::builder().module(hsm.module()).tokens(hsm.tokens()).pin(hsm.pin());
    let engine = engine.requests_max(8).build()?;
    let key = engine.key(&name)?;
    let public = VerifyingKey::from_public_key_der(&key.public_key_der()?)?;

    // A bounded channel: whoever sends orders faster than they are signed waits here, not in memory.
    let (orders, inbox) = channel::bounded::<Order>(64);
    let (answer, answers) = mpsc::channel();
    let signed = std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            let (key, inbox) = (&key, inbox.clone());
            scope.spawn(move || serve(key, &inbox));
        }
        // Only workers hold the inbox now: if all of them were to end, sending would fail instead of waiting.
        drop(inbox);
        scope.spawn(move || {
            for number in 0..ORDERS {
                let order = Order { number, text: format!("pay {number}").into(), answer: answer.clone() };
                if orders.send(order).is_err() {
                    break;
                }
            }
            // The channel closes here: workers finish what is in it and end.
        });
        check_all(&answers, &public)
    })?;

    // All workers have ended, so nothing is in flight: this closes the sessions and logs out.
    let left = engine.drain(Duration::from_secs(5));
    let snapshot = engine.snapshot();
    println!(
        "signed and checked {signed} orders, {} refused for want of room and sent again",
        snapshot.refused
    );
    println!("drained, {left} sessions left");
    if signed == ORDERS && left == 0 { Ok(()) } else { Err("orders or sessions were left".into()) }
}

/// One worker.
fn serve(key: &Key, inbox: &channel::Receiver<Order>) {
    for order in inbox {
        let signed = sign(key, &order.text);
        // The client may have gone; its order is done all the same.
        drop(order.answer.send((order.number, order.text, signed)));
    }
}

/// Signs, or says why not.
fn sign(key: &Key, text: &[u8]) -> hsmux::Result<Signature> {
    // What a client of this service waits at most: past it nobody wants the signature any more.
    const PATIENCE: Duration = Duration::from_secs(1);
    let request = || key.sign(Ecdsa::P256_SHA256, text).deadline_in(PATIENCE);
    let pending = match request().submit() {
        Ok(pending) => pending,
        // No room at the moment. The request comes back as it was; this worker has nothing better to do than to
        // wait until there is room. A front end would say "try later" here instead.
        Err(refused) if refused.error.kind() == ErrorKind::Overloaded => {
            refused.request.wait_for_room().submit().map_err(|refused| refused.error)?
        }
        Err(refused) => return Err(refused.error),
    };
    match pending.wait() {
        Err(error) if may_sign_again(&error) => request().wait(),
        answer => answer,
    }
}

/// Whether to send a failed request once more. The engine has already repeated what it safely could.
fn may_sign_again(error: &Error) -> bool {
    match error.kind() {
        // The client has waited long enough, whether or not the token has signed meanwhile.
        ErrorKind::DeadlineExceeded => false,
        // `outcome` decides about the rest: a second signature would do no harm, but where each use of the key is
        // counted or paid for, what may have run is not sent again.
        _ => matches!(error.retry(), Retry::Now | Retry::Later) && error.outcome() == Outcome::NotDone,
    }
}

/// Checks every answer with software that is not the engine's.
fn check_all(answers: &mpsc::Receiver<Answer>, public: &VerifyingKey) -> Result<u64, Failed> {
    let mut signed = 0;
    for (number, text, answer) in answers {
        let signature = answer.map_err(|error| format!("order {number}: {error}"))?;
        public.verify(&text, &p256::ecdsa::Signature::from_slice(&signature)?)?;
        signed += 1;
    }
    Ok(signed)
}
