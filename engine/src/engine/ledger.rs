//! The catalogue as an engine keeps it: read from the tokens' objects, changed under a claim.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use once_cell::sync::OnceCell;

use super::Shared;
use super::audit::Recorded;
use crate::clock::{now, time_of_day};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::keys::catalogue::claim::{Claim, Verdict};
use crate::keys::catalogue::file::{RecordFile, Wait};
use crate::keys::catalogue::lease::{self, Lease};
use crate::keys::catalogue::process::Process;
use crate::keys::catalogue::record::{Entry, Hash, Record, Subject, Writer};
use crate::keys::catalogue::shelf::{Item, Refused, Shelf};
use crate::keys::catalogue::store::is_sealer;
use crate::keys::catalogue::{Catalogue, merge};
use crate::keys::hex::HexBytes;
use crate::keys::key_config::seconds;
use crate::keys::managed::Managed;
use crate::pkcs11::Session;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, Parker, RwLock, Unparker};
use crate::token::gate::Pass;
use crate::token::{SERVICE_LIMIT, Token, login};

/// What an engine knows of managed keys, and how it changes that.
pub(crate) struct Ledger {
    writer: Writer,
    pub(super) process: Process,
    pub(super) group: String,
    /// The tokens of the first instance, by serial number: every engine takes them in this order.
    pub(super) order: Vec<usize>,
    /// By token.
    desks: Vec<Desk>,
    pub(crate) catalogue: RwLock<Catalogue>,
    /// Whether there is anything to look at.
    in_use: AtomicBool,
    /// Claims of this engine whose change has failed half-way.
    abandoned: Mutex<Vec<Hash>>,
    /// Wakes the thread that keeps the catalogue, once that runs.
    keeper: OnceCell<Unparker>,
    /// How many messages of AES-GCM a key may encrypt.
    pub(super) messages: lease::Terms,
    /// When the tokens may be read for an id that nobody has.
    read_after_ns: AtomicU64,
}

/// One token's shelf.
struct Desk {
    /// Where its records are if the token takes no data objects; none without a state directory.
    file: Option<Arc<RecordFile>>,
    /// Taken out by whoever works on it, on the token's service thread: if that never comes back, it is read anew.
    shelf: Arc<Mutex<Option<Shelf>>>,
    view: RwLock<Arc<View>>,
}

/// What lay on a shelf when it was read last.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) records: Vec<Arc<Entry>>,
    pub(super) claims: Vec<Arc<Claim>>,
    pub(super) leases: Vec<Arc<Lease>>,
    pub(super) refused: Vec<Arc<Refused>>,
    /// Whether it was read at all.
    pub(super) is_read: bool,
    /// None where they are on the token.
    pub(super) file: Option<PathBuf>,
}

/// A claim that holds: what it names is this engine's to change until it is dropped.
pub(super) struct Change<'a> {
    shared: &'a Arc<Shared>,
    /// The first token that the claim lies on.
    pub(super) arbiter: usize,
    /// That of its gate.
    pub(super) pass: Arc<Pass>,
    /// All of them.
    tokens: Vec<usize>,
    claim: Arc<Claim>,
}

/// How long somebody waits for others who claim the same: they have lost, and are about to go.
const RIVALS_MAX: Duration = Duration::from_secs(10);

/// Between two looks at them.
const RIVALS_LOOK: Duration = Duration::from_millis(20);

/// Least time between two readings of the tokens for ids that nobody has.
const READ_APART: Duration = Duration::from_secs(1);

/// What a claim must have left of its time when its change is written.
const LEASE_LEFT_S: u64 = 60;

impl Ledger {
    pub(crate) fn new(
        tokens: &[Arc<Token>],
        state_dir: Option<&Path>,
        writer: [u8; 8],
        group: String,
        messages_max: u64,
    ) -> Self {
        let desk = |token: &Arc<Token>| {
            let file = state_dir.map(|path| Arc::new(RecordFile::new(path, &login::id(&token.info).hash())));
            Desk { file, shelf: Arc::default(), view: RwLock::default() }
        };
        let mut order: Vec<_> = crate::token::named(tokens).map(|token| token.index).collect();
        order.sort_by(|&a, &b| tokens[a].info.serial.cmp(&tokens[b].info.serial));
        Self {
            writer: Writer::new(writer),
            process: Process::here(),
            group,
            order,
            desks: tokens.iter().map(desk).collect(),
            catalogue: RwLock::default(),
            in_use: AtomicBool::new(false),
            abandoned: Mutex::default(),
            keeper: OnceCell::new(),
            messages: lease::Terms { max: messages_max },
            read_after_ns: AtomicU64::new(0),
        }
    }

