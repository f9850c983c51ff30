//! The raw loop: what a program does that calls PKCS#11 by itself, one session per thread.

use std::sync::Arc;

use hsmux::{BaselineKey, BaselineSession, BaselineToken, Error};
use parking_lot::Mutex;

use super::{Baseline, Prepared, Work};
use crate::case::Op;
use crate::cell::{Cell, Window};
use crate::drive::closed_loop;
use crate::failure::Failure;
use crate::inputs::Inputs;

/// Sessions of a raw loop, each ready for one thread.
#[derive(Debug)]
pub struct Raw {
    inputs: Inputs,
    sessions: Vec<Mutex<BaselineSession>>,
    /// They keep the login and the copies of keys: after the sessions.
    _tokens: Arc<[BaselineToken]>,
}

impl Raw {
    /// Opens up to `sessions` sessions, spread evenly over tokens that all hold the key; fewer if a token gives
    /// no more.
    ///
    /// # Errors
    /// What the token answers to the first.
    ///
    /// # Blocking
    /// As long as the module takes.
    pub fn open(
        tokens: &Arc<[BaselineToken]>,
        inputs: &Inputs,
        key: Option<BaselineKey<'_>>,
        sessions: usize,
    ) -> Result<Self, Error> {
        let mut opened = Vec::new();
        for token in tokens.iter().cycle().take(sessions) {
            match token.session(inputs.case().op.raw_call(), key) {
                Ok(session) => opened.push(Mutex::new(session)),
                Err(error) if opened.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(Self { inputs: inputs.clone(), sessions: opened, _tokens: Arc::clone(tokens) })
    }

    /// What a thread does.
    fn worker(&self, thread: usize) -> impl FnMut(&[u8]) -> Result<(), Failure> {
        let case = self.inputs.case();
        // Held all the time, so the loop itself takes no lock.
        let mut session = self.sessions[thread].lock();
        let mut out = vec![0; case.output_len()];
        move |message: &[u8]| Ok(run_once(&mut session, case.op, message, &mut out).map(drop)?)
    }
}

impl Baseline for Raw {
    fn threads_max(&self) -> usize {
        self.sessions.len()
    }

    fn once(&self) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let Some(mut session) = self.sessions.first().map(Mutex::lock) else { return Ok(Default::default()) };
        let case = self.inputs.case();
        let (mut message, mut out) = (self.inputs.message(0), vec![0; case.output_len()]);
        let input = message.advance().to_vec();
        let len = run_once(&mut session, case.op, &input, &mut out)?;
        Ok((input, [session.iv(), &out[..len]].concat()))
    }

    fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    fn caller(&self, thread: usize) -> Work<'_> {
        Box::new(self.worker(thread))
    }

    fn run(&self, threads: usize, window: Window) -> Cell {
        closed_loop(threads.min(self.sessions.len()), &self.inputs, window, |thread| self.worker(thread))
    }
}

/// The work of one operation, with what the engine does on the host: the hash, and the DigestInfo.
fn run_once(session: &mut BaselineSession, op: Op, message: &[u8], out: &mut [u8]) -> Result<usize, Error> {
    session.run(Prepared::of(op, message).bytes(), out)
}
