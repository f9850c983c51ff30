//! Spans of requests: they carry the caller's id, say how the request ended, and are made and closed by the caller.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::thread::ThreadId;
use std::time::Duration;

use futures::StreamExt;
use hsmux::{AesEcb, AesGcm, Ecdsa, Engine, ErrorKind, pipeline};
use hsmux_tests::{Hsm, LONG};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::fmt::format::FmtSpan;

/// A span that somebody has made.
#[derive(Clone, Debug, Default)]
struct Seen {
    fields: BTreeMap<&'static str, String>,
    threads: Vec<ThreadId>,
    closed: bool,
}

/// Keeps every span of the engine's requests. Not a span of the test's own, which has no such target.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Vec<Seen>>>);

impl Listener {
    /// Notes something of a span, or of a new one. Returns its id.
    fn with(&self, id: Option<&Id>, note: impl FnOnce(&mut Seen)) -> Id {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = id.map_or(all.len(), |id| usize::try_from(id.into_u64()).unwrap() - 1);
        if place == all.len() {
            all.push(Seen::default());
        }
        all[place].threads.push(std::thread::current().id());
        note(&mut all[place]);
        Id::from_u64(place as u64 + 1)
    }

    /// Takes what was seen, in order. All of it was closed, by the thread that asks.
    fn take(&self) -> Vec<BTreeMap<&'static str, String>> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let here = std::thread::current().id();
        for span in &seen {
            assert!(span.closed, "{span:?}");
            assert!(span.threads.iter().all(|thread| *thread == here), "not on the caller's side: {span:?}");
        }
        seen.into_iter().map(|span| span.fields).collect()
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "hsmux::request"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.with(None, |seen| span.record(seen))
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.with(Some(span), |seen| values.record(seen));
    }

    fn try_close(&self, span: Id) -> bool {
        self.with(Some(&span), |seen| seen.closed = true);
        true
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Runs something on an engine with a listener, and returns the fields of the spans that it made.
fn heard(config: &str, run: impl FnOnce(&Hsm, &Engine)) -> Vec<BTreeMap<&'static str, String>> {
    let hsm = Hsm::new(1, config);
    let engine = hsm.builder().sessions(1).requests_max(2).build().unwrap();
    let listener = Listener::default();
    tracing::subscriber::with_default(listener.clone(), || run(&hsm, &engine));
    listener.take()
}

#[track_caller]
fn assert_fields(span: &BTreeMap<&'static str, String>, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        assert_eq!(span.get(name).map(String::as_str), Some(*value), "{name}: {span:?}");
    }
}

fn us(span: &BTreeMap<&'static str, String>, field: &str) -> f64 {
    span[field].parse().unwrap()
}

#[test]
fn a_queued_request_has_a_span_with_its_id_its_stages_and_its_outcome() {
    let spans = heard("op_us=300", |_, engine| {
        let key = engine.key("p256").unwrap();
        key.sign(Ecdsa::P256_SHA256, b"pay 10 to A").request_id(17).wait().unwrap();
        key.sign(Ecdsa::P256_SHA256, b"pay").request_id("order/5").submit().unwrap().wait().unwrap();
        let future = key.sign(Ecdsa::P256_SHA256, b"pay").into_future();
        futures::executor::block_on(future).unwrap();
    });
    assert_eq!(spans.len(), 3);
    for span in &spans {
        assert_fields(span, &[("operation", "sign-ecdsa"), ("outcome", "done")]);
        assert!(!span.contains_key("error"), "{span:?}");
        assert!(us(span, "token_us") >= 300.0 && us(span, "queued_us") >= 0.0, "{span:?}");
        assert!(
            (us(span, "total_us") - us(span, "queued_us") - us(span, "token_us")).abs() < 0.01,
            "{span:?}"
        );
        let all: Vec<_> = span.values().cloned().collect();
        assert!(!all.concat().contains("pay"), "a payload: {span:?}");
    }
    assert_fields(&spans[0], &[("request_id", "17"), ("size", "11")]);
    assert_fields(&spans[1], &[("request_id", "order/5"), ("size", "3")]);
    assert_eq!(spans[2].get("request_id"), None);
}

