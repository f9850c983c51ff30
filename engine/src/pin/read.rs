//! Reading a PIN from each of its sources.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::examine::{PinExamination, PinFault};
use crate::error::{Error, ErrorKind, Result};

/// Longest PIN in bytes that a source may hold: far above what tokens take (SoftHSM2: 255), so that a wrong file
/// is not read to its end.
pub(super) const PIN_LEN_MAX: usize = 1024;

/// What others may do with a file: bits of its mode that must not be set.
#[derive(Clone, Copy)]
pub(super) struct Forbidden {
    mode: u32,
    remedy: &'static str,
}

/// Group and others may neither read nor write.
pub(super) const PRIVATE: Forbidden = Forbidden { mode: 0o066, remedy: "chmod 600" };

/// The group may read: see [`PinSource::Credential`](super::PinSource::Credential).
pub(super) const CREDENTIAL: Forbidden = Forbidden { mode: 0o026, remedy: "chmod 440" };

pub(super) fn file(path: &Path) -> Result<SecretString> {
    checked_file(path, PRIVATE)
}

pub(super) fn credential(name: &str) -> Result<SecretString> {
    match credential_path(name) {
        Some(path) => checked_file(&path, CREDENTIAL),
        None => Err(unavailable(NO_CREDENTIALS)),
    }
}

pub(super) const NO_CREDENTIALS: &str =
    "CREDENTIALS_DIRECTORY is not set: systemd sets it where a unit has LoadCredential=";

/// Where systemd puts a credential; none for a process that it gave none.
pub(super) fn credential_path(name: &str) -> Option<PathBuf> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty());
    directory.map(|directory| PathBuf::from(directory).join(name))
}

pub(super) fn env(name: &str) -> Result<SecretString> {
    let said = said_of_env(name);
    match env_value(name) {
        Ok(value) => pin(&said, &value),
        Err(fault) => Err(unavailable(&format!("{said}: {fault}"))),
    }
}

fn env_value(name: &str) -> Result<Zeroizing<Vec<u8>>, PinFault> {
    let value = std::env::var_os(name).ok_or_else(|| PinFault::Unreadable("not set".to_owned()))?;
    Ok(Zeroizing::new(value.into_vec()))
}

/// What is wrong with a variable as a source.
pub(super) fn examine_env(name: &str) -> PinExamination {
    let said = said_of_env(name);
    match env_value(name) {
        Ok(value) => PinExamination::new(said, Vec::new()).with_content(&value),
        Err(fault) => PinExamination::new(said, vec![fault]),
    }
}

fn said_of_env(name: &str) -> String {
    // A name that is none may be a PIN, taken for its source.
    let looks_like_a_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if looks_like_a_name { format!("environment, {name}") } else { "environment".to_owned() }
}

pub(super) fn fd(number: RawFd) -> Result<SecretString> {
    let said = format!("file descriptor {number}");
    let opened = File::open(format!("/dev/fd/{number}"));
    let bytes = read_to_end(&said, opened.map_err(|error| unavailable(&format!("{said}: {error}")))?)?;
    pin(&said, line(&bytes))
}

pub(super) fn prompt() -> Result<SecretString> {
    let said = "terminal";
    let typed = rpassword::prompt_password("PIN of the token: ");
    let typed = typed.map_err(|error| unavailable(&format!("{said}: {error}")))?;
    pin(said, &Zeroizing::new(typed.into_bytes()))
}

/// The path that the rest of a `file:` URI names; none if an escape in it is broken.
pub(super) fn percent_decoded(text: &str) -> Option<PathBuf> {
    let mut parts = text.split('%');
    let mut path = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(digits)?;
        path.push(u8::from_str_radix(digits, 16).ok()?);
        path.extend_from_slice(rest.as_bytes());
    }
    Some(OsString::from_vec(path).into())
}

fn checked_file(path: &Path, forbidden: Forbidden) -> Result<SecretString> {
    let said = said_of_file(path);
    let refused = |fault: &PinFault| unavailable(&format!("{said}: {fault}"));
    let (file, facts) = open(path).map_err(|fault| refused(&fault))?;
    match file_faults(&facts, forbidden).first() {
        Some(fault) => Err(refused(fault)),
        None => pin(&said, line(&read_to_end(&said, file)?)),
    }
}

fn said_of_file(path: &Path) -> String {
    // A word without a slash may be a PIN, taken for its source.
    let is_path = path.as_os_str().as_encoded_bytes().contains(&b'/');
    if is_path { path.display().to_string() } else { "the file".to_owned() }
}

fn open(path: &Path) -> Result<(File, Metadata), PinFault> {
    let cannot = |error: std::io::Error| PinFault::Unreadable(error.to_string());
    // Without waiting, where it is a pipe: that is refused later.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(cannot)?;
    // Of the opened file, so that nobody puts another in its place meanwhile.
    let facts = file.metadata().map_err(cannot)?;
    Ok((file, facts))
}

/// What is wrong with a file before it is read, the worst first.
fn file_faults(facts: &Metadata, forbidden: Forbidden) -> Vec<PinFault> {
    let is_anothers = ![0, rustix::process::geteuid().as_raw()].contains(&facts.uid());
    let is_open = facts.mode() & forbidden.mode != 0;
    let known = [
        (!facts.is_file(), PinFault::NotAFile),
        (is_anothers, PinFault::AnotherUsers),
        (is_open, PinFault::OpenToOthers { remedy: forbidden.remedy }),
    ];
    known.into_iter().filter_map(|(holds, fault)| holds.then_some(fault)).collect()
}

/// All that is wrong with a file as a source. Its content too, if it is a regular file.
pub(super) fn examine_file(path: &Path, forbidden: Forbidden) -> PinExamination {
    let said = said_of_file(path);
    let (file, facts) = match open(path) {
        Ok(opened) => opened,
        Err(fault) => return PinExamination::new(said, vec![fault]),
    };
    let examined = PinExamination::new(said.clone(), file_faults(&facts, forbidden));
    if !facts.is_file() {
        return examined;
    }
    match read_to_end(&said, file) {
        Ok(bytes) => examined.with_content(line(&bytes)),
        Err(error) => examined.with_fault(PinFault::Unreadable(error.to_string())),
    }
}

/// Everything there is, if it is not longer than a PIN.
fn read_to_end(said: &str, source: impl Read) -> Result<Zeroizing<Vec<u8>>> {
    // Room for all of it from the start: a vector that grows would leave pieces of the PIN behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(PIN_LEN_MAX + 2));
    let read = source.take(PIN_LEN_MAX as u64 + 2).read_to_end(&mut bytes);
    read.map_err(|error| unavailable(&format!("{said}: {error}")))?;
    Ok(bytes)
}

/// Without the newline that editors put at the end of a file.
fn line(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\n").unwrap_or(bytes)
}

/// PKCS#11 2.40, `C_Login`: a PIN is UTF-8.
fn pin(said: &str, bytes: &[u8]) -> Result<SecretString> {
    text(bytes).map(SecretString::from).map_err(|fault| unavailable(&format!("{said}: {fault}")))
}

/// The text of a PIN, or why it is none.
pub(super) fn text(bytes: &[u8]) -> Result<&str, PinFault> {
    match std::str::from_utf8(bytes) {
        _ if bytes.is_empty() => Err(PinFault::Empty),
        _ if bytes.len() > PIN_LEN_MAX => Err(PinFault::TooLong),
        Ok(pin) => Ok(pin),
        Err(_) => Err(PinFault::NotUtf8),
    }
}

fn unavailable(text: &str) -> Error {
    Error::operator(ErrorKind::PinUnavailable, text)
}
