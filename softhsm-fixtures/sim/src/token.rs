//! A simulated token: its login and its objects.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use cryptoki_sys as sys;
use parking_lot::{Mutex, RwLock};

use crate::config::Config;
use crate::key::{Key, Kind, Use};
use crate::mechanism::{OFFERED, Offered};
use crate::object::{Object, Template};
use crate::objects::Objects;
use crate::rule::Names;

/// A token of the plain and the null mode.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) label: String,
    index: usize,
    offered: Vec<Offered>,
    login: Mutex<Login>,
    objects: RwLock<Objects>,
}

#[derive(Debug)]
struct Login {
    pin: String,
    tries_max: u32,
    keypad: bool,
    /// Where logins are written down.
    log: Option<PathBuf>,
    failures: u32,
    user: bool,
}

/// How a PIN is written down.
const RIGHT: &str = "right";
const WRONG: &str = "wrong";

/// What a key can be for.
const USES: [sys::CK_ATTRIBUTE_TYPE; 7] = [
    sys::CKA_SIGN,
    sys::CKA_VERIFY,
    sys::CKA_ENCRYPT,
    sys::CKA_DECRYPT,
    sys::CKA_WRAP,
    sys::CKA_UNWRAP,
    sys::CKA_DERIVE,
];

impl Token {
    pub(crate) fn new(index: usize, config: &Config) -> Self {
        let label = format!("sim-{index}");
        let (pin, tries_max, keypad) = (config.pin.clone(), config.pin_tries, config.keypad);
        let log = config.pin_log.clone();
        let login = Login { pin, tries_max, keypad, log, failures: 0, user: false };
        let mut offered = OFFERED.to_vec();
        let is_hidden = |number| {
            let mut hidden = config.hidden.iter();
            hidden.any(|hidden| hidden.mechanism == number && hidden.is_on(&label))
        };
        offered.retain(|(number, ..)| !is_hidden(*number));
        let objects = RwLock::new(Objects::new(config.reuse.objects));
        let token = Self { label, index, offered, login: Mutex::new(login), objects };
        for kind in Kind::STOCK {
            token.stock(kind, None, config.seed, kind.stock_label(), 0);
        }
        for extra in &config.keys {
            if extra.tokens.is_empty() || extra.tokens.contains(&token.label) {
                token.stock(extra.kind, extra.usage, config.seed, &extra.label, extra.variant);
            }
        }
        token
    }

    /// The PIN that somebody types at the token, if it has a keypad.
    pub(crate) fn typed(&self) -> Option<String> {
        let login = self.login.lock();
        login.keypad.then(|| login.pin.clone())
    }

    /// Its mechanisms: all but those that the configuration hides.
    pub(crate) fn offered(&self) -> &[Offered] {
        &self.offered
    }

    /// An error unless it has the mechanism for this purpose, which is one of the mechanism's flags.
    pub(crate) fn check_offered(
        &self,
        mechanism: sys::CK_MECHANISM_TYPE,
        purpose: sys::CK_FLAGS,
    ) -> Result<(), sys::CK_RV> {
        let mut offered = self.offered.iter();
        let found = offered.any(|(number, _, _, flags)| *number == mechanism && flags & purpose != 0);
        if found { Ok(()) } else { Err(sys::CKR_MECHANISM_INVALID) }
    }

    /// Writes down that somebody is about to log in with this PIN; none is what somebody types at the keypad.
    pub(crate) fn note_login(&self, pin: Option<&[u8]>) -> Result<(), sys::CK_RV> {
        let login = self.login.lock();
        let Some(log) = &login.log else { return Ok(()) };
        let right = pin.map_or(login.keypad, |pin| pin == login.pin.as_bytes());
        let line = format!("{} {}\n", self.label, if right { RIGHT } else { WRONG });
        // One write, so that lines of several processes do not mix.
        let noted = OpenOptions::new().create(true).append(true).open(log);
        noted.and_then(|mut log| log.write_all(line.as_bytes())).map_err(|_| sys::CKR_DEVICE_ERROR)
    }

    /// Counts the wrong tries that are written down, if they are.
    pub(crate) fn count_failures(&self) {
        let mut login = self.login.lock();
        let Some(log) = &login.log else { return };
        // None, if nobody has tried yet.
        let log = std::fs::read_to_string(log).unwrap_or_default();
        login.failures = 0;
        for (label, how) in log.lines().filter_map(|line| line.split_once(' ')) {
            match how {
                _ if label != self.label || login.locked() => {}
                WRONG => login.failures += 1,
                _ => login.failures = 0,
            }
        }
    }

