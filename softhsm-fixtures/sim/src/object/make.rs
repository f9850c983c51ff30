//! How objects come about: made, created, unwrapped, derived, read from a file.

use cryptoki_sys as sys;

use super::change::{check_date, check_mechanisms};
use super::{Attributes, Content, Home, Object, Template};
use crate::key::{HMAC_TYPES, Key, PublicKey};

/// Where a private or secret key comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// The token made it.
    Generated,
    /// Somebody gave its value.
    Created,
    Unwrapped,
    /// The token made it of another key.
    Derived {
        always_sensitive: bool,
        never_extractable: bool,
    },
}

/// What only the token sets (PKCS#11 2.40, 4.7 to 4.10).
const TOKENS_OWN: [sys::CK_ATTRIBUTE_TYPE; 4] =
    [sys::CKA_LOCAL, sys::CKA_KEY_GEN_MECHANISM, sys::CKA_ALWAYS_SENSITIVE, sys::CKA_NEVER_EXTRACTABLE];

/// What a data object can have beside what every object has (PKCS#11 2.40, 4.5).
const OF_DATA: [sys::CK_ATTRIBUTE_TYPE; 3] = [sys::CKA_APPLICATION, sys::CKA_OBJECT_ID, sys::CKA_VALUE];

/// Flags that every object has, with their defaults; but for `CKA_PRIVATE`, the default of which differs.
const OF_ALL: [(sys::CK_ATTRIBUTE_TYPE, bool); 4] = [
    (sys::CKA_TOKEN, false),
    (sys::CKA_MODIFIABLE, true),
    (sys::CKA_COPYABLE, true),
    (sys::CKA_DESTROYABLE, true),
];

impl Object {
    /// A secret key.
    pub(crate) fn secret(key: Key, template: &Template, origin: Origin) -> Result<Self, sys::CK_RV> {
        let macs = matches!(key, Key::Mac(_));
        let flags = [
            (sys::CKA_ENCRYPT, !macs),
            (sys::CKA_DECRYPT, !macs),
            (sys::CKA_SIGN, macs),
            (sys::CKA_VERIFY, macs),
            (sys::CKA_WRAP, false),
            (sys::CKA_UNWRAP, false),
            (sys::CKA_TRUSTED, false),
            (sys::CKA_WRAP_WITH_TRUSTED, false),
        ];
        let mut object = Self::key_object(key, sys::CKO_SECRET_KEY, template, true)?;
        object.guard(template, origin)?;
        object.attributes.set_flags(template, &flags)?;
        Ok(object)
    }

    /// A private key.
    pub(crate) fn private(key: Key, template: &Template, origin: Origin) -> Result<Self, sys::CK_RV> {
        let flags = [
            (sys::CKA_SIGN, true),
            (sys::CKA_DECRYPT, false),
            (sys::CKA_SIGN_RECOVER, false),
            (sys::CKA_UNWRAP, false),
            (sys::CKA_ALWAYS_AUTHENTICATE, false),
            (sys::CKA_WRAP_WITH_TRUSTED, false),
        ];
        let mut object = Self::key_object(key, sys::CKO_PRIVATE_KEY, template, true)?;
        object.guard(template, origin)?;
        object.attributes.set_flags(template, &flags)?;
        Ok(object)
    }

    /// A public key; `local` if the token made the pair.
    pub(crate) fn public(key: PublicKey, template: &Template, local: bool) -> Result<Self, sys::CK_RV> {
        let flags = [
            (sys::CKA_VERIFY, true),
            (sys::CKA_ENCRYPT, false),
            (sys::CKA_VERIFY_RECOVER, false),
            (sys::CKA_WRAP, false),
            (sys::CKA_TRUSTED, false),
        ];
        let mut object = Self::key_object(Key::Public(key), sys::CKO_PUBLIC_KEY, template, false)?;
        object.made_here(local);
        object.attributes.set_flags(template, &flags)?;
        Ok(object)
    }

    /// Data of an application. They are private unless the template says otherwise: the standard leaves it open.
    pub(crate) fn data(template: &Template) -> Result<Self, sys::CK_RV> {
        let known = |kind: sys::CK_ATTRIBUTE_TYPE| {
            OF_DATA.contains(&kind)
                || OF_ALL.iter().any(|(flag, _)| *flag == kind)
                || matches!(kind, sys::CKA_CLASS | sys::CKA_PRIVATE | sys::CKA_LABEL)
        };
        if template.0.iter().any(|(kind, _)| !known(*kind)) {
            return Err(sys::CKR_ATTRIBUTE_TYPE_INVALID);
        }
        let mut object = Self::new(Content::Data, sys::CKO_DATA, template, true)?;
        for kind in OF_DATA {
            object.attributes.set(kind, template.get(kind).unwrap_or_default().to_vec());
        }
        Ok(object)
    }

    /// The object that has all these attributes already.
    pub(crate) fn restored(attributes: Attributes, home: Home) -> Result<Self, sys::CK_RV> {
        let key_type = || attributes.number(sys::CKA_KEY_TYPE).ok_or(sys::CKR_TEMPLATE_INCOMPLETE);
        let content = match attributes.number(sys::CKA_CLASS) {
            Some(sys::CKO_DATA) => Content::Data,
            Some(sys::CKO_SECRET_KEY) => {
                Content::Key(Key::secret(key_type()?, attributes.value(sys::CKA_VALUE))?)
            }
            Some(sys::CKO_PRIVATE_KEY) => Content::Key(Key::private_from_attributes(&attributes)?),
            Some(sys::CKO_PUBLIC_KEY) => {
                Content::Key(Key::Public(PublicKey::from_attributes(key_type()?, &attributes)?))
            }
            _ => return Err(sys::CKR_ATTRIBUTE_VALUE_INVALID),
        };
        Ok(Self { content, attributes, home })
    }

