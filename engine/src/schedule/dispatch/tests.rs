use super::*;
use crate::sync::Mutex;

/// A session that notes when it is handed over.
struct Noted {
    token: usize,
    handed: Arc<Mutex<Vec<usize>>>,
}

impl Seat for Noted {
    fn token(&self) -> usize {
        self.token
    }

    fn index(&self) -> usize {
        0
    }

    fn hand_over(self: Box<Self>) {
        self.handed.lock().push(self.token);
    }
}

const MS: u64 = 1_000_000;

/// A near token and one that takes 200 ms longer, with a session each, and one lane for both.
struct Tiered {
    dispatch: Dispatch<u32, Noted>,
    lane: Arc<Lane<u32>>,
    handed: Arc<Mutex<Vec<usize>>>,
}

impl Tiered {
    fn new() -> Self {
        let dispatch = Dispatch::new(&[1, 1]);
        dispatch.set_tier(1, 1, 200 * MS);
        let lane = Arc::new(Lane::new(Class::Normal, Arc::new(AtomicU64::new(0b11))));
        Self { dispatch, lane, handed: Arc::default() }
    }

    fn session(&self, token: usize) -> Box<Noted> {
        Box::new(Noted { token, handed: Arc::clone(&self.handed) })
    }

    fn submit(&self, item: u32) {
        assert!(self.dispatch.submit(&self.lane, [item]).is_none());
    }

    /// A turn of one, by a session of this token.
    fn take(&self, token: usize) -> Option<Turn<u32>> {
        self.dispatch.take(token, 1, MS, |_, _| Cost { ns: MS, fills: false }, &mut Vec::new())
    }

    /// The turn ends; its request had waited for so long.
    fn settle(&self, turn: &Turn<u32>, waited_ns: u64) {
        self.dispatch.settle(turn, MS, waited_ns, MS);
    }
}

#[test]
fn a_lower_tier_helps_what_has_waited_and_not_what_comes_after_it() {
    let tiered = Tiered::new();
    (0..3).for_each(|item| tiered.submit(item));
    let turn = tiered.take(0).unwrap();
    assert!(tiered.take(1).is_none(), "nothing has waited");
    tiered.settle(&turn, 300 * MS);
    assert!(tiered.take(1).is_some(), "what is left has waited about as long");
    let last = tiered.take(0).unwrap();
    tiered.settle(&last, 300 * MS);
    // The burst is over. What comes now has not waited.
    tiered.submit(4);
    assert!(tiered.take(1).is_none());
    tiered.dispatch.release(tiered.session(1));
    assert_eq!(tiered.handed.lock()[..], [0; 0]);
    assert!(tiered.take(0).is_some());
}

#[test]
fn a_turn_that_ends_late_says_nothing_of_what_came_after_it_began() {
    let tiered = Tiered::new();
    tiered.submit(0);
    let turn = tiered.take(0).unwrap();
    tiered.submit(1);
    tiered.settle(&turn, 300 * MS);
    assert!(tiered.take(1).is_none());
    assert!(tiered.take(0).is_some());
}

#[test]
fn what_is_put_back_by_a_turn_has_waited_still() {
    let tiered = Tiered::new();
    (0..3).for_each(|item| tiered.submit(item));
    let first = tiered.take(0).unwrap();
    tiered.settle(&first, 300 * MS);
    // This one leaves an empty queue for a moment, and the rest of its lane in it.
    let second = tiered.take(0).unwrap();
    assert!(tiered.take(1).is_some());
    tiered.settle(&second, 300 * MS);
}

/// One token with a session; its lanes hold operations of 50 budgets each.
struct Long {
    dispatch: Dispatch<u32, Noted>,
    lanes: [Arc<Lane<u32>>; 3],
    now_ns: u64,
}

const LONG_NS: u64 = 50 * MS;

impl Long {
    fn new() -> Self {
        let lane = || Arc::new(Lane::new(Class::Normal, Arc::new(AtomicU64::new(1))));
        Self { dispatch: Dispatch::new(&[1]), lanes: [lane(), lane(), lane()], now_ns: 1 }
    }

    fn submit(&self, lane: usize, items: u32) {
        assert!(self.dispatch.submit(&self.lanes[lane], 0..items).is_none());
    }

    /// So many turns of one operation; which lanes had them.
    fn serve(&mut self, turns: usize) -> Vec<usize> {
        (0..turns).filter_map(|_| self.turn()).collect()
    }

    fn turn(&mut self) -> Option<usize> {
        let cost = |_: &Lane<u32>, _: &u32| Cost { ns: LONG_NS, fills: false };
        let turn = self.dispatch.take(0, self.now_ns, MS, cost, &mut Vec::new())?;
        self.now_ns += LONG_NS;
        self.dispatch.settle(&turn, LONG_NS, 0, MS);
        self.lanes.iter().position(|lane| Arc::ptr_eq(lane, &turn.lane))
    }
}

#[test]
fn a_lane_that_had_the_sessions_to_itself_owes_nothing_to_one_that_comes_later() {
    let mut long = Long::new();
    long.submit(0, 1_000);
    long.serve(900);
    long.submit(1, 100);
    let first = long.serve(20).into_iter().filter(|&lane| lane == 0).count();
    assert!((8..=12).contains(&first), "{first} of 20 turns");
}

#[test]
fn a_lane_that_asks_now_and_then_goes_before_those_that_flood() {
    let mut long = Long::new();
    long.submit(0, 1_000);
    long.submit(2, 1_000);
    for _ in 0..20 {
        // Operations of the floods pass in which the third asks for nothing: what its last one has cost is forgotten.
        long.serve(4);
        long.submit(1, 1);
        assert_eq!(long.serve(1), [1]);
    }
}