    /// `C_Login` of the user.
    pub(crate) fn log_in(&self, pin: &[u8]) -> Result<(), sys::CK_RV> {
        let mut login = self.login.lock();
        if login.user {
            return Err(sys::CKR_USER_ALREADY_LOGGED_IN);
        }
        if login.locked() {
            return Err(sys::CKR_PIN_LOCKED);
        }
        if pin != login.pin.as_bytes() {
            login.failures += 1;
            return Err(sys::CKR_PIN_INCORRECT);
        }
        (login.failures, login.user) = (0, true);
        Ok(())
    }

    /// `C_Logout`: private objects of sessions are destroyed (PKCS#11 2.40, `C_Logout`).
    pub(crate) fn log_out(&self) -> Result<(), sys::CK_RV> {
        let was_in = std::mem::replace(&mut self.login.lock().user, false);
        let keep = |object: &Object| object.session.is_none() || !object.flag(sys::CKA_PRIVATE);
        let mut objects = self.objects.write();
        objects.retain(keep);
        if was_in {
            objects.new_epoch();
        }
        drop(objects);
        if was_in { Ok(()) } else { Err(sys::CKR_USER_NOT_LOGGED_IN) }
    }

    pub(crate) fn logged_in(&self) -> bool {
        self.login.lock().user
    }

    /// The PIN's part of the token's flags.
    pub(crate) fn pin_flags(&self) -> sys::CK_FLAGS {
        let login = self.login.lock();
        let low = if login.failures > 0 { sys::CKF_USER_PIN_COUNT_LOW } else { 0 };
        let last = if login.failures + 1 == login.tries_max { sys::CKF_USER_PIN_FINAL_TRY } else { 0 };
        let keypad = if login.keypad { sys::CKF_PROTECTED_AUTHENTICATION_PATH } else { 0 };
        keypad | if login.locked() { sys::CKF_USER_PIN_LOCKED } else { low | last }
    }

    /// Adds an object; returns its handle.
    pub(crate) fn add(&self, object: Object) -> Result<u64, sys::CK_RV> {
        if object.flag(sys::CKA_PRIVATE) && !self.logged_in() {
            return Err(sys::CKR_USER_NOT_LOGGED_IN);
        }
        Ok(self.insert(object))
    }

    /// The object behind a handle, if it may be seen now.
    pub(crate) fn object(&self, handle: u64) -> Option<Arc<Object>> {
        let object = self.objects.read().get(handle).cloned()?;
        (!object.flag(sys::CKA_PRIVATE) || self.logged_in()).then_some(object)
    }

    /// Removes an object that may be seen now.
    pub(crate) fn remove(&self, handle: u64) -> Result<(), sys::CK_RV> {
        self.object(handle).ok_or(sys::CKR_OBJECT_HANDLE_INVALID)?;
        self.objects.write().remove(handle);
        Ok(())
    }

    /// The objects that match and may be seen now, in the order in which they were made.
    pub(crate) fn find(&self, template: &Template) -> Vec<u64> {
        let logged_in = self.logged_in();
        let visible = |object: &Object| logged_in || !object.flag(sys::CKA_PRIVATE);
        let objects = self.objects.read();
        let found = objects.iter().filter(|(_, object)| visible(object) && object.matches(template));
        found.map(|(handle, _)| handle).collect()
    }

    /// Forgets the objects of a closed session, which its generation names.
    pub(crate) fn session_closed(&self, session: u64) {
        self.objects.write().retain(|object| object.session != Some(session));
    }

    /// A number that grows with every object.
    pub(crate) fn objects_made(&self) -> u64 {
        self.objects.read().made()
    }

    /// What an object is called, whether it may be seen now or not.
    pub(crate) fn names(&self, handle: u64) -> Option<Names> {
        self.objects.read().get(handle).map(|object| object.names())
    }

