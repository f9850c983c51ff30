//! The engine's figures as instruments of OpenTelemetry (feature `otel`).
//!
//! Only metrics pass through here, and only the API crate: which SDK and exporter carry them on is the application's
//! choice. Traces need nothing of this module: with the layer of `tracing-opentelemetry` in the application's
//! subscriber, the spans of [`Request::request_id`](crate::Request::request_id) become spans of OpenTelemetry, with the
//! caller's as their parents.

use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};

use crate::clock::now;
use crate::engine::Engine;
use crate::metrics::bounds::{BOUNDS_NS, below, sum_ns};
use crate::metrics::prometheus::{
    Seconds, TOKEN_COUNTERS, TOKEN_GAUGES, counters, gauges, identities, scope_names,
};
use crate::metrics::{OperationSnapshot, ScopeSnapshot, Snapshot, Stage, TokenSnapshot};
use crate::sync::Mutex;

/// Registers observable instruments for all that a [`Snapshot`] holds. They read the engine whenever the meter's
/// provider collects, and nothing in between; once the engine is dropped they observe nothing. It is not kept alive.
///
/// Their names are those of [`Snapshot::to_prometheus`] with `hsmux.` before and without `_total`, so an exporter to
/// Prometheus arrives at the same ones; so are their attributes. Times are an exception, for OpenTelemetry has no
/// observable histogram: the counters `hsmux.operation_duration_bucket` (with the attribute `le`, in seconds, as there),
/// `hsmux.operation_duration_count` and `hsmux.operation_duration_sum`. The first has 69 series per token and operation;
/// where that goes beyond the SDK's limit (2 000 by default), drop it or raise the limit by a view.
///
/// Call it once per engine and meter.
///
/// # Blocking
/// Not at all. A collection takes one snapshot on the collecting thread.
///
/// ```no_run
/// # fn main() -> hsmux::Result<()> {
/// # let engine = hsmux::Engine::builder().module("m").tokens(["t"]).pin("1234".to_owned()).build()?;
/// let engine = std::sync::Arc::new(engine);
/// hsmux::otel::register(&engine, &opentelemetry::global::meter("payments"));
/// # Ok(())
/// # }
/// ```
pub fn register(engine: &Arc<Engine>, meter: &Meter) {
    let source = Arc::new(Source { engine: Arc::downgrade(engine), last: Mutex::new(None) });
    let now = engine.snapshot();
    for (i, (name, help, _)) in gauges(&now).into_iter().enumerate() {
        let callback = source.observe(move |snapshot, to| to.observe(gauges(snapshot)[i].2 as u64, &[]));
        meter.u64_observable_gauge(instrument(name)).with_description(help).with_callback(callback).build();
    }
    for (i, (name, help, _)) in counters(&now).into_iter().enumerate() {
        let callback = source.observe(move |snapshot, to| to.observe(counters(snapshot)[i].2, &[]));
        meter.u64_observable_counter(instrument(name)).with_description(help).with_callback(callback).build();
    }
    register_tokens(&source, meter);
    register_scopes(&source, meter);
    register_operations(&source, meter);
    register_times(&source, meter);
}

fn register_tokens(source: &Arc<Source>, meter: &Meter) {
    let sessions = source.observe(|snapshot, to| {
        for (token, attributes) in each_token(snapshot) {
            for (state, count) in token.states() {
                to.observe(count as u64, &with(&attributes, KeyValue::new("state", state)));
            }
        }
    });
    let help = "Sessions by state: idle, busy with requests, or hung.";
    meter.u64_observable_gauge("hsmux.sessions").with_description(help).with_callback(sessions).build();
    for (family, help, read) in TOKEN_GAUGES {
        let values = source.observe(of_tokens(read));
        meter.u64_observable_gauge(instrument(family)).with_description(help).with_callback(values).build();
    }
    for (family, help, read) in TOKEN_COUNTERS {
        let values = source.observe(of_tokens(read));
        meter.u64_observable_counter(instrument(family)).with_description(help).with_callback(values).build();
    }
    let calls = source.observe(|snapshot, to| {
        for (function, count) in &snapshot.calls {
            to.observe(*count, &[KeyValue::new("function", *function)]);
        }
    });
    let help = "PKCS#11 calls, of requests and of the engine itself.";
    meter.u64_observable_counter("hsmux.pkcs11_calls").with_description(help).with_callback(calls).build();
}