#[test]
fn an_inline_request_queued_for_nothing() {
    let spans = heard("op_us=300", |_, engine| {
        let key = engine.key("aes256").unwrap();
        key.encrypt(AesEcb, vec![1; 16]).deadline(None).request_id(1).wait().unwrap();
        key.encrypt(AesEcb, vec![1; 16]).deadline(None).request_id(2).wait_into(&mut [0; 16]).unwrap();
    });
    assert_eq!(spans.len(), 2);
    for (span, id) in spans.iter().zip(["1", "2"]) {
        assert_fields(span, &[("request_id", id), ("outcome", "done")]);
        assert_eq!(us(span, "queued_us"), 0.0);
        assert!(us(span, "token_us") >= 300.0, "{span:?}");
    }
}

#[test]
fn a_failure_is_named_whoever_found_it() {
    let spans = heard("", |_, engine| {
        let aes = engine.key("aes256").unwrap();
        let bad = || aes.decrypt(AesGcm::new(), vec![0; 40]);
        assert_eq!(bad().request_id("token").wait().unwrap_err().kind(), ErrorKind::DecryptFailed);
        assert_eq!(
            bad().deadline(None).request_id("inline").wait().unwrap_err().kind(),
            ErrorKind::DecryptFailed
        );
        let odd = aes.encrypt(AesEcb, vec![0; 3]).request_id("check");
        let refused = odd.submit().unwrap_err();
        // The same request again has a span of its own.
        refused.request.wait().unwrap_err();
        let late =
            aes.encrypt(AesEcb, vec![0; 16]).deadline_in(Duration::ZERO).request_id("late").into_future();
        futures::executor::block_on(late).unwrap_err();
        aes.encrypt(AesEcb, vec![0; 16]).request_id("short").wait_into(&mut [0; 3]).unwrap_err();
    });
    let ended = |span: &BTreeMap<&'static str, String>| {
        ["request_id", "outcome", "error"].map(|field| span[field].clone())
    };
    let expected = [
        ["token", "done", "decrypt-failed"],
        ["inline", "done", "decrypt-failed"],
        ["check", "not-done", "invalid-input"],
        ["check", "not-done", "invalid-input"],
        ["late", "not-done", "deadline-exceeded"],
        ["short", "not-done", "invalid-input"],
    ];
    assert_eq!(spans.iter().map(ended).collect::<Vec<_>>(), expected);
    assert!(!spans[2].contains_key("token_us"), "{:?}", spans[2]);
}

#[test]
fn what_is_given_up_refused_or_late_says_so() {
    let spans = heard("", |hsm, engine| {
        let aes = engine.key("aes256").unwrap();
        hsm.sim.configure("hang=C_Encrypt:1").unwrap();
        let request = |id: &str| aes.encrypt(AesEcb, vec![1; 16]).request_id(id);
        let running = request("running").submit().unwrap();
        assert!(hsm.sim.wait_hanging(1, LONG));
        let queued = request("queued").submit().unwrap();
        assert_eq!(request("refused").wait().unwrap_err().kind(), ErrorKind::Overloaded);
        let waiting = request("waiting").wait_for_room().deadline_in(Duration::from_millis(20));
        futures::executor::block_on(waiting.into_future()).unwrap_err();
        drop(queued);
        drop(running);
        hsm.sim.release_hangs();
    });
    let ended = |span: &BTreeMap<&'static str, String>| {
        ["request_id", "outcome", "error"].map(|field| span[field].clone())
    };
    let expected = [
        ["running", "unknown", "withdrawn"],
        ["queued", "not-done", "withdrawn"],
        ["refused", "not-done", "overloaded"],
        ["waiting", "not-done", "deadline-exceeded"],
    ];
    assert_eq!(spans.iter().map(ended).collect::<Vec<_>>(), expected);
}

