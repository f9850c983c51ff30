//! Keys that exist for one run only, and the removal of those that a killed run has left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hsmux::{Engine, Error, KeySpec};
use ring::digest::{SHA256, digest};

/// A private token key that is destroyed with this value.
///
/// It is a token key so that figures compare with those of keys in production, and its label tells when, where
/// and by which process it was made, so that a later run can tell whether that process still needs it.
#[derive(Debug)]
pub struct TemporaryKey {
    engine: Arc<Engine>,
    label: Option<String>,
}

/// Who made a temporary key, as its label says: `hsmux-load-SECONDS-HOST-PROCESS`, and after that `-NUMBER` but for the first of
/// a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Maker {
    /// Since 1970.
    seconds: u64,
    /// The first bytes of a hash of the host's name: a process number means something there only.
    host: u32,
    process: i32,
    /// Of the keys of its process, from 0.
    number: u32,
}

/// Keys that this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);

const PREFIX: &str = "hsmux-load-";

/// Age at which a key is left over wherever it was made: no run takes so long.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

impl TemporaryKey {
    /// Longest run that may use such a key: half the age at which others remove it.
    pub const RUN_MAX: Duration = Duration::from_secs(12 * 3600);

    /// Generates a key on the engine's first token.
    ///
    /// # Errors
    /// As [`Engine::generate_key`].
    ///
    /// # Blocking
    /// As [`Engine::generate_key`].
    pub fn generate(engine: &Arc<Engine>, spec: KeySpec) -> Result<Self, Error> {
        // Relaxed: only that no two are the same matters.
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let label = Maker { number, ..Maker::this_process() }.label();
        engine.generate_key(&label, spec)?;
        Ok(Self { engine: Arc::clone(engine), label: Some(label) })
    }

    /// Its name.
    #[must_use]
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or_default()
    }

    /// Gives the key up without destroying it, and returns its name: whoever goes on with another engine on the same token
    /// [takes it over](Self::adopt) there.
    #[must_use]
    pub fn release(mut self) -> String {
        self.label.take().unwrap_or_default()
    }

    /// Takes over a key that was [released](Self::release): from now on it is destroyed with this value.
    #[must_use]
    pub fn adopt(engine: &Arc<Engine>, label: String) -> Self {
        Self { engine: Arc::clone(engine), label: Some(label) }
    }

    /// Destroys the key, and says how that went.
    ///
    /// # Errors
    /// As [`Engine::destroy_key`].
    ///
    /// # Blocking
    /// As [`Engine::destroy_key`].
    pub fn remove(mut self) -> Result<(), Error> {
        self.label.take().map_or(Ok(()), |label| self.engine.destroy_key(&label))
    }

    /// Destroys temporary keys whose process has ended without doing so; returns how many.
    ///
    /// # Errors
    /// As [`Engine::destroy_key`].
    ///
    /// # Blocking
    /// As [`Engine::destroy_key`].
    pub fn remove_left_over(engine: &Engine) -> Result<usize, Error> {
        let here = Maker::this_process();
        let is_left_over = |label: &str| Maker::of(label).is_some_and(|maker| maker.is_gone(here));
        let mut labels: Vec<_> = engine.keys().into_iter().map(|key| key.label).collect();
        labels.retain(|label| is_left_over(label));
        labels.sort_unstable();
        labels.dedup();
        labels.iter().try_for_each(|label| engine.destroy_key(label))?;
        Ok(labels.len())
    }
}

impl Drop for TemporaryKey {
    fn drop(&mut self) {
        if let Some(label) = self.label.take() {
            // Only on the way out of another failure; what stays behind, a later run removes.
            let _ = self.engine.destroy_key(&label);
        }
    }
}

