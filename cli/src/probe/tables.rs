//! What was found, for people.

use std::io::Write;
use std::time::Duration;

use bytesize::ByteSize;
use hsmux::probe::{
    CopiesFound, DataFound, GcmFound, IvFound, LimitsFound, ModuleProfile, ScalingFound, SeenBy,
    SessionsFound, TagFound, TooSmallFound,
};

use crate::exit::{Result, printable};
use crate::figures::{table, time};

/// A line for each thing, then tables.
pub(super) fn write(out: &mut impl Write, profile: &ModuleProfile) -> Result {
    let (module, token) = (&profile.module, &profile.token);
    let version = |(major, minor): (u8, u8)| format!("{major}.{minor}");
    let mut lines = vec![
        ("library", format!("{}, {}", module.description, module.manufacturer)),
        ("version", format!("{}, PKCS#11 {}", version(module.version), version(module.cryptoki))),
        ("token", format!("{}, {}, firmware {}", token.model, token.manufacturer, version(token.firmware))),
    ];
    lines.extend(profile.sessions.iter().map(|found| ("sessions", sessions(found))));
    lines.extend(profile.scaling.iter().map(|found| ("recommended", recommended(found))));
    lines.extend(profile.gcm.iter().map(|found| ("AES-GCM", gcm(found))));
    lines.extend(profile.copies.iter().map(|found| ("copies", copies(found))));
    lines.extend(profile.limits.iter().map(|found| ("limits", limits(found))));
    if !profile.not_reached.is_empty() {
        let stages: Vec<_> = profile.not_reached.iter().map(|stage| stage.as_str()).collect();
        lines.push(("no time for", format!("{} (--time-limit)", stages.join(", "))));
    }
    for (name, value) in lines {
        writeln!(out, "{name:<13}{}", printable(&value))?;
    }
    write_tables(out, profile)
}

fn write_tables(out: &mut impl Write, profile: &ModuleProfile) -> Result {
    if !profile.mechanisms.is_empty() {
        let mut mechanisms = table(["operation", "mechanism", "key", "result", "why"], usize::MAX);
        for found in &profile.mechanisms {
            mechanisms.add_row([
                found.operation.clone(),
                found.mechanism.clone(),
                found.key.clone(),
                found.result.as_str().to_owned(),
                printable(found.why.as_deref().unwrap_or_default()),
            ]);
        }
        writeln!(out, "\n{mechanisms}")?;
    }
    if !profile.costs.is_empty() {
        let mut costs = table(["call", "of", "p50", "p99", "samples"], 2);
        for cost in &profile.costs {
            let at = |duration: Duration| time(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
            let row =
                [cost.call.clone(), cost.of.clone(), at(cost.p50), at(cost.p99), cost.samples.to_string()];
            costs.add_row(row);
        }
        writeln!(out, "\n{costs}")?;
    }
    if let Some(scaling) = &profile.scaling {
        let mut points = table(["sessions", "per second"], 0);
        for point in &scaling.points {
            points.add_row([point.sessions.to_string(), point.per_second.to_string()]);
        }
        writeln!(out, "\n{points}")?;
    }
    Ok(())
}

fn sessions(found: &SessionsFound) -> String {
    let told = found.told.map_or_else(|| "no limit told".to_owned(), |told| format!("{told} told"));
    match &found.refused {
        Some(code) => format!("{} at most, {told}; one more was refused with {code}", found.opened),
        None => format!("{} opened, no more were tried, {told}", found.opened),
    }
}

fn recommended(found: &ScalingFound) -> String {
    format!("{} sessions, by {}", found.recommended, found.operation)
}

fn gcm(found: &GcmFound) -> String {
    let iv = match found.iv {
        IvFound::Used => "the caller's IV is used",
        IvFound::Replaced => "the module writes its own IV over the caller's",
        IvFound::Ignored => "the module uses another IV than the caller's, and does not tell",
        IvFound::Refused => "the caller's IV is refused",
        _ => "?",
    };
    let zero = match found.zero_iv {
        None => "",
        Some(IvFound::Replaced) => ", one of zeros is replaced",
        Some(IvFound::Refused) => ", one of zeros is refused",
        Some(_) => ", one of zeros is taken",
    };
    let seen = match found.seen_by {
        SeenBy::Software => "compared with software",
        _ => "seen by decryption only",
    };
    let lengths: Vec<_> = found.iv_lengths.iter().map(usize::to_string).collect();
    let lengths =
        if lengths.is_empty() { String::new() } else { format!("IVs of {} bytes; ", lengths.join(", ")) };
    let data = match found.associated_data {
        DataFound::Authenticated => "associated data are taken",
        DataFound::LeftOut => "associated data are not authenticated",
        DataFound::Refused => "no associated data",
        _ => "associated data not seen",
    };
    let tag = match found.tag {
        TagFound::Behind => "tag behind",
        TagFound::InFront => "tag in front",
        _ => "tag not seen",
    };
    let why = found.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    format!("{iv}{why}{zero} ({seen}); {lengths}{data}; {tag}")
}

fn copies(found: &CopiesFound) -> String {
    match &found.why {
        _ if found.work && found.gains.is_empty() => "work; not measured".to_owned(),
        _ if found.work => {
            let gain = |gain: &hsmux::probe::CopyGain| {
                let faster = if gain.faster { "faster" } else { "not faster" };
                format!("{} {faster}", gain.key)
            };
            format!("work; {}", found.gains.iter().map(gain).collect::<Vec<_>>().join(", "))
        }
        Some(why) => format!("do not work: {why}"),
        None => "do not work".to_owned(),
    }
}

fn limits(found: &LimitsFound) -> String {
    let size = |size: Option<usize>| size.map(|size| ByteSize(size as u64).display().iec().to_string());
    let mut said = Vec::new();
    said.extend(size(found.sign_input_max).map(|size| format!("C_Sign takes {size}")));
    said.extend(size(found.random_max).map(|size| format!("C_GenerateRandom gives {size}")));
    said.extend(found.too_small.map(|found| {
        match found {
            TooSmallFound::GoesOn => "after CKR_BUFFER_TOO_SMALL an operation goes on",
            TooSmallFound::Ends => "CKR_BUFFER_TOO_SMALL ends an operation",
            _ => "too little room is not answered with CKR_BUFFER_TOO_SMALL",
        }
        .to_owned()
    }));
    said.extend(
        found.cancels.map(|cancels| {
            if cancels { "and can be cancelled" } else { "and cannot be cancelled" }.to_owned()
        }),
    );
    said.join("; ")
}
