//! Snapshots as a page that Prometheus scrapes: its text format, version 0.0.4.

use std::collections::HashSet;
use std::fmt::{self, Display, Formatter, Write};

use hdrhistogram::Histogram;

use crate::metrics::bounds::{BOUNDS_NS, below, sum_ns};
use crate::metrics::{Health, OperationSnapshot, ScopeSnapshot, Snapshot, Stage, TokenSnapshot};

impl Snapshot {
    /// The media type under which [`Snapshot::to_prometheus`] is to be served.
    pub const PROMETHEUS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// The snapshot in Prometheus' text format, version 0.0.4: counters end in `_total`, times are in seconds.
    ///
    /// Labels have few values: tokens by label (64 at most; the second of the same label is `label#2`), operations,
    /// stages, kinds of errors, states of sessions, PKCS#11 functions. No key, tenant or request is named. A token
    /// that was asked for an operation has 75 series of times for it; what never happened has none.
    ///
    /// With several [instances](crate::Builder::instances) each has series of its own, told apart by the label
    /// `module_instance` (from `0`; Prometheus keeps `instance` for the target): so it shows when one of them does
    /// less than the others. `sum without (module_instance)` gives the token. With one there is no such label.
    ///
    /// `hsmux_operation_duration_seconds` has bounds from 1 us to 10 s in steps of 1, 2.5 and 5. The engine keeps times
    /// to two significant digits, in buckets at most 1/128 wide. One of these counts below a bound only if the whole
    /// of it lies there: no time above a bound is counted below it, and one that is short of it by less than 0.8 %
    /// may be counted above. `_count` is exact, `_sum` is right to 0.4 %, and all of them only rise.
    ///
    /// # Blocking
    /// Not at all, but it computes: about 0.1 ms per token and operation, so once per scrape.
    ///
    /// ```no_run
    /// # fn main() -> hsmux::Result<()> {
    /// # let engine = hsmux::Engine::builder().module("m").tokens(["t"]).pin("1234".to_owned()).build()?;
    /// print!("{}", engine.snapshot().to_prometheus());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        Page(self).to_string()
    }
}

/// What tells a token from others, in labels and attributes: its label, made distinct, and its instance of the module
/// where there are several.
pub(crate) fn identities(tokens: &[TokenSnapshot]) -> Vec<Vec<(&'static str, String)>> {
    let several = tokens.iter().any(|token| token.instance > 0);
    let identity = |(token, name): (&TokenSnapshot, String)| {
        let instance = several.then(|| ("module_instance", token.instance.to_string()));
        std::iter::once(("token", name)).chain(instance).collect()
    };
    tokens.iter().zip(names(tokens)).map(identity).collect()
}

/// The labels of tokens, made distinct within each instance: all of them have the same tokens in the same order.
fn names(tokens: &[TokenSnapshot]) -> Vec<String> {
    distinct(tokens.iter().map(|token| (token.instance, &token.label)))
}

/// The names of scopes, made distinct.
pub(crate) fn scope_names(scopes: &[ScopeSnapshot]) -> Vec<String> {
    distinct(scopes.iter().map(|scope| (0, &scope.name)))
}

/// Names made distinct within their groups.
fn distinct<'a>(names: impl Iterator<Item = (usize, &'a String)>) -> Vec<String> {
    let mut taken = HashSet::new();
    let distinct = |(group, name): (usize, &String)| {
        let numbered = (2..).map(|number| format!("{name}#{number}"));
        let mut candidates = std::iter::once(name.clone()).chain(numbered);
        candidates.find(|name| taken.insert((group, name.clone()))).unwrap_or_default()
    };
    names.map(distinct).collect()
}