/// Observes one value a token.
fn of_tokens(read: fn(&TokenSnapshot) -> u64) -> impl Fn(&Snapshot, &dyn AsyncInstrument<u64>) {
    move |snapshot, to| {
        for (token, attributes) in each_token(snapshot) {
            to.observe(read(token), &attributes);
        }
    }
}

fn register_scopes(source: &Arc<Source>, meter: &Meter) {
    let gauges: [(&str, &str, Of); 3] = [
        ("hsmux.sessions_in_use", "Sessions that may run operations, by scope.", |scope| scope.in_use),
        ("hsmux.sessions_floor", "Fewest sessions that may be in use, by scope.", |scope| scope.floor),
        ("hsmux.sessions_ceiling", "Most sessions that may be in use, by scope.", |scope| scope.ceiling),
    ];
    for (name, help, of) in gauges {
        let value = source.observe(move |snapshot, to| {
            for (scope, name) in snapshot.scopes.iter().zip(scope_names(&snapshot.scopes)) {
                to.observe(of(scope) as u64, &[KeyValue::new("scope", name)]);
            }
        });
        meter.u64_observable_gauge(name).with_description(help).with_callback(value).build();
    }
    let adjustments = source.observe(|snapshot, to| {
        for (scope, name) in snapshot.scopes.iter().zip(scope_names(&snapshot.scopes)) {
            for (reason, count) in &scope.adjustments {
                let scope = KeyValue::new("scope", name.clone());
                to.observe(*count, &[scope, KeyValue::new("reason", reason.as_str())]);
            }
        }
    });
    let help = "What the controller of the sessions in use did, by scope and reason.";
    meter
        .u64_observable_counter("hsmux.session_adjustments")
        .with_description(help)
        .with_callback(adjustments)
        .build();
}

/// What a gauge shows of a scope.
type Of = fn(&ScopeSnapshot) -> usize;

fn register_operations(source: &Arc<Source>, meter: &Meter) {
    let operations = source.observe(|snapshot, to| {
        for (attributes, operation) in each(snapshot) {
            for (result, count) in operation.results() {
                to.observe(count, &with(&attributes, KeyValue::new("result", result)));
            }
        }
    });
    let help = "Attempts at operations that ended on a token.";
    meter.u64_observable_counter("hsmux.operations").with_description(help).with_callback(operations).build();
    let errors = source.observe(|snapshot, to| {
        for (attributes, operation) in each(snapshot) {
            for (kind, count) in &operation.errors {
                to.observe(*count, &with(&attributes, KeyValue::new("kind", kind.name())));
            }
        }
    });
    let help = "Attempts at operations that failed on a token, by kind of error.";
    meter
        .u64_observable_counter("hsmux.operation_errors")
        .with_description(help)
        .with_callback(errors)
        .build();
}

