//! A session of a simulator, and its operations by hand with any mechanism.

use std::ptr;

use cryptoki_sys as sys;
use p11_sim::Loaded;

use crate::raw::{Raw, Rv, attributes, call, len};

/// A simulator with a session that is logged in.
pub(crate) struct Sim {
    pub(crate) sim: Loaded,
    pub(crate) raw: Raw,
    pub(crate) session: u64,
}

pub(crate) type Template<'a> = &'a [(sys::CK_ATTRIBUTE_TYPE, &'a [u8])];

pub(crate) const TRUE: &[u8] = &[1];
pub(crate) const FALSE: &[u8] = &[0];

impl Sim {
    pub(crate) fn new(config: &str) -> Self {
        let sim = Loaded::private_copy(config).unwrap();
        let raw = Raw(sim.function_list());
        raw.initialise().unwrap();
        let session = raw.open(raw.slots().unwrap()[0]).unwrap();
        raw.log_in(session, "1234").unwrap();
        Self { sim, raw, session }
    }

    pub(crate) fn key(&self, class: sys::CK_OBJECT_CLASS, label: &str) -> u64 {
        let template = [(sys::CKA_CLASS, &class.to_ne_bytes()[..]), (sys::CKA_LABEL, label.as_bytes())];
        self.raw.find(self.session, &template).unwrap()[0]
    }

    pub(crate) fn import(&self, kind: sys::CK_KEY_TYPE, value: &str, flags: Template<'_>) -> u64 {
        let value = bytes(value);
        let class = sys::CKO_SECRET_KEY.to_ne_bytes();
        let kind = kind.to_ne_bytes();
        let own: Template<'_> =
            &[(sys::CKA_CLASS, &class), (sys::CKA_KEY_TYPE, &kind), (sys::CKA_VALUE, &value)];
        self.create(&[own, flags].concat()).unwrap()
    }

    pub(crate) fn create(&self, template: Template<'_>) -> Rv<u64> {
        self.raw.create(self.session, template)
    }

    pub(crate) fn set(&self, object: u64, template: Template<'_>) -> Rv<()> {
        let mut template = attributes(template);
        let (template, count) = (template.as_mut_ptr(), len(&template));
        call!(self.raw, C_SetAttributeValue(self.session, object, template, count))
    }

    pub(crate) fn destroy(&self, object: u64) -> Rv<()> {
        call!(self.raw, C_DestroyObject(self.session, object))
    }

    pub(crate) fn find(&self, template: Template<'_>) -> Vec<u64> {
        self.raw.find(self.session, template).unwrap()
    }

    pub(crate) fn generate(&self, how: u64, template: Template<'_>) -> Rv<u64> {
        let (mut how, mut template, mut key) = (mechanism(how, &[]), attributes(template), 0);
        let (template, count) = (template.as_mut_ptr(), len(&template));
        call!(self.raw, C_GenerateKey(self.session, &raw mut how, template, count, &raw mut key))?;
        Ok(key)
    }

    /// Public and private half.
    pub(crate) fn generate_pair(
        &self,
        how: u64,
        public: Template<'_>,
        private: Template<'_>,
    ) -> Rv<(u64, u64)> {
        self.raw.generate_pair(self.session, how, public, private)
    }

    pub(crate) fn sign(&self, how: u64, parameter: &[u8], key: u64, data: &[u8]) -> Rv<Vec<u8>> {
        let mut how = mechanism(how, parameter);
        call!(self.raw, C_SignInit(self.session, &raw mut how, key))?;
        let (mut out, mut out_len) = (vec![0; 600], 600);
        let (data, data_len) = (data.as_ptr().cast_mut(), len(data));
        call!(self.raw, C_Sign(self.session, data, data_len, out.as_mut_ptr(), &raw mut out_len))?;
        out.truncate(out_len.try_into().unwrap());
        Ok(out)
    }

    pub(crate) fn verify(&self, how: u64, parameter: &[u8], key: u64, data: &[u8], made: &[u8]) -> Rv<()> {
        let mut how = mechanism(how, parameter);
        call!(self.raw, C_VerifyInit(self.session, &raw mut how, key))?;
        let (data, data_len) = (data.as_ptr().cast_mut(), len(data));
        call!(self.raw, C_Verify(self.session, data, data_len, made.as_ptr().cast_mut(), len(made)))
    }

    pub(crate) fn encrypt(&self, how: u64, parameter: &[u8], key: u64, data: &[u8]) -> Rv<Vec<u8>> {
        let mut how = mechanism(how, parameter);
        call!(self.raw, C_EncryptInit(self.session, &raw mut how, key))?;
        let (mut out, mut out_len) = (vec![0; 600], 600);
        let (data, data_len) = (data.as_ptr().cast_mut(), len(data));
        call!(self.raw, C_Encrypt(self.session, data, data_len, out.as_mut_ptr(), &raw mut out_len))?;
        out.truncate(out_len.try_into().unwrap());
        Ok(out)
    }

    pub(crate) fn decrypt(&self, how: u64, parameter: &[u8], key: u64, data: &[u8]) -> Rv<Vec<u8>> {
        let mut how = mechanism(how, parameter);
        call!(self.raw, C_DecryptInit(self.session, &raw mut how, key))?;
        let (mut out, mut out_len) = (vec![0; 600], 600);
        let (data, data_len) = (data.as_ptr().cast_mut(), len(data));
        call!(self.raw, C_Decrypt(self.session, data, data_len, out.as_mut_ptr(), &raw mut out_len))?;
        out.truncate(out_len.try_into().unwrap());
        Ok(out)
    }

    pub(crate) fn wrap(&self, how: u64, wrapping: u64, key: u64) -> Rv<Vec<u8>> {
        let mut how = mechanism(how, &[]);
        let (mut out, mut out_len) = (vec![0; 4_096], 4_096);
        let (to, room) = (out.as_mut_ptr(), &raw mut out_len);
        call!(self.raw, C_WrapKey(self.session, &raw mut how, wrapping, key, to, room))?;
        out.truncate(out_len.try_into().unwrap());
        Ok(out)
    }

    pub(crate) fn unwrap(&self, how: u64, unwrapping: u64, wrapped: &[u8], kind: u64) -> Rv<Vec<u8>> {
        let class = sys::CKO_SECRET_KEY.to_ne_bytes();
        let kind = kind.to_ne_bytes();
        let readable: Template<'_> = &[
            (sys::CKA_CLASS, &class),
            (sys::CKA_KEY_TYPE, &kind),
            (sys::CKA_SENSITIVE, FALSE),
            (sys::CKA_EXTRACTABLE, TRUE),
        ];
        let key = self.unwrap_as(how, unwrapping, wrapped, readable)?;
        Ok(self.value(key, sys::CKA_VALUE))
    }

    /// The unwrapped key.
    pub(crate) fn unwrap_as(
        &self,
        how: u64,
        unwrapping: u64,
        wrapped: &[u8],
        template: Template<'_>,
    ) -> Rv<u64> {
        let (mut how, mut template, mut key) = (mechanism(how, &[]), attributes(template), 0);
        let (data, data_len) = (wrapped.as_ptr().cast_mut(), len(wrapped));
        let (template, count) = (template.as_mut_ptr(), len(&template));
        let key_out = &raw mut key;
        call!(
            self.raw,
            C_UnwrapKey(self.session, &raw mut how, unwrapping, data, data_len, template, count, key_out)
        )?;
        Ok(key)
    }

    pub(crate) fn derive(
        &self,
        kdf: u64,
        shared: &[u8],
        peer: &[u8],
        base: u64,
        key_len: u64,
    ) -> Rv<Vec<u8>> {
        let (class, kind) = (sys::CKO_SECRET_KEY.to_ne_bytes(), sys::CKK_GENERIC_SECRET.to_ne_bytes());
        let key_len = key_len.to_ne_bytes();
        let readable: Template<'_> = &[
            (sys::CKA_CLASS, &class),
            (sys::CKA_KEY_TYPE, &kind),
            (sys::CKA_VALUE_LEN, &key_len),
            (sys::CKA_SENSITIVE, FALSE),
            (sys::CKA_EXTRACTABLE, TRUE),
        ];
        let key = self.derive_as(kdf, shared, peer, base, readable)?;
        Ok(self.value(key, sys::CKA_VALUE))
    }

    /// The derived key.
    pub(crate) fn derive_as(
        &self,
        kdf: u64,
        shared: &[u8],
        peer: &[u8],
        base: u64,
        template: Template<'_>,
    ) -> Rv<u64> {
        let mut parameter = sys::CK_ECDH1_DERIVE_PARAMS {
            kdf,
            ulSharedDataLen: len(shared),
            pSharedData: shared.as_ptr().cast_mut(),
            ulPublicDataLen: len(peer),
            pPublicData: peer.as_ptr().cast_mut(),
        };
        let mut how = sys::CK_MECHANISM {
            mechanism: sys::CKM_ECDH1_DERIVE,
            pParameter: (&raw mut parameter).cast(),
            ulParameterLen: size_of::<sys::CK_ECDH1_DERIVE_PARAMS>().try_into().unwrap(),
        };
        let (mut template, mut key) = (attributes(template), 0);
        let (template, count) = (template.as_mut_ptr(), len(&template));
        call!(self.raw, C_DeriveKey(self.session, &raw mut how, base, template, count, &raw mut key))?;
        Ok(key)
    }

    pub(crate) fn value(&self, object: u64, kind: sys::CK_ATTRIBUTE_TYPE) -> Vec<u8> {
        self.read(object, kind).unwrap()
    }

    /// The value of an attribute, or why it is not shown.
    pub(crate) fn read(&self, object: u64, kind: sys::CK_ATTRIBUTE_TYPE) -> Rv<Vec<u8>> {
        self.raw.read(self.session, object, kind)
    }

    /// Whether flags are set.
    pub(crate) fn flags<const N: usize>(&self, object: u64, kinds: [sys::CK_ATTRIBUTE_TYPE; N]) -> [bool; N] {
        kinds.map(|kind| self.value(object, kind) == TRUE)
    }

    /// The point of a public key, without its wrapping.
    pub(crate) fn point(&self, label: &str) -> Vec<u8> {
        self.point_of(self.key(sys::CKO_PUBLIC_KEY, label))
    }

    pub(crate) fn point_of(&self, key: u64) -> Vec<u8> {
        let value = self.value(key, sys::CKA_EC_POINT);
        let from = if value[1] == 0x81 { 3 } else { 2 };
        value[from..].to_vec()
    }
}