impl TokenSnapshot {
    /// Sessions by state.
    pub(crate) fn states(&self) -> [(&'static str, usize); 4] {
        let busy = self.sessions.saturating_sub(self.idle + self.parked);
        [("idle", self.idle), ("busy", busy), ("parked", self.parked), ("hung", self.written_off)]
    }
}

impl OperationSnapshot {
    /// Attempts that ended on the token, by how.
    pub(crate) fn results(&self) -> [(&'static str, u64); 2] {
        [("ok", self.count), ("error", self.errors.iter().map(|(_, count)| count).sum())]
    }
}

/// One page.
struct Page<'a>(&'a Snapshot);

/// Labels of a sample: names and values.
type Labels<'a> = &'a [(&'a str, &'a str)];

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let snapshot = self.0;
        head(f, "hsmux_build_info", "gauge", "The engine's version; the value is always 1.")?;
        sample(f, "hsmux_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1)?;
        operations(f, snapshot)?;
        sessions(f, snapshot)?;
        scopes(f, snapshot)?;
        for (name, help, value) in gauges(snapshot) {
            head(f, name, "gauge", help)?;
            sample(f, name, &[], value)?;
        }
        for (name, help, value) in counters(snapshot) {
            head(f, name, "counter", help)?;
            sample(f, name, &[], value)?;
        }
        let help = "PKCS#11 calls that returned or hang, of requests and of the engine itself. Those that need no \
                    session are counted by module, for all engines of the process.";
        head(f, "hsmux_pkcs11_calls_total", "counter", help)?;
        let mut calls = snapshot.calls.iter();
        calls
            .try_for_each(|(name, count)| sample(f, "hsmux_pkcs11_calls_total", &[("function", name)], count))
    }
}

fn operations(f: &mut Formatter<'_>, snapshot: &Snapshot) -> fmt::Result {
    let identities = identities(&snapshot.tokens);
    let each = || {
        let tokens = snapshot.tokens.iter().zip(&identities);
        tokens.flat_map(|(token, identity)| {
            token.operations.iter().map(move |operation| (identity.as_slice(), operation))
        })
    };

    let family = "hsmux_operations_total";
    let help = "Attempts at operations that ended on a token: ok, or error. Counted before the caller is answered. \
                Requests that ended before a session began them are counted in the families of requests only.";
    head(f, family, "counter", help)?;
    for (token, operation) in each() {
        for (result, count) in operation.results() {
            let labels = with(token, [("operation", operation.kind.as_str()), ("result", result)]);
            sample(f, family, &labels, count)?;
        }
    }

    let family = "hsmux_operation_errors_total";
    let help = "Attempts at operations that failed on a token, by kind of error. One that did not run may have been \
                repeated by the engine.";
    head(f, family, "counter", help)?;
    for (token, operation) in each() {
        for (kind, count) in &operation.errors {
            let labels = with(token, [("operation", operation.kind.as_str()), ("kind", kind.name())]);
            sample(f, family, &labels, count)?;
        }
    }

    let help = "Times of operations that succeeded. Stage queued: from submission until a session begins the \
                operation, 0 if its caller runs it. Stage token: from before its first PKCS#11 call until after its \
                last. Stage total: from submission (of an operation that its caller runs: from before its first \
                call) until the outcome is set; the wake-up of who waits comes after it.";
    head(f, "hsmux_operation_duration_seconds", "histogram", help)?;
    for (token, operation) in each() {
        for stage in Stage::ALL {
            let labels = with(token, [("operation", operation.kind.as_str()), ("stage", stage.as_str())]);
            histogram(f, &labels, operation.stage(stage))?;
        }
    }
    Ok(())
}

fn histogram(f: &mut Formatter<'_>, labels: Labels<'_>, times: &Histogram<u64>) -> fmt::Result {
    let bucket = |f: &mut Formatter<'_>, bound: &str, count: u64| {
        let labels: Vec<_> = labels.iter().copied().chain([("le", bound)]).collect();
        sample(f, "hsmux_operation_duration_seconds_bucket", &labels, count)
    };
    for (bound, count) in BOUNDS_NS.into_iter().zip(below(times)) {
        bucket(f, &Seconds(bound.into()).to_string(), count)?;
    }
    bucket(f, "+Inf", times.len())?;
    sample(f, "hsmux_operation_duration_seconds_sum", labels, Seconds(sum_ns(times)))?;
    sample(f, "hsmux_operation_duration_seconds_count", labels, times.len())
}

