//! Secret keys: ciphers, MACs, wrapping, and raw mechanisms.

use hsmux::{
    AesCbc, AesCtr, AesEcb, AesGcm, Cmac, Engine, Hmac, Key, KeyWrap, MacPadding, RawMechanism, RetailMac,
    TripleDesCbc, TripleDesEcb,
};
use softhsm_fixtures::{CustomKey, KeyUse};

use super::{Case, both_ways, case, derived, signed};
use crate::software;
use crate::support::{same, text};
use crate::wrapping::{is_key, spec};

const AES: &[u8; 32] = b"AES-256 of vectors: not a secret";
const TRIPLE_DES: &[u8; 24] = b"3DES of vectors: known!!";
const RETAIL: &[u8; 16] = b"retail MAC: open";
const HMAC: &[u8; 64] = b"a key for HMAC that is as long as the longest digest: no secret.";
const KEK: &[u8; 32] = b"wraps other keys, and is known!!";

/// `CKM_AES_CBC` and `CKM_SHA256_HMAC`.
const RAW_CBC: u64 = 0x1082;
const RAW_HMAC: u64 = 0x251;

pub(super) fn keys() -> Vec<(&'static str, CustomKey)> {
    let ciphers = [KeyUse::Encrypt, KeyUse::Decrypt];
    let macs = [KeyUse::Sign, KeyUse::Verify];
    let (first, second) = RETAIL.split_at(8);
    vec![
        ("aes", CustomKey::aes(AES).may(&ciphers).extractable()),
        ("aes-mac", CustomKey::aes(AES).may(&macs)),
        ("3des", CustomKey::triple_des(TRIPLE_DES).may(&ciphers)),
        ("3des-mac", CustomKey::triple_des(TRIPLE_DES).may(&macs)),
        ("retail", CustomKey::triple_des(&[first, second, first].concat()).may(&ciphers)),
        ("retail-first", CustomKey::triple_des(&first.repeat(3)).may(&ciphers)),
        ("hmac", CustomKey::generic(HMAC).may(&macs)),
        ("kek", CustomKey::aes(KEK).may(&[KeyUse::Wrap, KeyUse::Unwrap])),
    ]
}

pub(super) fn cases(engine: &Engine) -> Vec<Case> {
    let mut cases = Vec::from(aes(&engine.key("aes").unwrap()));
    cases.extend(triple_des(&engine.key("3des").unwrap()));
    cases.extend(macs(engine));
    cases.extend(wrapping(&engine.key("kek").unwrap(), &engine.key("aes").unwrap()));
    cases
}

fn aes(aes: &Key) -> [Case; 7] {
    let key = || aes.clone();
    let (gcm, ecb, padded, unpadded) = (key(), key(), key(), key());
    let (ctr, given, raw) = (key(), key(), key());
    [
        case("AES-GCM", move |message, way| {
            let aad = &derived(message, "aad")[..message.len() % 33];
            both_ways(
                (&gcm, AesGcm::new().aad(aad)),
                (message, way),
                |sealed| software::gcm_open(AES, &sealed[..12], aad, &sealed[12..]).unwrap_or_default(),
                |message| {
                    let iv = &derived(message, "iv")[..12];
                    [iv, &software::gcm_seal(AES, iv, aad, message)].concat()
                },
            )
        }),
        case("AES-ECB", move |message, way| {
            let open = |sealed: &[u8]| software::aes_ecb_decrypt(AES, sealed);
            both_ways((&ecb, AesEcb), (&blocks(16, message), way), open, |message| {
                software::aes_ecb(AES, message)
            })
        }),
        case("AES-CBC, padded", move |message, way| {
            both_ways(
                (&padded, AesCbc::new()),
                (message, way),
                |sealed| unpadded_of(&software::aes_cbc_decrypt(AES, &sealed[..16], &sealed[16..])),
                |message| {
                    let iv = &derived(message, "iv")[..16];
                    [iv, &software::aes_cbc(AES, iv, &software::pkcs7(16, message))].concat()
                },
            )
        }),
        case("AES-CBC, whole blocks", move |message, way| {
            let iv = &derived(message, "iv")[..16];
            both_ways(
                (&unpadded, AesCbc::new().with_iv(iv).unpadded()),
                (&blocks(16, message), way),
                |sealed| software::aes_cbc_decrypt(AES, iv, sealed),
                |message| software::aes_cbc(AES, iv, message),
            )
        }),
        case("AES-CTR, drawn block", move |message, way| {
            let open = |sealed: &[u8]| software::aes_ctr(AES, &sealed[..16], &sealed[16..]);
            both_ways((&ctr, AesCtr::new()), (message, way), open, |message| {
                let mut block = derived(message, "iv")[..16].to_vec();
                block[12..].fill(0);
                [&block[..], &software::aes_ctr(AES, &block, message)].concat()
            })
        }),
        case("AES-CTR, given block", move |message, way| {
            let block = *derived(message, "iv").first_chunk().unwrap();
            let software = |text: &[u8]| software::aes_ctr(AES, &block, text);
            both_ways((&given, AesCtr::new().with_counter(block, 128)), (message, way), software, software)
        }),
        case("raw mechanism, CKM_AES_CBC", move |message, way| {
            let iv = &derived(message, "iv")[..16];
            both_ways(
                (&raw, RawMechanism::new(RAW_CBC).parameter(iv)),
                (&blocks(16, message), way),
                |sealed| software::aes_cbc_decrypt(AES, iv, sealed),
                |message| software::aes_cbc(AES, iv, message),
            )
        }),
    ]
}

