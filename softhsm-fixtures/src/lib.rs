//! Throw-away SoftHSM2 tokens for tests.
//!
//! Each process gets one token directory of its own, for SoftHSM2 2.6.1 loses tokens when two processes start
//! on one. Each test takes a token of its own from it.
//!
//! ```
//! if let Some(softhsm) = softhsm_fixtures::SoftHsm::for_tests() {
//!     let token = softhsm.unique_token("doc");
//!     token.import_aes("card", &[7; 32]);
//!     assert!(token.label().starts_with("doc-"));
//! }
//! ```

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use once_cell::sync::OnceCell;
use parking_lot::Mutex;

/// The user PIN of every token.
pub const PIN: &str = "1234";

const SO_PIN: &str = "5678";

/// SoftHSM2 with this process's own token directory.
#[derive(Debug)]
pub struct SoftHsm {
    module: PathBuf,
    pkcs11: Pkcs11,
    /// Making tokens and writing objects is one at a time.
    writes: Mutex<()>,
    _directory: tempfile::TempDir,
}

/// A token of one test.
#[derive(Debug)]
pub struct TestToken<'a> {
    softhsm: &'a SoftHsm,
    label: String,
    slot: Slot,
}

impl SoftHsm {
    /// SoftHSM2 for this process, or `None`, said aloud, if it is not installed.
    ///
    /// # Panics
    /// If it is missing and `HSMUX_REQUIRE_SOFTHSM=1`, or if it is there and does not work.
    pub fn for_tests() -> Option<&'static Self> {
        static SHARED: OnceCell<Option<SoftHsm>> = OnceCell::new();
        let shared = SHARED.get_or_init(|| find_module().map(Self::start)).as_ref();
        if shared.is_none() {
            let required = std::env::var("HSMUX_REQUIRE_SOFTHSM").is_ok_and(|value| value == "1");
            assert!(!required, "SoftHSM2 is required and not installed: install the package softhsm2");
            eprintln!("SKIPPED: SoftHSM2 is not installed (package softhsm2)");
        }
        shared
    }

    /// The module's path.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// Makes a token whose label begins with `prefix`, with [`PIN`] as its user PIN.
    ///
    /// # Panics
    /// If SoftHSM2 refuses.
    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    pub fn unique_token(&self, prefix: &str) -> TestToken<'_> {
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        let label = format!("{prefix}-{}", NUMBERS.fetch_add(1, Ordering::Relaxed));
        let _one = self.writes.lock();
        let slots = self.pkcs11.get_slots_with_token().expect("slots");
        let free =
            |slot: &Slot| self.pkcs11.get_token_info(*slot).is_ok_and(|info| !info.token_initialized());
        let slot = slots.into_iter().find(free).expect("SoftHSM2 keeps one free slot");
        let so_pin = AuthPin::from(SO_PIN);
        self.pkcs11.init_token(slot, &so_pin, &label).expect("C_InitToken");
        let session = self.pkcs11.open_rw_session(slot).expect("session");
        session.login(UserType::So, Some(&so_pin)).expect("login of the security officer");
        session.init_pin(&AuthPin::from(PIN)).expect("C_InitPIN");
        TestToken { softhsm: self, label, slot }
    }

    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    fn start(module: PathBuf) -> Self {
        let directory =
            tempfile::Builder::new().prefix("softhsm-fixtures-").tempdir().expect("temporary directory");
        let tokens = directory.path().join("tokens");
        std::fs::create_dir(&tokens).expect("token directory");
        let conf = directory.path().join("softhsm2.conf");
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        std::fs::write(&conf, text).expect("configuration");
        std::env::set_var("SOFTHSM2_CONF", &conf);
        let pkcs11 = Pkcs11::new(&module).expect("SoftHSM2 loads");
        pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("C_Initialize");
        Self { module, pkcs11, writes: Mutex::new(()), _directory: directory }
    }
}

impl TestToken<'_> {
    /// The token's label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Puts an AES key on the token: private, sensitive, not extractable.
    ///
    /// # Panics
    /// If SoftHSM2 refuses.
    pub fn import_aes(&self, label: &str, value: &[u8]) {
        self.import(label, KeyType::AES, value, &[Attribute::Encrypt(true), Attribute::Decrypt(true)]);
    }

    /// Puts a key for MACs on the token: private, sensitive, not extractable.
    ///
    /// # Panics
    /// If SoftHSM2 refuses.
    pub fn import_hmac(&self, label: &str, value: &[u8]) {
        self.import(label, KeyType::GENERIC_SECRET, value, &[Attribute::Sign(true), Attribute::Verify(true)]);
    }

    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    fn import(&self, label: &str, kind: KeyType, value: &[u8], usage: &[Attribute]) {
        let _one = self.softhsm.writes.lock();
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(kind),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Label(label.into()),
            Attribute::Id(label.into()),
            Attribute::Value(value.into()),
        ];
        template.extend_from_slice(usage);
        let session = self.session();
        session.create_object(&template).expect("C_CreateObject");
    }

    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    fn session(&self) -> Session {
        let session = self.softhsm.pkcs11.open_rw_session(self.slot).expect("session");
        match session.login(UserType::User, Some(&AuthPin::from(PIN))) {
            Ok(())
            | Err(cryptoki::error::Error::Pkcs11(cryptoki::error::RvError::UserAlreadyLoggedIn, _)) => {
                session
            }
            other => {
                other.expect("login");
                session
            }
        }
    }
}

/// `SOFTHSM2_MODULE`, or where distributions put it.
fn find_module() -> Option<PathBuf> {
    const KNOWN: [&str; 6] = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
        "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    ];
    let named = std::env::var_os("SOFTHSM2_MODULE").map(PathBuf::from);
    named.into_iter().chain(KNOWN.map(PathBuf::from)).find(|path| path.is_file())
}
