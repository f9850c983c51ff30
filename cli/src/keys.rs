//! `hsmux keys`: managed keys on the command line.

mod args;
mod show;

use std::io::{self, Write};
use std::time::Duration;

use hsmux::{Engine, KeyConfig, KeyId, KeyName, ManagedKeys};

use crate::confirm::ask;
use crate::exit::{Exit, Failure, Result};
pub(crate) use args::Args;
use args::{Settings, What};
use show::Form;

/// How long the engine may take to stop at the end.
const DRAIN: Duration = Duration::from_secs(10);

/// Carries one command out.
pub(crate) fn run(args: Args) -> Result {
    let sure = args.yes || !args.what.is_for_good() || ask(args.what.warning())?;
    if !sure {
        return Err(Failure::new(Exit::Usage, "nothing was changed"));
    }
    let site = args.connection.resolve()?;
    let engine = site.builder(&site.tokens()?, site.pin()?).sessions(1).build()?;
    let done = carry_out(&engine, args.what, Form { json: args.json });
    engine.drain(DRAIN);
    done
}

/// A key as it is named on the command line.
enum Named {
    Id(KeyId),
    Name(String),
}

impl Named {
    fn of(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Id)
    }

    fn name(&self) -> KeyName<'_> {
        match self {
            Self::Id(id) => id.into(),
            Self::Name(name) => name.into(),
        }
    }
}

fn carry_out(engine: &Engine, what: What, form: Form) -> Result {
    let keys = engine.managed_keys();
    let mut out = io::stdout().lock();
    let key = |text: &str| Named::of(text);
    match what {
        What::Create { name, settings } => {
            let id = keys.create(&name, &config(&settings)?)?;
            form.created(&mut out, &keys.info(&id)?)?;
        }
        What::Adopt { key, name, settings } => {
            let id = keys.adopt(Named::of(&key).name(), &name, &config(&settings)?)?;
            form.created(&mut out, &keys.info(&id)?)?;
        }
        What::List { all } => {
            form.list(&mut out, &keys.list()?, all)?;
            form.places(&mut io::stderr().lock(), &keys.record_places()?)?;
            form.refused(&mut io::stderr().lock(), &keys.refused_records()?)?;
        }
        What::Show { key: text } => form.one(&mut out, &keys.info(key(&text).name())?)?,
        What::Rotate { key: text } => {
            keys.rotate(key(&text).name())?;
            form.one(&mut out, &keys.info(key(&text).name())?)?;
        }
        What::Alias { alias, key: Some(text), .. } => {
            keys.set_alias(&alias, key(&text).name())?;
            form.one(&mut out, &keys.info(key(&text).name())?)?;
        }
        What::Alias { alias, key: None, .. } => {
            keys.remove_alias(&alias)?;
            form.gone(&mut out, &alias)?;
        }
        other => change(&keys, other, form, &mut out)?,
    }
    Ok(out.flush()?)
}

/// Changes of a key's state, after which it is shown.
fn change(keys: &ManagedKeys<'_>, what: What, form: Form, out: &mut impl Write) -> Result {
    let Some(text) = what.key().map(str::to_owned) else { return Ok(()) };
    let named = Named::of(&text);
    // Before it may be gone from its name.
    let id = keys.info(named.name())?.id;
    match what {
        What::Activate { .. } => keys.activate(&id)?,
        What::Suspend { .. } => keys.suspend(&id)?,
        What::Resume { .. } => keys.resume(&id)?,
        What::Deactivate { .. } => keys.deactivate(&id)?,
        What::Compromised { .. } => keys.mark_compromised(&id)?,
        What::ScheduleDestroy { wait, .. } => drop(keys.schedule_destruction(&id, wait)?),
        What::CancelDestroy { .. } => keys.cancel_destruction(&id)?,
        What::Destroy { .. } => keys.destroy(&id)?,
        _ => {}
    }
    form.one(out, &keys.info(&id)?)
}

fn config(settings: &Settings) -> Result<KeyConfig> {
    let mut config = KeyConfig::new(settings.spec).tenant(settings.tenant);
    for algorithm in &settings.algorithms {
        config = match algorithm.parse::<hsmux::SignAlgorithm>() {
            Ok(signs) => config.signs_by(signs),
            Err(_) => config.encrypts_by(algorithm.parse::<hsmux::Cipher>().map_err(|_| unknown(algorithm))?),
        };
    }
    if settings.host_modes {
        config = config.host_modes();
    }
    if let Some(time) = settings.active_from {
        config = config.active_from(time);
    }
    if let Some(time) = settings.active_until {
        config = config.active_until(time);
    }
    if let Some(period) = settings.rotate_every {
        config = config.rotate_every(period);
    }
    Ok(config)
}

fn unknown(algorithm: &str) -> Failure {
    let signing = hsmux::SignAlgorithm::signature_names().chain(hsmux::SignAlgorithm::mac_names());
    let known: Vec<_> = signing.chain(hsmux::Cipher::names()).collect();
    Failure::new(Exit::Usage, format!("--for {algorithm}: no such algorithm; there are {}", known.join(", ")))
}
