//! Admission: how many requests, and how many bytes of them, may be in flight at once. Who waits for room is told by
//! `waiters`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use event_listener::{Event, EventListener, Listener};

use crate::error::{Error, ErrorKind, Outcome, Retry};
use crate::schedule::tenants::{Free, Tenant, Tenants};
use crate::schedule::waiters::{Told, Waiters, Wants};
use crate::sync::{AtomicU64, AtomicUsize, CachePadded, Mutex, Ordering, plain};

/// The engine's limits on requests in flight. Room is handed out as [`Permit`]s.
pub(crate) struct Admission {
    requests: CachePadded<AtomicUsize>,
    /// Bytes in the lower bits; above them, by how many requests they are held. One write serves both.
    holders_bytes: CachePadded<AtomicU64>,
    /// Settings, which may change while requests are in flight. Who is refused by the old one has taken nothing.
    requests_max: plain::AtomicUsize,
    bytes_max: plain::AtomicUsize,
    tenants: Tenants,
    waiters: Mutex<Waiters>,
    /// How many wait. While it is 0, giving room back costs no look at `waiters`.
    waiting: AtomicUsize,
}

/// Someone who hears of room given back after this was made: listen, try again, then wait, and so on. It keeps its
/// place among those who wait until it is dropped.
pub(crate) struct Waiting {
    admission: Arc<Admission>,
    number: u64,
    event: Arc<Event>,
    listener: EventListener,
    /// Told of room, and tried since: if it waits again it did not get it, and another may.
    has_looked: bool,
}

/// Places given back by one thread, returned to the engine together: one shared write for a whole turn.
pub(crate) struct Places<'a> {
    admission: &'a Admission,
    count: usize,
}

/// Room for one request, given back when dropped.
///
/// The place and the bytes can be given back apart: a withdrawn request frees its memory at once, but its
/// place stays taken until its node has left the lane.
pub(crate) struct Permit {
    admission: Arc<Admission>,
    /// Whose it is, if anybody's.
    tenant: Option<Arc<Tenant>>,
    place: bool,
    bytes: Option<usize>,
}

/// Why there is no room for a request.
#[derive(Debug)]
pub(crate) enum NoRoom {
    /// There never is for one so large.
    TooLarge(Error),
    /// The engine's is taken.
    Engine,
    /// Its tenant has as much as it may have.
    Tenant,
}

/// In [`Admission::holders_bytes`]: leaves 2^44 bytes (16 TiB) and a million holders.
const ONE_HOLDER: u64 = 1 << 44;

