//! Signatures and MACs that a token has made: checked in software with the public key, or by the token's own verification.

use cryptoki_sys as sys;
use zeroize::Zeroizing;

use super::ciphers::Made;
use super::{Answer, Finding};
use crate::pkcs11::{self, Direction, ObjectHandle};
use crate::token::facts::PublicKey;
use crate::token::session::{Failed, Session, without_iv};
use crate::token::software;
use crate::token::task::{DES_BLOCK_LEN, Handles, Iv, Mechanism};

impl Session {
    /// `room` is how long an output of the operation may be. Nothing is open in the session.
    pub(super) fn find_signature(
        &mut self,
        mechanism: &Mechanism,
        handles: &Handles,
        input: &[u8],
        (made, room): (&[u8], usize),
    ) -> Result<Finding, Failed> {
        let key = self.key(Some(handles))?;
        match mechanism {
            Mechanism::Raw { .. } => return Ok(Finding::Unknown),
            Mechanism::RetailMac { first, .. } => {
                return self.find_retail_mac((key, handles), first, input, made);
            }
            Mechanism::Hmac(_) | Mechanism::AesCmac | Mechanism::TripleDesCmac => {
                return self.find_mac((key, handles), mechanism, input, made);
            }
            _ => {}
        }
        let public = handles.facts().and_then(|facts| facts.public.as_ref());
        let is_one = |signature: &[u8]| {
            let fits = |public: &PublicKey| software::is_signature(mechanism, public, input, signature);
            public.and_then(fits).inspect(|&fits| {
                if fits {
                    handles.note_public_fits()
                }
            })
        };
        match is_one(made) {
            Some(true) => return Ok(Finding::Right),
            Some(false) => {}
            // Made again, it is another one.
            None if !is_deterministic(mechanism) => return Ok(Finding::Unknown),
            None => {}
        }
        let mut again = Zeroizing::new(vec![0; room]);
        let written = self.raw.sign(key, &without_iv(mechanism), input, &mut again)?;
        let again = again.get(..written).unwrap_or_default();
        Ok(match is_one(again) {
            // Or the first would have fitted, too.
            Some(true) => Finding::Wrong,
            Some(false) if handles.public_fits() => Finding::Wrong,
            Some(false) if is_deterministic(mechanism) && again != made => Finding::Wrong,
            Some(false) => Finding::Unfit,
            None if again == made => Finding::Right,
            None => Finding::Wrong,
        })
    }

    /// By `C_Verify`, where the MAC goes another way than the one by which it came.
    fn find_mac(
        &mut self,
        (key, handles): (ObjectHandle, &Handles),
        mechanism: &Mechanism,
        input: &[u8],
        made: &[u8],
    ) -> Result<Finding, Failed> {
        let how = without_iv(mechanism);
        if handles.facts().is_some_and(|facts| facts.verify) {
            match self.raw.verify(key, &how, input, made) {
                Ok(()) => return Ok(Finding::Right),
                Err(fault)
                    if fault.is(sys::CKR_SIGNATURE_INVALID) || fault.is(sys::CKR_SIGNATURE_LEN_RANGE) =>
                {
                    return Ok(Finding::Wrong);
                }
                // Unless the session is lost with it, it is made again.
                Err(fault) => Answer::of(fault).map(drop)?,
            }
        }
        let mut again = Zeroizing::new(vec![0; made.len()]);
        let written = self.raw.sign(key, &how, input, &mut again)?;
        Ok(if again.get(..written) == Some(made) { Finding::Right } else { Finding::Wrong })
    }

    /// From its end: the MAC is deciphered to the last link of the chain, and the chain to the message.
    fn find_retail_mac(
        &mut self,
        (key, handles): (ObjectHandle, &Handles),
        first: &Handles,
        input: &[u8],
        made: &[u8],
    ) -> Result<Finding, Failed> {
        let may_decipher = |handles: &Handles| handles.facts().is_some_and(|facts| facts.decrypt);
        let inverted = match may_decipher(handles) && may_decipher(first) {
            true => self.invert_retail_mac(key, first, input, made)?,
            false => Answer::NotAsked,
        };
        Ok(match inverted {
            Answer::Right => Finding::Right,
            Answer::Wrong | Answer::Refused => Finding::Wrong,
            Answer::NotAsked => {
                let mut again = Zeroizing::new([0; DES_BLOCK_LEN]);
                let written = self.retail_mac(key, first, input, &mut *again)?;
                if again.get(..written) == Some(made) { Finding::Right } else { Finding::Wrong }
            }
        })
    }

    fn invert_retail_mac(
        &mut self,
        key: ObjectHandle,
        first: &Handles,
        input: &[u8],
        made: &[u8],
    ) -> Result<Answer, Failed> {
        let Some((front, last)) = input.split_last_chunk::<DES_BLOCK_LEN>() else {
            return Ok(Answer::NotAsked);
        };
        let (direction, mut link) = (Direction::Decrypt, Zeroizing::new(*last));
        if !front.is_empty() {
            let (key, mechanism, iv) =
                (self.key(Some(first))?, Mechanism::TripleDesCbc(Iv::Drawn), [0; DES_BLOCK_LEN]);
            let mut chain = Zeroizing::new(vec![0; front.len()]);
            let how = pkcs11::Mechanism::Bytes(mechanism.number(), &iv);
            let written = self.raw.encrypt(key, &how, front, &mut chain)?;
            let Some(state) = chain.last_chunk::<DES_BLOCK_LEN>().filter(|_| written == front.len()) else {
                return Ok(Answer::Wrong);
            };
            link.iter_mut().zip(state).for_each(|(byte, state)| *byte ^= state);
            let chained = Made { direction, key, mechanism: &mechanism, iv: &iv, from: &chain, to: front };
            match self.ask(&chained)? {
                Answer::Right => {}
                answer => return Ok(answer),
            }
        }
        let mechanism = &Mechanism::TripleDesEcb;
        self.ask(&Made { direction, key, mechanism, iv: &[], from: made, to: &*link })
    }
}

/// Whether a mechanism makes the same signature of the same input every time.
const fn is_deterministic(mechanism: &Mechanism) -> bool {
    matches!(mechanism, Mechanism::RsaPkcs1 | Mechanism::RsaPkcs1Hashing(_) | Mechanism::Ed25519)
}
