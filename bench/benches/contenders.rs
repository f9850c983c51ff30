//! Who runs in a group of benches: every baseline, and the engine, each as the same closed loop on the same key.
//!
//! Ids say the case: `s2c64` is an engine of 2 sessions with 64 callers, `raw-t2` a raw loop of 2 threads.

#![expect(clippy::expect_used, reason = "a bench on a module that does not work has no result")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use hsmux::Engine;
use hsmux_bench::{Api, BaselineName, Case, Cell, Load, Site, Target, TemporaryKey, Window};

/// A token to run on.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) module: &'a Path,
    pub(crate) init_args: Option<&'a str>,
    pub(crate) token: &'a str,
    pub(crate) pin: &'a str,
}

/// How the engine is set up, where not as by default.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) sessions: Option<usize>,
    /// Without one, blocking callers run operations themselves.
    pub(crate) deadline: bool,
}

/// All contenders for one case on one key.
pub(crate) struct Contenders {
    key: String,
    sessions: usize,
    target: Target,
    site: Site,
    // After everything that uses the key; the engine ends the module.
    _temporary: Option<TemporaryKey>,
    _engine: Arc<Engine>,
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Bounds of one cell's length: a shorter one is noise, a longer one tells no more.
const CELL: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(250)];

/// What a cell runs before it counts.
const WARM_UP: Duration = Duration::from_millis(10);

/// A group with the settings of this project.
pub(crate) fn group<'a>(criterion: &'a mut Criterion, name: &str) -> Group<'a> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1)).sample_size(10);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group
}

impl Contenders {
    /// Logs in; without a key's name it makes one for the time of the bench.
    pub(crate) fn new(place: Place<'_>, case: Case, key: Option<&str>, how: Settings) -> Self {
        let builder = Engine::builder().module(place.module).tokens([place.token]).pin(place.pin.to_owned());
        let builder = match place.init_args {
            Some(text) => builder.init_args(text),
            None => builder,
        };
        let builder = match how.sessions {
            Some(sessions) => builder.sessions(sessions),
            None => builder,
        };
        let builder = if how.deadline { builder } else { builder.deadline(None) };
        let engine = Arc::new(builder.build().expect("the engine starts"));
        let temporary = key.is_none().then(|| {
            let spec = case.op.key_spec().expect("an operation with a key");
            TemporaryKey::generate(&engine, spec).expect("a key is generated")
        });
        let key = temporary.as_ref().map_or_else(|| key.unwrap_or_default(), TemporaryKey::label).to_owned();
        let target = Target::new(&engine, case, Some(&key)).expect("the engine serves");
        let (tokens, pin) = (vec![place.token.to_owned()], place.pin.to_owned().into());
        let site = Site::new(place.module, place.init_args, tokens, pin);
        let sessions = target.sessions();
        Self { key, sessions, target, site, _temporary: temporary, _engine: engine }
    }

    pub(crate) fn baseline(&self, group: &mut Group<'_>, name: BaselineName, threads: usize) {
        let baseline = name.open(&self.site, &self.target, Some(&self.key), threads);
        let baseline = baseline.expect("a baseline opens");
        run(group, &format!("{name}-t{threads}"), |window| baseline.run(threads, window));
    }

    /// The engine, under a load.
    pub(crate) fn engine(&self, group: &mut Group<'_>, load: Load) {
        let driver = match load.api {
            Api::Blocking => String::new(),
            Api::Many { batch } => format!("-many{batch}"),
            api => format!("-{}", api.driver()),
        };
        let id = format!("s{}c{}{driver}", self.sessions, load.callers);
        run(group, &id, |window| self.target.run(load, window).cell);
    }
}

/// Tells criterion the rates of cells as the times that its iterations would have taken.
fn run(group: &mut Group<'_>, id: &str, mut cell: impl FnMut(Window) -> Cell) {
    let mut expected = 1e-6;
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|iterations| {
            let wanted = (iterations as f64 * expected).min(CELL[1].as_secs_f64());
            let length = Duration::from_secs_f64(wanted).max(CELL[0]);
            let cell = cell(Window::open_after(WARM_UP, length));
            assert!(cell.ops > 0, "nothing was done: {:?}", cell.first_error);
            expected = 1.0 / cell.ops_per_s();
            Duration::from_secs_f64(iterations as f64 * expected)
        });
    });
}