impl Admission {
    pub(crate) fn new(requests_max: usize, bytes_max: usize) -> Self {
        Self {
            requests: CachePadded::new(AtomicUsize::new(0)),
            holders_bytes: CachePadded::new(AtomicU64::new(0)),
            requests_max: plain::AtomicUsize::new(requests_max),
            bytes_max: plain::AtomicUsize::new(bytes_max),
            tenants: Tenants::default(),
            waiters: Mutex::default(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Takes room for a request of so many bytes on behalf of a tenant, 0 if of none, or says that there is none.
    pub(crate) fn admit(self: &Arc<Self>, bytes: usize, tenant: u64) -> Result<Permit, NoRoom> {
        let Some(tenant) = self.tenants.of(tenant) else { return self.admit_nobodys(bytes) };
        let (_, bytes_max) = self.limits();
        if bytes <= bytes_max && !tenant.take(bytes, self.free()) {
            return Err(NoRoom::Tenant);
        }
        let admitted = self.admit_nobodys(bytes);
        match admitted {
            Ok(mut permit) => {
                permit.tenant = Some(tenant);
                Ok(permit)
            }
            Err(none) => {
                if !matches!(none, NoRoom::TooLarge(_)) {
                    tenant.give_place();
                    tenant.give_bytes(bytes);
                }
                Err(none)
            }
        }
    }

    fn admit_nobodys(self: &Arc<Self>, bytes: usize) -> Result<Permit, NoRoom> {
        let (requests_max, bytes_max) = self.limits();
        if bytes > bytes_max {
            let text = format!("{bytes} bytes in flight for one request, at most {bytes_max}");
            return Err(NoRoom::TooLarge(Error::refused(ErrorKind::TooLarge, text)));
        }
        // Each limit is taken by compare-and-exchange and never overshot: who is refused has taken nothing, so
        // nobody else is refused because of it.
        let fits = |held: u64| bytes_of(held) + bytes <= bytes_max;
        if !fits(self.holders_bytes.load(Ordering::SeqCst)) {
            return Err(NoRoom::Engine);
        }
        let place = |taken: usize| (taken < requests_max).then_some(taken + 1);
        if self.requests.fetch_update(Ordering::SeqCst, Ordering::SeqCst, place).is_err() {
            return Err(NoRoom::Engine);
        }
        let hold = |held: u64| fits(held).then_some(held + ONE_HOLDER + bytes as u64);
        if self.holders_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, hold).is_err() {
            // Another has taken the bytes since the look: the place goes back, and whoever was refused it hears.
            self.requests.fetch_sub(1, Ordering::SeqCst);
            self.gave_back();
            return Err(NoRoom::Engine);
        }
        Ok(Permit { admission: Arc::clone(self), tenant: None, place: true, bytes: Some(bytes) })
    }

    /// Has somebody hear of room that is given back, for a request on behalf of a tenant, 0 if of none.
    pub(crate) fn listen(self: &Arc<Self>, wants: Wants, tenant: u64) -> Waiting {
        let event = Arc::new(Event::new());
        let listener = event.listen();
        let number = self.waiters.lock().add(wants, self.tenants.of(tenant), Arc::clone(&event));
        // SeqCst: pairs with the load in `gave_back`. Either that sees this waiter, or the waiter, which looks
        // for room after this, sees what was given back.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting { admission: Arc::clone(self), number, event, listener, has_looked: false }
    }

    /// An accumulator for places.
    pub(crate) const fn places(&self) -> Places<'_> {
        Places { admission: self, count: 0 }
    }

    /// Changes the limits; who waits for room looks again.
    pub(crate) fn set_limits(&self, requests_max: usize, bytes_max: usize) {
        self.requests_max.store(requests_max, Ordering::Relaxed);
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.wake_all();
    }

    /// Most requests, and most bytes of them.
    pub(crate) fn limits(&self) -> (usize, usize) {
        (self.requests_max.load(Ordering::Relaxed), self.bytes_max.load(Ordering::Relaxed))
    }

    /// Wakes everyone who waits for room: for a stop.
    pub(crate) fn wake_all(&self) {
        let told = self.waiters.lock().tell_all();
        wake(&told);
    }

    /// Requests in flight.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Bytes in flight.
    pub(crate) fn bytes(&self) -> usize {
        bytes_of(self.holders_bytes.load(Ordering::Relaxed))
    }

    /// Requests that were answered and not collected yet: as many callers are about to go on. A hint.
    pub(crate) fn uncollected(&self) -> usize {
        let holders = self.holders_bytes.load(Ordering::Relaxed) / ONE_HOLDER;
        usize::try_from(holders).unwrap_or(usize::MAX).saturating_sub(self.requests())
    }

    fn free(&self) -> Free {
        let (requests_max, bytes_max) = self.limits();
        let places = requests_max.saturating_sub(self.requests.load(Ordering::SeqCst));
        let bytes = bytes_max.saturating_sub(bytes_of(self.holders_bytes.load(Ordering::SeqCst)));
        Free { places, bytes }
    }

    /// Forgets tenants that have nothing in flight.
    pub(crate) fn retire_tenants(&self) {
        self.tenants.retire();
    }

    /// Tells those who wait, after requests have given back room with a `SeqCst` operation.
    fn gave_back(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.tell();
        }
    }

    /// Tells those for whom there is enough room now.
    fn tell(&self) {
        let mut waiters = self.waiters.lock();
        let told = waiters.tell(self.free());
        // Before anyone is woken: who wakes looks here first.
        drop(waiters);
        wake(&told);
    }
}

