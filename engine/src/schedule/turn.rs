//! A turn: what a worker has taken from one lane, run request by request or several in one call.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::clock::{Time, now};
use crate::error::Error;
use crate::schedule::core::LaneRef;
use crate::schedule::cost::{MERGED_BYTES_MAX, MERGED_REQUESTS_MAX, merged};
use crate::schedule::dispatch::Cost;
use crate::schedule::node::{Begun, Buffers, Node};
use crate::schedule::seat::{Seat, Watch, Work};
use crate::schedule::worker::Worker;
use crate::token::hold::When;
use crate::token::merge::{Merge, Merging, split};
use crate::token::session::{Failed, Fate};

/// How a turn stands for the session.
pub(super) struct Ended {
    pub(super) seat: Box<Seat>,
    pub(super) at: Time,
    /// The longest time a request of the turn had queued.
    pub(super) wait_ns: u64,
    /// How long its requests had queued together.
    waited_ns: u64,
}

/// Requests of a turn that belong together: one that runs alone, or several that merge.
struct Group {
    requests: Range<usize>,
    merge: Option<Merge>,
}

impl Worker<'_> {
    /// Runs what was taken. `None` if the session is gone.
    pub(super) fn run_turn(&mut self, seat: Box<Seat>, lane: &LaneRef, start: Time) -> Option<Ended> {
        let watch = Arc::clone(&seat.watch);
        let nodes = watch.begin_turn(lane, &mut self.nodes);
        let mut ended = Ended { seat, at: start, wait_ns: 0, waited_ns: 0 };
        let mut next = 0;
        while next < nodes.len() {
            let group = group(&nodes, next, lane.demotion.may_merge(ended.at.as_ns()));
            next = group.requests.end;
            ended = match group.merge {
                Some(merge) => self.run_merged(ended, &watch, lane, &nodes, group.requests, merge)?,
                None => self.run_singly(ended, &watch, lane, &nodes, group.requests)?,
            };
        }
        ended.seat.meter.queued(ended.waited_ns);
        self.operation_ns = ended.at.ns_since(start) / (nodes.len() as u64).max(1);
        watch.end_turn();
        self.spent.push(nodes);
        Some(ended)
    }

    /// Runs requests one by one.
    fn run_singly(
        &mut self,
        ended: Ended,
        watch: &Watch,
        lane: &LaneRef,
        nodes: &[Arc<Node>],
        mut requests: Range<usize>,
    ) -> Option<Ended> {
        requests.try_fold(ended, |ended, position| {
            match self.begin(&ended.seat, watch, &nodes[position], ended.at) {
                Some(buffers) => self.run_one(ended, watch, lane, &nodes[position], position, buffers),
                None => Some(ended),
            }
        })
    }

    /// Runs one request that has begun.
    fn run_one(
        &mut self,
        mut ended: Ended,
        watch: &Watch,
        lane: &LaneRef,
        node: &Arc<Node>,
        position: usize,
        mut buffers: Buffers,
    ) -> Option<Ended> {
        let at = ended.at;
        ended.count_wait(node);
        watch.enter(at, position..position + 1);
        let result = execute(&mut ended.seat, node, &mut buffers, self.when(at));
        let end = now();
        if !watch.leave(at) {
            self.core.come_back(ended.seat);
            return None;
        }
        ended.at = end;
        node.note_run(at, end, self.place.token);
        match result {
            Ok(()) => {
                let plan = if node.requests > 1 { merged_plan(node) } else { node.plan() };
                ended.seat.costs[plan].learn(node.size, end.ns_since(at));
                ended.seat.meter.served(plan, node.requests, end.ns_since(at));
                if node.requests > 1 {
                    lane.demotion.succeeded();
                    ended.seat.recorder.merged(node.requests);
                }
                self.answer(&ended.seat, watch, node, buffers, at, end);
            }
            Err(failed) => {
                if node.requests > 1 {
                    self.merge_failed(&ended.seat, lane, &failed, end);
                }
                let requests = position..position + 1;
                ended.seat =
                    self.fail(ended.seat, requests, vec![(Arc::clone(node), buffers)], &failed, end)?;
            }
        }
        Some(ended)
    }

    /// Runs requests in one call, or as few as their mode takes. If that fails, each runs by itself.
    fn run_merged(
        &mut self,
        mut ended: Ended,
        watch: &Watch,
        lane: &LaneRef,
        nodes: &[Arc<Node>],
        requests: Range<usize>,
        merge: Merge,
    ) -> Option<Ended> {
        let at = ended.at;
        let mut begun: Vec<(usize, Buffers)> = Vec::with_capacity(requests.len());
        for position in requests.clone() {
            let Some(buffers) = self.begin(&ended.seat, watch, &nodes[position], at) else { continue };
            ended.count_wait(&nodes[position]);
            begun.push((position, buffers));
        }
        if begun.len() < 2 {
            return begun.into_iter().try_fold(ended, |ended, (position, buffers)| {
                self.run_one(ended, watch, lane, &nodes[position], position, buffers)
            });
        }
        watch.enter(at, requests.clone());
        let result = execute_merged(&mut ended.seat, merge, nodes, &mut begun, self.when(at));
        let end = now();
        if !watch.leave(at) {
            self.core.come_back(ended.seat);
            return None;
        }
        ended.at = end;
        let Err(failed) = result else {
            lane.demotion.succeeded();
            self.answer_merged(&mut ended.seat, watch, nodes, begun, at, end);
            return Some(ended);
        };
        self.merge_failed(&ended.seat, lane, &failed, end);
        if failed.fate != Fate::Keep {
            let begun = begun.into_iter().map(|(position, b)| (Arc::clone(&nodes[position]), b));
            self.fail(ended.seat, requests, begun.collect(), &failed, end)?;
            return None;
        }
        // Each waits again until it is its turn: if one of them takes the session along, the others go back into their lane
        // as they are, and none runs after its deadline.
        for (position, buffers) in begun {
            nodes[position].stand_back(buffers, &failed.error);
        }
        self.run_singly(ended, watch, lane, nodes, requests)
    }

    /// The requests of a merged call were carried out.
    fn answer_merged(
        &mut self,
        seat: &mut Seat,
        watch: &Watch,
        nodes: &[Arc<Node>],
        begun: Vec<(usize, Buffers)>,
        at: Time,
        end: Time,
    ) {
        let requests = begun.iter().map(|(position, _)| nodes[*position].requests).sum();
        if let Some((first, _)) = begun.first() {
            let bytes = begun.iter().map(|(position, _)| nodes[*position].size).sum();
            let plan = merged_plan(&nodes[*first]);
            seat.costs[plan].learn(bytes, end.ns_since(at));
            seat.meter.served(plan, requests, end.ns_since(at));
        }
        seat.recorder.merged(requests);
        for (position, buffers) in begun {
            nodes[position].note_run(at, end, self.place.token);
            self.answer(seat, watch, &nodes[position], buffers, at, end);
        }
    }

    /// A call for several requests has failed.
    fn merge_failed(&self, seat: &Seat, lane: &LaneRef, failed: &Failed, at: Time) {
        let demoted = lane.demotion.failed(at.as_ns());
        seat.recorder.merge_failed();
        let error = failed.error.kind();
        tracing::warn!(token = self.place.token, ?error, demoted, "a merged call failed");
    }

    /// One request was carried out, from `at` to `end`.
    fn answer(&mut self, seat: &Seat, watch: &Watch, node: &Node, buffers: Buffers, at: Time, end: Time) {
        seat.recorder.served(node.kind, node.requests, at.ns_since(node.submitted), end.ns_since(at));
        let waker = node.complete(buffers, &mut self.places);
        watch.keep(waker, &mut self.places, end);
    }

    fn when(&self, at: Time) -> When {
        When { at, may_hold: !self.core.dispatch.any_waits() }
    }

    /// The buffers of a request that is to run now.
    fn begin(&mut self, seat: &Seat, watch: &Watch, node: &Node, at: Time) -> Option<Buffers> {
        let expected_ns = || seat.costs[node.plan()].estimate_ns(node.size);
        let waker = match node.begin(at, expected_ns, &mut self.places) {
            Begun::Run(buffers) => return Some(buffers),
            Begun::Expired(waker) => {
                self.core.counters.expired(node.requests);
                waker
            }
            Begun::Gone => None,
        };
        watch.keep(waker, &mut self.places, at);
        None
    }

    /// Requests failed: each goes back if it did not run and may be repeated, else the error is its answer.
    /// Returns the session if it can go on.
    fn fail(
        &mut self,
        seat: Box<Seat>,
        requests: Range<usize>,
        failures: Vec<(Arc<Node>, Buffers)>,
        failed: &Failed,
        at: Time,
    ) -> Option<Box<Seat>> {
        let Failed { error, fate } = failed;
        self.core
            .note_failure(&seat, failed, || seat.watch.lane().map_or(0, |lane| Arc::as_ptr(&lane).addr()));
        let mut again = Vec::new();
        let repeats = failures.iter().any(|(node, _)| node.may_repeat(error));
        // A token that is taken out gets nothing more to do by a retry.
        let repeats = repeats && (*fate == Fate::Eject || self.core.tokens[self.place.token].retries(error));
        for (node, buffers) in failures {
            // Of those that were put together each runs by itself now, and has its own error if it has one.
            if node.requests == 1 || *fate != Fate::Keep {
                seat.recorder.failed(node.kind, error.kind());
            }
            seat.meter.failed(error.kind());
            if repeats && node.may_repeat(error) && node.put_back(buffers, error) {
                again.push(node);
            } else {
                let waker = node.fail(error.clone(), &mut self.places);
                seat.watch.keep(waker, &mut self.places, at);
            }
        }
        if *fate != Fate::Keep {
            let left = Work { current: again, ..seat.watch.break_turn(requests) };
            self.core.retire(seat, *fate, left);
            return None;
        }
        if let (false, Some(lane)) = (again.is_empty(), seat.watch.lane()) {
            self.core.give_back(&self.core.elsewhere(&lane, self.place.token), again);
        }
        Some(seat)
    }
}

