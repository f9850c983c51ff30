//! The simulated device: what `C_Initialize` makes and `C_Finalize` leaves.

mod change;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cryptoki_sys as sys;
use parking_lot::{Mutex, RwLock};

use crate::call::Call;
use crate::changes::CHANGES;
use crate::config::{Config, Live, TOKENS_MAX};
use crate::cores::Cores;
use crate::faults::{self, FAULT_RULES, HANG_RULES};
use crate::forward::Forward;
use crate::function::Function;
use crate::hangs::HANGS;
use crate::rule::Names;
use crate::sessions;
use crate::stalls::STALLS;
use crate::token::Token;
use change::ONCE;

/// Tokens with their cores, or a real module in their place.
pub(crate) struct Device {
    pub(crate) config: Config,
    pub(crate) tokens: Vec<Token>,
    pub(crate) forward: Option<Forward>,
    cores: Vec<Cores>,
    op_ns: AtomicU64,
    call_ns: AtomicU64,
    /// How many times these count on each token, in thousandths.
    slower: Vec<AtomicU64>,
    sessions_max: AtomicU64,
    /// Most operations that a token runs at once; 0 for any number.
    throttle: AtomicU64,
    /// Operations that each token runs, while that is limited.
    running: Vec<AtomicU64>,
    /// Until when each token is not there, by this host's clock; 0 for one that is.
    absent_until_ns: Vec<AtomicU64>,
    /// The part of the configuration that may change, as it is now.
    live: Mutex<Live>,
}

/// The number of the first slot: no token's index can be taken for a slot by mistake.
pub(crate) const SLOT_FIRST: sys::CK_SLOT_ID = 16;

/// The variable that configures a simulator which nothing else has configured.
const VARIABLE: &str = "P11_SIM";

/// The device in use.
static CURRENT: RwLock<Option<&'static Device>> = RwLock::new(None);

/// The device of the last `C_Initialize`. Its tokens outlive `C_Finalize`, as those of real devices do.
///
/// Never freed: a call that hangs may look at its device at any time.
static KEPT: Mutex<Option<&'static Device>> = Mutex::new(None);

/// What was configured by a call, for the next `C_Initialize`.
static EXPLICIT: Mutex<Option<String>> = Mutex::new(None);

/// Whether calls of operations need do nothing but answer: null mode without delays, hangs or hidden mechanisms.
static FAST: AtomicBool = AtomicBool::new(false);

/// Whether the short way of the null mode may be taken.
#[inline]
pub(crate) fn fast() -> bool {
    // Relaxed: who takes the short way a moment too long has a call that began before the change.
    FAST.load(Ordering::Relaxed)
}

/// The device in use, if the module is initialised.
pub(crate) fn current() -> Result<&'static Device, sys::CK_RV> {
    CURRENT.read().ok_or(sys::CKR_CRYPTOKI_NOT_INITIALIZED)
}

/// Makes or wakes the device, configured by what `configure` was given, else by `args`, else by the environment.
pub(crate) fn initialise(args: Option<String>) -> Result<(), sys::CK_RV> {
    let mut current = CURRENT.write();
    if current.is_some() {
        return Err(sys::CKR_CRYPTOKI_ALREADY_INITIALIZED);
    }
    let explicit = EXPLICIT.lock().clone();
    let text = explicit.or(args).or_else(|| std::env::var(VARIABLE).ok()).unwrap_or_default();
    let config = Config::parse(&text).map_err(|why| refuse(&why))?;
    let device = waken(config)?;
    let seed = device.config.seed;
    let live = device.live.lock().clone();
    HANG_RULES.set(&live.hangs, seed);
    let changes = CHANGES.text();
    // Rules that outlive `C_Finalize` go on counting.
    if !changes.contains("rules=") {
        FAULT_RULES.set(&live.faults, seed);
    }
    device.place(&live.removed);
    device.change(&changes)?;
    *current = Some(device);
    drop(current);
    refresh();
    Ok(())
}

/// Closes every session and ends the use of the device.
pub(crate) fn finalise() -> Result<(), sys::CK_RV> {
    let device = CURRENT.write().take().ok_or(sys::CKR_CRYPTOKI_NOT_INITIALIZED)?;
    refresh();
    for closed in sessions::close_all(None) {
        device.session_gone(closed.token, closed.generation, 0);
    }
    device.forward.as_ref().map_or(Ok(()), Forward::finalise)
}

/// Sets the configuration: whole for the next `C_Initialize`, or parts of it while the module is in use.
pub(crate) fn configure(text: &str) -> Result<(), sys::CK_RV> {
    let Ok(device) = current() else {
        Config::parse(text).map_err(|why| refuse(&why))?;
        *EXPLICIT.lock() = Some(text.to_owned());
        return Ok(());
    };
    device.change(text)?;
    refresh();
    Ok(())
}