    /// What all objects have. Where it lives is for its token to say.
    fn new(
        content: Content,
        class: sys::CK_OBJECT_CLASS,
        template: &Template,
        private: bool,
    ) -> Result<Self, sys::CK_RV> {
        if template.number(sys::CKA_CLASS)?.is_some_and(|wanted| wanted != class) {
            return Err(sys::CKR_TEMPLATE_INCONSISTENT);
        }
        let mut attributes = Attributes::default();
        attributes.set_number(sys::CKA_CLASS, class);
        attributes.set(sys::CKA_LABEL, template.get(sys::CKA_LABEL).unwrap_or_default().to_vec());
        attributes.set_flags(template, &[(sys::CKA_PRIVATE, private)])?;
        attributes.set_flags(template, &OF_ALL)?;
        Ok(Self { content, attributes, home: Home::Token })
    }

    /// What all keys have.
    fn key_object(
        key: Key,
        class: sys::CK_OBJECT_CLASS,
        template: &Template,
        private: bool,
    ) -> Result<Self, sys::CK_RV> {
        if template.0.iter().any(|(kind, _)| TOKENS_OWN.contains(kind)) {
            return Err(sys::CKR_ATTRIBUTE_READ_ONLY);
        }
        let key_type = template.number(sys::CKA_KEY_TYPE)?.unwrap_or(key.key_type());
        // A key for MACs may be for HMAC with one hash alone.
        let fits =
            key_type == key.key_type() || (matches!(key, Key::Mac(_)) && HMAC_TYPES.contains(&key_type));
        if !fits || key.class() != class {
            return Err(sys::CKR_TEMPLATE_INCONSISTENT);
        }
        let own = key.attributes();
        let mut object = Self::new(Content::Key(key), class, template, private)?;
        object.attributes.extend(own);
        object.attributes.set_number(sys::CKA_KEY_TYPE, key_type);
        for kind in [sys::CKA_ID, sys::CKA_START_DATE, sys::CKA_END_DATE, sys::CKA_ALLOWED_MECHANISMS] {
            let value = template.get(kind).unwrap_or_default();
            match kind {
                sys::CKA_START_DATE | sys::CKA_END_DATE => check_date(value)?,
                sys::CKA_ALLOWED_MECHANISMS => check_mechanisms(value)?,
                _ => {}
            }
            object.attributes.set(kind, value.to_vec());
        }
        object.attributes.set_flags(template, &[(sys::CKA_DERIVE, false)])?;
        Ok(object)
    }

    /// What keeps a private or secret key in.
    fn guard(&mut self, template: &Template, origin: Origin) -> Result<(), sys::CK_RV> {
        let local = matches!(origin, Origin::Generated);
        let private = self.attributes.number(sys::CKA_CLASS) == Some(sys::CKO_PRIVATE_KEY);
        // PKCS#11 2.40, C_UnwrapKey: "The CKA_EXTRACTABLE attribute is by default set to CK_TRUE."
        let defaults = [
            (sys::CKA_SENSITIVE, local || private),
            (sys::CKA_EXTRACTABLE, matches!(origin, Origin::Unwrapped)),
        ];
        self.attributes.set_flags(template, &defaults)?;
        // A key that came from outside has been in the open (4.9, 4.10); one that was derived is what its base was
        // (curves, 2.3.5).
        let (sensitive, kept) = match origin {
            Origin::Generated => (true, true),
            Origin::Created | Origin::Unwrapped => (false, false),
            Origin::Derived { always_sensitive, never_extractable } => (always_sensitive, never_extractable),
        };
        let always = sensitive && self.flag(sys::CKA_SENSITIVE);
        let never = kept && !self.flag(sys::CKA_EXTRACTABLE);
        self.attributes.set_flag(sys::CKA_ALWAYS_SENSITIVE, always);
        self.attributes.set_flag(sys::CKA_NEVER_EXTRACTABLE, never);
        self.made_here(local);
        Ok(())
    }

    fn made_here(&mut self, local: bool) {
        self.attributes.set_flag(sys::CKA_LOCAL, local);
        let mechanism = match self.attributes.number(sys::CKA_KEY_TYPE) {
            _ if !local => sys::CK_UNAVAILABLE_INFORMATION,
            Some(sys::CKK_AES) => sys::CKM_AES_KEY_GEN,
            Some(sys::CKK_DES3) => sys::CKM_DES3_KEY_GEN,
            Some(sys::CKK_EC) => sys::CKM_EC_KEY_PAIR_GEN,
            Some(sys::CKK_EC_EDWARDS) => sys::CKM_EC_EDWARDS_KEY_PAIR_GEN,
            Some(sys::CKK_RSA) => sys::CKM_RSA_PKCS_KEY_PAIR_GEN,
            _ => sys::CKM_GENERIC_SECRET_KEY_GEN,
        };
        self.attributes.set_number(sys::CKA_KEY_GEN_MECHANISM, mechanism);
    }
}