fn sessions(f: &mut Formatter<'_>, snapshot: &Snapshot) -> fmt::Result {
    let help = "Sessions by state: idle, busy with requests, parked (open but out of use), or hung (written off inside a \
                call).";
    head(f, "hsmux_sessions", "gauge", help)?;
    let identities = identities(&snapshot.tokens);
    for (token, identity) in snapshot.tokens.iter().zip(&identities) {
        for (state, count) in token.states() {
            sample(f, "hsmux_sessions", &with(identity, [("state", state)]), count)?;
        }
    }
    of_tokens(f, snapshot, "gauge", &TOKEN_GAUGES)?;
    of_tokens(f, snapshot, "counter", &TOKEN_COUNTERS)
}

/// A family with one sample a token: name, help, value.
pub(crate) type TokenFamily = (&'static str, &'static str, fn(&TokenSnapshot) -> u64);

pub(crate) const TOKEN_GAUGES: [TokenFamily; 5] = [
    ("hsmux_token_drained", "1 while the operator has taken the token out of service, else 0.", |token| {
        token.drained.into()
    }),
    (
        "hsmux_token_lost",
        "1 while the token is out of service by itself: lost, given up, failing or stuck; else 0.",
        |token| (!matches!(token.health, Health::Serving | Health::Ejected)).into(),
    ),
    (
        "hsmux_token_ejected",
        "1 while the token is out of service because of a wrong answer, else 0.",
        |token| (token.health == Health::Ejected).into(),
    ),
    ("hsmux_key_copies", "Keys that have a warm copy in the token's memory.", |token| token.copies as u64),
    (
        "hsmux_merge_unproven",
        "Kinds of keys of which a self-test failed, so that their requests share no calls in some mode.",
        |token| token.merges.unproven as u64,
    ),
];

pub(crate) const TOKEN_COUNTERS: [TokenFamily; 6] = [
    ("hsmux_merged_turns_total", "Turns whose requests shared calls.", |token| token.merges.turns),
    ("hsmux_merged_requests_total", "Requests that shared calls.", |token| token.merges.requests),
    ("hsmux_merge_failures_total", "Turns that failed when merged and were run one by one.", |token| {
        token.merges.failures
    }),
    ("hsmux_outputs_right_total", "Outputs that were checked and found right.", |token| token.checks.right),
    ("hsmux_outputs_wrong_total", "Outputs that were checked and found wrong.", |token| token.checks.wrong),
    (
        "hsmux_outputs_unchecked_total",
        "Outputs that were due to be checked, of which nothing shows whether they are right.",
        |token| token.checks.unchecked,
    ),
];

fn of_tokens(
    f: &mut Formatter<'_>,
    snapshot: &Snapshot,
    kind: &str,
    families: &[TokenFamily],
) -> fmt::Result {
    let identities = identities(&snapshot.tokens);
    for (family, help, read) in families {
        head(f, family, kind, help)?;
        for (token, identity) in snapshot.tokens.iter().zip(&identities) {
            sample(f, family, &with(identity, []), read(token))?;
        }
    }
    Ok(())
}

/// What the controllers have decided.
fn scopes(f: &mut Formatter<'_>, snapshot: &Snapshot) -> fmt::Result {
    let names = scope_names(&snapshot.scopes);
    let each = || snapshot.scopes.iter().zip(&names);
    let in_use = "Sessions that may run operations, by scope: a token, or tokens that share a bottleneck.";
    gauge_of(f, each, "hsmux_sessions_in_use", in_use, |scope| scope.in_use)?;
    let floor = "Fewest sessions that may be in use, by scope.";
    gauge_of(f, each, "hsmux_sessions_floor", floor, |scope| scope.floor)?;
    let ceiling = "Most sessions that may be in use, by scope.";
    gauge_of(f, each, "hsmux_sessions_ceiling", ceiling, |scope| scope.ceiling)?;
    let family = "hsmux_session_adjustments_total";
    let help = "What the controller of the sessions in use did, by scope and reason: grew and shrank, no-gain (more were \
                tried in vain), loss (fewer were), abandoned (the load fell meanwhile), pushed-back (the device was busy \
                or throttled), refused (the token gave no more).";
    head(f, family, "counter", help)?;
    for (scope, name) in each() {
        for (reason, count) in &scope.adjustments {
            sample(f, family, &[("scope", name), ("reason", reason.as_str())], count)?;
        }
    }
    Ok(())
}

