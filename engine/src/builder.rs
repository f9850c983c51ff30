//! Building an engine.

use std::path::PathBuf;
use std::time::Duration;

use crate::audit::Audit;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::catalogue::lease::MESSAGES_MAX;
use crate::keys::copies::Copies;
use crate::operate::Tier;
use crate::pin::{PinKeep, PinSource};
use crate::pkcs11::{Library, ModuleKind, Slot};
use crate::probe::ModuleProfile;
use crate::sessions::Sessions;
use crate::token::measured::Measured;
use crate::token::verify::VerifyOutputs;

/// How an engine is built; made by [`Engine::builder`].
///
/// Each required part is a type state, so that forgetting one does not compile.
pub struct Builder<M, T, P> {
    module: M,
    tokens: T,
    pin: P,
    pub(crate) settings: Settings,
}

/// Shows nothing of the parts: names may be URIs in which somebody wrote a PIN.
impl<M, T, P> std::fmt::Debug for Builder<M, T, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}

/// A required part that is not given yet.
#[derive(Clone, Copy, Debug)]
pub struct Missing;

/// Everything that has a default.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) init_args: Option<String>,
    pub(crate) pin_despite_warning: bool,
    pub(crate) pin_keep: PinKeep,
    pub(crate) new_pin: Option<PinSource>,
    pub(crate) harden_process: bool,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) sessions: Sessions,
    /// Tokens by name, each with the name of its scope.
    pub(crate) scopes: Vec<(String, String)>,
    pub(crate) instances: usize,
    pub(crate) deadline: Option<Duration>,
    pub(crate) requests_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) hang_limit: Option<Duration>,
    pub(crate) rsa_pkcs1_decryption: bool,
    pub(crate) coalescing: bool,
    pub(crate) holding: bool,
    pub(crate) copies: Copies,
    pub(crate) host_modes: Vec<String>,
    pub(crate) validated_only: bool,
    pub(crate) random_pool: bool,
    pub(crate) message_api: bool,
    pub(crate) verify_outputs: VerifyOutputs,
    pub(crate) tiers: Vec<(String, Tier)>,
    pub(crate) drained: Vec<String>,
    pub(crate) canary_key: Option<String>,
    pub(crate) audit: Option<Audit>,
    pub(crate) key_group: String,
    pub(crate) gcm_messages_max: u64,
    pub(crate) module_kind: ModuleKind,
    pub(crate) module_reset: bool,
    pub(crate) inline: bool,
    pub(crate) module_profile: Option<ProfileOf>,
}

/// A module profile, or where it is.
#[derive(Clone)]
pub(crate) enum ProfileOf {
    Given(Box<ModuleProfile>),
    File(PathBuf),
}

impl Engine {
    /// Begins to build an engine: module, tokens and PIN are required.
    #[must_use]
    pub fn builder() -> Builder<Missing, Missing, Missing> {
        let settings = Settings {
            init_args: None,
            pin_despite_warning: false,
            pin_keep: PinKeep::Memory,
            new_pin: None,
            harden_process: false,
            state_dir: None,
            sessions: Sessions::AUTO,
            scopes: Vec::new(),
            instances: 1,
            deadline: Some(Duration::from_secs(10)),
            requests_max: 65_536,
            bytes_max: 256 << 20,
            hang_limit: None,
            rsa_pkcs1_decryption: false,
            coalescing: true,
            holding: true,
            copies: Copies::Auto,
            host_modes: Vec::new(),
            validated_only: false,
            random_pool: true,
            message_api: true,
            verify_outputs: VerifyOutputs::Off,
            tiers: Vec::new(),
            drained: Vec::new(),
            canary_key: None,
            audit: None,
            key_group: "default".to_owned(),
            gcm_messages_max: MESSAGES_MAX,
            module_kind: ModuleKind::Standard,
            module_reset: true,
            inline: true,
            module_profile: None,
        };
        Builder { module: Missing, tokens: Missing, pin: Missing, settings }
    }
}

