//! Tokens, and how keys get on them.

use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::object::Attribute;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

use crate::custom::CustomKey;
use crate::error::Error;
use crate::generate::{generate, PairKind};
use crate::keys::{aes, hmac, TestKey};
use crate::softhsm::{SoftHsm, PIN};

/// A token. Private and secret keys on it are private, sensitive and not extractable.
#[derive(Debug)]
pub struct TestToken<'a> {
    softhsm: &'a SoftHsm,
    label: String,
    slot: Slot,
}

impl<'a> TestToken<'a> {
    pub(crate) fn new(softhsm: &'a SoftHsm, label: &str, slot: Slot) -> Self {
        Self { softhsm, label: label.to_owned(), slot }
    }

    /// The token's label.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    pub(crate) const fn slot(&self) -> Slot {
        self.slot
    }

    /// Puts a fixed key on the token: the same one on every token it is put on.
    ///
    /// # Panics
    /// If SoftHSM2 refuses.
    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    pub fn import(&self, label: &str, key: TestKey) {
        self.try_import(label, key).expect("C_CreateObject");
    }

    /// As [`TestToken::import`], for programs.
    ///
    /// # Errors
    /// What SoftHSM2 answers.
    pub fn try_import(&self, label: &str, key: TestKey) -> Result<(), Error> {
        let (private, public) = key.templates(label)?;
        self.create(&private)?;
        public.map_or(Ok(()), |public| self.create(&public))
    }

    /// Puts a key of any kind and material on the token.
    ///
    /// # Errors
    /// What SoftHSM2 answers.
    pub fn try_import_custom(&self, label: &str, key: &CustomKey) -> Result<(), Error> {
        let (private, public) = key.templates(label)?;
        self.create(&private)?;
        public.map_or(Ok(()), |public| self.create(&public))
    }

    /// As [`TestToken::try_import_custom`], for tests.
    ///
    /// # Panics
    /// If SoftHSM2 refuses.
    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    pub fn import_custom(&self, label: &str, key: &CustomKey) {
        self.try_import_custom(label, key).expect("C_CreateObject");
    }

    /// Puts keys on the token that are there until this process ends, and on no disk: hundreds of them cost nothing
    /// that way.
    ///
    /// # Panics
    /// If SoftHSM2 refuses.
    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    pub fn import_volatile<'k>(&self, keys: impl IntoIterator<Item = (&'k str, &'k CustomKey)>) {
        let session = self.session().expect("session");
        for (label, key) in keys {
            let (private, public) = key.templates(label).expect("a template");
            for mut template in [Some(private), public].into_iter().flatten() {
                template.retain(|attribute| !matches!(attribute, Attribute::Token(_)));
                template.push(Attribute::Token(false));
                session.create_object(&template).expect("C_CreateObject");
            }
        }
        // Session objects go with their session.
        self.softhsm.kept.lock().push(session);
    }

    /// Puts an AES key on the token.
    ///
    /// # Panics
    /// If SoftHSM2 refuses.
    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    pub fn import_aes(&self, label: &str, value: &[u8]) {
        self.create(&aes(label, value)).expect("C_CreateObject");
    }

    /// As [`TestToken::import`], with a `CKA_ID` of its own: the other ways make it of the label.
    ///
    /// # Panics
    /// If SoftHSM2 refuses.
    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    pub fn import_with_id(&self, label: &str, id: &[u8], key: TestKey) {
        let (private, public) = key.templates(label).expect("a template");
        for mut template in std::iter::once(private).chain(public) {
            template.retain(|attribute| !matches!(attribute, Attribute::Id(_)));
            template.push(Attribute::Id(id.to_vec()));
            self.create(&template).expect("C_CreateObject");
        }
    }

    /// The token's serial number.
    ///
    /// # Panics
    /// If SoftHSM2 does not tell.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    pub fn serial(&self) -> String {
        let info = self.softhsm.pkcs11.get_token_info(self.slot).expect("C_GetTokenInfo");
        info.serial_number().trim_end().to_owned()
    }

    /// Puts a key for MACs on the token.
    ///
    /// # Panics
    /// If SoftHSM2 refuses.
    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    pub fn import_hmac(&self, label: &str, value: &[u8]) {
        self.create(&hmac(label, value)).expect("C_CreateObject");
    }

    /// Generates a pair on the token and returns its public key as SubjectPublicKeyInfo in DER.
    ///
    /// # Panics
    /// If SoftHSM2 refuses.
    #[expect(clippy::expect_used, reason = "a fixture that cannot be made fails its test")]
    pub fn generate(&self, label: &str, kind: PairKind) -> Vec<u8> {
        let _one = self.softhsm.writes.lock();
        let session = self.session().expect("session");
        generate(&session, label, kind).expect("C_GenerateKeyPair")
    }

    fn create(&self, template: &[Attribute]) -> Result<(), Error> {
        let _one = self.softhsm.writes.lock();
        self.session()?.create_object(template)?;
        Ok(())
    }

    fn session(&self) -> Result<Session, Error> {
        let session = self.softhsm.pkcs11.open_rw_session(self.slot)?;
        match session.login(UserType::User, Some(&AuthPin::from(PIN))) {
            Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::mechanism::Mechanism;
    use cryptoki::object::ObjectClass;

    use super::*;

    /// The halves were imported apart: a signature of one that the other accepts shows that they belong together.
    #[test]
    fn what_one_token_signs_another_with_the_same_key_verifies() {
        let Some(softhsm) = SoftHsm::for_tests() else { return };
        let tokens = [softhsm.unique_token(), softhsm.unique_token()];
        let [signer, verifier] = tokens.each_ref().map(|token| {
            TestKey::ALL.iter().for_each(|key| token.import(&format!("{key:?}"), *key));
            token.session().unwrap()
        });
        let find = |session: &Session, key: TestKey, class| {
            let wanted = [Attribute::Label(format!("{key:?}").into()), Attribute::Class(class)];
            session.find_objects(&wanted).unwrap()[0]
        };
        for (key, mechanism) in [
            (TestKey::Rsa2048, Mechanism::RsaPkcs),
            (TestKey::Rsa4096, Mechanism::RsaPkcs),
            (TestKey::P256, Mechanism::Ecdsa),
            (TestKey::P384, Mechanism::Ecdsa),
        ] {
            let signature =
                signer.sign(&mechanism, find(&signer, key, ObjectClass::PRIVATE_KEY), &[7; 32]).unwrap();
            let public = find(&verifier, key, ObjectClass::PUBLIC_KEY);
            verifier.verify(&mechanism, public, &[7; 32], &signature).unwrap();
            assert!(verifier.verify(&mechanism, public, &[8; 32], &signature).is_err(), "{key:?}");
        }
    }

    #[test]
    fn a_process_starts_softhsm_once() {
        if SoftHsm::for_tests().is_some() {
            assert!(matches!(SoftHsm::start(), Err(Error::StartedBefore)));
        }
    }
}
