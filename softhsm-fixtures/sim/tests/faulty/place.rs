//! Where faults are tried: a simulator by itself, or in front of another module.

use std::ptr;
use std::time::Duration;

use cryptoki_sys as sys;
use p11_sim::Loaded;
use parking_lot::Mutex;
use softhsm_fixtures::{PIN, SoftHsm, TestToken};

use crate::raw::{Raw, Rv, attributes, call, len};

/// A bound on waits for threads of the test itself.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A simulator with a session of one token that is logged in, and the token's key for MACs.
pub(crate) struct Place {
    pub(crate) sim: Loaded,
    pub(crate) raw: Raw,
    pub(crate) slot: u64,
    pub(crate) session: u64,
    pub(crate) key: u64,
    pub(crate) token: String,
    pin: String,
    /// What calls are forwarded to.
    behind: Option<Loaded>,
    of_softhsm: Option<Unused>,
}

impl Place {
    /// The simulator's own tokens.
    pub(crate) fn new(config: &str) -> Self {
        let sim = Loaded::private_copy(config).unwrap();
        Self::on(sim, "sim-0", "1234", None, None)
    }

    /// Another simulator behind.
    pub(crate) fn forwarding(config: &str) -> Self {
        let behind = Loaded::private_copy("keys=hmac2:hmac").unwrap();
        let sim = Loaded::private_copy(&format!("forward={},{config}", behind.path().display())).unwrap();
        Self::on(sim, "sim-0", "1234", Some(behind), None)
    }

    /// `SoftHSM2` behind, if it is there, with a token that nobody else uses meanwhile.
    pub(crate) fn softhsm(config: &str) -> Option<Self> {
        let softhsm = SoftHsm::for_tests()?;
        let token = Unused::take(softhsm);
        let sim = Loaded::private_copy(&format!("forward={},{config}", softhsm.module().display())).unwrap();
        let label = token.label();
        Some(Self::on(sim, &label, PIN, None, Some(token)))
    }

    /// All that there are, each with the keys `hmac` and `hmac2`, which do the same.
    pub(crate) fn all(config: &str) -> Vec<Self> {
        let own = ["", "null=1,"].map(|mode| Self::new(&format!("{mode}keys=hmac2:hmac,{config}")));
        own.into_iter().chain([Self::forwarding(config)]).chain(Self::softhsm(config)).collect()
    }

    fn on(sim: Loaded, token: &str, pin: &str, behind: Option<Loaded>, of_softhsm: Option<Unused>) -> Self {
        let raw = Raw(sim.function_list());
        raw.initialise().unwrap();
        let label = |slot| {
            let info = raw.token_info(slot).unwrap();
            String::from_utf8_lossy(&info.label).trim_end().to_owned()
        };
        let slot = raw.slots().unwrap().into_iter().find(|&slot| label(slot) == token).unwrap();
        let mut place = Self {
            sim,
            raw,
            slot,
            session: 0,
            key: 0,
            token: token.to_owned(),
            pin: pin.to_owned(),
            behind,
            of_softhsm,
        };
        (place.session, place.key) = place.ready().unwrap();
        place
    }

    /// A new session, logged in, and the key.
    pub(crate) fn ready(&self) -> Rv<(u64, u64)> {
        let session = self.raw.open(self.slot)?;
        match self.raw.log_in(session, &self.pin) {
            Ok(()) | Err(sys::CKR_USER_ALREADY_LOGGED_IN) => {}
            Err(code) => return Err(code),
        }
        let found = self.raw.find(session, &[(sys::CKA_LABEL, b"hmac")])?;
        Ok((session, found[0]))
    }

    /// Whether another module does the work.
    pub(crate) const fn forwards(&self) -> bool {
        self.behind.is_some() || self.of_softhsm.is_some()
    }

    pub(crate) fn mac(&self, data: &[u8]) -> Rv<[u8; 32]> {
        self.raw.mac(self.session, self.key, data)
    }

    /// Has the token make a key of AES for the session.
    pub(crate) fn generate_key(&self, label: &str) -> Rv<u64> {
        self.generate_key_of(label, 32)
    }

    /// The same with so many bytes.
    pub(crate) fn generate_key_of(&self, label: &str, length: u64) -> Rv<u64> {
        let (length, class) = (length.to_ne_bytes(), sys::CKO_SECRET_KEY.to_ne_bytes());
        let values: [(_, &[u8]); 3] =
            [(sys::CKA_CLASS, &class), (sys::CKA_VALUE_LEN, &length), (sys::CKA_LABEL, label.as_bytes())];
        let (mut template, mut key) = (attributes(&values), 0);
        let mechanism = sys::CKM_AES_KEY_GEN;
        let mut how = sys::CK_MECHANISM { mechanism, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        let (template, count) = (template.as_mut_ptr(), len(&template));
        call!(self.raw, C_GenerateKey(self.session, &raw mut how, template, count, &raw mut key))?;
        Ok(key)
    }

    pub(crate) fn configure(&self, config: &str) {
        self.sim.configure(config).unwrap();
    }
}

/// A token of `SoftHSM2` with two keys, which another test may have once it is dropped: there are not enough for all.
pub(crate) struct Unused(Option<TestToken<'static>>);

static UNUSED: Mutex<Vec<TestToken<'static>>> = Mutex::new(Vec::new());

impl Unused {
    fn take(softhsm: &'static SoftHsm) -> Self {
        let known = UNUSED.lock().pop();
        Self(Some(known.unwrap_or_else(|| {
            let token = softhsm.unique_token();
            token.import_hmac("hmac", &[3; 32]);
            token.import_hmac("hmac2", &[4; 32]);
            token
        })))
    }

    fn label(&self) -> String {
        self.0.as_ref().map(|token| token.label().to_owned()).unwrap_or_default()
    }
}

impl Drop for Unused {
    fn drop(&mut self) {
        UNUSED.lock().extend(self.0.take());
    }
}

/// Monotonic time, from the C library: a test may look at the clock, the code under test has its own.
pub(crate) fn now() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a live local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs().try_into().unwrap())
}

/// Waits for something that no event tells of.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = now() + LONG;
    while !condition() {
        assert!(now() < end, "waited in vain until {what}");
        std::thread::yield_now();
    }
}