    /// Whether an object is about to be made, or to be taken back.
    pub(super) fn is_claimed(&self, object: &[u8]) -> bool {
        let mut claims = self.order.iter().flat_map(|&token| self.view(token).claims.clone());
        claims.any(|claim| claim.objects.iter().any(|named| named.0 == object))
    }

    /// Has the thread that keeps the catalogue look at once.
    pub(crate) fn wake(&self) {
        self.keeper.get().into_iter().for_each(Unparker::unpark);
    }

    /// Has that thread started, unless it runs. True if it is new.
    ///
    /// # Errors
    /// What starting it answers; whoever comes next tries again.
    pub(super) fn keep(&self, start: impl FnOnce() -> Result<Unparker>) -> Result<bool> {
        let mut is_new = false;
        self.keeper.get_or_try_init(|| {
            is_new = true;
            start()
        })?;
        self.in_use.store(true, Ordering::Relaxed);
        Ok(is_new)
    }

    /// Whether that thread runs.
    fn is_kept(&self) -> bool {
        self.keeper.get().is_some()
    }

    /// Whether nobody makes the change of a claim any more.
    pub(super) fn is_over(&self, claim: &Claim) -> bool {
        claim.is_over(&self.process, unix_now(), Process::runs)
            || self.abandoned.lock().contains(&claim.hash())
    }

    pub(super) fn view(&self, token: usize) -> Arc<View> {
        Arc::clone(&self.desks[token].view.read())
    }

    /// Whether there is a catalogue, as far as this engine knows.
    pub(crate) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Relaxed)
    }

    pub(crate) const fn writer(&self) -> Writer {
        self.writer
    }

    /// Takes over what a token's shelf says. Returns the keys that have changed.
    fn publish(&self, token: usize, view: View) -> Vec<Arc<Managed>> {
        if !view.records.is_empty() || !view.claims.is_empty() {
            self.in_use.store(true, Ordering::Relaxed);
        }
        let latest = merge(&view.records);
        *self.desks[token].view.write() = Arc::new(view);
        self.catalogue.write().update(latest)
    }
}

/// The time of day, in seconds of Unix time.
pub(crate) fn unix_now() -> u64 {
    seconds(time_of_day())
}