fn register_times(source: &Arc<Source>, meter: &Meter) {
    let buckets = source.observe(|snapshot, to| {
        for (attributes, operation, stage) in each_stage(snapshot) {
            let times = operation.stage(stage);
            for (bound, count) in BOUNDS_NS.into_iter().zip(below(times)) {
                let bound = Seconds(bound.into()).to_string();
                to.observe(count, &with(&attributes, KeyValue::new("le", bound)));
            }
            to.observe(times.len(), &with(&attributes, KeyValue::new("le", "+Inf")));
        }
    });
    let help = "Operations that succeeded in no more than a time, by stage.";
    meter
        .u64_observable_counter("hsmux.operation_duration_bucket")
        .with_description(help)
        .with_callback(buckets)
        .build();
    let counts = source.observe(|snapshot, to| {
        for (attributes, operation, stage) in each_stage(snapshot) {
            to.observe(operation.stage(stage).len(), &attributes);
        }
    });
    let help = "Operations that succeeded, by stage.";
    meter
        .u64_observable_counter("hsmux.operation_duration_count")
        .with_description(help)
        .with_callback(counts)
        .build();
    let sums = source.observe(|snapshot, to| {
        for (attributes, operation, stage) in each_stage(snapshot) {
            to.observe(seconds(sum_ns(operation.stage(stage))), &attributes);
        }
    });
    let help = "Time of operations that succeeded, by stage.";
    meter
        .f64_observable_counter("hsmux.operation_duration_sum")
        .with_description(help)
        .with_unit("s")
        .with_callback(sums)
        .build();
}

/// Age up to which a snapshot serves the next instrument too: far above what a collection takes from one to the next,
/// far below the interval of any reader.
const SHARED_FOR: Duration = Duration::from_millis(10);

/// Where instruments read.
struct Source {
    engine: Weak<Engine>,
    last: Mutex<Option<Arc<Snapshot>>>,
}

impl Source {
    /// The snapshot of this collection; none if the engine is gone.
    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let engine = self.engine.upgrade()?;
        let mut last = self.last.lock();
        if let Some(shared) = last.as_ref().filter(|last| last.taken.until(now()) < SHARED_FOR) {
            return Some(Arc::clone(shared));
        }
        let taken = Arc::new(engine.snapshot());
        *last = Some(Arc::clone(&taken));
        Some(taken)
    }

    /// A callback that observes a snapshot.
    fn observe<T>(
        self: &Arc<Self>,
        observe: impl Fn(&Snapshot, &dyn AsyncInstrument<T>) + Send + Sync + 'static,
    ) -> impl Fn(&dyn AsyncInstrument<T>) + Send + Sync + 'static {
        let source = Arc::clone(self);
        move |to| {
            if let Some(snapshot) = source.snapshot() {
                observe(&snapshot, to);
            }
        }
    }
}

/// What was asked of tokens, with the attributes that name it.
fn each(snapshot: &Snapshot) -> impl Iterator<Item = (Vec<KeyValue>, &OperationSnapshot)> {
    each_token(snapshot).flat_map(|(token, attributes)| {
        token.operations.iter().map(move |operation| {
            (with(&attributes, KeyValue::new("operation", operation.kind.as_str())), operation)
        })
    })
}

/// Tokens with the attributes that name them.
fn each_token(snapshot: &Snapshot) -> impl Iterator<Item = (&TokenSnapshot, Vec<KeyValue>)> {
    let attributes = |identity: Vec<(&'static str, String)>| {
        identity.into_iter().map(|(name, value)| KeyValue::new(name, value)).collect()
    };
    snapshot.tokens.iter().zip(identities(&snapshot.tokens).into_iter().map(attributes))
}

fn each_stage(snapshot: &Snapshot) -> impl Iterator<Item = (Vec<KeyValue>, &OperationSnapshot, Stage)> {
    each(snapshot).flat_map(|(attributes, operation)| {
        Stage::ALL.map(|stage| (with(&attributes, KeyValue::new("stage", stage.as_str())), operation, stage))
    })
}

fn with(attributes: &[KeyValue], last: KeyValue) -> Vec<KeyValue> {
    attributes.iter().cloned().chain([last]).collect()
}

/// As a float: a sum of times, right to 0.4 %.
fn seconds(ns: u128) -> f64 {
    ns as f64 / 1e9
}

/// The name of a family of the page, as that of an instrument.
fn instrument(family: &'static str) -> String {
    let name = family.strip_prefix("hsmux_").unwrap_or(family);
    format!("hsmux.{}", name.strip_suffix("_total").unwrap_or(name))
}