/// Wakers: user code, whose panic must not end a worker or the watcher.
fn wake(told: &Told) {
    for event in told {
        if catch_unwind(AssertUnwindSafe(|| event.notify(usize::MAX))).is_err() {
            tracing::error!("a waker of a request that waits for room panicked");
        }
    }
}

impl Waiting {
    /// Waits on this thread. True if room was given back, false if the time was up first.
    pub(crate) fn wait_timeout(&mut self, limit: Duration) -> bool {
        self.pass_on();
        // The one in its place is for the next wait; it is made anew when this one has heard.
        let listener = std::mem::replace(&mut self.listener, self.event.listen());
        let heard = listener.wait_timeout(limit).is_some();
        if heard {
            self.look();
        }
        heard
    }

    /// Waits on this thread for as long as it takes.
    pub(crate) fn wait(&mut self) {
        self.pass_on();
        std::mem::replace(&mut self.listener, self.event.listen()).wait();
        self.look();
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.pass_on();
        Pin::new(&mut self.listener).poll(context).map(|()| self.look())
    }

    /// It has heard, and its owner tries now: what is given back from here on is told anew.
    fn look(&mut self) {
        self.listener = self.event.listen();
        self.has_looked = self.admission.waiters.lock().look(self.number);
    }

    /// It has tried and found no room after it was told of some: that may do for another.
    fn pass_on(&mut self) {
        if std::mem::take(&mut self.has_looked) {
            self.admission.tell();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.admission.waiting.fetch_sub(1, Ordering::Relaxed);
        let told = self.admission.waiters.lock().remove(self.number);
        if told {
            // It has gone without a look, or has got its room before: that may do for another.
            self.admission.tell();
        }
    }
}

impl Places<'_> {
    pub(crate) fn add(&mut self, place: bool) {
        self.count += usize::from(place);
    }

    /// Adds what was kept elsewhere meanwhile.
    pub(crate) fn add_all(&mut self, count: usize) {
        self.count += count;
    }

    /// Takes them, to be kept elsewhere: who takes them has to see that they come back.
    pub(crate) fn take(&mut self) -> usize {
        std::mem::take(&mut self.count)
    }

    /// Returns them.
    pub(crate) fn give_back(&mut self) {
        let count = std::mem::take(&mut self.count);
        if count > 0 {
            self.admission.requests.fetch_sub(count, Ordering::SeqCst);
            self.admission.gave_back();
        }
    }
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Permit {
    /// The request has been answered: its place is to be given back by the caller, if this is true. Its bytes
    /// stay taken until the answer is collected.
    pub(crate) fn take_place(&mut self) -> bool {
        let place = std::mem::take(&mut self.place);
        if let (true, Some(tenant)) = (place, &self.tenant) {
            // Before the place is given back, and those who wait are told.
            tenant.give_place();
        }
        place
    }

    /// The request's buffers are gone.
    pub(crate) fn release_bytes(&mut self) {
        if let Some(bytes) = self.bytes.take() {
            self.tenant.iter().for_each(|tenant| tenant.give_bytes(bytes));
            self.admission.holders_bytes.fetch_sub(ONE_HOLDER + bytes as u64, Ordering::SeqCst);
            self.admission.gave_back();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let place = self.take_place();
        self.admission.places().add(place);
        self.release_bytes();
    }
}

const fn bytes_of(holders_bytes: u64) -> usize {
    (holders_bytes % ONE_HOLDER) as usize
}

impl From<NoRoom> for Error {
    fn from(why: NoRoom) -> Self {
        let overloaded = Self::new(ErrorKind::Overloaded, Retry::Later, Outcome::NotDone);
        match why {
            NoRoom::TooLarge(error) => error,
            NoRoom::Engine => overloaded,
            NoRoom::Tenant => overloaded.because("the tenant has as much in flight as is free"),
        }
    }
}

#[cfg(test)]
mod tests;