impl Ended {
    /// A request begins now.
    fn count_wait(&mut self, node: &Node) {
        let queued_ns = self.at.ns_since(node.submitted);
        self.wait_ns = self.wait_ns.max(queued_ns);
        self.waited_ns += queued_ns;
    }
}

/// What a request adds to a turn. Those that merge are company for each other, up to a cap.
#[derive(Default)]
pub(super) struct Costs {
    bytes: usize,
    requests: usize,
}

impl Costs {
    pub(super) fn add(&mut self, seat: &Seat, may_merge: bool, node: &Node) -> Cost {
        if !may_merge || node.merge().is_none() {
            return Cost { ns: seat.costs[node.plan()].estimate_ns(node.size), fills: false };
        }
        self.bytes += node.size;
        self.requests += usize::try_from(node.requests).unwrap_or(usize::MAX);
        let ns = seat.costs[merged_plan(node)].marginal_ns(node.size);
        Cost { ns, fills: self.bytes >= MERGED_BYTES_MAX || self.requests >= MERGED_REQUESTS_MAX }
    }
}

fn merged_plan(node: &Node) -> usize {
    merged(node.plan())
}

/// The requests from `first` on that belong together.
fn group(nodes: &[Arc<Node>], first: usize, may_merge: bool) -> Group {
    let merge = nodes[first].merge().filter(|_| may_merge);
    let Some(merge) = merge else { return Group { requests: first..first + 1, merge: None } };
    let (mut bytes, mut count) = (0, 0);
    let alike = nodes[first..].iter().take_while(|node| {
        bytes += node.size;
        count += usize::try_from(node.requests).unwrap_or(usize::MAX);
        let fits = bytes <= MERGED_BYTES_MAX && count <= MERGED_REQUESTS_MAX;
        (fits || std::ptr::eq(*node, &nodes[first])) && node.merge() == Some(merge)
    });
    let requests = first..first + alike.count();
    let pays = merge.pays(nodes[requests.clone()].iter().map(|node| node.size));
    Group { requests, merge: pays.then_some(merge) }
}