impl Shared {
    /// Has something done with a token's shelf, on its service thread; what lies there then is known afterwards.
    pub(super) fn at_shelf<R: Send + 'static>(
        &self,
        token: usize,
        limit: Duration,
        job: impl FnOnce(&mut Shelf, &mut Session, u64) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let job = self.shelf_job(token, Wait::Always, job);
        let (done, view) = self.tokens[token].consult(limit, job)?;
        self.take_over(token, view);
        Ok(done)
    }

    /// Reads what is new on a token, for nobody who waits for it.
    pub(super) fn look_at_shelf(&self, token: usize, limit: Duration) -> Result<()> {
        let job = self.shelf_job(token, Wait::Once, |_, _, _| Ok(()));
        let ((), view) = self.tokens[token].consult(limit, job)?;
        self.take_over(token, view);
        Ok(())
    }

    /// As [`Shared::at_shelf`], while the other instances of the token stand still.
    pub(super) fn write_shelf<R: Send + 'static>(
        &self,
        token: usize,
        pass: &Arc<Pass>,
        job: impl FnOnce(&mut Shelf, &mut Session, u64) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (done, view) =
            self.write_unlisted(token, None, pass, self.shelf_job(token, Wait::Always, job))?;
        self.take_over(token, view);
        Ok(done)
    }

    fn shelf_job<R>(
        &self,
        token: usize,
        wait: Wait,
        job: impl FnOnce(&mut Shelf, &mut Session, u64) -> Result<R> + Send + 'static,
    ) -> impl FnOnce(&mut Session, u64) -> Result<(R, View)> + Send + 'static {
        let Desk { file, shelf: slot, .. } = &self.ledger.desks[token];
        let (file, slot) = (file.clone(), Arc::clone(slot));
        move |session, epoch| {
            let mut shelf = slot.lock().take().unwrap_or_else(|| Shelf::new(file));
            let done = shelf.refresh(session, epoch, wait).and_then(|_| job(&mut shelf, session, epoch));
            let view = View::of(&shelf);
            *slot.lock() = Some(shelf);
            Ok((done?, view))
        }
    }

    /// As [`Shared::at_shelf`], where the session is at hand: on the service thread.
    pub(super) fn read_shelf(&self, token: usize, session: &mut Session, epoch: u64) -> Result<()> {
        let ((), view) = self.shelf_job(token, Wait::Once, |_, _, _| Ok(()))(session, epoch)?;
        self.take_over(token, view);
        Ok(())
    }

    fn take_over(&self, token: usize, view: View) {
        let now = unix_now();
        for managed in self.ledger.publish(token, view) {
            self.apply(&managed, now);
        }
    }

    /// Has every version of a key in use obey its record; operations that sessions hold open end if that changes anything.
    pub(super) fn apply(&self, managed: &Managed, now: u64) {
        if managed.apply(now).unwrap_or(false) {
            self.tokens.iter().for_each(|token| token.holds.key_changes());
        }
    }

    /// Whether a token has keys that MAC records: then it has a catalogue, or had one.
    pub(super) fn has_sealer(&self, token: usize) -> bool {
        self.listings[token].read().keys().any(|(label, _)| is_sealer(label))
    }

    /// Reads the tokens, if that was not done in the last second: ids that nobody has cost the tokens no more than that.
    pub(super) fn reads_again(self: &Arc<Self>) -> bool {
        let (now, after) = (now(), &self.ledger.read_after_ns);
        let before = after.load(Ordering::Relaxed);
        let next = now.after(READ_APART).as_ns();
        let taken = now.as_ns() >= before
            && after.compare_exchange(before, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        taken && self.find_catalogue().is_ok()
    }

    /// Reads the catalogue; where none is known, the tokens' keys are listed anew, which show whether there is one by now.
    pub(super) fn find_catalogue(self: &Arc<Self>) -> Result<()> {
        if !self.ledger.is_kept() {
            self.serving().try_for_each(|token| self.list_now(token))?;
            super::keeper::open(self)?;
        }
        self.read_catalogue(SERVICE_LIMIT)
    }

    /// Reads every token in service. An error only if none could be read.
    pub(super) fn read_catalogue(&self, limit: Duration) -> Result<()> {
        let mut read = Ok(());
        let mut any = false;
        for token in self.serving() {
            match self.at_shelf(token, limit, |_, _, _| Ok(())) {
                Ok(()) => any = true,
                Err(error) => read = Err(error),
            }
        }
        if any { Ok(()) } else { read }
    }

    /// The tokens of the first instance that serve, in the order of all engines.
    pub(super) fn serving(&self) -> impl Iterator<Item = usize> {
        let healthy = self.core.dispatch.healthy();
        self.ledger.order.iter().copied().filter(move |token| healthy & (1 << token) != 0)
    }

    /// Claims what is to be changed. `objects` are the `CKA_ID`s of those that are about to be made.
    ///
    /// The claim lies on every token in service, so that engines meet that do not see the same ones; on return the catalogue has
    /// been read since nobody else may change what was claimed. Whoever claims has begun the record of the change: its intent is
    /// durable where it is to be, before the tokens hear of anything.
    ///
    /// # Errors
    /// `Conflict`, if somebody else has claimed it; `TokenLost`; what the token answers.
    pub(super) fn claim(
        self: &Arc<Self>,
        subjects: Vec<Subject>,
        objects: Vec<HexBytes>,
        record: &mut Recorded,
    ) -> Result<Change<'_>> {
        self.core.check_open()?;
        super::keeper::open_for_change(self)?;
        let ledger = &self.ledger;
        let tokens: Vec<_> = self.serving().collect();
        let &arbiter = tokens.first().ok_or_else(no_token)?;
        record.runs_on(arbiter);
        // One change at a time in this process.
        let pass = Arc::new(self.tokens[arbiter].pass_gate()?);
        let (writer, process) = (ledger.writer, ledger.process.clone());
        let claim = Arc::new(Claim::new(subjects, objects, writer, process, unix_now()));
        let change = Change { shared: self, arbiter, pass, tokens, claim };
        change.write_claim()?;
        change.await_rivals()?;
        for token in self.serving() {
            self.at_shelf(token, SERVICE_LIMIT, |_, _, _| Ok(()))?;
        }
        Ok(change)
    }

    /// The claims that lie on a token now.
    fn claims_on(&self, token: usize) -> Result<Vec<Arc<Claim>>> {
        self.at_shelf(token, SERVICE_LIMIT, |shelf, _, _| Ok(shelf.claims().map(Arc::clone).collect()))
    }
}