impl Raw {
    pub(crate) fn set_pin(self, session: u64, old: &str, new: &str) -> Rv<()> {
        let [(old, old_len), (new, new_len)] = [old, new].map(|pin| (pin.as_ptr(), len(pin.as_bytes())));
        call!(self, C_SetPIN(session, old.cast_mut(), old_len, new.cast_mut(), new_len))
    }

    pub(crate) fn create(self, session: u64, template: &[(sys::CK_ATTRIBUTE_TYPE, &[u8])]) -> Rv<u64> {
        let (mut template, mut object) = (attributes(template), 0);
        let (template, count) = (template.as_mut_ptr(), len(&template));
        call!(self, C_CreateObject(session, template, count, &raw mut object)).map(|()| object)
    }

    /// Public and private half.
    pub(crate) fn generate_pair(
        self,
        session: u64,
        mechanism: sys::CK_MECHANISM_TYPE,
        public: &[(sys::CK_ATTRIBUTE_TYPE, &[u8])],
        private: &[(sys::CK_ATTRIBUTE_TYPE, &[u8])],
    ) -> Rv<(u64, u64)> {
        let mut how = sys::CK_MECHANISM { mechanism, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        let (mut public, mut private, mut keys) = (attributes(public), attributes(private), (0, 0));
        let (public, public_count) = (public.as_mut_ptr(), len(&public));
        let (private, private_count) = (private.as_mut_ptr(), len(&private));
        let (to_public, to_private) = (&raw mut keys.0, &raw mut keys.1);
        call!(
            self,
            C_GenerateKeyPair(
                session,
                &raw mut how,
                public,
                public_count,
                private,
                private_count,
                to_public,
                to_private
            )
        )
        .map(|()| keys)
    }

    /// The value of an attribute, or why it is not shown.
    pub(crate) fn read(self, session: u64, object: u64, type_: sys::CK_ATTRIBUTE_TYPE) -> Rv<Vec<u8>> {
        let mut value = vec![0; 4_096];
        let mut wanted =
            sys::CK_ATTRIBUTE { type_, pValue: value.as_mut_ptr().cast(), ulValueLen: len(&value) };
        call!(self, C_GetAttributeValue(session, object, &raw mut wanted, 1))?;
        value.truncate(wanted.ulValueLen.try_into().unwrap());
        Ok(value)
    }

    /// All objects that may be seen, in as many pages as it takes.
    pub(crate) fn find_all(self, session: u64) -> Rv<Vec<u64>> {
        call!(self, C_FindObjectsInit(session, ptr::null_mut(), 0))?;
        let mut found = Vec::new();
        loop {
            let (mut page, mut count) = ([0; 100], 0);
            call!(self, C_FindObjects(session, page.as_mut_ptr(), 100, &raw mut count))?;
            if count == 0 {
                break;
            }
            found.extend_from_slice(&page[..count.try_into().unwrap()]);
        }
        call!(self, C_FindObjectsFinal(session)).map(|()| found)
    }
}

pub(crate) fn mechanism(mechanism: u64, parameter: &[u8]) -> sys::CK_MECHANISM {
    let pointer = if parameter.is_empty() { std::ptr::null_mut() } else { parameter.as_ptr().cast_mut() };
    sys::CK_MECHANISM { mechanism, pParameter: pointer.cast(), ulParameterLen: len(parameter) }
}

/// `CK_RSA_PKCS_PSS_PARAMS`, `CK_AES_CTR_PARAMS` and the numbers of `CK_RSA_PKCS_OAEP_PARAMS` are words in a row.
pub(crate) fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub(crate) fn oaep(hash: u64, mask: u64, label: &[u8]) -> Vec<u8> {
    words(&[hash, mask, sys::CKZ_DATA_SPECIFIED, label.as_ptr().addr() as u64, len(label)])
}

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}
