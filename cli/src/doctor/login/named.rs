//! The keys that a configuration names: whether an engine starts with them.

use super::super::finding::Finding;
use super::{Held, Login, Outcome};

/// Whether an engine starts with the canary key, and whether it is one on all tokens.
pub(super) fn judge_canary(logins: &[Login], canary: Option<&str>) -> Finding {
    const CHECK: &str = "login.canary";
    let Some(name) = canary else {
        return Finding::ok(
            CHECK,
            "no canary_key is configured: tokens that fail are asked for random bytes",
        );
    };
    let held = logins.iter().filter_map(|login| match &login.outcome {
        Outcome::In { canary: Some(held), .. } => Some((login.token.as_str(), held)),
        _ => None,
    });
    judge_canary_on(&held.collect::<Vec<_>>(), name, logins.len())
}

/// `tokens`: with those that were not logged in to.
fn judge_canary_on(held: &[(&str, &Held)], name: &str, tokens: usize) -> Finding {
    const CHECK: &str = "login.canary";
    let unfit = held.iter().find_map(|(token, held)| match held {
        Held::Unfit { exit, why } => Some((token, exit, why)),
        _ => None,
    });
    if let Some((token, exit, why)) = unfit {
        let advice = "set another: a key made for this that signs, makes MACs or enciphers, one of that name on each token";
        let what = format!("no engine starts with canary key {name} of {token}: {why}");
        return Finding::problem(CHECK, what, advice).with_exit(*exit);
    }
    let there: Vec<_> = held.iter().filter_map(|(token, held)| Some((*token, held.proof()?))).collect();
    let missing: Vec<_> =
        held.iter().filter(|(_, held)| held.proof().is_none()).map(|(token, _)| *token).collect();
    let advice = format!("make it on each token of the service, or set another: canary_key = \"{name}\"");
    match (there.as_slice(), missing.as_slice()) {
        ([], []) => Finding::skipped(CHECK, "no token was logged in to"),
        ([], missing) if missing.len() < tokens => {
            let what = format!(
                "canary key {name} is not on {}, and the others were not looked at",
                missing.join(", ")
            );
            Finding::warning(CHECK, what, advice)
        }
        ([], _) => {
            Finding::problem(CHECK, format!("canary key {name} is on no token: no engine starts"), advice)
        }
        (there, _) if differ(there).is_some() => {
            let (one, other) = differ(there).unwrap_or_default();
            let what = format!("canary key {name} is another key on {one} than on {other}: no engine starts");
            Finding::problem(CHECK, what, "give one of them another name, and make the same key on both")
        }
        (there, []) => {
            let is_compared = there.len() < 2 || there.iter().all(|(_, proof)| proof.is_some());
            let rest = if is_compared { "" } else { "; whether it is the same key on each was not compared" };
            Finding::ok(CHECK, format!("canary key {name} is there, and does what a canary is for{rest}"))
        }
        (_, missing) => {
            let what = format!(
                "canary key {name} is not on {}: such a token is asked for random bytes only",
                missing.join(", ")
            );
            Finding::warning(CHECK, what, advice)
        }
    }
}

impl Held {
    /// Of one that is there, what tells it from others, if that is known.
    const fn proof(&self) -> Option<&Option<Vec<u8>>> {
        match self {
            Self::There(proof) => Some(proof),
            _ => None,
        }
    }
}

/// Two tokens whose keys of a name are certainly two.
fn differ<'a>(there: &[(&'a str, &Option<Vec<u8>>)]) -> Option<(&'a str, &'a str)> {
    let mut known = there.iter().filter_map(|(token, proof)| Some((*token, proof.as_ref()?)));
    let (first, proof) = known.next()?;
    known.find(|(_, other)| *other != proof).map(|(other, _)| (first, other))
}

/// Whether an engine starts with the keys of `host_modes`.
pub(super) fn judge_host_modes(logins: &[Login]) -> Vec<Finding> {
    const CHECK: &str = "login.host_modes";
    let on_each: Vec<_> = logins
        .iter()
        .filter_map(|login| match &login.outcome {
            Outcome::In { host_modes, .. } => Some((login.token.as_str(), host_modes)),
            _ => None,
        })
        .collect();
    let names = on_each.first().map(|(_, keys)| keys.iter().map(|(name, _)| name)).into_iter().flatten();
    let judge = |name: &String| {
        let held = on_each.iter().filter_map(|(token, keys)| {
            let (_, held) = keys.iter().find(|(of, _)| of == name)?;
            Some((*token, held))
        });
        let held: Vec<_> = held.collect();
        let advice =
            "correct host_modes, or make the key: of AES or triple DES, for ECB, on a token of the service";
        for (token, held) in &held {
            if let Held::Unfit { exit, why } = held {
                let what = format!("no engine starts with {name} of {token} in host_modes: {why}");
                return Finding::problem(CHECK, what, advice).with_exit(*exit);
            }
        }
        match held.iter().filter(|(_, held)| **held != Held::Missing).count() {
            0 if held.len() < logins.len() => {
                Finding::skipped(CHECK, format!("key {name} is on none of the tokens that were logged in to"))
            }
            0 => Finding::problem(
                CHECK,
                format!("key {name} of host_modes is on no token: no engine starts"),
                advice,
            ),
            1 => Finding::ok(CHECK, format!("key {name} takes host_modes")),
            _ => Finding::ok(
                CHECK,
                format!("key {name} takes host_modes; whether it is one on all tokens was not compared"),
            ),
        }
    };
    names.map(judge).collect()
}
