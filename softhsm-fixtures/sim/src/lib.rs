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
//! changed by `p11_sim_configure` while the module is in use; what the text does not name stays as it is. A client that
//! initialises the module anew has them as they were at first, but for what [`Loaded::change`] (`p11_sim_change`) has said,
//! which holds from then on. [`Script`] makes such changes at set times.
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
//! | `pin=TEXT` | 1234 | the user PIN of every token, until `C_SetPIN` gives one of them another |
//! | `pin_tries=N` | 3 | wrong PINs in a row that lock a token; 0 is any number. A lock outlives `C_Finalize`, as objects do, if the configuration stays the same |
//! | `pin_log=FILE` | none | a file that gets a line for every `C_Login` and `C_SetPIN`, before anything becomes of the call: the token's label, and whether the PIN, or the old one, is `right` or `wrong`. Wrong tries are counted from it at `C_Initialize`, so that they outlive the process, however it ends; what other processes try later is not seen. Not where calls are forwarded |
//! | `store=DIR` | none | token objects and PINs live in this directory, and outlive the process; see *Store*. Not where calls are forwarded |
//! | `data=0` | 1 | there are no data objects: `C_CreateObject` answers `CKR_ATTRIBUTE_VALUE_INVALID` for them |
//! | `keypad=1` | 0 | tokens have a protected authentication path, at which somebody types the right PIN: `C_Login` takes no PIN too |
//! | `flags=BITS[@TOKEN]` | 0 | flags of `CK_TOKEN_INFO`, in hexadecimal (`0x10000`) or decimal, that are told the other way round, on the token of this label or on all; several are separated by `;`. Nothing else changes: a token that says its PIN is locked takes it |
//! | `holds_back=1` | 0 | encryption and decryption in parts hold the last block back until the next part or the end |
//! | `input_max=N` | 0 | most bytes that encryption and decryption take in one call; more is refused with `CKR_DATA_LEN_RANGE`. 0 is any number. Not in null mode |
//! | `own_iv=1` | 0 | `C_EncryptInit` for AES-GCM writes an IV of the module's own over the caller's, and that is used, as by AWS CloudHSM; 2: no mechanism heeds the IV that it is given, encrypting and decrypting, which shows in nothing but the ciphertext. Not in null mode, nor for messages |
//! | `interface=V` | 3.0 | `2.40` takes the interface of PKCS#11 3.0 away: `C_GetInterface` gives the old list only (if it is configured by then, which `pReserved` is not), no mechanism has flags for messages, their functions answer `CKR_FUNCTION_NOT_SUPPORTED` |
//! | `messages=N` | 1 | 0: the functions for messages answer `CKR_FUNCTION_NOT_SUPPORTED` although the mechanisms have their flags; 2: they make wrong tags and refuse to decrypt |
//! | `wrong=M` | none | what comes out wrong, separated by `;`. `ecb`: every block of ECB but the first of a call; `ecb-decrypt`, `ecb-parts`: the same in decryption, or in parts of an operation, only; `cbc`, `ctr`: these run under another IV than the one they are given, both ways, so that what is encrypted can be decrypted. Not in null mode |
//! | `hang=F:WHEN[@TOKEN][/KEY]` | none | *live*: calls that do not return until they are released; see *Faults*. Several are separated by `;`; `hang=` takes all away |
//! | `fault=F:WHEN=WHAT[@TOKEN][/KEY]` | none | *live*: calls that do not go as they should; see *Faults*. Several are separated by `;`; `fault=` takes all away, those of `faults=` included |
//! | `faults=F[:HANG_MS[:REMOVED_MS]]` | none | *live*: the rules of mix F, [`MIX_F`], with these times for hangs (500) and tokens that are away (100); `faults=` takes all away |
//! | `rules=RULES` | none | *live*: as `fault=`, but those of these rules that are in force already go on counting where `fault=` lets them begin anew: for rules that are added and taken away one by one |
//! | `slower=N[@TOKEN]` | 1 | *live*: `op_us` and `call_us` count so many times, up to a million with three decimals, on the token of this label or on all. Several are separated by `;` and multiply, up to a million; `slower=` takes all away. Cores are occupied for as long, a day at most |
//! | `stall=MS[@TOKEN]` | none | *live*: from now on, for so many milliseconds, an hour at most, no call to the device, or to the token of this label, begins, nor does one return: those that come meanwhile begin at the end, those that are inside return then. Several are separated by `;`; 0 ends one, `stall=` all |
//! | `removed=T[;T]` | none | *live*: labels of the tokens that are not there; their sessions are closed. `removed=` puts all back |
//! | `throttle=N` | 0 | *live*: operations that a token runs at once, beyond which there is `CKR_FUNCTION_FAILED`, as from AWS CloudHSM; 0 is any number |
//! | `reuse=WHAT[;WHAT]` | none | numbers that come again as soon as they are free: `sessions`, `objects`; see *Stale numbers* |
//! | `count_executions=N` | 0 | *live*: executions are counted by input, of N different ones at most; see *Executions*. 0 counts none and keeps what is counted |
//! | `stamped=1` | 0 | what `C_Sign` is given begins with the moment until which the call is to begin, in nanoseconds of the monotonic clock (eight bytes, the highest first); `Loaded::late` counts those that begin later. Not in null mode |
//! | `seed=N` | 0 | what keys and random bytes derive from, and which calls a share of them is; `process` is a number that no other process has, for those that share a store and one configuration |
//! | `keys=L[:KIND[-USE]][#V][@T+T]` | none | keys beside those below, separated by `;`: label, kind (`aes`, `hmac`, `des3`, `p256`, `p384`, `p521`, `ed25519`, `rsa2048`, `rsa4096`; `aes` if not said), what it is for if not for signing or encryption (`aes-mac`, `des3-mac`, `aes-wrap`, `rsa2048-decrypt`, `p256-agree` and their like), variant, labels of the tokens that hold it (all if not said). Keys of one label, kind and variant are the same on all tokens |
//! | `hide=M[@T+T]` | none | mechanisms, by number in hexadecimal (`0x1041`) or decimal, separated by `;`, that are not in the list and are refused with `CKR_MECHANISM_INVALID`, on the tokens of these labels (all if not said). With it the null mode is slower |
//!
//! As in `tokens=3,null=1,call_us=80,op_us=250,cores=16,keys=orders:p256@sim-0+sim-2;spare@sim-1`.
//!
//! # Faults
//!
//! A rule says which calls it counts, which of those it is about, and what becomes of them: `C_Sign:1%=flip@sim-1/orders`.
//! Several rules may be about one call and add up, as `C_Sign:1=hang-50;C_Sign:1=0x30` do: it hangs, and then answers the
//! code. A call that rules refuse in two ways is refused as the last of them says.
//!
//! `F` is a function, or `ops`: all calls by which operations run; `inits`: those of them that only name the key and the
//! mechanism; `runs`: the others of them; `setup`: `C_OpenSession`, `C_Login`, `C_FindObjectsInit`, `C_FindObjects`,
//! `C_GetAttributeValue`, `C_GetSessionInfo` and `C_GetTokenInfo`.
//!
//! `WHEN` is a number, counted from when the rule is set, with `+` for every later one too, or a share, `0.1%`, with up
//! to four decimals, which the seed, the rule's place and the number of the call decide.
//!
//! With `@TOKEN`, a label, only calls on that token count; with `@TOKEN/KEY` or `@/KEY` only those with that key, which is
//! a label, or `0x` and an id in hexadecimal. A call has the key, or other object, that it names, as
//! `C_SignInit` and `C_UnwrapKey` do, or the key that the call named by which its operation began. Of one that began before
//! any rule was set nobody knows the key. In front of another module the key's names are asked for at every such call.
//!
//! `WHAT` is one of these. Waits are at most an hour.
//!
//! | what | becomes of the call |
//! |---|---|
//! | `0x30` or `48` | it answers this code and does nothing; its operation is over, but for `CKR_BUFFER_TOO_SMALL`. In front of another module it runs there all the same: nothing else ends the operation |
//! | `0x30!` | it does all that it should and then answers this code |
//! | `flip`, `short`, `long`, `repeat` | the output has a wrong bit; it is said to be a byte shorter, or longer, than it is; it is that of the thread's last call |
//! | `slow-US` | it takes so many microseconds longer |
//! | `slow-LO..HI` | any number between the two, each as likely |
//! | `slow-exp-US` | exponentially distributed, with this mean |
//! | `slow-tail-US` | a long tail (Pareto, of shape 1): at least so many; one in ten takes ten times that or more, one in a hundred a hundred times, none more than a thousand times |
//! | `xN` | it takes N times the configured `call_us` and, if it is work, `op_us`; N times its own time if neither is configured. The core is free meanwhile |
//! | `hang` | it does not return until it is released, and runs then; as `hang=`, but for [`Loaded::release_hangs`], which leaves the rule in force |
//! | `hang-MS` | it hangs for so many milliseconds at most, and runs then, if its session is still there: a late return |
//! | `hang!`, `hang-MS!` | it runs at once and then hangs so. Its output is written when it returns, even if the session has been closed meanwhile; it answers `CKR_DEVICE_REMOVED` then |
//! | `late-MS` | it runs, answers `CKR_DEVICE_ERROR`, or the code of another rule with `!`, and a thread of the module writes its output so many milliseconds **after** it has returned. See below |
//! | `session-lost`, `login-lost` | the device has forgotten the session or the login before the call |
//! | `removed`, `removed-MS` | the token goes away during the call, for so many milliseconds or until `removed=` puts it back |
//! | `dead` | as if somebody had finalised the module |
//! | `abort`, `segfault` | the process ends |
//!
//! Outputs are those of signing, encryption and decryption, in one call, in parts and by messages; random bytes, wrapped
//! keys and handles come out right and in time. `hang!` hangs calls without an output too.
//!
//! **Buffers.** As the standard has it, a caller's buffer is the module's until the call returns. A call that hangs has not
//! returned, so what `hang-MS`, `hang!` and `hang-MS!` write late is right, and whoever gives such a call up must leave its
//! buffers alone for good; an address sanitiser shows whether it does. `late-MS` breaks the standard: it is undefined
//! behaviour for every caller that has freed the buffer or uses it for something else, as all do that trust an error, and
//! happens only where a rule says so. Drivers that let a device write to memory have had this fault.
//!
//! All of it works in front of another module too, as far as that has the function. There a wrong PIN is counted by
//! that module: `pin_tries=` and the flags of the PIN are those of the simulator's own tokens.
//!
//! # Stale numbers
//!
//! Without `reuse=` no session or object has a number that another one had, so that every call with an old number is
//! refused and counted: [`Loaded::stale_sessions`], [`Loaded::stale_objects`]. (In null mode, objects of the same token
//! are not looked up.) A caller finds some losses out by such a call only, so that these are 0 in a sound program while
//! nothing is lost.
//!
//! With `reuse=sessions` a session has the lowest number that is free, and with `reuse=objects` so has an object; then a stale
//! number is one of somebody else. The interface passes the number alone, so that the simulator cannot count such calls,
//! and serves them: what they do shows in the outputs. After every logout, loss of the login, removal and `C_Finalize`,
//! every object has the number of another of its class and type, if there is one (with the keys `a` and `b` of one kind,
//! each has the other's), so that a stale handle signs with a wrong key. Sessions keep the number apart from
//! what they are: a call that hangs in a session that was closed does nothing to the next one of its number, and objects
//! and random bytes of sessions do not come again. In front of another module only sessions can be numbered anew.
//!
//! Also counted, apart from what rules answer: [`Loaded::concurrent_use`], two threads in a session;
//! [`Loaded::active_at_init`], an operation that begins in a session in which another one has not ended, so that whoever
//! had the session before left it dirty; [`Loaded::finalised_inside`], calls that `C_Finalize` finds inside the module.
//!
//! # Executions
//!
//! With `count_executions=N` each call that has signed, verified, encrypted or decrypted something, in one call or by a
//! message, counts for its function, key (label and id, on whatever token) and input, also if the reply is lost; so
//! does each call that has made an object, with the object's label as its input. [`Loaded::executions`] says how often an
//! input ran; [`Loaded::executed_more_than`] how many ran more often than that. Inputs that the callers make different
//! stand for requests; what a client signs of its own accord, as to see whether a key is still the same, has an input
//! too. Requests that are put together into one call (ECB) are one input, and parts of an operation are none: executions
//! of these cannot be told by request. Inputs are kept as hashes, some 50 bytes for each; executions of inputs beyond N
//! are counted as [`Loaded::executions_forgotten`] only.
//!
//! # Objects
//!
//! Every token holds the keys `rsa2048`, `rsa4096`, `p256`, `p384` (pairs), `aes256` and `hmac`, the same on all of them:
//! private, sensitive, not extractable, with a public object of the same label and id for pairs.
//! `C_GenerateKeyPair` gives out fixed RSA keys in turn; other keys it makes are new.
//!
//! | class | made by | own attributes |
//! |---|---|---|
//! | `CKO_SECRET_KEY`: AES, triple DES, generic and HMAC | `C_CreateObject`, `C_GenerateKey`, `C_UnwrapKey`, `C_DeriveKey` | `CKA_VALUE`, `CKA_VALUE_LEN` (none for triple DES) |
//! | `CKO_PRIVATE_KEY`: RSA of 2048 to 4096 bits, P-256, P-384, P-521, Ed25519 | `C_GenerateKeyPair`, `C_UnwrapKey` | `CKA_EC_PARAMS` and `CKA_VALUE`, or the numbers of RSA |
//! | `CKO_PUBLIC_KEY`: the same | `C_CreateObject`, `C_GenerateKeyPair` | `CKA_EC_PARAMS` and `CKA_EC_POINT` (in an OCTET STRING), or `CKA_MODULUS`, `CKA_MODULUS_BITS` and `CKA_PUBLIC_EXPONENT` |
//! | `CKO_DATA`, private unless the template says otherwise | `C_CreateObject` | `CKA_APPLICATION`, `CKA_OBJECT_ID`, `CKA_VALUE`; nothing else is taken |
//!
//! All have `CKA_LABEL`, `CKA_TOKEN` (false), `CKA_PRIVATE`, `CKA_MODIFIABLE`, `CKA_COPYABLE` and `CKA_DESTROYABLE` (true);
//! what the last three forbid answers `CKR_ACTION_PROHIBITED`. Keys have `CKA_ID`, `CKA_START_DATE`, `CKA_END_DATE` and
//! `CKA_ALLOWED_MECHANISMS` too, which are empty if the template has none.
//!
//! * **Allowed mechanisms** are enforced at every Init, wrap, unwrap and derivation: another one answers
//!   `CKR_MECHANISM_INVALID`. An empty list forbids nothing, as in SoftHSM2. In null mode Init looks no key up.
//! * **Dates** are kept and shown, and nothing else: "for reference only" (PKCS#11 2.40, 4.7).
//! * **`C_SetAttributeValue`** changes the label of everything; id and dates of keys; application, object id and value of
//!   data; and makes a key sensitive or not extractable, never the other way (`CKR_TEMPLATE_INCONSISTENT`). All else is
//!   `CKR_ATTRIBUTE_READ_ONLY`.
//! * **Unwrapped keys** are extractable unless the template says otherwise, and not `CKA_LOCAL`, `CKA_ALWAYS_SENSITIVE` or
//!   `CKA_NEVER_EXTRACTABLE` (`C_UnwrapKey`); derived keys have the last two from their base (curves, 2.3.5).
//! * **`C_SetPIN`** sets the user PIN of one token, of 4 to 64 bytes, in a read/write session, logged in or not. The old PIN
//!   takes a try as for `C_Login`, and the login stays as it is. Nobody types a new one at a keypad: a call without both
//!   answers `CKR_ARGUMENTS_BAD`.
//!
//! # Store
//!
//! With `store=DIR` every token has a folder in `DIR` under its label. Each token object that is made is a file there, in
//! the clear, as the PIN is that was set last; the keys that every token has from the start, those of `keys=` and objects of
//! sessions are in memory alone, and so is what is done to them. The module makes what is missing of the directory.
//!
//! A file is written aside and renamed, and removed in one step: whatever ends the process, at whatever moment, leaves each
//! object wholly there, as it was before the call or after it, or wholly absent. `C_GenerateKeyPair` makes two files, that
//! of the private key first: an end between them leaves that one alone, as on real tokens. Nothing is forced to the disk,
//! so that this is not so for a loss of power. A file that somebody else has damaged makes calls answer `CKR_DEVICE_ERROR`,
//! with a line on standard error.
//!
//! Any number of processes (and copies of the module in one) share a directory. What one of them makes, changes or destroys
//! the others find at their next `C_FindObjects`, `C_GetAttributeValue` or other use of a handle; that of an object which is
//! gone answers `CKR_OBJECT_HANDLE_INVALID` or `CKR_KEY_HANDLE_INVALID`. An operation that has begun ends. (In null mode
//! operations look no key up.) Handles are each process's own; an object keeps its handle when another process changes it. A
//! PIN that one sets counts for the others' next `C_Login` and `C_SetPIN`; logins, wrong tries and locks are each process's
//! own (but see `pin_log=`). A process that is stopped while it writes holds the others up until it goes on or ends. To know of changes costs a call a look at the folder's time, or at the names in it for three
//! seconds after a change.
//!
//! # Mechanisms
//!
//! `CKM_RSA_PKCS`, `CKM_RSA_X_509` and `CKM_RSA_PKCS_OAEP` (no encryption: that needs no token), PSS, ECDSA and
//! PKCS#1 signatures over digests and over messages, Ed25519, HMAC and CMAC, AES in ECB, CBC, CTR and GCM, triple
//! DES in ECB and CBC, ECDH with and without the functions of X9.63. AES key wrap, bare and padded, of secret keys, and of
//! private ones as PKCS#8; `CKM_AES_KEY_WRAP_PAD` pads as `CKM_AES_KEY_WRAP_KWP` does (RFC 5649), as in SoftHSM2. Only ECB
//! comes in parts. Messages (3.0): AES-GCM under IVs of the caller's own.
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
mod changes;
mod clock;
mod config;
mod cores;
mod counters;
mod crypto;
mod device;
mod executions;
mod faults;
mod forward;
mod function;
mod hangs;
mod key;
mod loaded;
pub mod material;
mod mechanism;
mod mix;
mod null;
mod object;
mod objects;
mod rng;
mod rule;
mod script;
mod sessions;
mod stalls;
mod stamps;
mod store;
mod token;
mod what;
mod work;

pub use abi::{
    C_GetFunctionList, C_GetInterface, C_GetInterfaceList, function_list, p11_sim_active_at_init,
    p11_sim_answers_of, p11_sim_calls_of, p11_sim_calls_on, p11_sim_change, p11_sim_concurrent_use,
    p11_sim_configure, p11_sim_executed_more_than, p11_sim_executions, p11_sim_executions_forgotten,
    p11_sim_finalised_inside, p11_sim_hanging, p11_sim_late, p11_sim_late_writes, p11_sim_latest_ns,
    p11_sim_now_ns, p11_sim_release_hangs, p11_sim_reset_counters, p11_sim_stale_objects,
    p11_sim_stale_sessions, p11_sim_wait_hanging,
};
pub use counters::{Counters, configure, counters, release_hangs};
pub use loaded::{LoadError, Loaded, MODULE_VARIABLE, cdylib_path, module_path};
pub use mix::{MIX_F, mix_f};
pub use script::{Happened, Playing, Script, ScriptError, Simulated};