/// A gauge with a sample for each scope.
fn gauge_of<'a, I: Iterator<Item = (&'a ScopeSnapshot, &'a String)>>(
    f: &mut Formatter<'_>,
    each: impl Fn() -> I,
    family: &str,
    help: &str,
    value: impl Fn(&ScopeSnapshot) -> usize,
) -> fmt::Result {
    head(f, family, "gauge", help)?;
    each().try_for_each(|(scope, name)| sample(f, family, &[("scope", name)], value(scope)))
}

/// Gauges without labels: name, help, value.
pub(crate) const fn gauges(snapshot: &Snapshot) -> [(&'static str, &'static str, usize); 6] {
    [
        ("hsmux_requests_in_flight", "Requests that are queued or running.", snapshot.in_flight),
        ("hsmux_requests_queued", "Requests in flight that no session has begun, about.", snapshot.queued),
        (
            "hsmux_bytes_in_flight",
            "Bytes of requests in flight and of answers that were not collected yet.",
            snapshot.bytes_in_flight,
        ),
        ("hsmux_requests_max", "Most requests that may be in flight.", snapshot.limits.0),
        ("hsmux_bytes_max", "Most bytes of requests that may be in flight.", snapshot.limits.1),
        ("hsmux_lanes", "Lanes: queues of one key and operation that were used lately.", snapshot.lanes),
    ]
}

/// Counters without labels: name, help, value.
pub(crate) const fn counters(snapshot: &Snapshot) -> [(&'static str, &'static str, u64); 17] {
    let (pool, audit) = (&snapshot.random_pool, &snapshot.audit);
    [
        ("hsmux_requests_refused_total", "Requests refused for want of room.", snapshot.refused),
        (
            "hsmux_requests_refused_tenant_total",
            "Of the requests refused, those whose tenant had as much in flight as was free.",
            snapshot.refused_tenants,
        ),
        ("hsmux_requests_expired_total", "Requests answered at their deadline.", snapshot.expired),
        (
            "hsmux_requests_withdrawn_total",
            "Requests that were given up before a session began them.",
            snapshot.withdrawn,
        ),
        ("hsmux_hung_calls_total", "Calls that were written off past the hang limit.", snapshot.hung),
        ("hsmux_token_losses_total", "How often a token went out of service.", snapshot.tokens_lost),
        ("hsmux_module_resets_total", "How often a module was initialised anew.", snapshot.resets),
        (
            "hsmux_token_ejections_total",
            "How often a token was taken out of service because of a wrong answer.",
            snapshot.tokens_ejected,
        ),
        (
            "hsmux_random_pool_requests_total",
            "Requests for random bytes that were served from the pool; not among the operations.",
            pool.requests,
        ),
        ("hsmux_random_pool_given_bytes_total", "Random bytes that the pool gave to callers.", pool.given),
        ("hsmux_random_pool_refills_total", "Times that the pool was filled from a token.", pool.refills),
        (
            "hsmux_random_pool_fetched_bytes_total",
            "Random bytes that the pool was filled with.",
            pool.fetched,
        ),
        (
            "hsmux_audit_records_total",
            "Records in the audit log, those of earlier engines too.",
            audit.records,
        ),
        (
            "hsmux_audit_records_lost_total",
            "Records refused or shed because they could not be written.",
            audit.lost,
        ),
        ("hsmux_audit_faults_total", "How often writing the audit log has failed.", audit.faults),
        (
            "hsmux_audit_checkpoints_failed_total",
            "Checkpoints of the audit log that could not be signed or stored.",
            audit.checkpoints_failed,
        ),
        ("hsmux_waker_panics_total", "Panics in wakers of callers, caught by the engine.", snapshot.panics),
    ]
}

