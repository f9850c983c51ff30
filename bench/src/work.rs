//! What the callers of a profile do: the next piece of work, on an engine.

use std::sync::Arc;

use hsmux::{Engine, Error, Operation, Priority, Request};

use crate::ask::{Ask, Asks};
use crate::case::Case;
use crate::dice::Dice;
use crate::failure::Failure;
use crate::inputs::{Inputs, Scratch};
use crate::profile::{Deadline, Draw, Mix, Profile, Size};

/// Everything that the callers of a run share.
#[derive(Debug)]
pub struct Works {
    mix: Mix,
    works: Vec<Work>,
}

/// One operation of a mix.
#[derive(Debug)]
struct Work {
    case: Case,
    /// By key.
    asks: Vec<Asks>,
    /// What they are given, by key and within that by size: several where the token decrypts what was sealed before the run.
    inputs: Vec<Vec<Inputs>>,
    priority: Priority,
    deadline: Deadline,
}

/// One caller: what it draws, and where it makes its messages.
#[derive(Debug)]
pub(crate) struct Hands {
    dice: Dice,
    scratch: Scratch,
    out: Vec<u8>,
}

/// Sizes for which ciphertexts are sealed before a run; what is drawn is rounded up to one of them.
const SEALED_SIZES: usize = 8;

impl Works {
    /// The works of a profile. `key` names the key of an operation by its index, and its number within that.
    ///
    /// # Errors
    /// As [`Engine::key`].
    pub fn new(
        engine: &Arc<Engine>,
        profile: &Profile,
        key: impl Fn(usize, u32) -> Option<String>,
    ) -> Result<Self, Error> {
        let operations = profile.operations.iter().enumerate();
        let works = operations.map(|(index, operation)| {
            let sizes = sizes(&operation.size);
            let case = Case { op: operation.op, size: sizes.last().copied().unwrap_or(1) };
            let (mut asks, mut inputs) = (Vec::new(), Vec::new());
            let keys = if operation.op.key_spec().is_some() { operation.keys.count } else { 1 };
            for number in 0..keys {
                let name = key(index, number);
                let of = |size| Asks::new(engine, Case { size, ..case }, name.as_deref());
                let (ask, largest) = of(case.size)?;
                let sealed = sizes.iter().filter(|_| largest.is_sealed());
                let sealed: Result<Vec<_>, _> =
                    sealed.map(|&size| of(size).map(|(_, inputs)| inputs)).collect();
                let sealed = sealed?;
                asks.push(ask);
                inputs.push(if sealed.is_empty() { vec![largest] } else { sealed });
            }
            Ok(Work {
                case,
                asks,
                inputs,
                priority: operation.priority,
                deadline: profile.deadline_of(operation),
            })
        });
        Ok(Self { mix: profile.mix(), works: works.collect::<Result<_, Error>>()? })
    }

    /// Makes each operation once with each of its keys.
    ///
    /// # Errors
    /// That of the first that fails.
    ///
    /// # Blocking
    /// As long as these operations take.
    pub fn try_all(&self, profile: &Profile) -> Result<(), Failure> {
        let mut hands = self.hands(profile, 0);
        for (operation, work) in self.works.iter().enumerate() {
            for key in 0..work.asks.len() {
                let size = work.case.size;
                self.block(&mut hands, Draw { operation, size, key, tenant: 0 })?;
            }
        }
        Ok(())
    }

    /// One caller's hands.
    pub(crate) fn hands(&self, profile: &Profile, caller: u32) -> Hands {
        let out_len = self.works.iter().map(|work| work.case.output_len()).max().unwrap_or(0);
        Hands { dice: profile.dice(caller), scratch: Scratch::new(caller as usize, 0), out: vec![0; out_len] }
    }

    /// What a caller does next.
    pub(crate) fn draw(&self, hands: &mut Hands) -> Draw {
        self.mix.draw(&mut hands.dice)
    }

    /// Does it on this thread, into the caller's own memory.
    pub(crate) fn block(&self, hands: &mut Hands, draw: Draw) -> Result<(), Failure> {
        let (work, inputs, asks) = self.at(draw);
        let message = hands.scratch.input(inputs, work.input_len(draw));
        let out = &mut hands.out;
        let done = match asks {
            Asks::Sign(ask) => work.ask(&**ask, message, draw).wait_into(out),
            Asks::Encrypt(ask) => work.ask(&**ask, message, draw).wait_into(out),
            Asks::Decrypt(ask) => work.ask(&**ask, message, draw).wait_into(out),
            Asks::Random(ask) => work.ask(&**ask, message, draw).wait_into(out),
        };
        Ok(done.map(drop)?)
    }

    /// Does it as a task.
    pub(crate) async fn poll(&self, hands: &mut Hands, draw: Draw) -> Result<(), Failure> {
        let (work, inputs, asks) = self.at(draw);
        let message = hands.scratch.input(inputs, work.input_len(draw));
        let done = match asks {
            Asks::Sign(ask) => work.ask(&**ask, message, draw).await.map(drop),
            Asks::Encrypt(ask) => work.ask(&**ask, message, draw).await.map(drop),
            Asks::Decrypt(ask) => work.ask(&**ask, message, draw).await.map(drop),
            Asks::Random(ask) => work.ask(&**ask, message, draw).await.map(drop),
        };
        Ok(done?)
    }

    fn at(&self, draw: Draw) -> (&Work, &Inputs, &Asks) {
        let work = &self.works[draw.operation];
        let sizes = &work.inputs[draw.key];
        let fits = sizes.iter().find(|inputs| inputs.case().size >= draw.size);
        (work, fits.unwrap_or(&sizes[sizes.len() - 1]), &work.asks[draw.key])
    }
}

impl Work {
    fn input_len(&self, draw: Draw) -> usize {
        Case { size: draw.size, ..self.case }.input_len()
    }

    fn ask<'a, A: Ask>(&self, ask: &'a A, message: &'a [u8], draw: Draw) -> Request<'a, A::Operation> {
        self.settle(ask.one(message).tenant(draw.tenant))
    }

    fn settle<'a, O: Operation>(&self, request: Request<'a, O>) -> Request<'a, O> {
        let request = request.priority(self.priority);
        match self.deadline {
            Deadline::Default => request,
            Deadline::None => request.deadline(None),
            Deadline::In(limit) => request.deadline_in(limit),
        }
    }
}

/// Sizes that a distribution may draw, or some that stand for them: the last is the largest.
fn sizes(size: &Size) -> Vec<usize> {
    let mut sizes = match size {
        Size::Fixed(size) => vec![*size],
        Size::Choice(sizes) => sizes.iter().map(|&(size, _)| size).collect(),
        Size::Uniform(min, max) => steps(*min, *max),
        Size::LogNormal { max, .. } => steps(1, *max),
    };
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn steps(min: usize, max: usize) -> Vec<usize> {
    (0..=SEALED_SIZES).map(|step| min + (max - min) * step / SEALED_SIZES).collect()
}