#[test]
fn batches_and_pipelines_have_a_span_per_request() {
    let spans = heard("", |_, engine| {
        let key = engine.key("aes256").unwrap();
        let blocks = vec![[1_u8; 16]; 10];
        let all = key.encrypt_many(AesEcb, &blocks).request_id("batch").wait();
        assert!(all.iter().all(Result::is_ok));
        let requests = (0..10_u64).map(|i| key.encrypt(AesEcb, vec![1; 16]).request_id(i));
        let piped = pipeline(futures::stream::iter(requests), 4.try_into().unwrap());
        assert_eq!(futures::executor::block_on(piped.count()), 10);
    });
    let ids: Vec<_> = spans.iter().map(|span| span["request_id"].clone()).collect();
    assert_eq!((spans.len(), ids.iter().filter(|id| *id == "batch").count()), (20, 10));
    spans.iter().for_each(|span| assert_fields(span, &[("outcome", "done"), ("size", "16")]));
}

#[test]
fn verification_on_the_host_has_a_span_without_a_token() {
    let spans = heard("", |_, engine| {
        let key = engine.key("p256").unwrap();
        let signature = key.sign(Ecdsa::P256_SHA256, b"m").wait().unwrap();
        assert!(key.verify(Ecdsa::P256_SHA256, b"m", &signature).request_id(1).wait().unwrap().is_valid());
        let verify = key.verify(Ecdsa::P256_SHA256, b"m", &signature).request_id(2).into_future();
        assert!(futures::executor::block_on(verify).unwrap().is_valid());
    });
    assert_eq!(spans.len(), 3);
    for span in &spans[1..] {
        assert_fields(span, &[("operation", "verify"), ("outcome", "done")]);
        assert!(us(span, "total_us") > 0.0 && !span.contains_key("token_us"), "{span:?}");
    }
}

#[test]
fn all_verifications_in_the_window_of_a_pipeline_begin_at_once() {
    let hsm = Hsm::new(1, "");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("p256").unwrap();
    let signature = key.sign(Ecdsa::P256_SHA256, b"m").wait().unwrap();
    let listener = Listener::default();
    let begun = || listener.0.lock().unwrap_or_else(PoisonError::into_inner).len();
    tracing::subscriber::with_default(listener.clone(), || {
        let requests = (0..10).map(|_| key.verify(Ecdsa::P256_SHA256, b"m", &signature));
        let mut piped = pipeline(futures::stream::iter(requests), 4.try_into().unwrap());
        let mut context = Context::from_waker(Waker::noop());
        let first = piped.poll_next_unpin(&mut context);
        assert_eq!(begun(), 4);
        let rest = futures::executor::block_on(piped.filter(|answer| ready(answer.is_ok())).count());
        assert_eq!(rest + usize::from(first.is_ready()), 10);
    });
    assert_eq!(listener.take().len(), 10);
}

#[test]
fn spans_have_the_level_debug() {
    let hsm = Hsm::new(1, "null=1");
    let engine = hsm.builder().build().unwrap();
    let key = engine.key("aes256").unwrap();
    let written = |filter: &str, id: u64| {
        let sink = Sink::default();
        let writer = sink.clone();
        let format = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || writer.clone());
        let format = format.with_span_events(FmtSpan::CLOSE).with_ansi(false).finish();
        let request = || key.encrypt(AesEcb, vec![1; 16]).request_id(id).wait();
        tracing::subscriber::with_default(format, request).unwrap();
        let text = sink.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(text).unwrap()
    };
    let text = written("hsmux::request=debug", 5);
    assert!(text.contains("request_id=5") && text.contains("outcome=\"done\""), "{text}");
    assert_eq!(written("hsmux=info", 6), "");
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