/// Labels that begin with those of a token.
fn with<'a, const N: usize>(
    token: &'a [(&'static str, String)],
    more: [(&'a str, &'a str); N],
) -> Vec<(&'a str, &'a str)> {
    token.iter().map(|(name, value)| (*name, value.as_str())).chain(more).collect()
}

/// What introduces a family. The texts are ours and hold nothing that would have to be escaped.
fn head(f: &mut Formatter<'_>, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn sample(f: &mut Formatter<'_>, name: &str, labels: Labels<'_>, value: impl Display) -> fmt::Result {
    f.write_str(name)?;
    for (i, (name, value)) in labels.iter().enumerate() {
        write!(f, "{}{name}=\"{}\"", if i == 0 { '{' } else { ',' }, Escaped(value))?;
    }
    writeln!(f, "{} {value}", if labels.is_empty() { "" } else { "}" })
}

/// The value of a label. Exposition formats, "Comments, help text, and type information": "label_value can be any
/// sequence of UTF-8 characters, but the backslash (\), double-quote ("), and line feed (\n) characters have to be
/// escaped as \\, \", and \n, respectively."
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '\\' | '"' => write!(f, "\\{char}"),
            '\n' => f.write_str("\\n"),
            char => f.write_char(char),
        })
    }
}

/// Nanoseconds as seconds, without rounding: a counter that went through a float might fall.
pub(crate) struct Seconds(pub(crate) u128);

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        let decimals = format!("{rest:09}");
        let decimals = decimals.trim_end_matches('0');
        write!(f, "{whole}{}{decimals}", if decimals.is_empty() { "" } else { "." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_exact_and_short() {
        let cases =
            [(0, "0"), (1_000, "0.000001"), (2_500, "0.0000025"), (10_000_000_000, "10"), (1, "0.000000001")];
        cases.into_iter().for_each(|(ns, text)| assert_eq!(Seconds(ns).to_string(), text));
    }

    #[test]
    fn labels_escape_what_would_end_them() {
        assert_eq!(Escaped("a\\b\"c\nd é").to_string(), r#"a\\b\"c\nd é"#);
    }

    fn token(label: &str, instance: usize) -> TokenSnapshot {
        TokenSnapshot {
            label: label.to_owned(),
            instance,
            sessions: 0,
            idle: 0,
            parked: 0,
            written_off: 0,
            drained: false,
            health: Health::Serving,
            copies: 0,
            merges: crate::metrics::MergeSnapshot::default(),
            checks: crate::metrics::CheckSnapshot::default(),
            operations: Vec::new(),
        }
    }

    #[test]
    fn tokens_of_one_label_have_names_of_their_own() {
        let tokens = ["pay", "pay", "pay#2", "other"].map(|label| token(label, 0));
        assert_eq!(names(&tokens), ["pay", "pay#2", "pay#2#2", "other"]);
        assert_eq!(identities(&tokens)[1], [("token", "pay#2".to_owned())], "no label for the only instance");
    }

    #[test]
    fn a_token_has_one_name_in_all_instances_which_have_a_label() {
        let tokens = [("pay", 0), ("pay", 0), ("pay", 1), ("pay", 1)].map(|(label, of)| token(label, of));
        let identity =
            |name: &str, of: &str| vec![("token", name.to_owned()), ("module_instance", of.to_owned())];
        let wanted =
            [("pay", "0"), ("pay#2", "0"), ("pay", "1"), ("pay#2", "1")].map(|(name, of)| identity(name, of));
        assert_eq!(identities(&tokens), wanted);
    }
}
