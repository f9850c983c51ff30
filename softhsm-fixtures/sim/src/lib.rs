//! A simulated HSM: a PKCS#11 module (2.40 and 3.0) with set latency, crypto cores, limits and hangs.
//!
//! It has two faces. The `cdylib` can be loaded by any PKCS#11 program, and [`Loaded`] reads the counters of such
//! a copy; [`function_list`] and [`counters`] are for programs that link the crate. Fast hardware behind a network
//! cannot be had on a laptop; this is how software for it is tested.
//!
//! # Modes
//!
//! * **Plain**: real cryptography by RustCrypto, so that outputs can be checked with [`material`].
//! * **Null** (`null=1`): operations answer at once, with a fixed pattern of the right length. Nothing is
//!   encrypted, every signature of the right length is valid, and neither login nor parameters are checked. What
//!   RSA decrypts has 32 bytes, and what CBC decrypts has no padding that a host could take off.
//!   Everything else is as in the plain mode.
//! * **Forwarding** (`forward=PATH`): every call goes on to a real module; counters, limits, hangs and delays are
//!   put in front of it.
//!
//! # Configuration
//!
//! `key=value` pairs, separated by commas. They come from the first of: [`Loaded::configure`] (the symbol
//! `p11_sim_configure`), the text in `pReserved` of `C_Initialize`, the environment variable `P11_SIM`. A wrong
//! text makes `C_Initialize` answer `CKR_ARGUMENTS_BAD`, with a line on standard error. Those marked *live* can be
//! changed by `p11_sim_configure` while the module is in use; what the text does not name stays as it is.
//!
//! | key | default | meaning |
//! |---|---|---|
//! | `forward=PATH` | none | the module that every call is passed on to |
//! | `null=1` | 0 | no cryptography |
//! | `op_us=N` | 0 | *live*: microseconds, with up to three decimals, for which an operation occupies one core of its token: signing, verifying, encrypting, decrypting, random bytes, key generation; not Init, nor a query for a length, nor a call that is refused |
//! | `cores=N` | 0 | *live*: crypto cores of each token; 0 is any number. First come, first served |
//! | `call_us=N` | 0 | *live*: microseconds that every call takes to the device and back, half each way; occupies no core |
//! | `sessions=N` | 0 | *live*: sessions per token, beyond which there is `CKR_SESSION_COUNT`; 0 is no limit but that of the table, 4096 in all |
//! | `tokens=N` | 1 | tokens, up to 64, each a device of its own, labelled `sim-0`, `sim-1` ... |
//! | `pin=TEXT` | 1234 | the user PIN of every token |
//! | `pin_tries=N` | 3 | wrong PINs in a row that lock a token; 0 is any number. A lock outlives `C_Finalize`, as objects do, if the configuration stays the same |
//! | `keypad=1` | 0 | tokens have a protected authentication path, at which somebody types the right PIN: `C_Login` takes no PIN too |
//! | `holds_back=1` | 0 | encryption and decryption in parts hold the last block back until the next part or the end |
//! | `input_max=N` | 0 | most bytes that encryption and decryption take in one call; more is refused with `CKR_DATA_LEN_RANGE`. 0 is any number. Not in null mode |
//! | `interface=V` | 3.0 | `2.40` takes the interface of PKCS#11 3.0 away: `C_GetInterface` gives the old list only (if it is configured by then, which `pReserved` is not), no mechanism has flags for messages, their functions answer `CKR_FUNCTION_NOT_SUPPORTED` |
//! | `messages=N` | 1 | 0: the functions for messages answer `CKR_FUNCTION_NOT_SUPPORTED` although the mechanisms have their flags; 2: they make wrong tags and refuse to decrypt |
//! | `wrong=M` | none | what comes out wrong, separated by `;`. `ecb`: every block of ECB but the first of a call; `ecb-decrypt`, `ecb-parts`: the same in decryption, or in parts of an operation, only; `cbc`, `ctr`: these run under another IV than the one they are given, both ways, so that what is encrypted can be decrypted. Not in null mode |
//! | `hang=F:WHEN[@TOKEN]` | none | *live*: calls of function `F` that do not return until they are released. `WHEN` is a number, counted from when the rule is set, with `+` for every later one too, or a share, `0.1%`, which the seed and the number of the call decide. `F` may be `ops`: all calls by which operations run. With a token only its calls count. Several are separated by `;`; `hang=` takes all away |
//! | `fault=F:WHEN=WHAT[@TOKEN]` | none | *live*: calls that do not go as they should, as for hangs. `WHAT` is a code (`0x30`) that is answered while nothing is done; a code with `!` behind it, answered after all was done; `flip`, `short`, `repeat`: the output has a wrong bit, a byte too few, or is that of the thread's last call; `slow-US`: it takes so many microseconds longer; `session-lost`, `login-lost`: the device has forgotten the session or the login before the call; `removed`, `removed-MS`: the token goes away during the call, for so many milliseconds or until `removed=` puts it back; `dead`: as if somebody had finalised the module; `abort`, `segfault`; `hang` |
//! | `removed=T[;T]` | none | *live*: labels of the tokens that are not there; their sessions are closed. `removed=` puts all back |
//! | `throttle=N` | 0 | *live*: operations that a token runs at once, beyond which there is `CKR_FUNCTION_FAILED`, as from AWS CloudHSM; 0 is any number |
//! | `seed=N` | 0 | what keys and random bytes derive from |
//! | `keys=L[:KIND[-USE]][#V][@T+T]` | none | keys beside those below, separated by `;`: label, kind (`aes`, `hmac`, `des3`, `p256`, `p384`, `p521`, `ed25519`, `rsa2048`, `rsa4096`; `aes` if not said), what it is for if not for signing or encryption (`aes-mac`, `des3-mac`, `aes-wrap`, `rsa2048-decrypt`, `p256-agree` and their like), variant, labels of the tokens that hold it (all if not said). Keys of one label, kind and variant are the same on all tokens |
//! | `hide=M[@T+T]` | none | mechanisms, by number in hexadecimal (`0x1041`) or decimal, separated by `;`, that are not in the list and are refused with `CKR_MECHANISM_INVALID`, on the tokens of these labels (all if not said). With it the null mode is slower |
//!
//! As in `tokens=3,null=1,call_us=80,op_us=250,cores=16,keys=orders:p256@sim-0+sim-2;spare@sim-1`.
//!
//! # Keys
//!
//! Every token holds `rsa2048`, `rsa4096`, `p256`, `p384` (pairs), `aes256` and `hmac`, the same on all of them:
//! private, sensitive, not extractable, with a public object of the same label and id for pairs.
//! `C_GenerateKeyPair` gives out fixed RSA keys in turn; other keys it makes are new.
//!
//! # Mechanisms
//!
//! `CKM_RSA_PKCS`, `CKM_RSA_X_509` and `CKM_RSA_PKCS_OAEP` (no encryption: that needs no token), PSS, ECDSA and
//! PKCS#1 signatures over digests and over messages, Ed25519, HMAC and CMAC, AES in ECB, CBC, CTR and GCM, triple
//! DES in ECB and CBC, ECDH with and without the functions of X9.63, AES key wrap of secret keys. Only ECB comes in parts.
//! Messages (3.0): AES-GCM under IVs of the caller's own.
//!
//! # Time
//!
//! A call sleeps once, until the moment at which the device would have answered, reckoned from when it came; a
//! core is an entry in a schedule, so that hundreds of them can be simulated by two. What a call computes on this
//! host counts into its time. Waits end 12 to 15 µs late on a busy virtual machine with two processors
//! (half of them; `cargo run --release -p p11-sim --example cost`), never early; those below 3 µs are spun and end
//! 0.2 µs late. In null mode Init and one call take 11 ns together there, also with two threads. Each thread that has slept here keeps timers without slack.
//! Calls that hang occupy no core.

mod abi;
mod call;
mod clock;
mod config;
mod cores;
mod counters;
mod crypto;
mod device;
mod faults;
mod forward;
mod function;
mod hangs;
mod key;
mod loaded;
pub mod material;
mod mechanism;
mod null;
mod object;
mod rng;
mod rule;
mod sessions;
mod token;
mod work;

pub use abi::{
    C_GetFunctionList, C_GetInterface, C_GetInterfaceList, function_list, p11_sim_answers_of,
    p11_sim_calls_of, p11_sim_calls_on, p11_sim_concurrent_use, p11_sim_configure, p11_sim_hanging,
    p11_sim_release_hangs, p11_sim_reset_counters, p11_sim_wait_hanging,
};
pub use counters::{Counters, configure, counters, release_hangs};
pub use loaded::{LoadError, Loaded, cdylib_path};
