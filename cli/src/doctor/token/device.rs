//! Whether the tokens that are named are devices of their own.

use super::super::finding::Finding;
use super::{Name, Seen, Token};

/// Whether two names are one token's, which an engine refuses.
pub(super) fn judge_twice(seen: &Seen) -> Option<Finding> {
    let places: Vec<_> = seen.names.iter().filter_map(Name::place).collect();
    let twice = places.iter().enumerate().find(|(index, place)| places[..*index].contains(place));
    let what = format!("{} is named twice", seen.tokens.get(*twice?.1)?.said());
    Some(Finding::problem("token.device", what, "leave one of the two names out"))
}

/// Whether two of them are one device, so that one takes nothing over from the other.
pub(super) fn judge_devices(chosen: &[&Token]) -> Option<Finding> {
    const CHECK: &str = "token.device";
    let said = |token: &Token| format!("{} (slot {})", token.said(), token.slot);
    let pair = |is_same: fn(&Token, &Token) -> bool| {
        chosen.iter().enumerate().find_map(|(place, token)| {
            let other = chosen[..place].iter().find(|other| is_same(other, token))?;
            Some((format!("{} and {}", said(other), said(token)), &token.serial))
        })
    };
    if let Some((both, serial)) = pair(Token::is_same_device) {
        let what = format!(
            "{both} have the same serial number, {serial}, manufacturer and model: they are one device, twice"
        );
        let advice = "leave one of the two [[token]] out: it brings no second device";
        return Some(Finding::problem(CHECK, what, advice));
    }
    match pair(Token::has_same_serial) {
        Some((both, serial)) => {
            let what = format!(
                "{both} have the same serial number, {serial}, and are of other makes or models: they may be one device"
            );
            Some(Finding::warning(CHECK, what, "if they are one device, leave one of the two [[token]] out"))
        }
        None if chosen.len() > 1 => Some(Finding::ok(CHECK, "each token has a serial number of its own")),
        None => None,
    }
}
