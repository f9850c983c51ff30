//! The way of a probe, stage by stage.

use std::sync::mpsc::Sender;
use std::time::Duration;

use super::found::ProbeStage;
use super::profile::ModuleProfile;
use super::workbench::Workbench;
use super::{Progress, Stop, copies, costs, gcm, limits, mechanisms, sessions};
use crate::clock::{Time, now};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::pkcs11::forked;

/// What the thread that probes says.
pub(super) enum Said {
    Progress(Progress),
    Done(Box<Result<ModuleProfile>>),
}

/// What the probe was asked for.
#[derive(Clone, Copy)]
pub(super) struct Wishes {
    /// Sessions, as the token tells.
    pub(super) told: Option<u64>,
    pub(super) sessions_max: usize,
    pub(super) time_limit: Duration,
    pub(super) token_keys: bool,
}

/// A probe under way, on a thread of its own.
pub(super) struct Course {
    bench: Workbench,
    said: Sender<Said>,
    stop: Stop,
    wishes: Wishes,
    profile: ModuleProfile,
}

/// The parts that the time limit is cut into, of which a stage may take some.
const PARTS: u32 = 12;

/// Signatures and MACs by which sessions are measured: the first that works.
const SIGNERS: [&str; 5] =
    ["sign-ecdsa-p256", "sign-hmac-sha256", "sign-rsa-pkcs1", "sign-ed25519", "sign-aes-cmac"];

/// Those that take messages of any length.
const OF_MESSAGES: [&str; 4] =
    ["sign-hmac-sha256", "sign-aes-cmac", "sign-ecdsa-sha256", "sign-rsa-pkcs1-sha256"];

impl Course {
    pub(super) fn new(
        bench: Workbench,
        (said, stop): (Sender<Said>, Stop),
        wishes: Wishes,
        profile: ModuleProfile,
    ) -> Self {
        Self { bench, said, stop, wishes, profile }
    }

    /// Goes through all stages; keys and sessions are gone when it returns.
    pub(super) fn run(mut self) -> Result<ModuleProfile> {
        for stage in ProbeStage::ALL {
            if forked() {
                return Err(Error::new(ErrorKind::Forked, Retry::Never, Outcome::NotDone));
            }
            self.bench.is_cut = false;
            if now() >= self.bench.until || !self.stage(stage)? || self.bench.is_cut {
                self.profile.not_reached.push(stage);
            }
        }
        Ok(self.profile)
    }

    /// False if there was no time for it; whether there was too little is said by the workbench.
    fn stage(&mut self, stage: ProbeStage) -> Result<bool> {
        let wishes = self.wishes;
        let until = self.bench.within(wishes.time_limit / PARTS * parts(stage));
        let step = step(&self.said, &self.stop, stage);
        let plain = |done, of| step(done, of, stage.as_str());
        let (bench, profile) = (&mut self.bench, &mut self.profile);
        match stage {
            ProbeStage::Mechanisms => {
                let (found, is_whole) = mechanisms::try_all(bench, until, step)?;
                profile.mechanisms = found;
                return Ok(is_whole);
            }
            ProbeStage::Gcm => {
                plain(0, 1)?;
                profile.gcm = gcm::look(bench, &profile.mechanisms)?;
                if let Some(found) = &profile.gcm {
                    gcm::condemn(found, &mut profile.mechanisms);
                }
            }
            ProbeStage::Sessions => {
                profile.sessions = sessions::count(bench, wishes.told, wishes.sessions_max, until, plain)?;
                return Ok(profile.sessions.is_some());
            }
            ProbeStage::Costs | ProbeStage::Scaling | ProbeStage::Copies | ProbeStage::Limits => {
                return measure(bench, profile, (stage, wishes), until, plain);
            }
        }
        Ok(true)
    }
}

/// The stages that use a signature that was found to work. Where nothing signs there is nothing to be measured.
fn measure(
    bench: &mut Workbench,
    profile: &mut ModuleProfile,
    (stage, wishes): (ProbeStage, Wishes),
    until: Time,
    plain: impl Fn(usize, usize) -> Result<()>,
) -> Result<bool> {
    match stage {
        ProbeStage::Costs => {
            let signer = bench.signer(&SIGNERS, &profile.mechanisms);
            profile.costs = costs::measure(bench, signer.as_ref(), &profile.mechanisms, until, plain)?;
        }
        ProbeStage::Scaling => {
            let Some(signer) = bench.signer(&SIGNERS, &profile.mechanisms) else { return Ok(true) };
            profile.scaling = sessions::scale(bench, &signer, until, plain)?;
            return Ok(profile.scaling.is_some());
        }
        ProbeStage::Copies => {
            plain(0, 1)?;
            let Some(signer) = bench.signer(&SIGNERS, &profile.mechanisms) else { return Ok(true) };
            profile.copies = copies::look(bench, &signer, wishes.token_keys, until)?;
            return Ok(profile.copies.is_some());
        }
        ProbeStage::Limits => {
            plain(0, 1)?;
            let signer = bench.signer(&SIGNERS, &profile.mechanisms);
            let messages = bench.signer(&OF_MESSAGES, &profile.mechanisms);
            profile.limits = Some(limits::look(bench, messages.as_ref(), signer.as_ref(), until)?);
        }
        ProbeStage::Mechanisms | ProbeStage::Gcm | ProbeStage::Sessions => {}
    }
    Ok(true)
}

/// Tells of a step, unless the probe is to end before it.
fn step(
    said: &Sender<Said>,
    stop: &Stop,
    stage: ProbeStage,
) -> impl Fn(usize, usize, &'static str) -> Result<()> {
    move |done, of, what| {
        let told = said.send(Said::Progress(Progress { stage, what, done, of }));
        // Who does not listen any more does not want to know the rest either.
        if told.is_err() || stop() { Err(stopped()) } else { Ok(()) }
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Draining, Retry::Never, Outcome::NotDone)
        .because("the probe was stopped".to_owned())
}

/// How much of the time a stage may take: keys are made in the first.
const fn parts(stage: ProbeStage) -> u32 {
    match stage {
        ProbeStage::Mechanisms => 6,
        ProbeStage::Sessions | ProbeStage::Costs | ProbeStage::Scaling | ProbeStage::Limits => 2,
        ProbeStage::Gcm | ProbeStage::Copies => 1,
    }
}
