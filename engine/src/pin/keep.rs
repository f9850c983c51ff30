//! The PIN between logins: in locked memory, or nowhere.

use std::path::Path;

use region::LockGuard;
use secrecy::ExposeSecret;
use zeroize::Zeroize;

use super::directory::Directory;
use super::record::Generation;
use super::{PinSource, unusable};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Mutex, MutexGuard};

/// What happens to a PIN after it was used: an engine needs it again to bring a lost token back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PinKeep {
    /// It stays in memory that is locked, so that it is never swapped out, if the system allows that (a page;
    /// `RLIMIT_MEMLOCK`). It is wiped when the engine is gone. Core dumps may contain it: forbid them where that
    /// matters (`LimitCORE=0`).
    #[default]
    Memory,
    /// It is wiped, and read from its source anew for every login. Files, the environment and credentials can be read
    /// again; other sources cannot, and are refused.
    Reread,
}

/// The PIN of an engine, and where it is remembered whether it may be sent.
pub(crate) struct Pin {
    held: Mutex<Held>,
    state: Option<Directory>,
    keep: PinKeep,
}

/// The PINs that an engine has: one, or while it is changed two.
pub(super) struct Held {
    pub(super) current: Arc<Kept>,
    /// The one that takes its place.
    pub(super) next: Option<Next>,
    /// The source of the PIN as it was when a token accepted it.
    pub(super) accepted: Option<Generation>,
    /// PINs in memory must be locked there.
    pub(super) demands_lock: bool,
}

/// The PIN of a rotation that is under way.
pub(super) struct Next {
    pub(super) pin: Arc<Kept>,
    /// The rotations that it belongs to, as records name them.
    pub(super) rotations: Vec<String>,
    /// What is the engine's PIN if all of it is undone.
    pub(super) before: Option<Arc<Kept>>,
}

/// A PIN, or how one comes by it.
pub(super) enum Kept {
    /// With the source that it came from.
    Memory(Locked, Generation),
    Source(PinSource),
    /// The token asks for it.
    AtToken,
}

impl PinKeep {
    /// Whether a PIN of this source can be kept so.
    pub(crate) fn check(self, source: &PinSource) -> Result<()> {
        let once = matches!(source, PinSource::Fd(_) | PinSource::Prompt | PinSource::Value(_));
        if self == Self::Reread && once {
            return Err(unusable("a PIN of this source cannot be read again, only kept in memory"));
        }
        Ok(())
    }
}

impl Pin {
    /// Reads the PIN if it is to be kept: after it is known that its logins can be remembered, so that nobody is asked for
    /// a PIN that is not needed.
    ///
    /// # Errors
    /// `PinUnavailable`; `Configuration`, for a state directory that is unfit.
    pub(crate) fn new(source: PinSource, keep: PinKeep, state_dir: Option<&Path>) -> Result<Self> {
        keep.check(&source)?;
        let state = state_dir.map(Directory::open_or_make).transpose()?;
        let current = Arc::new(Kept::new(source, keep)?);
        let held = Mutex::new(Held { current, next: None, accepted: None, demands_lock: false });
        Ok(Self { held, state, keep })
    }

    /// Where logins are remembered.
    pub(super) const fn state(&self) -> Option<&Directory> {
        self.state.as_ref()
    }

    /// The state directory, by a path without links.
    pub(crate) fn state_dir(&self) -> Option<&Path> {
        self.state.as_ref().map(Directory::path)
    }

    /// Has every PIN that is kept in memory be locked there, from now on.
    ///
    /// # Errors
    /// `Configuration`, if the system does not allow it.
    pub(crate) fn demand_lock(&self) -> Result<()> {
        let mut held = self.held();
        held.demands_lock = true;
        held.current.check_locked()
    }

    pub(super) const fn keep(&self) -> PinKeep {
        self.keep
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock()
    }

    /// The PIN that logins send, but for tokens of a rotation.
    pub(super) fn current(&self) -> Arc<Kept> {
        Arc::clone(&self.held().current)
    }

    /// Lends the PIN as [`Kept::show`] does.
    #[cfg(test)]
    pub(crate) fn show<R>(&self, has_own_way: bool, borrow: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
        self.current().show(has_own_way, borrow)
    }
}

impl Kept {
    pub(super) fn new(source: PinSource, keep: PinKeep) -> Result<Self> {
        Ok(match (source, keep) {
            (PinSource::ProtectedAuthenticationPath, _) => Self::AtToken,
            (source, PinKeep::Reread) => Self::Source(source),
            (source, PinKeep::Memory) => {
                let generation = source.generation();
                Self::Memory(Locked::copy_of(source.read()?.expose_secret().as_bytes()), generation)
            }
        })
    }

    /// # Errors
    /// `Configuration`, if it is in memory that is not locked.
    pub(super) fn check_locked(&self) -> Result<()> {
        match self {
            Self::Memory(Locked { lock: None, .. }, _) => {
                Err(unusable("the PIN's memory cannot be locked: RLIMIT_MEMLOCK has to allow a page for it"))
            }
            _ => Ok(()),
        }
    }