impl<M, T, P> Builder<M, T, P> {
    /// The PKCS#11 module: the path of its shared library.
    pub fn module(self, path: impl Into<PathBuf>) -> Builder<PathBuf, T, P> {
        Builder { module: path.into(), tokens: self.tokens, pin: self.pin, settings: self.settings }
    }

    /// The tokens, each by label, by serial number, or by a PKCS#11 URI (a text that begins with `pkcs11:`), of which
    /// only the attributes of token, slot and module matter here. All must hold the same keys under the same names
    /// where they hold them at all.
    ///
    /// A URI's `pin-source` is not followed: [`PinSource`] reads it, for [`Builder::pin`].
    pub fn tokens<S: Into<String>>(self, tokens: impl IntoIterator<Item = S>) -> Builder<M, Vec<String>, P> {
        let tokens = tokens.into_iter().map(Into::into).collect();
        Builder { module: self.module, tokens, pin: self.pin, settings: self.settings }
    }

    /// Where the user PIN of every token comes from. A text is the PIN itself; `"file:..".parse::<PinSource>()` names
    /// a source. The PIN is sent once to each token, and never to one whose lock-out flags warn. Whoever may start again
    /// by itself sets a [`Builder::state_dir`] too.
    pub fn pin(self, pin: impl Into<PinSource>) -> Builder<M, T, PinSource> {
        Builder { module: self.module, tokens: self.tokens, pin: pin.into(), settings: self.settings }
    }

    /// Sends the PIN although the token's flags say that it was tried wrongly before, or that one more wrong try
    /// locks it. Default: not, because nobody is there to see it fail.
    ///
    /// For whoever has made sure that the PIN is right: the flags go with the next good login. A PIN that is
    /// locked is never sent. At the cost of one of the tries that are left. It is consent to what the flags say and to
    /// nothing else: what a [`Builder::state_dir`] remembers of a PIN that was refused it does not outweigh, for it would
    /// be given anew at every restart.
    #[must_use]
    pub fn pin_despite_warning(mut self) -> Self {
        self.settings.pin_despite_warning = true;
        self
    }

    /// Whether the PIN stays in memory for a later login, or is read again from its source.
    ///
    /// Default: [`PinKeep::Memory`]. [`PinKeep::Reread`] keeps no copy, and takes a PIN that was changed at its source;
    /// in exchange the source must be readable for as long as the engine lives.
    #[must_use]
    pub fn pin_keep(mut self, keep: PinKeep) -> Self {
        self.settings.pin_keep = keep;
        self
    }

