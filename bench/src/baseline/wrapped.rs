//! Baselines on the crate `cryptoki`, as its users have them.

mod call;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use parking_lot::Mutex;
use r2d2_cryptoki::{Pool, SessionAuth, SessionManager};
use secrecy::ExposeSecret;

use self::call::Caller;
use super::{Baseline, Site, Work};
use crate::case::Op;
use crate::cell::{Cell, Window};
use crate::drive::closed_loop;
use crate::failure::Failure;
use crate::inputs::Inputs;

/// A module through `cryptoki`, logged in, and what is to be done with it.
#[derive(Debug)]
pub(super) struct Wrapped {
    inputs: Inputs,
    pkcs11: Pkcs11,
    pin: AuthPin,
    places: Vec<Place>,
    /// Keep the login; they close last. In a mutex only because sessions may not be shared.
    _anchors: Mutex<Vec<Session>>,
}

/// A token and its key; random bytes have none.
#[derive(Clone, Copy, Debug)]
struct Place {
    slot: Slot,
    key: Option<ObjectHandle>,
}

/// A session per thread, over all tokens in turn.
#[derive(Debug)]
pub(super) struct Sessions {
    sessions: Vec<(Place, Mutex<Session>)>,
    wrapped: Wrapped,
}

/// A pool per token, threads over all in turn.
#[derive(Debug)]
pub(super) struct Pools {
    pools: Vec<(Place, Pool)>,
    threads_max: usize,
    wrapped: Wrapped,
}

/// One session, whatever the threads.
#[derive(Debug)]
pub(super) struct Shared {
    session: Mutex<Session>,
    place: Place,
    threads_max: usize,
    wrapped: Wrapped,
}

impl Wrapped {
    /// The engine has initialised the module: `cryptoki` is told so by the module's answer.
    pub(super) fn open(site: &Site, inputs: &Inputs, key: Option<&str>) -> Result<Self, Failure> {
        let pkcs11 = Pkcs11::new(&site.module)?;
        match pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            answer => answer?,
        }
        let pin = AuthPin::from(site.pin.expose_secret());
        let (mut places, mut anchors) = (Vec::new(), Vec::new());
        for token in &site.tokens {
            let slot = slot_of(&pkcs11, token)?;
            let session = pkcs11.open_rw_session(slot)?;
            match session.login(UserType::User, Some(&pin)) {
                Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
                answer => answer?,
            }
            let key = key.map(|label| find(&session, inputs.case().op, label)).transpose()?;
            places.push(Place { slot, key });
            anchors.push(session);
        }
        Ok(Self { inputs: inputs.clone(), pkcs11, pin, places, _anchors: Mutex::new(anchors) })
    }

    pub(super) fn sessions(self, count: usize) -> Result<Sessions, Failure> {
        let mut sessions = Vec::new();
        for &place in self.places.iter().cycle().take(count) {
            match self.pkcs11.open_rw_session(place.slot) {
                Ok(session) => sessions.push((place, Mutex::new(session))),
                Err(error) if sessions.is_empty() => return Err(error.into()),
                Err(_) => break,
            }
        }
        Ok(Sessions { sessions, wrapped: self })
    }

    /// Pools as their users get them: a session is tested whenever it is taken.
    pub(super) fn pools(self, threads_max: usize) -> Result<Pools, Failure> {
        let size = u32::try_from(threads_max.div_ceil(self.places.len().max(1))).unwrap_or(u32::MAX);
        let pool = |&place: &Place| -> Result<_, Failure> {
            let auth = SessionAuth::RwUser(self.pin.clone());
            let manager = SessionManager::new(self.pkcs11.clone(), place.slot, &auth);
            let builder = Pool::builder().max_size(size).connection_customizer(auth.into_customizer());
            builder.build(manager).map(|pool| (place, pool)).map_err(text)
        };
        let pools = self.places.iter().map(pool).collect::<Result<_, _>>()?;
        Ok(Pools { pools, threads_max, wrapped: self })
    }

    pub(super) fn mutex(self, threads_max: usize) -> Result<Shared, Failure> {
        let Some(&place) = self.places.first() else { return Err(Failure::Other("no token".into())) };
        let session = Mutex::new(self.pkcs11.open_rw_session(place.slot)?);
        Ok(Shared { session, place, threads_max, wrapped: self })
    }

    /// One operation on any session.
    fn once(&self, session: &Session, key: Option<ObjectHandle>) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let mut caller = Caller::new(&self.inputs, key);
        let input = self.inputs.message(0).advance().to_vec();
        let output = caller.call(session, &input)?;
        Ok((input, [caller.iv(), &output].concat()))
    }
}

