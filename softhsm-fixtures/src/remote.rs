//! A module behind p11-kit's server: a PKCS#11 module whose other half is a process that can be killed.

use std::ffi::{OsStr, OsString};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{kill_process_group, Pid, Signal};

use crate::error::Error;

/// A server of a module's tokens, and the client's module that speaks to it. The server ends when this is dropped.
///
/// A connection is served by a child of the server, so that what is done to it is done to its process group. Each child loads the
/// module anew (p11-kit 0.24.1): two clients share its tokens as two processes do that load it themselves. After a
/// connection is gone the client (p11-kit 0.24.1) answers `CKR_DEVICE_ERROR` to every call, whether or not the server is
/// there again, until it is finalised and initialised; initialised without a server it has no slots.
#[derive(Debug)]
pub struct RemoteModule {
    provider: PathBuf,
    client: PathBuf,
    folder: tempfile::TempDir,
    /// What the server has in its environment besides this process's own.
    env: Vec<(&'static str, OsString)>,
    server: Option<Child>,
}

/// How long a server may take to listen.
const START_MAX: Duration = Duration::from_secs(30);

impl RemoteModule {
    /// Starts a server for the tokens of this module, or `None`, said aloud, if p11-kit is not installed. What the module
    /// reads from the environment it finds there.
    ///
    /// It sets `P11_KIT_SERVER_ADDRESS`, which the client reads: call it before other threads read the environment, and
    /// once in a process.
    ///
    /// # Panics
    /// If p11-kit is missing and `HSMUX_REQUIRE_P11KIT=1`, or if it is there and does not work.
    pub fn for_tests(provider: &Path) -> Option<Self> {
        Self::or_said_aloud(Self::begin(provider))
    }

    /// As [`RemoteModule::for_tests`], for other processes: they are to have [`RemoteModule::address`] in their environment, as
    /// the server has `env` in its own. A process may have several.
    ///
    /// # Panics
    /// As [`RemoteModule::for_tests`].
    pub fn for_others(provider: &Path, env: Vec<(&'static str, OsString)>) -> Option<Self> {
        Self::or_said_aloud(Self::begin_at(provider, env))
    }

    #[expect(clippy::panic, reason = "a fixture that cannot be made fails its test")]
    fn or_said_aloud(begun: Result<Option<Self>, Error>) -> Option<Self> {
        let missing = "p11-kit is missing: install the packages p11-kit and p11-kit-modules";
        match begun {
            Ok(Some(remote)) => Some(remote),
            Ok(None) => {
                assert!(
                    std::env::var_os("HSMUX_REQUIRE_P11KIT").is_none_or(|value| value != "1"),
                    "{missing}"
                );
                eprintln!("SKIPPED: {missing}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The client's module.
    pub fn client(&self) -> &Path {
        &self.client
    }

    /// What `P11_KIT_SERVER_ADDRESS` is to say where the client is loaded.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    /// Starts a server where the last one listened.
    ///
    /// # Errors
    /// `File` if it cannot be started; `Other` if it does not listen in half a minute.
    pub fn start(&mut self) -> Result<(), Error> {
        let socket = self.socket();
        // A server that was killed leaves its socket behind, and the next one does not take its place.
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut server = Command::new("p11-kit");
        server.args([OsStr::new("server"), OsStr::new("-f"), OsStr::new("-n"), socket.as_os_str()]);
        server.args([OsStr::new("--provider"), self.provider.as_os_str(), OsStr::new("pkcs11:")]);
        server.envs(self.env.iter().map(|(name, value)| (name, value)));
        server.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        self.server = Some(server.spawn()?);
        let step = Duration::from_millis(1);
        let looks = START_MAX.as_millis() / step.as_millis();
        let listens = (0..looks).any(|_| {
            let listens = UnixStream::connect(&socket).is_ok();
            if !listens {
                std::thread::park_timeout(step);
            }
            listens
        });
        if listens {
            Ok(())
        } else {
            Err(Error::Other("p11-kit's server does not listen".into()))
        }
    }

    /// Kills the server and what serves its connections, as nothing can prevent it.
    ///
    /// # Errors
    /// `Other` if there is none, or what serves its connections cannot be signalled: the server itself has ended all the same.
    pub fn kill(&mut self) -> Result<(), Error> {
        let signalled = self.signal(Signal::KILL);
        if let Some(mut server) = self.server.take() {
            // Whatever became of the signal to all, this one ends and is waited for: no zombie stays.
            server.kill()?;
            server.wait()?;
        }
        signalled
    }

    /// Has the server stand still, with everything that serves its connections.
    ///
    /// # Errors
    /// `Other` if there is none.
    pub fn pause(&self) -> Result<(), Error> {
        self.signal(Signal::STOP)
    }

    /// Has it go on.
    ///
    /// # Errors
    /// `Other` if there is none.
    pub fn resume(&self) -> Result<(), Error> {
        self.signal(Signal::CONT)
    }

    fn begin(provider: &Path) -> Result<Option<Self>, Error> {
        static BEGUN: AtomicBool = AtomicBool::new(false);
        if find_client().is_some() && BEGUN.swap(true, Ordering::Relaxed) {
            return Err(Error::StartedBefore);
        }
        let begun = Self::begin_at(provider, Vec::new())?;
        if let Some(remote) = &begun {
            std::env::set_var("P11_KIT_SERVER_ADDRESS", remote.address());
        }
        Ok(begun)
    }

    fn begin_at(provider: &Path, env: Vec<(&'static str, OsString)>) -> Result<Option<Self>, Error> {
        let Some(client) = find_client() else { return Ok(None) };
        let folder = tempfile::Builder::new().prefix("p11-kit-").tempdir()?;
        let mut remote = Self { provider: provider.to_owned(), client, folder, env, server: None };
        match remote.start() {
            Err(Error::File(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            started => started.map(|()| Some(remote)),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        let none = || Error::Other("there is no server".into());
        let server = self.server.as_ref().ok_or_else(none)?;
        kill_process_group(Pid::from_child(server), signal)
            .map_err(|error| Error::Other(format!("the server cannot be signalled: {error}")))
    }
}

impl Drop for RemoteModule {
    fn drop(&mut self) {
        // One that is gone needs no end.
        let _ended = self.kill();
    }
}

/// `P11_KIT_CLIENT_MODULE` if it is set, else where distributions put it.
fn find_client() -> Option<PathBuf> {
    const KNOWN: [&str; 4] = [
        "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so",
        "/usr/lib/aarch64-linux-gnu/pkcs11/p11-kit-client.so",
        "/usr/lib64/pkcs11/p11-kit-client.so",
        "/usr/lib/pkcs11/p11-kit-client.so",
    ];
    match std::env::var_os("P11_KIT_CLIENT_MODULE") {
        Some(named) if !named.is_empty() => Some(named.into()),
        _ => KNOWN.iter().map(PathBuf::from).find(|path| path.is_file()),
    }
    .filter(|path| path.is_file())
}