    /// A directory in which it is remembered, across restarts and crashes, that a token refused the PIN. Default: none.
    ///
    /// With it a wrong PIN is sent to a token once, whatever becomes of the processes that use the same directory. Before
    /// each login, at the start and when a lost token returns, a small file says that it is being tried, for good before
    /// the PIN is sent. A login that succeeds removes it. An answer of which it is certain that the token counts no wrong
    /// try (it was busy, or gone before the call) leaves things as they were before. After any other, a refusal and one of
    /// unknown outcome, the file says so and no process with this directory sends a PIN to the token any more
    /// (`PinRefused`, [`Retry::Operator`](crate::Retry::Operator)), before an operator has cleared it: `hsmux pin clear
    /// --state-dir DIR TOKEN`, or [`PinRecord::clear`](crate::PinRecord::clear). Neither a changed PIN clears it (systemd
    /// makes the files of credentials anew at each restart, so that a newer file says nothing) nor
    /// [`Builder::pin_despite_warning`]. Engines that have given up the token by then are to be built anew.
    ///
    /// If the process was killed while it logged in, the next one tries again only if the token's flags do not say that
    /// wrong PINs were tried. Some tokens never say that: of these attempts there are two in a row at most. The price: two
    /// logins in a row that are cut off keep a right PIN from being sent, too, until an operator clears it. So it happens
    /// where the HSM cannot be reached, the module waits for it inside `C_Login`, and a supervisor kills the process before
    /// the module gives up: give the service a start timeout (systemd's `TimeoutStartSec=`) above the module's own. A file
    /// that cannot be read counts as a refusal. One process logs in to a token at a time; the others wait, at most a
    /// minute.
    ///
    /// Nothing that the PIN tells is written: serial number and label of the token, what was tried and when, the form of
    /// the PIN's source and when that file was changed. It costs a few synchronised writes for each login. A PIN that a
    /// person types at the token ([`PinSource::ProtectedAuthenticationPath`]) is not remembered, for no restart repeats it;
    /// one process at a time asks for it all the same.
    ///
    /// The directory is made if it is not there. It must belong to this user and be writable by nobody else, as must all
    /// that are above it, which may be root's, too, or sticky as `/tmp` is; a group counts as somebody else. It must
    /// outlive a restart, and be on a file system of this host, with locks, on which directories can be synchronised:
    /// systemd's `StateDirectory=` is. Files in it are not to be removed by hand, which would take the lock away from who
    /// has it.
    ///
    /// The records of managed keys are here, too, for tokens that take no data objects: in `catalogue-*.redb`, which is to be
    /// saved as the keys are ([`ManagedKeys`](crate::ManagedKeys)).
    ///
    /// Without one, only this engine knows of a refusal: a supervisor that starts a process with a wrong PIN again and
    /// again locks every token that does not warn of it by its flags, or only before the last try. Processes with another
    /// directory, or on another host, are not held back by this one.
    #[must_use]
    pub fn state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.state_dir = Some(path.into());
        self
    }

    /// The new PIN of a rotation that was cut off ([`Engine::rotate_pin`](crate::Engine::rotate_pin)), beside the old one of
    /// [`Builder::pin`]. Default: none.
    ///
    /// Each token gets the one that it has, as the [state directory](Builder::state_dir) says, which is needed. Where nobody
    /// knows, because the process was killed while the token changed its PIN, the new one is tried once and, if that is
    /// refused, the old one once; each is written down before. None is tried where the token's flags tell of other wrong
    /// tries. [`Engine::rotate_pin`](crate::Engine::rotate_pin) with the same PIN then goes on with the rotation.
    ///
    /// Building fails with `Configuration` if no rotation was cut off.
    #[must_use]
    pub fn resume_rotation(mut self, new: impl Into<PinSource>) -> Self {
        self.settings.new_pin = Some(new.into());
        self
    }

    /// Whether building the engine hardens the process against those who could read the PIN from its memory. Default: no,
    /// for it bears on all of the process, for good.
    ///
    /// With it there are no core files (`RLIMIT_CORE` is 0, hard and soft), and on Linux nobody but root may trace the
    /// process or read its memory (`PR_SET_DUMPABLE` is 0): debuggers, `gcore`, profilers and `/proc/PID` (`environ`,
    /// `maps`, `mem`) do not work for the same user any more. A PIN that is kept in memory must be locked there. What of
    /// this cannot be had fails the build with `Configuration`, before the PIN is read as far as that is possible.
    /// Processes that are started from this one have core files forbidden, too.
    #[must_use]
    pub const fn harden_process(mut self, on: bool) -> Self {
        self.settings.harden_process = on;
        self
    }

    /// A string for modules that read one from `C_Initialize` (NSS, p11-sim). Default: none.
    #[must_use]
    pub fn init_args(mut self, text: impl Into<String>) -> Self {
        self.settings.init_args = Some(text.into());
        self
    }

    /// Sessions per token, and of each of its [instances](Builder::instances), that are in use: a number, a range (`4..=64`), or [`Sessions::AUTO`], the default.
    ///
    /// Bounds how many operations a token runs at once; each session costs a thread. With a range or `auto` the engine
    /// tries how many pay while work waits: about as many as the module has cores or the network has round trips to
    /// fill. A fixed number spares the trials, which cost a part in a few hundred of the throughput; a floor spares
    /// the start of it, a second or so under load. At most 4 096; if the
    /// token gives fewer, those are used.
    #[must_use]
    pub fn sessions(mut self, sessions: impl Into<Sessions>) -> Self {
        self.settings.sessions = sessions.into();
        self
    }

    /// Puts a token, named as in [`Builder::tokens`], into a scope: tokens of one name share a bottleneck, as partitions
    /// of one device do, so that their sessions are counted together.
    ///
    /// Default: each token has a scope of its own, but for tokens of SoftHSM2, which share one mutex. The bounds of
    /// [`Builder::sessions`] hold per token, and count for a scope as often as it has tokens.
    #[must_use]
    pub fn scope(mut self, token: impl Into<String>, scope: impl Into<String>) -> Self {
        self.settings.scopes.push((token.into(), scope.into()));
        self
    }

    /// Instances of the module: how many times its library is loaded, each with globals, locks and logins of its own.
    ///
    /// Default 1; tokens times instances may be 64 at most, and 0 counts as 1. For software modules that one lock holds
    /// up: SoftHSM2 2.6.1 serves small operations on two cores about twice as fast with 2. More than there are cores
    /// gains nothing, and a network HSM, which waits for its device, is served by [`Builder::sessions`] instead.
    ///
    /// Further instances are private copies of the library's file, loaded from the directory for temporary files
    /// (`TMPDIR`), which must allow its files to be executed, and never unloaded. Each logs in to every token by itself,
    /// so the PIN is sent once to each token per instance, one after the other: a refused one is not sent again.
    /// Keys of a token are proven and used in all of its instances; session keys ([`Key::agree`](crate::Key::agree),
    /// [`Key::unwrap`](crate::Key::unwrap)) in the one that made them. Names of a token stand for all of its instances.
    /// While a key is made or destroyed, the other instances of its token stand still: for milliseconds, or for the
    /// seconds that a large RSA key takes.
    ///
    /// Not for modules of which their makers do not say that two copies may run in a process: they may share a
    /// connection, a lock file or a licence, look for files beside the library, or crash. One that can be seen to be
    /// unfit is refused with `Configuration`; not every one can. Other engines of the process on the same token, and
    /// other processes, do not stand still while keys are made.
    #[must_use]
    pub fn instances(mut self, instances: usize) -> Self {
        self.settings.instances = instances;
        self
    }

    /// The deadline of requests that name none; `None` lets blocking callers run their requests themselves.
    ///
    /// Default 10 s: longer than any sane operation, shorter than a caller's patience.
    #[must_use]
    pub fn deadline(mut self, deadline: Option<Duration>) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// Most requests in flight; further ones are refused. Default 65 536. What [`Many`](crate::Many) and
    /// [`pipeline`](crate::pipeline()) put together counts as one.
    #[must_use]
    pub fn requests_max(mut self, requests: usize) -> Self {
        self.settings.requests_max = requests;
        self
    }

    /// Most bytes of requests in flight, inputs and outputs. Default 256 MiB.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.settings.bytes_max = bytes;
        self
    }

    /// How long a call may stay in the module before its thread and session are written off.
    ///
    /// Default: the larger of 5 s and 20 times the token's p99.9. Shorter frees waiters earlier; a limit below
    /// what a slow operation takes gives up healthy sessions. Less than 10 ms counts as 10 ms.
    #[must_use]
    pub fn hang_limit(mut self, limit: Duration) -> Self {
        self.settings.hang_limit = Some(limit);
        self
    }

    /// Puts a token, named as in [`Builder::tokens`], into a tier. Default: all in the first.
    ///
    /// A token of a lower tier serves only while no token of a higher one that holds the key can, or when requests
    /// have waited longer than its extra latency. For a second site, or a spare that costs by use.
    #[must_use]
    pub fn tier(mut self, token: impl Into<String>, tier: Tier) -> Self {
        self.settings.tiers.push((token.into(), tier));
        self
    }

    /// Starts with a token, named as in [`Builder::tokens`], out of service, until
    /// [`Engine::undrain_token`](crate::Engine::undrain_token). Default: none.
    #[must_use]
    pub fn drained(mut self, token: impl Into<String>) -> Self {
        self.settings.drained.push(token.into());
        self
    }

    /// A key, named as for [`Engine::key`](crate::Engine::key), that the engine may use to see whether a token works.
    /// Default: none.
    ///
    /// After five calls that a token failed by itself, and fewer that went well, it is tried: it is asked for a few random
    /// bytes and, with a canary key, for a MAC or a signature of a fixed text, or for one enciphered block: at most once a
    /// second while it serves, and after ever longer pauses, from 50 ms to two seconds, while it is out; once when the engine
    /// is built; a secret key must yield the same as the first time. A token that fails the trial takes no requests until it does well again
    /// ([`Health::Failing`](crate::Health::Failing)). Without a canary key a token whose random bytes are fine is taken
    /// out only when nothing that it is asked for succeeds, with two keys at least. The key is used for nothing else by
    /// this; take one of the kind that matters most, made for it: its uses are not those of a caller.
    #[must_use]
    pub fn canary_key(mut self, name: impl Into<String>) -> Self {
        self.settings.canary_key = Some(name.into());
        self
    }

    /// Writes down every use of a key and every change to one, in a log in which nothing can be altered unnoticed. Default: none.
    ///
    /// [`Audit`] says what it costs and what happens when the disk is full. Its checkpoints are signed by a managed key of the
    /// tokens that is made when the first engine with a log is built, and that nobody else gets at;
    /// [`ManagedKeys::audit_public_key`](crate::ManagedKeys::audit_public_key) is what they are verified with. What engines keep for
    /// themselves (MACs of records, probes of keys, canaries) is not recorded.
    #[must_use]
    pub fn audit(mut self, audit: Audit) -> Self {
        self.settings.audit = Some(audit);
        self
    }

    /// The name of the group that the engine's tokens are, as it stands in the catalogue and the ids of the keys that are made here.
    /// Default: `default`.
    ///
    /// For those who keep several groups of tokens apart: a key id of one group is none of another's.
    #[must_use]
    pub fn key_group(mut self, name: impl Into<String>) -> Self {
        self.settings.key_group = name.into();
        self
    }

    /// How many messages of AES-GCM one version of a managed key may encrypt, by all engines on its tokens. Default, and most:
    /// 2^32, what SP 800-38D, 8.3, allows with random IVs. Beyond that encryption is refused with
    /// [`ErrorKind::KeyState`](crate::ErrorKind::KeyState) until the key is rotated; from half of it on the engine warns.
    ///
    /// Engines write down how many they may use in blocks of 2^20, and before they use them: what one leaves unused when it ends
    /// counts. The same for all engines of the tokens. Lower it where more IVs than the engine's are used with the same keys.
    #[must_use]
    pub fn gcm_messages_max(mut self, messages: u64) -> Self {
        self.settings.gcm_messages_max = messages.min(MESSAGES_MAX);
        self
    }

    /// Whose module it is, where its return codes do not mean what the standard says. Default: [`ModuleKind::Standard`].
    ///
    /// For operators of the modules that [`ModuleKind`] lists. With the wrong one, what is busy is taken for broken, or
    /// the other way round.
    #[must_use]
    pub const fn module_kind(mut self, kind: ModuleKind) -> Self {
        self.settings.module_kind = kind;
        self
    }

    /// What a [`Probe`](crate::probe::Probe) has found of the module and its tokens. Default: none, and the engine believes
    /// what they say of themselves.
    ///
    /// - Mechanisms that are listed and fail count as not offered: such a request is refused at once with
    ///   `MechanismUnavailable`, without a call, or runs by another mechanism where there is one for it.
    ///   [`Engine::tokens`](crate::Engine::tokens) does not show them.
    /// - [`Sessions::AUTO`] begins with the recommended number, and has no more than there were.
    /// - [`Copies::Auto`] follows what was measured, and measures only kinds of keys that are not in there.
    ///
    /// For whoever knows that the module promises too much, or wants the engine to be fast from the start. It is to be made
    /// anew when the module, the token's firmware or the network before it change. Building fails with `Configuration` if it is
    /// that of another module or model; another version is only warned of.
    #[must_use]
    pub fn module_profile(mut self, profile: ModuleProfile) -> Self {
        self.settings.module_profile = Some(ProfileOf::Given(Box::new(profile)));
        self
    }

    /// As [`Builder::module_profile`], from a file that is read when the engine is built.
    #[must_use]
    pub fn module_profile_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.module_profile = Some(ProfileOf::File(path.into()));
        self
    }

    /// Whether the module is finalised and initialised anew when it says that it is not initialised, or when none of its
    /// tokens comes back after five attempts. Default: yes.
    ///
    /// Some modules recover from the loss of their device or its server only so (clients of p11-kit, Thales Luna HA).
    /// It is done only while no session of this process is open with the module and nobody is inside it: a call that
    /// hangs keeps it from happening ([`Health::Stuck`](crate::Health::Stuck)). A module that another part of the process
    /// has initialised is never finalised. At most once a second, and ever more rarely, up to once in ten seconds, while it
    /// does not help; each token is logged in to again after it.
    ///
    /// Turn it off where other code of the process uses the module in a way that the engine cannot see: that code
    /// would lose its sessions.
    #[must_use]
    pub const fn module_reset(mut self, on: bool) -> Self {
        self.settings.module_reset = on;
        self
    }

    /// Whether a blocking caller without a deadline may run its request on its own thread, on an idle session. Default: yes.
    ///
    /// That is the fastest way, by microseconds; but a call that hangs in the module holds its caller for as long as it hangs,
    /// whatever the [hang limit](Builder::hang_limit). Without it every request is queued and run by a session's own
    /// thread: a hung one is answered at the hang limit, with `Hung`.
    #[must_use]
    pub const fn inline(mut self, on: bool) -> Self {
        self.settings.inline = on;
        self
    }

    /// Whether requests that wait for the same key share PKCS#11 calls where their mode allows it: ECB always, CTR and
    /// CBC for keys with [`Key::with_host_modes`](crate::Key::with_host_modes). Default: yes.
    ///
    /// Answers are the same either way: a token first shows it, once for each type and length of key, on a session key that
    /// is thrown away. Where it does not, or makes no such key, requests run one by one
    /// ([`MergeSnapshot::unproven`](crate::MergeSnapshot::unproven)). Without it every request is a call of its own, as
    /// some audits demand of a token's own log.
    #[must_use]
    pub const fn coalescing(mut self, on: bool) -> Self {
        self.settings.coalescing = on;
        self
    }

    /// Whether a session that runs ECB under one key again and again keeps the operation open, for a second at most,
    /// so that requests need no `C_EncryptInit` of their own. Default: yes.
    ///
    /// A key that another process destroys may then be used for that second longer.
    #[must_use]
    pub const fn holding(mut self, on: bool) -> Self {
        self.settings.holding = on;
        self
    }

    /// Whether keys get warm copies in the token's memory. Default: where a measurement shows that it pays.
    #[must_use]
    pub const fn copies(mut self, copies: Copies) -> Self {
        self.settings.copies = copies;
        self
    }

    /// Keys that the host may do CTR and CBC for: each named as for [`Engine::key`](crate::Engine::key), and treated as
    /// by [`Key::with_host_modes`](crate::Key::with_host_modes). Default: none; not with [`Builder::validated_only`].
    #[must_use]
    pub fn host_modes<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.settings.host_modes.extend(names.into_iter().map(Into::into));
        self
    }

    /// Whether only the module enciphers and deciphers with secret keys, as where only a validated module may. Default:
    /// no.
    ///
    /// [`Key::with_host_modes`](crate::Key::with_host_modes) is refused then, and [`Builder::host_modes`] fails the
    /// build: CTR and CBC run whole on the token, each request by a call of its own, which costs what host modes gain.
    /// ECB goes on sharing calls, for the token does all of it.
    ///
    /// It does not bear on the rest of what the host does, which uses no secret key: hashing and padding, padding that is taken
    /// off what RSA has decrypted, public keys (verification, encryption with RSA), comparing MACs, joining the two
    /// steps of a [`RetailMac`](crate::RetailMac), random IVs. A digest that was made elsewhere is signed by
    /// [`Key::sign_digest`](crate::Key::sign_digest).
    #[must_use]
    pub const fn validated_only(mut self, only: bool) -> Self {
        self.settings.validated_only = only;
        self
    }

    /// Whether AES-GCM goes through the functions for messages of PKCS#11 3.x, where the module has them and the token
    /// lists the mechanism for them. Default: yes.
    ///
    /// A session then keeps one Init open while it serves one key, for a second at most, so that an operation takes one
    /// call instead of two. IVs are drawn as ever. Turn it off where a module's functions for messages are not
    /// trusted; [`Snapshot::calls`](crate::Snapshot::calls) shows whether they are used.
    #[must_use]
    pub fn message_api(mut self, messages: bool) -> Self {
        self.settings.message_api = messages;
        self
    }

    /// Which outputs of tokens are checked before they are handed out. Default: none, for a sound device makes no wrong
    /// ones, and a check costs as much as an operation.
    ///
    /// [`VerifyOutputs::Always`] is for what must not leave wrong, such as a signature under a contract or the only
    /// copy of a record; [`VerifyOutputs::Sampled`] finds a device that errs often, at no cost that can be measured.
    /// A token that gives a wrong answer is taken out of service until
    /// [`Engine::readmit_token`](crate::Engine::readmit_token).
    #[must_use]
    pub const fn verify_outputs(mut self, which: VerifyOutputs) -> Self {
        self.settings.verify_outputs = which;
        self
    }

    /// Whether [`Engine::random`] may answer from a pool. Default: yes.
    ///
    /// The engine then asks a token for up to 8 KiB at once and keeps at most 16 KiB in memory; requests for up to 256
    /// bytes are answered from there, in a fraction of a microsecond instead of a call each. Each byte is given to one
    /// caller and wiped where it was; IVs are never taken from it. Longer requests, and those of another priority than
    /// the normal one that find too little, go to the token by themselves.
    ///
    /// Turn it off where random bytes may not lie in the host's memory before they are asked for, or where each
    /// request must be seen to reach a token.
    #[must_use]
    pub fn random_pool(mut self, pool: bool) -> Self {
        self.settings.random_pool = pool;
        self
    }

    /// Lets keys decrypt RSA with the padding of PKCS#1 v1.5. Default: refused with `NotPermitted`.
    ///
    /// For protocols that know nothing better. Errors and timing of the engine tell nothing of the padding; a
    /// service that answers differently to a refusal, in any way that its clients can see, gives the messages away
    /// all the same (RFC 8017, 7.2.2, note; Bleichenbacher 1998).
    #[must_use]
    pub fn allow_rsa_pkcs1_decryption(mut self) -> Self {
        self.settings.rsa_pkcs1_decryption = true;
        self
    }
}

