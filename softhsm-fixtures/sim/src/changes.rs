//! Changes of the live configuration that outlive `C_Finalize`.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::config::{Live, pairs};

/// What was changed in this copy of the module for good: the last value of every key.
pub(crate) static CHANGES: Changes = Changes(Mutex::new(BTreeMap::new()));

pub(crate) struct Changes(Mutex<BTreeMap<String, String>>);

/// A stall begins when it is said, once, and is no state of the configuration.
const MOMENTARY: &str = "stall";

/// Keys each of which replaces what the others have said.
const RULES: [&str; 3] = ["fault", "faults", "rules"];

impl Changes {
    /// Keeps what the text says, if it is right.
    pub(crate) fn keep(&self, text: &str) -> Result<(), String> {
        Live::default().changed(text)?;
        let lasting: Vec<_> = pairs(text)?.into_iter().filter(|(key, _)| *key != MOMENTARY).collect();
        let mut kept = self.0.lock();
        if lasting.iter().any(|(key, _)| RULES.contains(key)) {
            kept.retain(|key, _| !RULES.contains(&key.as_str()));
        }
        kept.extend(lasting.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
        Ok(())
    }

    /// All that is kept, as one text.
    pub(crate) fn text(&self) -> String {
        let pairs: Vec<_> = self.0.lock().iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_every_key_is_kept_and_nothing_of_a_text_that_is_wrong() {
        let changes = Changes(Mutex::default());
        changes.keep("removed=sim-0,slower=2").unwrap();
        changes.keep("removed=,stall=5,op_us=3").unwrap();
        assert!(changes.keep("op_us=4,tokens=2").is_err());
        assert_eq!(changes.text(), "op_us=3,removed=,slower=2");
        changes.keep("fault=C_Sign:1=flip").unwrap();
        changes.keep("rules=C_Sign:2=flip").unwrap();
        assert_eq!(changes.text(), "op_us=3,removed=,rules=C_Sign:2=flip,slower=2");
    }
}