    /// A key that every token has from the start: private, sensitive, not extractable, made here.
    fn stock(&self, kind: Kind, usage: Option<Use>, seed: u64, label: &str, variant: u64) {
        let key = Key::derive(kind, seed, label, variant);
        let mut template = Template(vec![
            (sys::CKA_TOKEN, vec![1]),
            (sys::CKA_LABEL, label.into()),
            (sys::CKA_ID, label.into()),
        ]);
        if let Some(usage) = usage {
            // Of each half those that it can have count; the rest is not theirs and is passed over.
            let allows = |flag| (flag, vec![u8::from(usage.attributes().contains(&flag))]);
            template.0.extend(USES.map(allows));
        }
        let objects = if kind.is_pair() {
            vec![Object::public(key.clone(), &template), Object::private(key, &template)]
        } else {
            vec![Object::secret(key, &template, true)]
        };
        for object in objects {
            debug_assert!(object.is_ok(), "the stock's template fits");
            object.map(|object| self.insert(object)).ok();
        }
    }

    fn insert(&self, object: Object) -> u64 {
        self.objects.write().insert(self.index, object)
    }
}

impl Login {
    const fn locked(&self) -> bool {
        self.tries_max > 0 && self.failures >= self.tries_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::new(0, &Config::default())
    }

    #[test]
    fn wrong_pins_lock_the_token_and_its_flags_say_so() {
        let token = token();
        assert_eq!(token.pin_flags(), 0);
        assert_eq!(token.log_in(b"0"), Err(sys::CKR_PIN_INCORRECT));
        assert_eq!(token.pin_flags(), sys::CKF_USER_PIN_COUNT_LOW);
        assert_eq!(token.log_in(b"0"), Err(sys::CKR_PIN_INCORRECT));
        assert_eq!(token.pin_flags(), sys::CKF_USER_PIN_COUNT_LOW | sys::CKF_USER_PIN_FINAL_TRY);
        assert_eq!(token.log_in(b"0"), Err(sys::CKR_PIN_INCORRECT));
        assert_eq!(token.pin_flags(), sys::CKF_USER_PIN_LOCKED);
        assert_eq!(token.log_in(b"1234"), Err(sys::CKR_PIN_LOCKED));
    }

    #[test]
    fn a_right_pin_forgives_wrong_ones() {
        let token = token();
        token.log_in(b"0").unwrap_err();
        token.log_in(b"1234").unwrap();
        assert_eq!((token.pin_flags(), token.log_in(b"1234")), (0, Err(sys::CKR_USER_ALREADY_LOGGED_IN)));
    }

    #[test]
    fn wrong_pins_that_are_written_down_are_counted_by_whoever_comes_later() {
        let log = std::env::temp_dir().join(format!("p11-sim-pin-log-{}", std::process::id()));
        let config = Config::parse(&format!("tokens=2,pin_log={}", log.display())).unwrap();
        let tries = |index, pins: &[&str]| {
            let token = Token::new(index, &config);
            pins.iter().for_each(|pin| token.note_login(Some(pin.as_bytes())).unwrap());
            let later = Token::new(index, &config);
            later.count_failures();
            later.pin_flags()
        };
        let low = sys::CKF_USER_PIN_COUNT_LOW;
        let flags = [
            tries(0, &[]),
            tries(0, &["0"]),
            tries(1, &["0", "0"]),
            tries(0, &["1234"]),
            tries(0, &["0", "0", "0", "1234"]),
        ];
        assert_eq!(flags, [0, low, low | sys::CKF_USER_PIN_FINAL_TRY, 0, sys::CKF_USER_PIN_LOCKED]);
        std::fs::remove_file(&log).unwrap();
    }

    #[test]
    fn private_objects_are_invisible_before_login_and_after_logout() {
        let token = token();
        let public = token.find(&Template::default()).len();
        token.log_in(b"1234").unwrap();
        let all = token.find(&Template::default());
        assert_eq!((public, all.len()), (4, 10), "four pairs and two secret keys");
        token.log_out().unwrap();
        assert_eq!(all.iter().filter(|&&handle| token.object(handle).is_some()).count(), public);
    }

    #[test]
    fn extra_keys_are_on_their_tokens_only_and_the_same_there() {
        let config = Config::parse("tokens=3,keys=a@sim-0+sim-2").unwrap();
        let named = Template(vec![(sys::CKA_LABEL, b"a".to_vec())]);
        let value = |index| {
            let token = Token::new(index, &config);
            token.log_in(b"1234").unwrap();
            let object = token.object(*token.find(&named).first()?)?;
            match &object.key {
                Key::Aes(value) => Some(value.to_vec()),
                _ => None,
            }
        };
        assert_eq!((value(0), value(1)), (Some(crate::material::aes(0, "a", 0).to_vec()), None));
        assert_eq!(value(0), value(2));
    }
}