fn triple_des(key: &Key) -> [Case; 2] {
    let (ecb, cbc) = (key.clone(), key.clone());
    [
        case("3DES ECB", move |message, way| {
            let open = |sealed: &[u8]| software::triple_des_ecb_decrypt(TRIPLE_DES, sealed);
            both_ways((&ecb, TripleDesEcb), (&blocks(8, message), way), open, |message| {
                software::triple_des_ecb(TRIPLE_DES, message)
            })
        }),
        case("3DES CBC, padded", move |message, way| {
            both_ways(
                (&cbc, TripleDesCbc::new()),
                (message, way),
                |sealed| {
                    unpadded_of(&software::triple_des_cbc_decrypt(TRIPLE_DES, &sealed[..8], &sealed[8..]))
                },
                |message| {
                    let iv = &derived(message, "iv")[..8];
                    [iv, &software::triple_des_cbc(TRIPLE_DES, iv, &software::pkcs7(8, message))].concat()
                },
            )
        }),
    ]
}

fn macs(engine: &Engine) -> Vec<Case> {
    let key = |label| engine.key(label).unwrap();
    let mut cases = Vec::new();
    let hmacs: [(_, _, software::MakeMac); 3] = [
        ("HMAC with SHA-256", Hmac::SHA256, software::hmac_sha256),
        ("HMAC with SHA-384", Hmac::SHA384, software::hmac_sha384),
        ("HMAC with SHA-512", Hmac::SHA512, software::hmac_sha512),
    ];
    for (name, how, software) in hmacs {
        let hmac = key("hmac");
        cases.push(case(name, move |message, way| {
            let mac = software(HMAC, message);
            signed((&hmac, how), (message, way), |made| made == mac, || mac.clone())
        }));
    }
    let (aes, triple_des) = (key("aes-mac"), key("3des-mac"));
    cases.push(case("CMAC with AES", move |message, way| {
        let mac = software::aes_cmac(AES, message);
        signed((&aes, Cmac::Aes), (message, way), |made| made == mac, || mac.clone())
    }));
    cases.push(case("CMAC with 3DES", move |message, way| {
        let mac = software::triple_des_cmac(TRIPLE_DES, message);
        signed((&triple_des, Cmac::TripleDes), (message, way), |made| made == mac, || mac.clone())
    }));
    for (name, method) in
        [("retail MAC, padding 1", MacPadding::Method1), ("retail MAC, padding 2", MacPadding::Method2)]
    {
        let (retail, first) = (key("retail"), key("retail-first"));
        cases.push(case(name, move |message, way| {
            let mut padded = message.to_vec();
            if method == MacPadding::Method2 {
                padded.push(0x80);
            }
            padded.resize(padded.len().max(1).next_multiple_of(8), 0);
            let mac = software::retail_mac(RETAIL, &padded);
            let how = RetailMac::new(&first, method).unwrap();
            signed((&retail, how), (message, way), |made| made == mac, || mac.clone())
        }));
    }
    let raw = key("hmac");
    cases.push(case("raw mechanism, CKM_SHA256_HMAC", move |message, way| {
        let made = way.of(raw.sign(RawMechanism::new(RAW_HMAC), message)).map_err(text)?;
        same("MAC", &made, &software::hmac_sha256(HMAC, message))
    }));
    cases
}

fn wrapping(kek: &Key, key: &Key) -> [Case; 2] {
    let wraps: [(_, _, software::Wrap); 2] = [
        ("AES key wrap", KeyWrap::AesKw, software::aes_kw),
        ("AES key wrap with padding", KeyWrap::AesKwp, software::aes_kwp),
    ];
    wraps.map(|(name, how, software)| {
        let (kek, key) = (kek.clone(), key.clone());
        case(name, move |message, way| {
            same("wrapped", kek.wrap(how, &key).map_err(text)?.as_bytes(), &software(KEK, AES))?;
            // The message chooses the key that software wraps: for AES or for HMAC.
            let value = &derived(message, "key")[..[16, 24, 32, 40, 64][message.len() % 5]];
            let unwrapped = kek.unwrap(how, &software(KEK, value), spec(value.len())).map_err(text)?;
            is_key(&unwrapped, value, way)
        })
    })
}

/// The message cut to whole blocks; one block of zeros if it has none.
fn blocks(block: usize, message: &[u8]) -> Vec<u8> {
    let mut whole = message[..message.len() / block * block].to_vec();
    whole.resize(whole.len().max(block), 0);
    whole
}

/// The message without its padding, which is looked at no further: the message is compared.
fn unpadded_of(padded: &[u8]) -> Vec<u8> {
    let pad = padded.last().map_or(0, |&pad| pad.into());
    padded[..padded.len().saturating_sub(pad)].to_vec()
}
