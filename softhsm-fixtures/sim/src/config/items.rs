//! The items of which the configuration's text consists.

use std::time::Duration;

use super::{ExtraKey, Flipped, Hidden, Messages, OwnIv, SLOWER_MAX, Slower, Stall, Wrong};
use crate::key::{Kind, Use};

/// The longest stall, in milliseconds: an hour, as for rules.
const STALL_MAX_MS: u64 = 3_600_000;

pub(crate) fn pairs(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| item.split_once('=').ok_or_else(|| format!("not key=value: {item}"))).collect()
}

pub(super) fn number(key: &str, value: &str, max: u64) -> Result<u64, String> {
    let parsed = value.parse().ok().filter(|&number| number <= max);
    parsed.ok_or_else(|| format!("{key}={value} is not a number up to {max}"))
}

pub(super) fn own_iv(key: &str, value: &str) -> Result<OwnIv, String> {
    Ok(match number(key, value, 2)? {
        0 => OwnIv::No,
        1 => OwnIv::Written,
        _ => OwnIv::Silent,
    })
}

pub(super) fn interface(value: &str) -> Result<bool, String> {
    match value {
        "3.0" => Ok(true),
        "2.40" => Ok(false),
        _ => Err(format!("interface={value} is neither 2.40 nor 3.0")),
    }
}

pub(super) fn messages(key: &str, value: &str) -> Result<Messages, String> {
    Ok(match number(key, value, 2)? {
        0 => Messages::Missing,
        1 => Messages::Right,
        _ => Messages::Wrong,
    })
}

pub(super) fn wrong(item: &str) -> Result<Wrong, String> {
    match item {
        "ecb" => Ok(Wrong::Ecb),
        "ecb-decrypt" => Ok(Wrong::EcbDecrypt),
        "ecb-parts" => Ok(Wrong::EcbParts),
        "cbc" => Ok(Wrong::Cbc),
        "ctr" => Ok(Wrong::Ctr),
        _ => Err(format!("wrong={item} is none of ecb, ecb-decrypt, ecb-parts, cbc, ctr")),
    }
}

pub(super) fn small(key: &str, value: &str, max: u32) -> Result<u32, String> {
    number(key, value, max.into()).map(|number| u32::try_from(number).unwrap_or(max))
}

/// Microseconds, with a fraction if need be, as nanoseconds.
pub(super) fn micros(key: &str, value: &str) -> Result<u64, String> {
    let wrong = || format!("{key}={value} is not a number of microseconds");
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    let whole: u64 = whole.parse().ok().filter(|&whole| whole <= 1_000_000_000).ok_or_else(wrong)?;
    if fraction.is_empty() || fraction.len() > 3 {
        return Err(wrong());
    }
    let thousandths: u64 = format!("{fraction:0<3}").parse().map_err(|_| wrong())?;
    Ok(whole * 1_000 + thousandths)
}

/// `2.5`, `4@sim-0`.
pub(super) fn slower(item: &str) -> Result<Slower, String> {
    let (times, token) = of_token(item);
    let thousandths = micros("slower", times).ok().filter(|times| (1..=SLOWER_MAX).contains(times));
    let wrong = || format!("slower={item} is not TIMES[@TOKEN], of up to three decimals and a million");
    Ok(Slower { thousandths: thousandths.ok_or_else(wrong)?, token })
}

/// `1000`, `1000@sim-0`.
pub(super) fn stall(item: &str) -> Result<Stall, String> {
    let (ms, token) = of_token(item);
    Ok(Stall::Begin { time: Duration::from_millis(number("stall", ms, STALL_MAX_MS)?), token })
}

fn of_token(item: &str) -> (&str, Option<String>) {
    item.split_once('@').map_or((item, None), |(front, token)| (front, Some(token.to_owned())))
}

/// `LABEL`, `LABEL:KIND`, `LABEL:KIND-USE`, `LABEL:KIND#VARIANT`, each with `@TOKEN+TOKEN...` after it or not.
pub(super) fn extra_key(item: &str) -> Result<ExtraKey, String> {
    let wrong = || format!("keys={item} is not LABEL[:KIND[-USE]][#VARIANT][@TOKEN+TOKEN...]");
    let (front, tokens) = item.split_once('@').unwrap_or((item, ""));
    let (front, variant) = match front.split_once('#') {
        Some((front, variant)) => (front, variant.parse().map_err(|_| wrong())?),
        None => (front, 0),
    };
    let (label, kind) = front.split_once(':').unwrap_or((front, "aes"));
    let (kind, usage) = match kind.split_once('-') {
        Some((kind, usage)) => (kind, Some(Use::by_name(usage).ok_or_else(wrong)?)),
        None => (kind, None),
    };
    let kind = Kind::by_name(kind).ok_or_else(wrong)?;
    if label.is_empty() || usage.is_some_and(|usage| !kind.can_be_for(usage)) {
        return Err(wrong());
    }
    Ok(ExtraKey { label: label.into(), kind, usage, variant, tokens: named(tokens) })
}

/// `0x1041`, `4161`, `0x1041@sim-0+sim-2`.
pub(super) fn hidden(item: &str) -> Result<Hidden, String> {
    let wrong = || format!("hide={item} is not NUMBER[@TOKEN+TOKEN...]");
    let (number, tokens) = item.split_once('@').unwrap_or((item, ""));
    Ok(Hidden { mechanism: hex_or_decimal(number).ok_or_else(wrong)?, tokens: named(tokens) })
}

/// `0x10000`, `0x400@sim-1`.
pub(super) fn flipped(item: &str) -> Result<Flipped, String> {
    let (flags, token) = of_token(item);
    let wrong = || format!("flags={item} is not NUMBER[@TOKEN]");
    Ok(Flipped { flags: hex_or_decimal(flags).ok_or_else(wrong)?, token })
}

fn hex_or_decimal(number: &str) -> Option<u64> {
    match number.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => number.parse().ok(),
    }
}

fn named(tokens: &str) -> Vec<String> {
    tokens.split('+').filter(|token| !token.is_empty()).map(str::to_owned).collect()
}