    /// The PIN as it is now, in memory.
    pub(super) fn snapshot(&self) -> Result<Self> {
        let generation = self.generation();
        self.show(false, |pin| Self::Memory(Locked::copy_of(pin.unwrap_or_default()), generation))
    }

    /// Whether a person types it at the token.
    pub(super) const fn is_typed(&self) -> bool {
        matches!(self, Self::AtToken)
    }

    /// Whether another may be there by itself, when its source is read again.
    pub(super) const fn may_change(&self) -> bool {
        matches!(self, Self::Source(_))
    }

    /// Of the PIN that a login sends.
    pub(super) fn generation(&self) -> Generation {
        match self {
            Self::Memory(_, generation) => generation.clone(),
            Self::Source(source) => source.generation(),
            Self::AtToken => PinSource::ProtectedAuthenticationPath.generation(),
        }
    }

    /// Lends the PIN; none if the token asks for it, which it must be able to do: `has_own_way`.
    pub(super) fn show<R>(&self, has_own_way: bool, borrow: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
        match self {
            Self::Memory(locked, _) => Ok(borrow(Some(locked.bytes()))),
            Self::Source(source) => Ok(borrow(Some(source.read()?.expose_secret().as_bytes()))),
            Self::AtToken if has_own_way => Ok(borrow(None)),
            Self::AtToken => Err(Error::operator(
                ErrorKind::PinUnavailable,
                "the token has no protected authentication path of its own",
            )),
        }
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pin(..)")
    }
}

/// Bytes on pages of their own, locked if the system allows it, and wiped in the end.
///
/// On pages of their own, for locks do not nest: whoever unlocks something else on a page unlocks it all.
pub(super) struct Locked {
    /// Goes first: the pages must still be there when they are unlocked.
    lock: Option<LockGuard>,
    /// Whole pages, with what lies before the first of them and after the last.
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Locked {
    fn copy_of(bytes: &[u8]) -> Self {
        let page = region::page::size();
        let locked_len = bytes.len().max(1).next_multiple_of(page);
        // Never resized: what is moved leaves a copy behind.
        let mut memory = vec![0; locked_len + page];
        let start = memory.as_ptr().align_offset(page).min(page);
        let lock = region::lock(memory[start..].as_ptr(), locked_len);
        if let Err(error) = &lock {
            tracing::warn!(%error, "the PIN's memory cannot be locked: it may be swapped out");
        }
        memory[start..start + bytes.len()].copy_from_slice(bytes);
        Self { lock: lock.ok(), memory, start, len: bytes.len() }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.memory.zeroize();
        drop(self.lock.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_holds_the_pin_on_pages_of_its_own_and_is_locked_where_the_system_allows_it() {
        for len in [0, 1, 4, 4096, 10_000] {
            let pin = vec![7; len];
            let locked = Locked::copy_of(&pin);
            assert_eq!(locked.bytes(), pin);
            // As the system lets this process lock any memory at all.
            let page = vec![0; region::page::size()];
            assert_eq!(locked.lock.is_some(), region::lock(page.as_ptr(), page.len()).is_ok());
            assert_eq!(locked.bytes().as_ptr() as usize % region::page::size(), 0);
        }
    }

    #[test]
    fn a_source_that_can_be_read_once_is_refused_where_it_would_be_read_again() {
        let once = [PinSource::Fd(0), PinSource::Prompt, PinSource::from("918273")];
        for source in once {
            assert!(PinKeep::Memory.check(&source).is_ok());
            let error = Pin::new(source, PinKeep::Reread, None).unwrap_err();
            assert!(error.to_string().contains("cannot be read again"), "{error}");
        }
        for text in ["file:a", "env:A", "credential:a", "protected"] {
            assert!(PinKeep::Reread.check(&text.parse().unwrap()).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_kept_pin_is_lent_and_a_reread_one_is_what_its_source_holds_now() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        let (source, write) =
            (PinSource::File(file.path().into()), |pin: &str| std::fs::write(file.path(), pin));
        let lent = |pin: &Pin| pin.show(false, |pin| pin.map(<[u8]>::to_vec)).unwrap().unwrap();
        write("1111\n").unwrap();
        let kept = Pin::new(source.clone(), PinKeep::Memory, None).unwrap();
        let reread = Pin::new(source, PinKeep::Reread, None).unwrap();
        assert_eq!((lent(&kept), lent(&reread)), (b"1111".to_vec(), b"1111".to_vec()));
        write("2222\n").unwrap();
        assert_eq!((lent(&kept), lent(&reread)), (b"1111".to_vec(), b"2222".to_vec()));
        std::fs::remove_file(file.path()).unwrap();
        assert!(reread.show(false, |_| ()).is_err());
        assert_eq!(format!("{kept:?}"), "Pin(..)");
    }

    #[test]
    fn a_token_asks_for_the_pin_itself_only_if_it_has_a_way_to_do_so() {
        let pin = Pin::new(PinSource::ProtectedAuthenticationPath, PinKeep::Memory, None).unwrap();
        assert!(pin.show(true, |pin| pin.is_none()).unwrap());
        let error = pin.show(false, |_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PinUnavailable);
        assert!(error.to_string().contains("protected authentication path"), "{error}");
    }
}