/// Runs the request's task on the session; on success the output is what the token wrote. A panic below (there
/// is none known) fails the request and retires the session; the process lives on.
fn execute(seat: &mut Seat, node: &Node, buffers: &mut Buffers, when: When) -> Result<(), Failed> {
    let (Some(call), Some(task)) = (node.call(), &node.task) else { return Err(without_task()) };
    guarded(|| {
        let Buffers { input, output } = buffers;
        // A first attempt may have cut it.
        output.resize(task.output_len, 0);
        let written = seat.session.run_all(call, task.handles.as_deref(), input, output, when)?;
        output.truncate(written);
        Ok(())
    })
}

/// Runs tasks that merge, all with the key of the first, as those of a lane have. Their outputs are as long as planned.
fn execute_merged(
    seat: &mut Seat,
    merge: Merge,
    nodes: &[Arc<Node>],
    begun: &mut [(usize, Buffers)],
    when: When,
) -> Result<(), Failed> {
    guarded(|| {
        let mut handles = None;
        let mut requests = Vec::with_capacity(begun.len());
        for (position, Buffers { input, output }) in begun {
            let node = &*nodes[*position];
            let (Some(call), Some(task)) = (node.call(), &node.task) else { return Err(without_task()) };
            output.resize(task.output_len, 0);
            handles = handles.or(task.handles.as_deref());
            match call {
                (call, []) => requests.push(Merging { call, input, output }),
                (_, parts) => split(parts, input, output, &mut requests)?,
            }
        }
        seat.session.run_merged(merge, handles, &mut requests, when)
    })
}

fn guarded<R>(run: impl FnOnce() -> Result<R, Failed>) -> Result<R, Failed> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(Failed { error: Error::internal("a panic while the request ran"), fate: Fate::Close })
    })
}

fn without_task() -> Failed {
    Failed { error: Error::internal("a node without a task was queued"), fate: Fate::Keep }
}