impl Settings {
    /// What a profile says, which must be that of the module and these tokens.
    pub(crate) fn measured(&self, library: &Library, slots: &[Slot]) -> Result<Measured> {
        let read;
        let profile = match &self.module_profile {
            None => return Ok(Measured::default()),
            Some(ProfileOf::Given(profile)) => profile,
            Some(ProfileOf::File(path)) => {
                read = ModuleProfile::read(path)?;
                &read
            }
        };
        profile.check_is_of(library, slots)?;
        Ok(Measured::of(profile))
    }

    /// # Errors
    /// `Configuration`, if settings contradict each other.
    pub(crate) fn check(&self) -> Result<()> {
        if self.validated_only && !self.host_modes.is_empty() {
            return Err(Error::operator(ErrorKind::Configuration, VALIDATED_WITH_HOST_MODES));
        }
        Ok(())
    }
}

pub(crate) const VALIDATED_WITH_HOST_MODES: &str = "`validated_only` leaves no key to `host_modes`";

impl Builder<PathBuf, Vec<String>, PinSource> {
    pub(crate) fn into_parts(self) -> (PathBuf, Vec<String>, PinSource, Settings) {
        (self.module, self.tokens, self.pin, self.settings)
    }

    /// Loads the module, logs in to every token, opens the sessions and lists the keys.
    ///
    /// # Errors
    /// `Module`, `TokenNotFound` (naming the tokens present), `PinUnavailable`, `PinRefused`, `PinLocked`,
    /// `Configuration`.
    ///
    /// # Blocking
    /// Until every token has answered, at most a minute each; and as long as a person or a pipe takes to give the PIN.
    pub fn build(self) -> Result<Engine> {
        Engine::start(&self.module, &self.tokens, self.pin, self.settings)
    }
}
