//! A simulated token: its login and its objects.

mod login;
mod objects;

use cryptoki_sys as sys;
use parking_lot::{Mutex, RwLock};

use crate::config::Config;
use crate::key::{Key, Kind, Use};
use crate::mechanism::{OFFERED, Offered};
use crate::object::{Home, Object, Origin, Template};
use crate::objects::Objects;
use crate::store::Store;
use login::Login;

pub(crate) use login::PIN_LEN;

/// A token of the plain and the null mode.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) label: String,
    index: usize,
    offered: Vec<Offered>,
    login: Mutex<Login>,
    objects: RwLock<Objects>,
    /// Where its objects and its PIN are that outlive the process.
    store: Option<Store>,
}

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
    /// The token of this number; why not, if its folder cannot be had.
    pub(crate) fn new(index: usize, config: &Config) -> Result<Self, String> {
        let label = format!("sim-{index}");
        let mut offered = OFFERED.to_vec();
        let is_hidden = |number| {
            let mut hidden = config.hidden.iter();
            hidden.any(|hidden| hidden.mechanism == number && hidden.is_on(&label))
        };
        offered.retain(|(number, ..)| !is_hidden(*number));
        let store = config.store.as_ref().map(|directory| Store::open(directory, &label));
        let store = store.transpose().map_err(|error| format!("store: {error}"))?;
        let login = Mutex::new(Login::new(config));
        let objects = RwLock::new(Objects::new(config.reuse.objects));
        let token = Self { label, index, offered, login, objects, store };
        for kind in Kind::STOCK {
            token.stock(kind, None, config.seed, kind.stock_label(), 0);
        }
        for extra in &config.keys {
            if extra.tokens.is_empty() || extra.tokens.contains(&token.label) {
                token.stock(extra.kind, extra.usage, config.seed, &extra.label, extra.variant);
            }
        }
        token.look().map_err(|code| format!("store: what is there cannot be read ({code:#x})"))?;
        Ok(token)
    }

    /// The PIN that somebody types at the token, if it has a keypad.
    pub(crate) fn typed(&self) -> Result<Option<String>, sys::CK_RV> {
        let mut login = self.login.lock();
        self.learn_pin(&mut login)?;
        Ok(login.keypad.then(|| login.pin.clone()))
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

    /// Writes down that somebody is about to use this PIN; none is what somebody types at the keypad.
    pub(crate) fn note_pin(&self, pin: Option<&[u8]>) -> Result<(), sys::CK_RV> {
        let mut login = self.login.lock();
        self.learn_pin(&mut login)?;
        login.note(&self.label, pin)
    }

    /// Counts the wrong tries that are written down, if they are.
    pub(crate) fn count_failures(&self) {
        self.login.lock().count_failures(&self.label);
    }

    /// `C_Login` of the user.
    pub(crate) fn log_in(&self, pin: &[u8]) -> Result<(), sys::CK_RV> {
        let mut login = self.login.lock();
        self.learn_pin(&mut login)?;
        login.log_in(pin)
    }

    /// `C_SetPIN` of the user. A new PIN that may not be set takes no try.
    pub(crate) fn set_pin(&self, old: &[u8], new: &[u8]) -> Result<(), sys::CK_RV> {
        let new = std::str::from_utf8(new).map_err(|_| sys::CKR_PIN_INVALID)?;
        if !PIN_LEN.contains(&new.len()) {
            return Err(sys::CKR_PIN_LEN_RANGE);
        }
        // Of two processes that change the PIN at once, one finds that of the other.
        let locked = self.store.as_ref().map(Store::lock).transpose()?;
        let mut login = self.login.lock();
        self.learn_pin(&mut login)?;
        login.check(old)?;
        locked.iter().try_for_each(|locked| locked.set_pin(new))?;
        new.clone_into(&mut login.pin);
        Ok(())
    }

    /// `C_Logout`: private objects of sessions are destroyed (PKCS#11 2.40, `C_Logout`).
    pub(crate) fn log_out(&self) -> Result<(), sys::CK_RV> {
        let was_in = std::mem::replace(&mut self.login.lock().user, false);
        let stays =
            |object: &Object| !matches!(object.home, Home::Session(_)) || !object.flag(sys::CKA_PRIVATE);
        let mut objects = self.objects.write();
        objects.retain(stays);
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
        self.login.lock().flags()
    }

    /// The PIN is what any process has set last.
    fn learn_pin(&self, login: &mut Login) -> Result<(), sys::CK_RV> {
        if let Some(pin) = self.store.as_ref().map(Store::pin).transpose()?.flatten() {
            login.pin = pin;
        }
        Ok(())
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
        let objects = match key.public() {
            Some(public) => {
                vec![
                    Object::public(public, &template, true),
                    Object::private(key, &template, Origin::Generated),
                ]
            }
            None => vec![Object::secret(key, &template, Origin::Generated)],
        };
        for object in objects {
            debug_assert!(object.is_ok(), "the stock's template fits");
            object.map(|object| self.insert(object)).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::new(0, &Config::default()).unwrap()
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
            let token = Token::new(index, &config).unwrap();
            pins.iter().for_each(|pin| token.note_pin(Some(pin.as_bytes())).unwrap());
            let later = Token::new(index, &config).unwrap();
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
        let public = token.find(&Template::default()).unwrap().len();
        token.log_in(b"1234").unwrap();
        let all = token.find(&Template::default()).unwrap();
        assert_eq!((public, all.len()), (4, 10), "four pairs and two secret keys");
        token.log_out().unwrap();
        assert_eq!(all.iter().filter(|&&handle| token.object(handle).unwrap().is_some()).count(), public);
    }

    #[test]
    fn extra_keys_are_on_their_tokens_only_and_the_same_there() {
        let config = Config::parse("tokens=3,keys=a@sim-0+sim-2").unwrap();
        let named = Template(vec![(sys::CKA_LABEL, b"a".to_vec())]);
        let value = |index| {
            let token = Token::new(index, &config).unwrap();
            token.log_in(b"1234").unwrap();
            let object = token.object(*token.find(&named).unwrap().first()?).unwrap()?;
            match object.key() {
                Some(Key::Aes(value)) => Some(value.to_vec()),
                _ => None,
            }
        };
        assert_eq!((value(0), value(1)), (Some(crate::material::aes(0, "a", 0).to_vec()), None));
        assert_eq!(value(0), value(2));
    }
}