impl Sessions {
    /// What a thread does.
    fn worker(&self, thread: usize) -> impl FnMut(&[u8]) -> Result<(), Failure> {
        let (place, session) = &self.sessions[thread];
        // Held all the time, so the loop itself takes no lock.
        let (session, mut caller) = (session.lock(), Caller::new(&self.wrapped.inputs, place.key));
        move |message: &[u8]| caller.call(&session, message).map(drop)
    }
}

impl Baseline for Sessions {
    fn threads_max(&self) -> usize {
        self.sessions.len()
    }

    fn once(&self) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let Some((place, session)) = self.sessions.first() else { return Ok(Default::default()) };
        self.wrapped.once(&session.lock(), place.key)
    }

    fn inputs(&self) -> &Inputs {
        &self.wrapped.inputs
    }

    fn caller(&self, thread: usize) -> Work<'_> {
        Box::new(self.worker(thread))
    }

    fn run(&self, threads: usize, window: Window) -> Cell {
        closed_loop(threads.min(self.threads_max()), self.inputs(), window, |thread| self.worker(thread))
    }
}

impl Pools {
    /// What a thread does.
    fn worker(&self, thread: usize) -> impl FnMut(&[u8]) -> Result<(), Failure> {
        let (place, pool) = &self.pools[thread % self.pools.len()];
        let mut caller = Caller::new(&self.wrapped.inputs, place.key);
        move |message: &[u8]| caller.call(&*pool.get().map_err(text)?, message).map(drop)
    }
}

impl Baseline for Pools {
    fn threads_max(&self) -> usize {
        self.threads_max
    }

    fn once(&self) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let Some((place, pool)) = self.pools.first() else { return Ok(Default::default()) };
        self.wrapped.once(&*pool.get().map_err(text)?, place.key)
    }

    fn inputs(&self) -> &Inputs {
        &self.wrapped.inputs
    }

    fn caller(&self, thread: usize) -> Work<'_> {
        Box::new(self.worker(thread))
    }

    fn run(&self, threads: usize, window: Window) -> Cell {
        closed_loop(threads.min(self.threads_max()), self.inputs(), window, |thread| self.worker(thread))
    }
}

impl Shared {
    /// What a thread does.
    fn worker(&self, _: usize) -> impl FnMut(&[u8]) -> Result<(), Failure> {
        let mut caller = Caller::new(&self.wrapped.inputs, self.place.key);
        move |message: &[u8]| caller.call(&self.session.lock(), message).map(drop)
    }
}

impl Baseline for Shared {
    fn threads_max(&self) -> usize {
        self.threads_max
    }

    fn once(&self) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        self.wrapped.once(&self.session.lock(), self.place.key)
    }

    fn inputs(&self) -> &Inputs {
        &self.wrapped.inputs
    }

    fn caller(&self, thread: usize) -> Work<'_> {
        Box::new(self.worker(thread))
    }

    fn run(&self, threads: usize, window: Window) -> Cell {
        closed_loop(threads.min(self.threads_max()), self.inputs(), window, |thread| self.worker(thread))
    }
}

/// The slot of a token by its label or serial number.
fn slot_of(pkcs11: &Pkcs11, token: &str) -> Result<Slot, Failure> {
    let is_it = |slot: &Slot| {
        pkcs11.get_token_info(*slot).is_ok_and(|info| info.label() == token || info.serial_number() == token)
    };
    let found = pkcs11.get_slots_with_initialized_token()?.into_iter().find(is_it);
    found.ok_or_else(|| Failure::Other("cryptoki does not find the token".into()))
}

/// The token key of this label: copies in sessions have the label too.
fn find(session: &Session, op: Op, label: &str) -> Result<ObjectHandle, Failure> {
    let class = match op {
        Op::Rsa2048Sha256
        | Op::Rsa2048Pss
        | Op::Rsa4096Sha256
        | Op::Rsa2048Oaep
        | Op::EcdsaP256
        | Op::EcdsaP384
        | Op::Ed25519 => ObjectClass::PRIVATE_KEY,
        _ => ObjectClass::SECRET_KEY,
    };
    let template = [Attribute::Class(class), Attribute::Label(label.into()), Attribute::Token(true)];
    let found = session.find_objects(&template)?;
    found.first().copied().ok_or_else(|| Failure::Other("cryptoki does not find the key".into()))
}

fn text(error: impl std::error::Error) -> Failure {
    Failure::Other(error.to_string())
}
