//! Known answers of NIST, of RFCs and of payment and passport standards.

mod data;

use hsmux::{
    AesCbc, AesCtr, AesEcb, Cipher, Cmac, Ed25519, Engine, Hmac, KeyWrap, RetailMac, SignAlgorithm,
    TripleDesCbc, TripleDesEcb,
};
use softhsm_fixtures::{CurveName, CustomKey, KeyUse};

use crate::macs::SHORT;
use crate::software;
use crate::support::{Found, Keys, Seen, Tally, Way, add, engine, finish, hex, same, text};
use crate::wrapping::{is_key, same_wrapped, spec};

/// A message and its ciphertext, which the token makes of each other.
struct Encrypted {
    key: String,
    how: Cipher,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

/// A message and its MAC or signature.
struct Signed {
    key: String,
    how: SignAlgorithm,
    message: Vec<u8>,
    signature: Vec<u8>,
}

/// A retail MAC, with the labels of its two keys.
struct Retail {
    key: String,
    first: String,
    padding: hsmux::MacPadding,
    message: Vec<u8>,
    mac: Vec<u8>,
}

/// A key and what it is when it is wrapped.
struct Wrapped {
    kek: String,
    key: String,
    how: KeyWrap,
    value: Vec<u8>,
    wrapped: Vec<u8>,
}

fn cipher_key(keys: &mut Keys, value: &[u8]) -> String {
    let uses = [KeyUse::Encrypt, KeyUse::Decrypt];
    add(keys, "aes", value, || CustomKey::aes(value).may(&uses))
}

fn triple_des_key(keys: &mut Keys, value: &[u8]) -> String {
    let uses = [KeyUse::Encrypt, KeyUse::Decrypt];
    add(keys, "3des", value, || CustomKey::triple_des(value).may(&uses))
}

fn aes_modes(keys: &mut Keys) -> [(&'static str, Vec<Encrypted>); 3] {
    let iv: [u8; 16] = std::array::from_fn(|place| u8::try_from(place).unwrap());
    let counter: [u8; 16] = iv.map(|byte| 0xF0 | byte);
    let modes: [(_, Cipher, _); 3] = [
        ("SP 800-38A, F.1, ECB", AesEcb.into(), data::ECB),
        ("SP 800-38A, F.2, CBC", AesCbc::new().with_iv(iv).unpadded().into(), data::CBC),
        ("SP 800-38A, F.5, CTR", AesCtr::new().with_counter(counter, 128).into(), data::CTR),
    ];
    modes.map(|(name, how, sealed)| {
        let of = |(key, sealed): (&&str, &str)| Encrypted {
            key: cipher_key(keys, &hex(key)),
            how: how.clone(),
            plain: hex(data::MESSAGE),
            sealed: hex(sealed),
        };
        (name, data::AES_KEYS.iter().zip(sealed).map(of).collect())
    })
}

fn triple_des_modes(keys: &mut Keys) -> [(&'static str, Vec<Encrypted>); 3] {
    let key = triple_des_key(keys, &hex(data::TRIPLE_DES_KEY));
    let encrypted = |key: &str, how: Cipher, plain: &str, sealed: &str| Encrypted {
        key: key.to_owned(),
        how,
        plain: hex(plain),
        sealed: hex(sealed),
    };
    let cbc = |iv: &[u8]| Cipher::from(TripleDesCbc::new().with_iv(iv).unpadded());
    let ecb = data::TRIPLE_DES_ECB
        .map(|(plain, sealed)| encrypted(&key, TripleDesEcb.into(), plain, sealed))
        .into();
    let [_, (plain, _)] = data::TRIPLE_DES_ECB;
    let chained = vec![encrypted(&key, cbc(&hex(data::TRIPLE_DES_IV)), plain, data::TRIPLE_DES_CBC)];
    let weak = triple_des_key(keys, &[1; 24]);
    let variable = data::VARIABLE_PLAINTEXT.iter().flat_map(|(plain, sealed)| {
        // A first block under CBC is a block under ECB with the IV added.
        let zeros = "0000000000000000";
        [
            encrypted(&weak, TripleDesEcb.into(), plain, sealed),
            encrypted(&weak, cbc(&[0; 8]), plain, sealed),
            encrypted(&weak, cbc(&hex(plain)), zeros, sealed),
        ]
    });
    [
        ("SP 800-67, B.1, and NIST's example, 3DES ECB", ecb),
        ("NIST's example, 3DES CBC", chained),
        ("SP 800-20, table 1, 3DES ECB and CBC", variable.collect()),
    ]
}

fn macs(keys: &mut Keys) -> [(&'static str, Vec<Signed>); 3] {
    let uses = [KeyUse::Sign, KeyUse::Verify];
    let message = hex(data::MESSAGE);
    let of = |key: String, how: Cmac, lens: [usize; 4], macs: &[&str; 4]| -> Vec<Signed> {
        let signed = |(len, mac): (usize, &&str)| Signed {
            key: key.clone(),
            how: how.into(),
            message: message[..len].to_vec(),
            signature: hex(mac),
        };
        lens.into_iter().zip(macs).map(signed).collect()
    };
    let mut aes = Vec::new();
    for (key, macs) in data::AES_KEYS.iter().zip(&data::AES_CMAC) {
        let value = hex(key);
        let label = add(keys, "cmac", &value, || CustomKey::aes(&value).may(&uses));
        aes.extend(of(label, Cmac::Aes, [0, 16, 40, 64], macs));
    }
    let mut triple_des = Vec::new();
    for (key, macs) in &data::TRIPLE_DES_CMAC {
        let value = hex(key);
        let label = add(keys, "3des cmac", &value, || CustomKey::triple_des(&value).may(&uses));
        triple_des.extend(of(label, Cmac::TripleDes, [0, 8, 20, 32], macs));
    }
    let hmacs: [(_, software::MakeMac, _); 3] = [
        (Hmac::SHA256, software::hmac_sha256, 0),
        (Hmac::SHA384, software::hmac_sha384, 1),
        (Hmac::SHA512, software::hmac_sha512, 2),
    ];
    let mut hmac = Vec::new();
    for (how, software, place) in hmacs {
        for (key, message, macs) in data::hmac() {
            let label = add(keys, "hmac", &key, || CustomKey::generic(&key).may(&uses));
            // Those that the token's limit on keys leaves out are not written out.
            let signature = macs.map_or_else(|| software(&key, &message), |macs| hex(macs[place]));
            hmac.push(Signed { key: label, how: how.into(), message, signature });
        }
    }
    [
        ("SP 800-38B, D.1 to D.3, CMAC with AES", aes),
        ("SP 800-38B, D.4 and D.5, CMAC with 3DES", triple_des),
        ("RFC 4231, HMAC", hmac),
    ]
}

fn ed25519(keys: &mut Keys) -> Vec<Signed> {
    let of = |(seed, message, signature): &(&str, &str, &str)| {
        let seed: [u8; 32] = hex(seed).try_into().unwrap();
        let point = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        let uses = [KeyUse::Sign, KeyUse::Verify];
        let key =
            add(keys, "ed25519", &seed, || CustomKey::on_curve(CurveName::Ed25519, &seed, &point).may(&uses));
        Signed { key, how: Ed25519.into(), message: hex(message), signature: hex(signature) }
    };
    data::ED25519.iter().map(of).collect()
}

fn retail(keys: &mut Keys) -> Vec<Retail> {
    let of = |&(padding, key, message, mac): &(_, &str, &str, &str)| {
        let key = hex(key);
        let (first, second) = key.split_at(8);
        Retail {
            key: triple_des_key(keys, &[first, second, first].concat()),
            first: triple_des_key(keys, &first.repeat(3)),
            padding,
            message: hex(message),
            mac: hex(mac),
        }
    };
    data::RETAIL.iter().map(of).collect()
}

fn wrapped(keys: &mut Keys) -> [(&'static str, Vec<Wrapped>); 2] {
    let count = |len: usize, first: u8| (first..).take(len).collect::<Vec<u8>>();
    let kw = data::KW.map(|(kek, key, wrapped)| {
        // 00112233..ff, and then 00010203..0f.
        let value: Vec<u8> = (0..16).map(|digit| digit * 0x11).chain(count(16, 0)).take(key).collect();
        (KeyWrap::AesKw, count(kek, 0), value, hex(wrapped))
    });
    let kwp = data::KWP.map(|(key, wrapped)| (KeyWrap::AesKwp, hex(data::KWP_KEY), hex(key), hex(wrapped)));
    let mut of = |(how, kek, value, wrapped): (_, Vec<u8>, Vec<u8>, _)| {
        let uses = [KeyUse::Wrap, KeyUse::Unwrap];
        let kek = add(keys, "kek", &kek, || CustomKey::aes(&kek).may(&uses));
        let key = add(keys, "secret", &value, || CustomKey::generic(&value).extractable());
        Wrapped { kek, key, how, value, wrapped }
    };
    [
        ("RFC 3394, 4, AES key wrap", kw.into_iter().map(&mut of).collect()),
        ("RFC 5649, 6, AES key wrap with padding", kwp.into_iter().map(&mut of).collect()),
    ]
}

fn check_encrypted(engine: &Engine, vector: &Encrypted, way: Way) -> Found {
    let key = engine.key(&vector.key).map_err(text)?;
    let sealed = way.of(key.encrypt(vector.how.clone(), &vector.plain[..])).map_err(text)?;
    same("ciphertext", &sealed, &vector.sealed)?;
    same("plaintext", &way.of(key.decrypt(vector.how.clone(), &sealed[..])).map_err(text)?, &vector.plain)
}

fn check_signed(engine: &Engine, vector: &Signed, way: Way) -> Found {
    let key = engine.key(&vector.key).map_err(text)?;
    let made = match way.of(key.sign(vector.how.clone(), &vector.message[..])) {
        Err(_) if matches!(vector.how, SignAlgorithm::Hmac(_)) && vector.key.len() < 2 * 32 => {
            return Ok(Seen::Skipped(SHORT));
        }
        made => made.map_err(text)?,
    };
    same("signature", &made, &vector.signature)?;
    let verified = way.of(key.verify(vector.how.clone(), &vector.message[..], &made)).map_err(text)?;
    if verified.is_valid() { Ok(Seen::Right) } else { Err("found invalid".into()) }
}

fn check_retail(engine: &Engine, vector: &Retail, way: Way) -> Found {
    let (key, first) = (engine.key(&vector.key).map_err(text)?, engine.key(&vector.first).map_err(text)?);
    let how = RetailMac::new(&first, vector.padding).unwrap();
    let made = way.of(key.sign(how.clone(), &vector.message[..])).map_err(text)?;
    same("MAC", &made, &vector.mac)?;
    let verified = way.of(key.verify(how, &vector.message[..], &vector.mac)).map_err(text)?;
    if verified.is_valid() { Ok(Seen::Right) } else { Err("found invalid".into()) }
}

fn check_unwrapped(engine: &Engine, vector: &Wrapped, way: Way) -> Found {
    let kek = engine.key(&vector.kek).map_err(text)?;
    let unwrapped = kek.unwrap(vector.how, &vector.wrapped, spec(vector.value.len())).map_err(text)?;
    is_key(&unwrapped, &vector.value, way)
}

fn check_wrapped(engine: &Engine, vector: &Wrapped) -> Found {
    let (kek, key) = (engine.key(&vector.kek).map_err(text)?, engine.key(&vector.key).map_err(text)?);
    same_wrapped(vector.how, &kek, &key, vector.value.len(), &vector.wrapped)
}

#[test]
fn answers_are_those_of_the_standards() {
    let mut keys = Keys::new();
    let encrypted: Vec<_> = aes_modes(&mut keys).into_iter().chain(triple_des_modes(&mut keys)).collect();
    let mut signed: Vec<_> = macs(&mut keys).into();
    signed.push(("RFC 8032, 7.1, Ed25519", ed25519(&mut keys)));
    let retail = retail(&mut keys);
    let wrapped = wrapped(&mut keys);
    let Some(engine) = engine(&keys) else { return };
    let encrypted = encrypted
        .iter()
        .map(|(name, vectors)| Tally::of(name, vectors, |vector, way| check_encrypted(&engine, vector, way)));
    let mut tallies: Vec<_> = encrypted.collect();
    tallies.extend(
        signed.iter().map(|(name, vectors)| {
            Tally::of(name, vectors, |vector, way| check_signed(&engine, vector, way))
        }),
    );
    let name = "ISO/IEC 9797-1 and ICAO Doc 9303-11, D, retail MAC";
    tallies.push(Tally::of(name, &retail, |vector, way| check_retail(&engine, vector, way)));
    for (name, vectors) in &wrapped {
        let unwrapped = |vector: &_, way| check_unwrapped(&engine, vector, way);
        tallies.push(Tally::of(&format!("{name}, unwrapped"), vectors, unwrapped));
        let wrapped = |vector: &_, _| check_wrapped(&engine, vector);
        tallies.push(Tally::of(&format!("{name}, wrapped"), vectors, wrapped));
    }
    finish(&tallies);
}
