//! SoftHSM2 in this process: where its module is, and how it starts.

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use crate::directory::Directory;
use crate::error::Error;
use crate::token::TestToken;

/// The user PIN of every token.
pub const PIN: &str = "1234";

/// How many tokens the tests of one process can have.
pub const TOKENS: usize = 12;

const SO_PIN: &str = "5678";

/// SoftHSM2 with this process's own token directory, which goes when this is dropped: drop what uses the
/// tokens first.
#[derive(Debug)]
pub struct SoftHsm {
    module: PathBuf,
    /// Never finalised: others in this process may be inside the module.
    pub(crate) pkcs11: ManuallyDrop<Pkcs11>,
    /// Making tokens and writing objects is one at a time: SoftHSM2 2.6.1 loses some of those that race.
    pub(crate) writes: Mutex<()>,
    /// Sessions that hold volatile keys.
    pub(crate) kept: Mutex<Vec<Session>>,
    /// Tokens that no test has taken yet.
    stock: Mutex<Vec<(String, Slot)>>,
    _directory: Directory,
}

impl SoftHsm {
    /// SoftHSM2 for this process, or `None`, said aloud, if it is not installed.
    ///
    /// # Panics
    /// If it is missing and `HSMUX_REQUIRE_SOFTHSM=1`, or if it is there and does not work.
    #[expect(clippy::panic, reason = "a fixture that cannot be made fails its test")]
    pub fn for_tests() -> Option<&'static Self> {
        static SHARED: OnceCell<Option<SoftHsm>> = OnceCell::new();
        let shared = SHARED.get_or_init(|| match Self::start().and_then(Self::stock) {
            Ok(softhsm) => Some(softhsm),
            Err(Error::Missing) => None,
            Err(error) => panic!("{error}"),
        });
        if shared.is_none() {
            assert!(!required(), "{}", Error::Missing);
            eprintln!("SKIPPED: {}", Error::Missing);
        }
        shared.as_ref()
    }

    /// Starts SoftHSM2 with a token directory of its own, for a program. A process can do so once.
    ///
    /// It sets `SOFTHSM2_CONF`: call it before other threads read the environment.
    ///
    /// # Errors
    /// `Missing` if SoftHSM2 is not installed; `StartedBefore`; `File`; `Refused`.
    pub fn start() -> Result<Self, Error> {
        static STARTED: AtomicBool = AtomicBool::new(false);
        let module = find_module().ok_or(Error::Missing)?;
        if STARTED.swap(true, Ordering::Relaxed) {
            return Err(Error::StartedBefore);
        }
        let directory = Directory::new()?;
        std::env::set_var("SOFTHSM2_CONF", directory.conf());
        let pkcs11 = ManuallyDrop::new(Pkcs11::new(&module)?);
        pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
        let (writes, kept, stock) = (Mutex::new(()), Mutex::default(), Mutex::default());
        Ok(Self { module, pkcs11, writes, kept, stock, _directory: directory })
    }

    /// The module's path.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// A token that nobody else in this process has, with [`PIN`] as its user PIN.
    ///
    /// # Panics
    /// If there are more than [`TOKENS`] in a process.
    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    pub fn unique_token(&self) -> TestToken<'_> {
        let (label, slot) = self.stock.lock().pop().expect("more tokens in one process than TOKENS says");
        TestToken::new(self, &label, slot)
    }

    /// Makes all tokens of the tests before any test uses one, for SoftHSM2 2.6.1 adds slots to its list without
    /// a lock: a token that is made beside a test that looks for its own ends the process.
    fn stock(self) -> Result<Self, Error> {
        for number in 1..=TOKENS {
            let label = format!("token-{number}");
            let slot = self.token(&label)?.slot();
            self.stock.lock().push((label, slot));
        }
        // Adds the free slot that SoftHSM2 keeps behind the last token.
        self.pkcs11.get_slots_with_token()?;
        Ok(self)
    }

    /// Makes a token with this label and [`PIN`] as its user PIN.
    ///
    /// # Errors
    /// What SoftHSM2 answers.
    pub fn token(&self, label: &str) -> Result<TestToken<'_>, Error> {
        let _one = self.writes.lock();
        let uninitialised =
            |slot| self.pkcs11.get_token_info(slot).is_ok_and(|info| !info.token_initialized());
        let mut slots = self.pkcs11.get_slots_with_token()?.into_iter();
        let slot = slots
            .find(|&slot| uninitialised(slot))
            .ok_or_else(|| Error::Other("SoftHSM2 has no free slot".into()))?;
        let so_pin = AuthPin::from(SO_PIN);
        self.pkcs11.init_token(slot, &so_pin, label)?;
        let session = self.pkcs11.open_rw_session(slot)?;
        session.login(UserType::So, Some(&so_pin))?;
        session.init_pin(&AuthPin::from(PIN))?;
        Ok(TestToken::new(self, label, slot))
    }
}

/// Whether a missing SoftHSM2 is a failure.
pub(crate) fn required() -> bool {
    std::env::var("HSMUX_REQUIRE_SOFTHSM").is_ok_and(|value| value == "1")
}

/// `SOFTHSM2_MODULE` if it is set, else where distributions put it.
fn find_module() -> Option<PathBuf> {
    const KNOWN: [&str; 7] = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/lib64/softhsm/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
        "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    ];
    match std::env::var_os("SOFTHSM2_MODULE") {
        Some(named) if !named.is_empty() => Some(named.into()),
        _ => KNOWN.iter().map(PathBuf::from).find(|path| path.is_file()),
    }
    .filter(|path| path.is_file())
}