/// Changes the live part of the configuration now, if the module is in use, and for every `C_Initialize` to come.
pub(crate) fn change(text: &str) -> Result<(), sys::CK_RV> {
    // Held until the end: a device that wakes meanwhile finds the change, or is there to be changed.
    let device = CURRENT.read();
    CHANGES.keep(text).map_err(|why| refuse(&why))?;
    if let Some(device) = *device {
        device.change(text)?;
    } else if let Some(kept) = *KEPT.lock() {
        kept.stall(&Live::default().changed(text).map_err(|why| refuse(&why))?.stalls);
    }
    drop(device);
    refresh();
    Ok(())
}

/// Whether the interface of PKCS#11 3.0 is there. Before `C_Initialize` that is what is configured by then.
pub(crate) fn offers_interface_3() -> bool {
    if let Ok(device) = current() {
        return device.config.interface_3 && device.forward.is_none();
    }
    let text = EXPLICIT.lock().clone().or_else(|| std::env::var(VARIABLE).ok()).unwrap_or_default();
    // A text that is wrong is refused by `C_Initialize`.
    Config::parse(&text).is_ok_and(|config| config.interface_3 && config.forward.is_none())
}

/// Lets hanging calls go and forgets the rules that hold calls.
pub(crate) fn release_hangs() {
    HANG_RULES.set(&[], 0);
    HANGS.release();
    if let Ok(device) = current() {
        device.live.lock().hangs.clear();
    }
    refresh();
}

/// The number of the token with this label, in the device in use or, after `C_Finalize`, the last one.
pub(crate) fn token_named(label: &str) -> Option<usize> {
    let device = (*KEPT.lock())?;
    (0..TOKENS_MAX).find(|&token| device.label(token) == label)
}

impl Device {
    /// The token in a slot.
    pub(crate) fn token_in(&self, slot: sys::CK_SLOT_ID) -> Result<usize, sys::CK_RV> {
        if let Some(forward) = &self.forward {
            return forward.token_in(slot);
        }
        let index = slot.checked_sub(SLOT_FIRST).and_then(|index| usize::try_from(index).ok());
        index.filter(|&index| index < self.tokens.len()).ok_or(sys::CKR_SLOT_ID_INVALID)
    }

    /// The label of a token.
    pub(crate) fn label(&self, token: usize) -> String {
        match &self.forward {
            Some(forward) => forward.label(token),
            None => self.tokens.get(token).map(|token| token.label.clone()).unwrap_or_default(),
        }
    }

    /// Most sessions per token; 0 for any number.
    pub(crate) fn sessions_max(&self) -> u64 {
        self.sessions_max.load(Ordering::Relaxed)
    }

    /// When a call that came at `begun_ns` returns to its caller, on this token if any. `works`: it occupies a core.
    pub(crate) fn ends_at(&self, begun_ns: u64, token: Option<usize>, works: bool) -> u64 {
        let (op_ns, call_ns) = self.times_ns(token);
        let arrival = begun_ns + call_ns / 2;
        let done = match token.filter(|_| works).and_then(|token| self.cores.get(token)) {
            Some(cores) if op_ns > 0 => cores.book(arrival, op_ns),
            _ => arrival,
        };
        done + call_ns.div_ceil(2)
    }

    /// Whether a token is not there.
    pub(crate) fn is_absent(&self, token: usize) -> bool {
        self.absent_until_ns[token].load(Ordering::Relaxed) > crate::clock::now_ns()
    }

    /// Takes a token away with its sessions, for so long or until it is put back.
    pub(crate) fn remove(&self, token: usize, time: Option<Duration>) {
        let until = time.map_or(u64::MAX, |time| {
            let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            crate::clock::now_ns().saturating_add(ns)
        });
        self.absent_until_ns[token].store(until, Ordering::Relaxed);
        for closed in sessions::close_all(Some(token)) {
            self.session_gone(token, closed.generation, 0);
            self.forward.iter().for_each(|forward| forward.close(closed.forwarded));
        }
    }

    /// Forgets a session.
    pub(crate) fn lose_session(&self, call: &Call) {
        let forwarded = call.slot.forwarded();
        if let Ok((token, left)) = sessions::close(call.handle) {
            self.session_gone(token, call.generation, left);
            self.forward.iter().for_each(|forward| forward.close(forwarded));
        }
    }