impl View {
    fn of(shelf: &Shelf) -> Self {
        Self {
            records: shelf.records().map(Arc::clone).collect(),
            claims: shelf.claims().map(Arc::clone).collect(),
            leases: shelf.leases().map(Arc::clone).collect(),
            refused: shelf.refused().map(Arc::clone).collect(),
            is_read: true,
            file: shelf.file().map(Path::to_owned),
        }
    }
}

impl Change<'_> {
    /// The pass of a token's gate: the arbiter's is held already.
    pub(super) fn pass_of(&self, token: usize) -> Result<Arc<Pass>> {
        match token == self.arbiter {
            true => Ok(Arc::clone(&self.pass)),
            false => self.shared.tokens[token].pass_gate().map(Arc::new),
        }
    }

    fn write_claim(&self) -> Result<()> {
        let text =
            serde_json::to_string(&*self.claim).map_err(|_| Error::internal("a claim is not written"))?;
        for &token in &self.tokens {
            let (item, text) = (Arc::clone(&self.claim), text.clone());
            self.shared.write_shelf(token, &self.pass_of(token)?, move |shelf, session, _| {
                shelf.write(session, "hsmux claim", &text, Item::Claim(item))
            })?;
        }
        Ok(())
    }

    /// Waits until nobody else holds the claim, on any token.
    fn await_rivals(&self) -> Result<()> {
        let until = now().after(RIVALS_MAX);
        let parker = Parker::new();
        loop {
            let mut claims = Vec::new();
            for &token in &self.tokens {
                claims.extend(self.shared.claims_on(token)?);
            }
            let live = claims.iter().filter(|claim| !self.shared.ledger.is_over(claim));
            match self.claim.judge(live.map(AsRef::as_ref)) {
                Verdict::Holds => return Ok(()),
                Verdict::Waits if now() < until => parker.park_timeout(RIVALS_LOOK),
                Verdict::Waits | Verdict::Lost => {
                    return Err(Error::new(ErrorKind::Conflict, Retry::Later, Outcome::NotDone));
                }
            }
        }
    }

    /// Writes a record on every token in service, this claim's first, and reads it back.
    ///
    /// # Errors
    /// `Conflict`, if another record of this revision holds, or the claim has lasted too long; what the first token answers. What
    /// other tokens answer is no error: they get the record later.
    pub(super) fn commit(&self, record: Record) -> Result<Arc<Entry>> {
        if unix_now().saturating_add(LEASE_LEFT_S) > self.claim.until {
            return Err(conflict("the change has taken too long"));
        }
        let (entry, text) = Entry::new(record).map_err(|_| Error::internal("a record is not written"))?;
        let entry = Arc::new(entry);
        self.write(self.arbiter, &self.pass, &entry, text)?;
        let subject = &entry.record.subject;
        let latest = self.shared.ledger.catalogue.read().latest().get(subject).map(Arc::clone);
        if latest.is_none_or(|latest| latest.hash != entry.hash) {
            return Err(conflict("its record does not hold"));
        }
        for token in self.shared.serving().filter(|&token| token != self.arbiter) {
            if let Err(error) = self.shared.put_record(token, &entry) {
                tracing::warn!(token, %error, "a token gets a change of a key later");
            }
        }
        Ok(entry)
    }

    fn write(&self, token: usize, pass: &Arc<Pass>, entry: &Arc<Entry>, text: String) -> Result<()> {
        let item = Arc::clone(entry);
        self.shared.write_shelf(token, pass, move |shelf, session, epoch| {
            // The shelf was read a moment ago. Somebody else may have written where a claim was taken for over by a clock that is
            // ahead, or was seen too late: SoftHSM2 2.6.1 may hide from a process what another has just made.
            if shelf.records().any(|other| item.is_overtaken_by(other)) {
                return Err(conflict("another engine has just changed it"));
            }
            put(shelf, session, epoch, &item, &text)
        })
    }
}

