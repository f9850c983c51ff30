//! Fixed test keys: their material, and how it goes on a token.

use cryptoki::object::{Attribute, KeyType, ObjectClass};
use der::asn1::Uint;
use der::Decode;

use crate::error::Error;

/// A fixed key that everybody knows, to put on as many tokens as need the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TestKey {
    /// RSA with a modulus of 2048 bits, for signatures.
    Rsa2048,
    /// RSA with a modulus of 4096 bits, for signatures.
    Rsa4096,
    /// A key on P-256, for signatures.
    P256,
    /// A key on P-384, for signatures.
    P384,
    /// AES-256, for encryption.
    Aes256,
    /// A key of 32 bytes for HMAC.
    Hmac,
}

/// The objects of a key: templates of the private or secret one, and of the public one where there is one.
pub(crate) type Templates = (Vec<Attribute>, Option<Vec<Attribute>>);

/// `CKA_EC_PARAMS`: the object identifiers of the curves in DER (RFC 5480, 2.1.1.1).
pub(crate) const P256_OID: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
pub(crate) const P384_OID: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

impl TestKey {
    /// Every key.
    pub const ALL: [Self; 6] =
        [Self::Rsa2048, Self::Rsa4096, Self::P256, Self::P384, Self::Aes256, Self::Hmac];

    /// The public key of a pair as SubjectPublicKeyInfo in DER, which RustCrypto and OpenSSL read.
    #[must_use]
    pub const fn public_key_der(self) -> Option<&'static [u8]> {
        match self {
            Self::Rsa2048 => Some(include_bytes!("../keys/test-rsa-2048.spki.der")),
            Self::Rsa4096 => Some(include_bytes!("../keys/test-rsa-4096.spki.der")),
            Self::P256 => Some(include_bytes!("../keys/test-p256.spki.der")),
            Self::P384 => Some(include_bytes!("../keys/test-p384.spki.der")),
            Self::Aes256 | Self::Hmac => None,
        }
    }

    /// The value of a secret key.
    #[must_use]
    pub const fn secret(self) -> Option<&'static [u8; 32]> {
        match self {
            Self::Aes256 => Some(b"a test key of AES-256: no secret"),
            Self::Hmac => Some(b"a test key for HMAC: no secret!!"),
            Self::Rsa2048 | Self::Rsa4096 | Self::P256 | Self::P384 => None,
        }
    }

    /// What `C_CreateObject` takes to put this key on a token.
    pub(crate) fn templates(self, label: &str) -> Result<Templates, Error> {
        match self {
            Self::Rsa2048 => rsa(label, include_bytes!("../keys/test-rsa-2048.pkcs1.der")),
            Self::Rsa4096 => rsa(label, include_bytes!("../keys/test-rsa-4096.pkcs1.der")),
            Self::P256 => {
                Ok(ec(label, P256_OID, include_bytes!("../keys/test-p256.scalar.bin"), self.point(65)))
            }
            Self::P384 => {
                Ok(ec(label, P384_OID, include_bytes!("../keys/test-p384.scalar.bin"), self.point(97)))
            }
            Self::Aes256 => Ok((aes(label, self.secret().map_or(&[], <[u8; 32]>::as_slice)), None)),
            Self::Hmac => Ok((hmac(label, self.secret().map_or(&[], <[u8; 32]>::as_slice)), None)),
        }
    }

    /// The uncompressed point, which is the end of the public key's encoding.
    fn point(self, len: usize) -> &'static [u8] {
        self.public_key_der().map_or(&[], |der| &der[der.len() - len..])
    }
}

/// An AES key: private, sensitive, not extractable.
pub(crate) fn aes(label: &str, value: &[u8]) -> Vec<Attribute> {
    secret(label, KeyType::AES, value, [Attribute::Encrypt(true), Attribute::Decrypt(true)])
}

/// A key for MACs: private, sensitive, not extractable.
pub(crate) fn hmac(label: &str, value: &[u8]) -> Vec<Attribute> {
    secret(label, KeyType::GENERIC_SECRET, value, [Attribute::Sign(true), Attribute::Verify(true)])
}

fn secret(label: &str, kind: KeyType, value: &[u8], usage: [Attribute; 2]) -> Vec<Attribute> {
    let mut template = guarded(label);
    template.extend([
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(kind),
        Attribute::Value(value.into()),
    ]);
    template.extend(usage);
    template
}

fn rsa(label: &str, private_key: &[u8]) -> Result<Templates, Error> {
    // RFC 8017, A.1.2: version, n, e, d, p, q, d mod p-1, d mod q-1, q^-1 mod p.
    let numbers = Vec::<Uint>::from_der(private_key).map_err(|error| Error::Other(error.to_string()))?;
    let bytes: Vec<Vec<u8>> = numbers.iter().map(|number| number.as_bytes().to_vec()).collect();
    let [_, n, e, d, p, q, dp, dq, qi] = <[Vec<u8>; 9]>::try_from(bytes)
        .map_err(|_| Error::Other("an RSA private key has nine numbers".into()))?;
    let pair = [Attribute::KeyType(KeyType::RSA), Attribute::Modulus(n), Attribute::PublicExponent(e)];
    let mut private = signing(label);
    private.extend(pair.clone());
    private.extend([
        Attribute::PrivateExponent(d),
        Attribute::Prime1(p),
        Attribute::Prime2(q),
        Attribute::Exponent1(dp),
        Attribute::Exponent2(dq),
        Attribute::Coefficient(qi),
    ]);
    let mut public = verifying(label);
    public.extend(pair);
    Ok((private, Some(public)))
}

fn ec(label: &str, curve: &[u8], scalar: &[u8], point: &[u8]) -> Templates {
    let pair = [Attribute::KeyType(KeyType::EC), Attribute::EcParams(curve.to_vec())];
    let mut private = signing(label);
    private.extend(pair.clone());
    private.push(Attribute::Value(scalar.to_vec()));
    let mut public = verifying(label);
    public.extend(pair);
    // PKCS#11 2.40, curves, 2.3.3: the point is "DER-encoding of ANSI X9.62 ECPoint value Q", an OCTET STRING.
    // Points of both curves are shorter than 128 bytes, so their length takes one byte.
    let header = [0x04, u8::try_from(point.len()).unwrap_or(u8::MAX)];
    public.push(Attribute::EcPoint([&header, point].concat()));
    (private, Some(public))
}

fn signing(label: &str) -> Vec<Attribute> {
    let mut template = guarded(label);
    template.extend([Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Sign(true)]);
    template
}

fn verifying(label: &str) -> Vec<Attribute> {
    let mut template = named(label).to_vec();
    template.extend([Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Verify(true)]);
    template
}

/// What the private half of a generated pair says, too.
pub(crate) fn guarded(label: &str) -> Vec<Attribute> {
    let mut template = named(label).to_vec();
    template.extend([Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false)]);
    template
}

pub(crate) fn named(label: &str) -> [Attribute; 3] {
    [Attribute::Token(true), Attribute::Label(label.into()), Attribute::Id(label.into())]
}
