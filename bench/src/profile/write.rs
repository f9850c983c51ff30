//! A profile as TOML.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::Profile;
use super::operation::{Deadline, Operation, Size, Spread, Tenant};
use super::phase::{Demand, Phase};
use super::value::priority_name;

pub(super) fn toml(profile: &Profile) -> String {
    let mut text = String::new();
    // A string takes whatever is written.
    let _ = write(&mut text, profile);
    text
}

fn write(out: &mut String, profile: &Profile) -> fmt::Result {
    writeln!(out, "name = {}", quoted(&profile.name))?;
    if !profile.description.is_empty() {
        writeln!(out, "description = {}", quoted(&profile.description))?;
    }
    if let Some(pace) = profile.pace {
        writeln!(out, "pace = \"{pace}\"")?;
    }
    writeln!(out, "api = \"{}\"", profile.api.as_str())?;
    writeln!(out, "callers = {}", profile.callers)?;
    deadline(out, profile.deadline)?;
    writeln!(out, "seed = {}", profile.seed)?;
    profile.phases.iter().try_for_each(|it| phase(out, it))?;
    profile.operations.iter().try_for_each(|it| operation(out, it))
}

fn phase(out: &mut String, phase: &Phase) -> fmt::Result {
    writeln!(out, "\n[[phase]]\nname = {}", quoted(&phase.name))?;
    writeln!(out, "for = \"{}\"", time(phase.length))?;
    match phase.demand {
        Demand::Rate(rate) => writeln!(out, "rate = \"{rate}\"")?,
        Demand::Ramp(from, to) => writeln!(out, "ramp = [\"{from}\", \"{to}\"]")?,
        Demand::Callers(Some(callers)) => writeln!(out, "callers = {callers}")?,
        Demand::Callers(None) => {}
    }
    writeln!(out, "counted = {}", phase.counted)
}

fn operation(out: &mut String, operation: &Operation) -> fmt::Result {
    writeln!(out, "\n[[operation]]\nop = \"{}\"", operation.op.as_str())?;
    writeln!(out, "name = {}", quoted(&operation.name))?;
    writeln!(out, "weight = {}", operation.weight)?;
    writeln!(out, "size = {}", size(&operation.size))?;
    if operation.op.key_spec().is_some() {
        writeln!(out, "keys = {}", spread(operation.keys))?;
    }
    match operation.tenant {
        Tenant::One(tenant) => writeln!(out, "tenant = {tenant}")?,
        Tenant::Many(tenants) => writeln!(out, "tenant = {}", spread(tenants))?,
    }
    writeln!(out, "priority = \"{}\"", priority_name(operation.priority))?;
    deadline(out, operation.deadline)
}

fn deadline(out: &mut String, deadline: Deadline) -> fmt::Result {
    match deadline {
        Deadline::Default => Ok(()),
        Deadline::None => writeln!(out, "deadline = \"none\""),
        Deadline::In(limit) => writeln!(out, "deadline = \"{}\"", time(limit)),
    }
}

fn size(size: &Size) -> String {
    match size {
        Size::Fixed(bytes) => bytes.to_string(),
        Size::Uniform(min, max) => format!("{{ uniform = [{min}, {max}] }}"),
        Size::Choice(sizes) => {
            let pairs: Vec<_> = sizes.iter().map(|(size, weight)| format!("[{size}, {weight}]")).collect();
            format!("{{ choice = [{}] }}", pairs.join(", "))
        }
        Size::LogNormal { median, sigma, max } => {
            format!("{{ lognormal = {{ median = {median}, sigma = {sigma:?}, max = {max} }} }}")
        }
    }
}

/// Always the table: a bare number of a tenant is another thing.
fn spread(spread: Spread) -> String {
    let Spread { count, zipf } = spread;
    if zipf == 0.0 {
        format!("{{ count = {count} }}")
    } else {
        format!("{{ count = {count}, zipf = {zipf:?} }}")
    }
}

fn time(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(time)
}

fn quoted(text: &str) -> toml::Value {
    toml::Value::String(text.to_owned())
}