impl Shared {
    /// Has a token hold a record.
    pub(super) fn put_record(&self, token: usize, entry: &Arc<Entry>) -> Result<()> {
        let pass = Arc::new(self.tokens[token].pass_gate()?);
        let (_, text) =
            Entry::new(entry.record.clone()).map_err(|_| Error::internal("a record is not written"))?;
        let item = Arc::clone(entry);
        self.write_shelf(token, &pass, move |shelf, session, epoch| put(shelf, session, epoch, &item, &text))
    }
}

/// Writes a record, reads what lies there then, and takes away what nobody needs any more: all of the subject's records but the
/// one that holds and its parent.
fn put(shelf: &mut Shelf, session: &mut Session, epoch: u64, entry: &Arc<Entry>, text: &str) -> Result<()> {
    if !shelf.holds(entry.hash) {
        let label = format!("hsmux record {} {}", entry.record.subject.short(), entry.record.revision);
        shelf.write(session, &label, text, Item::Record(Arc::clone(entry)))?;
    }
    // It is there: whoever is told of an error must not take it for undone.
    let unknown = |error: Error| {
        Error::new(error.kind(), error.retry(), Outcome::Unknown).because(error.why().to_owned())
    };
    shelf.refresh(session, epoch, Wait::Always).map_err(unknown)?;
    let (subject, revision) = (entry.record.subject.clone(), entry.record.revision);
    let removed = shelf.remove(session, |item| match item {
        Item::Record(other) => other.record.subject == subject && other.record.revision + 1 < revision,
        Item::Claim(_) | Item::Lease(_) | Item::Refused(_) => false,
    });
    match removed {
        // Others have the file open: the next record takes the old ones along.
        Err(error) if error.kind() == ErrorKind::Busy => Ok(()),
        removed => removed.map_err(unknown),
    }
}

impl Shared {
    /// Ends a change. One that has failed may have made objects: its claim stays until they are gone, which is tried at once.
    pub(super) fn settle<T>(self: &Arc<Self>, change: Change<'_>, done: Result<T>) -> Result<T> {
        if done.is_err() {
            self.ledger.abandoned.lock().push(change.claim.hash());
        }
        drop(change);
        if done.is_err()
            && let Err(error) = self.recover()
        {
            tracing::warn!(%error, "what a failed change of a key has left behind is tidied up later");
        }
        done
    }

    /// Takes the claims of changes that are over away from a token, once what they have made is gone.
    pub(super) fn remove_claims(&self, token: usize, over: Vec<Arc<Claim>>) -> Result<()> {
        let pass = Arc::new(self.tokens[token].pass_gate()?);
        let hashes: Vec<_> = over.iter().map(|claim| claim.hash()).collect();
        self.write_shelf(token, &pass, move |shelf, session, _| {
            shelf.remove(session, |item| matches!(item, Item::Claim(claim) if over.contains(claim)))
        })?;
        self.ledger.abandoned.lock().retain(|hash| !hashes.contains(hash));
        Ok(())
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if self.shared.ledger.abandoned.lock().contains(&self.claim.hash()) {
            return;
        }
        let remove = |token: usize| {
            let claim = Arc::clone(&self.claim);
            self.shared.write_shelf(token, &self.pass_of(token)?, move |shelf, session, _| {
                shelf.remove(session, |item| matches!(item, Item::Claim(other) if *other == claim))
            })
        };
        // The arbiter's last: while that one is there, nobody else goes on.
        let gone = self.tokens.iter().rev().map(|&token| remove(token)).fold(Ok(()), Result::and);
        if let Err(error) = gone {
            // The next look takes it for over, and takes it away.
            self.shared.ledger.abandoned.lock().push(self.claim.hash());
            tracing::warn!(%error, "a claim on a key is left behind for a moment");
        }
    }
}

fn conflict(why: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, Retry::Later, Outcome::NotDone).because(why)
}

pub(super) fn no_token() -> Error {
    Error::new(ErrorKind::TokenLost, Retry::Later, Outcome::NotDone).because("no token serves now")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_that_could_not_be_started_is_started_by_who_comes_next_and_once() {
        let ledger = Ledger::new(&[], None, [1; 8], String::new(), 1);
        let refused = ledger.keep(|| Err(Error::operator(ErrorKind::Busy, "no more threads")));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Busy);
        assert!(!ledger.is_kept() && !ledger.is_in_use());
        let starts = || Ok(Parker::new().unparker().clone());
        assert!(ledger.keep(starts).unwrap() && ledger.is_kept() && ledger.is_in_use());
        assert!(!ledger.keep(|| unreachable!("there is one")).unwrap());
    }
}