impl Maker {
    fn this_process() -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let host = digest(&SHA256, rustix::system::uname().nodename().to_bytes());
        let host = host.as_ref().iter().take(4).fold(0, |sum, &byte| sum << 8 | u32::from(byte));
        Self { seconds, host, process: rustix::process::getpid().as_raw_nonzero().get(), number: 0 }
    }

    fn label(self) -> String {
        let label = format!("{PREFIX}{}-{:08x}-{}", self.seconds, self.host, self.process);
        if self.number == 0 { label } else { format!("{label}-{}", self.number) }
    }

    /// `None` if it is no label of a temporary key.
    fn of(label: &str) -> Option<Self> {
        let mut parts = label.strip_prefix(PREFIX)?.split('-');
        let (seconds, host, process) = (parts.next()?, parts.next()?, parts.next()?);
        let (seconds, process) = (seconds.parse().ok()?, process.parse().ok()?);
        let number = parts.next().map_or(Ok(0), str::parse).ok()?;
        let maker = Self { seconds, host: u32::from_str_radix(host, 16).ok()?, process, number };
        // What reads the same but is written otherwise was not written here.
        (maker.label() == label).then_some(maker)
    }

    /// Whether the maker has ended, as far as one can tell from here.
    fn is_gone(self, here: Self) -> bool {
        let old = here.seconds.saturating_sub(self.seconds) > AGE_MAX.as_secs();
        old || self.host == here.host && self.process != here.process && !runs(self.process)
    }
}

fn runs(process: i32) -> bool {
    use rustix::io::Errno;
    use rustix::process::{Pid, test_kill_process};
    Pid::from_raw(process).is_some_and(|process| test_kill_process(process) != Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of a process that has ended.
    fn ended() -> i32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id().try_into().unwrap()
    }

    #[test]
    fn a_label_tells_who_made_the_key() {
        let here = Maker::this_process();
        for number in [0, 1, 12] {
            let maker = Maker { number, ..here };
            assert_eq!(Maker::of(&maker.label()), Some(maker));
        }
    }

    #[test]
    fn labels_that_others_gave_are_not_ours() {
        let others =
            ["", "hsmux-load", "hsmux-load-1-2", "hsmux-load-1-00000002-3-4-5", "hsmux-load-x-00000002-3"];
        let written_otherwise = [
            "hsmux-load-01-00000002-3",
            "hsmux-load-1-2-3",
            "hsmux-load-1-00000002-+3",
            "hsmux-load-1-00000002-3-0",
        ];
        for label in others.into_iter().chain(written_otherwise) {
            assert_eq!(Maker::of(label), None, "{label}");
        }
    }

    #[test]
    fn a_maker_is_gone_when_its_process_has_ended_or_a_day_has_passed() {
        let here = Maker::this_process();
        let dead = Maker { process: ended(), ..here };
        assert!(!here.is_gone(here));
        assert!(dead.is_gone(here));
        assert!(
            !Maker { host: !here.host, ..dead }.is_gone(here),
            "nobody here knows the processes of others"
        );
        let a_day_ago = here.seconds - AGE_MAX.as_secs();
        assert!(!Maker { seconds: a_day_ago, ..here }.is_gone(here));
        assert!(Maker { seconds: a_day_ago - 1, host: !here.host, ..here }.is_gone(here));
    }

    #[test]
    fn only_the_keys_of_runs_that_have_ended_are_removed_from_a_token() {
        let Some(softhsm) = softhsm_fixtures::SoftHsm::for_tests() else { return };
        let token = softhsm.unique_token();
        let builder = Engine::builder().module(softhsm.module()).tokens([token.label()]);
        let engine = Arc::new(builder.pin(softhsm_fixtures::PIN.to_owned()).build().unwrap());
        let left = Maker { process: ended(), ..Maker::this_process() }.label();
        for name in [left.as_str(), "hsmux-load-of-somebody"] {
            engine.generate_key(name, KeySpec::Ec(hsmux::Curve::P256)).unwrap();
        }
        let ours = TemporaryKey::generate(&engine, KeySpec::Aes(32)).unwrap();
        assert_eq!(TemporaryKey::remove_left_over(&engine).unwrap(), 1);
        let labels = || engine.keys().into_iter().map(|key| key.label).collect::<Vec<_>>();
        assert_eq!(labels(), [ours.label(), "hsmux-load-of-somebody"]);
        ours.remove().unwrap();
        drop(TemporaryKey::generate(&engine, KeySpec::Hmac(32)).unwrap());
        assert_eq!(labels(), ["hsmux-load-of-somebody"]);
    }
}
