//! Which mechanism runs an operation where tokens differ: one table.
//!
//! The host does what it can (hash, pad) and the token gets the barest mechanism, which nearly every token has and
//! which batches best. Where no token that holds the key has that, or the key does not allow it, the next one of the
//! table is asked.
//!
//! | operation | first | then |
//! |---|---|---|
//! | ECDSA | host hash, `CKM_ECDSA` | `CKM_ECDSA_SHA256` and its like |
//! | RSA PKCS#1 v1.5 | host hash and DigestInfo, `CKM_RSA_PKCS` | `CKM_SHA256_RSA_PKCS` and its like |
//! | RSA PSS | host hash, `CKM_RSA_PKCS_PSS` | `CKM_SHA256_RSA_PKCS_PSS` and its like |
//! | CBC with padding | host padding, `CKM_AES_CBC`, `CKM_DES3_CBC` | `CKM_AES_CBC_PAD`, `CKM_DES3_CBC_PAD` |
//! | RSA-OAEP decryption | `CKM_RSA_PKCS_OAEP` | `CKM_RSA_X_509`, host takes the padding off |
//! | RSA PKCS#1 v1.5 decryption | `CKM_RSA_X_509`, host takes the padding off | `CKM_RSA_PKCS` |
//! | all others | their own | none |
//!
//! A digest cannot be given to a mechanism that hashes. HMAC, CMAC, GCM and Ed25519 have no second: what the host
//! would need to help is secret.

use super::ask::{Ask, Form, Mode, Scheme, What};
use crate::token::task::{Call, Mechanism, Usage};

impl Ask {
    /// Takes the first mechanism of the table that can be used; the first of all if none can, for its error.
    pub(crate) fn choose(&mut self, usable: impl Fn(Usage, &Mechanism) -> bool) {
        let Some((usage, first)) = self.used() else { return };
        if usable(usage, first) {
            return;
        }
        if let Some(second) = self.second(first).filter(|second| usable(usage, second)) {
            match &mut self.call {
                Some(Call::Sign(mechanism) | Call::Encrypt(mechanism) | Call::Decrypt(mechanism)) => {
                    *mechanism = second;
                }
                Some(Call::Random) | None => {}
            }
        }
    }

    /// The numbers of all mechanisms of the table that may run it.
    pub(crate) fn mechanism_numbers(&self) -> Vec<u64> {
        let first = self.mechanism();
        let second = first.and_then(|first| self.second(first));
        first.into_iter().chain(second.as_ref()).map(Mechanism::number).collect()
    }

    fn second(&self, first: &Mechanism) -> Option<Mechanism> {
        match (&self.what, first) {
            (What::Sign { form: Form::Message, scheme }, _) => match *scheme {
                Scheme::Ecdsa(ecdsa) => Some(Mechanism::EcdsaHashing(ecdsa.hash)),
                Scheme::RsaPkcs1(hash) => Some(Mechanism::RsaPkcs1Hashing(hash)),
                Scheme::RsaPss { hash, salt_len } => {
                    Some(Mechanism::RsaPssHashing { hash, salt_len: salt_len.into() })
                }
                Scheme::Ed25519 | Scheme::Mac(_) | Scheme::Raw { .. } => None,
            },
            (
                What::Encrypt(Mode::Cbc { padded: true, .. }) | What::Decrypt(Mode::Cbc { padded: true, .. }),
                mechanism,
            ) => match mechanism {
                Mechanism::AesCbc(iv) => Some(Mechanism::AesCbcPad(iv.clone())),
                Mechanism::TripleDesCbc(iv) => Some(Mechanism::TripleDesCbcPad(iv.clone())),
                _ => None,
            },
            (What::Decrypt(Mode::Oaep { .. }), _) => Some(Mechanism::RsaRaw),
            (What::Decrypt(Mode::RsaPkcs1), _) => Some(Mechanism::RsaPkcs1),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::algorithm::{AesCbc, Ecdsa, Hmac, RsaOaep, RsaPkcs1, RsaPkcs1Encryption, RsaPss};
    use super::*;

    fn chosen(mut ask: Ask, usable: impl Fn(&Mechanism) -> bool) -> u64 {
        ask.choose(|_, mechanism| usable(mechanism));
        ask.mechanism().unwrap().number()
    }

    #[test]
    fn each_operation_falls_back_to_the_second_mechanism_of_the_table_and_keeps_the_first_while_it_can() {
        let cases = [
            (Ask::sign(Ecdsa::P256_SHA384), 0x1041, 0x1045),
            (Ask::sign(RsaPkcs1::SHA256), 0x1, 0x40),
            (Ask::sign(RsaPss::SHA512), 0xd, 0x45),
            (Ask::encrypt(AesCbc::new()), 0x1082, 0x1085),
            (Ask::decrypt(AesCbc::new()), 0x1082, 0x1085),
            (Ask::decrypt(RsaOaep::SHA256), 0x9, 0x3),
            (Ask::decrypt(RsaPkcs1Encryption), 0x3, 0x1),
        ];
        for (ask, first, second) in cases {
            assert_eq!(chosen(ask.clone(), |_| true), first, "{ask:?}");
            assert_eq!(chosen(ask.clone(), |mechanism| mechanism.number() != first), second, "{ask:?}");
            assert_eq!(chosen(ask.clone(), |_| false), first, "{ask:?}");
        }
    }

    #[test]
    fn what_must_not_be_helped_by_the_host_has_no_second() {
        for ask in [
            Ask::sign(Hmac::SHA256),
            Ask::sign_digest(Ecdsa::P256_SHA256),
            Ask::encrypt(AesCbc::new().unpadded()),
        ] {
            let first = ask.mechanism().unwrap().number();
            assert_eq!(chosen(ask.clone(), |mechanism| mechanism.number() != first), first, "{ask:?}");
        }
    }
}