    /// Logs the user out.
    pub(crate) fn lose_login(&self, token: usize, forwarded: u64) {
        if let Some(token) = self.tokens.get(token) {
            // Not logged in is fine here.
            let _was_in = token.log_out();
        }
        self.forward.iter().for_each(|forward| forward.log_out(forwarded));
    }

    /// What an object is called, if there is one under this handle.
    pub(crate) fn names(&self, token: usize, forwarded: u64, object: u64) -> Option<Names> {
        match &self.forward {
            Some(forward) => forward.names(forwarded, object),
            None => self.tokens.get(token)?.names(object),
        }
    }

    /// How long a call takes by the configuration, on this token if any, without waiting for a core.
    pub(crate) fn usual_ns(&self, token: Option<usize>, works: bool) -> u64 {
        let (op_ns, call_ns) = self.times_ns(token);
        if works { op_ns + call_ns } else { call_ns }
    }

    /// Begins a call, which ends when the result is dropped; refused while the token runs as many as it may.
    pub(crate) fn work(&self, token: usize, function: Function) -> Result<Working<'_>, sys::CK_RV> {
        let most = self.throttle.load(Ordering::Relaxed);
        if most == 0 || !function.occupies_core() {
            return Ok(Working(None));
        }
        let running = &self.running[token];
        if running.fetch_add(1, Ordering::Relaxed) >= most {
            running.fetch_sub(1, Ordering::Relaxed);
            return Err(sys::CKR_FUNCTION_FAILED);
        }
        Ok(Working(Some(running)))
    }

    /// Whether calls take any time at all.
    pub(crate) fn delays(&self) -> bool {
        self.op_ns.load(Ordering::Relaxed) > 0 || self.call_ns.load(Ordering::Relaxed) > 0
    }

    /// Takes the objects of a closed session along, and the login with the last one (PKCS#11 2.40, 5.6:
    /// closing the last session logs the application out).
    pub(crate) fn session_gone(&self, token: usize, generation: u64, left: u64) {
        if let Some(token) = self.tokens.get(token) {
            token.session_closed(generation);
            if left == 0 {
                // Not logged in is fine here.
                let _was_in = token.log_out();
            }
        }
    }

    fn new(config: Config) -> Result<Self, sys::CK_RV> {
        let forward = config.forward.as_deref().map(Forward::load).transpose().map_err(|why| refuse(&why))?;
        let count = if forward.is_some() { 0 } else { config.tokens };
        let tokens = (0..count).map(|index| Token::new(index, &config)).collect::<Result<_, _>>();
        Ok(Self {
            tokens: tokens.map_err(|why| refuse(&why))?,
            forward,
            cores: (0..TOKENS_MAX).map(|_| Cores::new(0)).collect(),
            op_ns: AtomicU64::new(0),
            call_ns: AtomicU64::new(0),
            slower: (0..TOKENS_MAX).map(|_| AtomicU64::new(ONCE)).collect(),
            sessions_max: AtomicU64::new(0),
            throttle: AtomicU64::new(0),
            running: (0..TOKENS_MAX).map(|_| AtomicU64::new(0)).collect(),
            absent_until_ns: (0..TOKENS_MAX).map(|_| AtomicU64::new(0)).collect(),
            live: Mutex::default(),
            config,
        })
    }
}

/// A call that a token runs, where their number is limited.
pub(crate) struct Working<'a>(Option<&'a AtomicU64>);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if let Some(running) = self.0 {
            running.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The kept device if it is the one that is asked for, with its tokens as they were; else a new one.
fn waken(config: Config) -> Result<&'static Device, sys::CK_RV> {
    let mut kept = KEPT.lock();
    let live = config.live.clone();
    let same = |device: &&Device| Config { live: live.clone(), ..device.config.clone() } == config;
    let device = match kept.filter(same) {
        Some(device) => device,
        None => Box::leak(Box::new(Device::new(config)?)),
    };
    if let Some(forward) = &device.forward {
        forward.initialise()?;
    }
    device.apply(live);
    device.tokens.iter().for_each(Token::count_failures);
    *kept = Some(device);
    Ok(device)
}

/// Decides anew whether the short way may be taken.
fn refresh() {
    let device = CURRENT.read();
    let bare = |device: &Device| {
        let limited = device.throttle.load(Ordering::Relaxed) > 0;
        device.config.null && device.config.hidden.is_empty() && !device.delays() && !limited
    };
    let fast = device.is_some_and(bare) && !faults::armed() && !STALLS.any();
    FAST.store(fast, Ordering::Relaxed);
}

/// Says on the standard error what is wrong with the configuration.
fn refuse(why: &str) -> sys::CK_RV {
    eprintln!("p11-sim: {why}");
    sys::CKR_ARGUMENTS_BAD
}
