//! Ending a run before its input ends: on a signal, or because the output has nobody to go to.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::exit::Exit;

/// Whether the run is to end, and a file to poll that becomes readable when it is.
///
/// The flags carry no other data, so their orderings are those that `signal-hook` uses; the sockets wake whoever
/// polls.
#[derive(Debug)]
pub(crate) struct Stop {
    /// Set by the signal's handler.
    interrupted: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
    /// Set by a thread of ours.
    asked: AtomicBool,
    wake: UnixStream,
    woken: UnixStream,
}

impl Stop {
    /// Of a run that no signal ends in order.
    pub(crate) fn new() -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let (interrupted, terminated) = (Arc::default(), Arc::default());
        Ok(Self { interrupted, terminated, asked: AtomicBool::new(false), wake, woken })
    }

    /// From now on SIGINT and SIGTERM ask for the end, and after one of them either ends the process at once.
    pub(crate) fn on_signals(&self) -> io::Result<()> {
        let armed = Arc::new(AtomicBool::new(false));
        for (signal, seen) in [(SIGINT, &self.interrupted), (SIGTERM, &self.terminated)] {
            // Handlers run in this order: the first signal finds `armed` unset and sets it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&armed))?;
            flag::register(signal, Arc::clone(&armed))?;
            flag::register(signal, Arc::clone(seen))?;
            low_level::pipe::register(signal, self.wake.try_clone()?)?;
        }
        Ok(())
    }

    /// Asks for the end.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        // If the socket is full, there is enough in it to wake.
        let _ = (&self.wake).write(&[0]);
    }

    /// Whether the end was asked for.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst) || self.signal().is_some()
    }

    /// The exit code of the signal that asked, if one did.
    pub(crate) fn signal(&self) -> Option<Exit> {
        if self.interrupted.load(Ordering::SeqCst) {
            return Some(Exit::Interrupted);
        }
        self.terminated.load(Ordering::SeqCst).then_some(Exit::Terminated)
    }

    /// Empties what wakes, after a wake-up that was none.
    pub(crate) fn clear(&self) {
        let _ = (&self.woken).read(&mut [0; 64]);
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}
