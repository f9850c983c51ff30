//! Keys that leave a token and come to another one: wrapped, unwrapped, agreed upon.

#![expect(unsafe_code, reason = "calls of the C interface")]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]
#![expect(dead_code, reason = "shared with tests that use more of it")]

#[path = "support/raw.rs"]
mod raw;
#[path = "support/sim.rs"]
mod sim;

use aes_kw::{KeyInit, KwpAes256};
use cryptoki_sys as sys;
use ring::signature::{self, UnparsedPublicKey};
use sim::{FALSE, Sim, TRUE, Template, bytes, words};

const KEK: [u8; 32] = [0x42; 32];
const WRAPS: Template<'static> = &[(sys::CKA_WRAP, TRUE), (sys::CKA_UNWRAP, TRUE)];

const P256: &str = "06082a8648ce3d030107";
const P384: &str = "06052b81040022";
const P521: &str = "06052b81040023";
const ED25519: &str = "06032b6570";

/// A key of a session that nobody can read, and that can be wrapped.
const LEAVES: Template<'static> =
    &[(sys::CKA_TOKEN, FALSE), (sys::CKA_SENSITIVE, TRUE), (sys::CKA_EXTRACTABLE, TRUE)];

/// What it is to be on its new token.
const STAYS: Template<'static> =
    &[(sys::CKA_TOKEN, TRUE), (sys::CKA_SENSITIVE, TRUE), (sys::CKA_EXTRACTABLE, FALSE)];

/// The flags that tell where a key has been.
const PAST: [sys::CK_ATTRIBUTE_TYPE; 3] =
    [sys::CKA_LOCAL, sys::CKA_ALWAYS_SENSITIVE, sys::CKA_NEVER_EXTRACTABLE];

fn kek(sim: &Sim) -> u64 {
    sim.import(sys::CKK_AES, &"42".repeat(32), WRAPS)
}

/// What it is of class and type, with more.
fn described<'a>(class: &'a [u8; 8], kind: &'a [u8; 8], more: Template<'a>) -> Vec<(u64, &'a [u8])> {
    let mut template: Vec<(u64, &[u8])> = vec![(sys::CKA_CLASS, class), (sys::CKA_KEY_TYPE, kind)];
    template.extend_from_slice(more);
    template
}

/// What is inside of a wrapped key, by other software.
fn opened(wrapped: &[u8]) -> Vec<u8> {
    let mut out = vec![0; wrapped.len()];
    let room = wrapped.len() - 8;
    KwpAes256::new(&KEK.into()).unwrap_key(wrapped, &mut out[..room]).unwrap().to_vec()
}

#[test]
fn private_keys_go_to_another_token_and_sign_there() {
    let (from, to) = (Sim::new(""), Sim::new("seed=3"));
    let (wrapping, unwrapping) = (kek(&from), kek(&to));
    let bits = 2_048_u64.to_ne_bytes();
    let curves = [P256, P384, P521, ED25519].map(bytes);
    let [p256, p384, p521, ed25519] = curves.each_ref().map(|curve| (sys::CKA_EC_PARAMS, curve.as_slice()));
    let rsa = (sys::CKA_MODULUS_BITS, &bits[..]);
    let pss = words(&[sys::CKM_SHA256, sys::CKG_MGF1_SHA256, 32]);
    let (ec, edwards, rsa_type) = (sys::CKK_EC, sys::CKK_EC_EDWARDS, sys::CKK_RSA);
    let cases = [
        (sys::CKM_EC_KEY_PAIR_GEN, p256, ec, sys::CKM_ECDSA_SHA256, &[][..]),
        (sys::CKM_EC_KEY_PAIR_GEN, p384, ec, sys::CKM_ECDSA_SHA384, &[]),
        (sys::CKM_EC_KEY_PAIR_GEN, p521, ec, sys::CKM_ECDSA_SHA512, &[]),
        (sys::CKM_EC_EDWARDS_KEY_PAIR_GEN, ed25519, edwards, sys::CKM_EDDSA, &[]),
        (sys::CKM_RSA_PKCS_KEY_PAIR_GEN, rsa, rsa_type, sys::CKM_SHA256_RSA_PKCS_PSS, &pss),
    ];
    let class = sys::CKO_PRIVATE_KEY.to_ne_bytes();
    for (generates, of, kind, signs, parameter) in cases {
        let (public, private) = from.generate_pair(generates, &[of], LEAVES).unwrap();
        let secret = if kind == sys::CKK_RSA { sys::CKA_PRIME_1 } else { sys::CKA_VALUE };
        assert_eq!(from.read(private, secret), Err(sys::CKR_ATTRIBUTE_SENSITIVE));
        let kind = kind.to_ne_bytes();
        for how in [sys::CKM_AES_KEY_WRAP_PAD, sys::CKM_AES_KEY_WRAP_KWP] {
            let wrapped = from.wrap(how, wrapping, private).unwrap();
            let template = described(&class, &kind, STAYS);
            let copy = to.unwrap_as(how, unwrapping, &wrapped, &template).unwrap();
            let made = to.sign(signs, parameter, copy, b"signed by the copy").unwrap();
            from.verify(signs, parameter, public, b"signed by the copy", &made).unwrap();
            assert_eq!(to.flags(copy, PAST), [false; 3]);
            assert_eq!(to.flags(copy, [sys::CKA_TOKEN, sys::CKA_EXTRACTABLE]), [true, false]);
            assert_eq!(to.read(copy, secret), Err(sys::CKR_ATTRIBUTE_SENSITIVE));
            assert_eq!(to.wrap(how, unwrapping, copy), Err(sys::CKR_KEY_UNEXTRACTABLE));
        }
    }
}

#[test]
fn a_wrapped_private_key_is_pkcs_8_as_ring_reads_it() {
    let sim = Sim::new("");
    let (wrapping, random) = (kek(&sim), ring::rand::SystemRandom::new());
    let export = |how, of: (u64, &[u8])| {
        let (public, private) = sim.generate_pair(how, &[of], LEAVES).unwrap();
        (public, opened(&sim.wrap(sys::CKM_AES_KEY_WRAP_KWP, wrapping, private).unwrap()))
    };
    let curve = bytes(P384);
    let (public, der) = export(sys::CKM_EC_KEY_PAIR_GEN, (sys::CKA_EC_PARAMS, &curve));
    let how = &signature::ECDSA_P384_SHA384_FIXED_SIGNING;
    let pair = signature::EcdsaKeyPair::from_pkcs8(how, &der, &random).unwrap();
    let made = pair.sign(&random, b"x").unwrap();
    sim.verify(sys::CKM_ECDSA_SHA384, &[], public, b"x", made.as_ref()).unwrap();
    let curve = bytes(ED25519);
    let (public, der) = export(sys::CKM_EC_EDWARDS_KEY_PAIR_GEN, (sys::CKA_EC_PARAMS, &curve));
    let pair = signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap();
    let key = UnparsedPublicKey::new(&signature::ED25519, sim.point_of(public));
    key.verify(b"x", pair.sign(b"x").as_ref()).unwrap();
    let bits = 4_096_u64.to_ne_bytes();
    let (public, der) = export(sys::CKM_RSA_PKCS_KEY_PAIR_GEN, (sys::CKA_MODULUS_BITS, &bits));
    let pair = signature::RsaKeyPair::from_pkcs8(&der).unwrap();
    let mut made = vec![0; 512];
    pair.sign(&signature::RSA_PKCS1_SHA256, &random, b"x", &mut made).unwrap();
    sim.verify(sys::CKM_SHA256_RSA_PKCS, &[], public, b"x", &made).unwrap();
}

#[test]
fn secret_keys_go_to_another_token_and_do_the_same_there() {
    let (from, to) = (Sim::new(""), Sim::new("seed=3"));
    let (wrapping, unwrapping) = (kek(&from), kek(&to));
    let (class, length) = (sys::CKO_SECRET_KEY.to_ne_bytes(), 32_u64.to_ne_bytes());
    let sized = [LEAVES, &[(sys::CKA_VALUE_LEN, &length)]].concat();
    let cases: [(u64, Template<'_>, u64, u64, &[u8]); 3] = [
        (sys::CKM_AES_KEY_GEN, &sized, sys::CKK_AES, sys::CKM_AES_CBC, &[1; 16]),
        (sys::CKM_DES3_KEY_GEN, LEAVES, sys::CKK_DES3, sys::CKM_DES3_CBC, &[1; 8]),
        (sys::CKM_GENERIC_SECRET_KEY_GEN, &sized, sys::CKK_SHA256_HMAC, sys::CKM_SHA256_HMAC, &[]),
    ];
    for (generates, template, kind, runs, parameter) in cases {
        let key = from.generate(generates, template).unwrap();
        assert_eq!(from.flags(key, PAST), [true, true, false], "made here, and able to leave");
        let kind = kind.to_ne_bytes();
        for how in [sys::CKM_AES_KEY_WRAP, sys::CKM_AES_KEY_WRAP_PAD, sys::CKM_AES_KEY_WRAP_KWP] {
            let wrapped = from.wrap(how, wrapping, key).unwrap();
            let copy = to.unwrap_as(how, unwrapping, &wrapped, &described(&class, &kind, STAYS)).unwrap();
            let both = [(&from, key), (&to, copy)].map(|(sim, key)| match parameter {
                [] => sim.sign(runs, &[], key, b"message").unwrap(),
                iv => sim.encrypt(runs, iv, key, &[7; 32]).unwrap(),
            });
            assert_eq!(both[0], both[1], "{runs:#x}");
            assert_eq!(to.flags(copy, PAST), [false; 3]);
            assert_eq!(to.read(copy, sys::CKA_VALUE), Err(sys::CKR_ATTRIBUTE_SENSITIVE));
        }
    }
}

#[test]
fn an_unwrapped_key_can_leave_again_unless_the_template_says_otherwise() {
    let sim = Sim::new("");
    let kek = kek(&sim);
    let key = sim.generate(sys::CKM_DES3_KEY_GEN, LEAVES).unwrap();
    let wrapped = sim.wrap(sys::CKM_AES_KEY_WRAP, kek, key).unwrap();
    let (class, kind) = (sys::CKO_SECRET_KEY.to_ne_bytes(), sys::CKK_DES3.to_ne_bytes());
    let unwrap = |more| {
        let template = described(&class, &kind, more);
        sim.unwrap_as(sys::CKM_AES_KEY_WRAP, kek, &wrapped, &template).unwrap()
    };
    assert_eq!(sim.wrap(sys::CKM_AES_KEY_WRAP, kek, unwrap(&[])).unwrap(), wrapped);
    let refused = sim.wrap(sys::CKM_AES_KEY_WRAP, kek, unwrap(STAYS));
    assert_eq!(refused, Err(sys::CKR_KEY_UNEXTRACTABLE));
}

#[test]
fn what_is_wrapped_comes_out_as_what_it_was_only() {
    let sim = Sim::new("");
    let (kek, curve) = (kek(&sim), bytes(P256));
    let pair = |template| {
        sim.generate_pair(sys::CKM_EC_KEY_PAIR_GEN, &[(sys::CKA_EC_PARAMS, &curve)], template).unwrap()
    };
    let (public, private) = pair(LEAVES);
    let kwp = sys::CKM_AES_KEY_WRAP_KWP;
    let wrapped = sim.wrap(kwp, kek, private).unwrap();
    let (secret, of_private) = (sys::CKO_SECRET_KEY.to_ne_bytes(), sys::CKO_PRIVATE_KEY.to_ne_bytes());
    let class_public = sys::CKO_PUBLIC_KEY.to_ne_bytes();
    let unwrap = |wrapped: &[u8], class: &[u8; 8], kind: sys::CK_KEY_TYPE| {
        sim.unwrap_as(kwp, kek, wrapped, &described(class, &kind.to_ne_bytes(), &[]))
    };
    for kind in [sys::CKK_RSA, sys::CKK_EC_EDWARDS, sys::CKK_AES] {
        assert_eq!(unwrap(&wrapped, &of_private, kind), Err(sys::CKR_WRAPPED_KEY_INVALID), "{kind}");
    }
    assert_eq!(unwrap(&wrapped, &secret, sys::CKK_AES), Err(sys::CKR_WRAPPED_KEY_LEN_RANGE));
    assert_eq!(unwrap(&wrapped, &class_public, sys::CKK_EC), Err(sys::CKR_TEMPLATE_INCONSISTENT));
    let aes = sim.import(sys::CKK_AES, &"11".repeat(16), LEAVES);
    let of_aes = sim.wrap(kwp, kek, aes).unwrap();
    assert_eq!(unwrap(&of_aes, &of_private, sys::CKK_EC), Err(sys::CKR_WRAPPED_KEY_INVALID));
    assert_eq!(sim.wrap(kwp, kek, public), Err(sys::CKR_KEY_NOT_WRAPPABLE));
    assert_eq!(sim.wrap(kwp, kek, pair(&[]).1), Err(sys::CKR_KEY_UNEXTRACTABLE));
    assert_eq!(sim.wrap(kwp, private, aes), Err(sys::CKR_KEY_FUNCTION_NOT_PERMITTED));
}

#[test]
fn a_key_of_the_transport_comes_of_an_agreement_of_two_tokens() {
    let (from, to) = (Sim::new("seed=1"), Sim::new("seed=2"));
    let curve = bytes(P256);
    let ephemeral = |sim: &Sim| {
        let agrees: Template<'_> = &[(sys::CKA_DERIVE, TRUE), (sys::CKA_SIGN, FALSE)];
        let (public, private) =
            sim.generate_pair(sys::CKM_EC_KEY_PAIR_GEN, &[(sys::CKA_EC_PARAMS, &curve)], agrees).unwrap();
        (sim.point_of(public), private)
    };
    let (ours, theirs) = (ephemeral(&from), ephemeral(&to));
    let (class, kind) = (sys::CKO_SECRET_KEY.to_ne_bytes(), sys::CKK_AES.to_ne_bytes());
    let length = 32_u64.to_ne_bytes();
    let more =
        [WRAPS, &[(sys::CKA_VALUE_LEN, &length), (sys::CKA_SENSITIVE, TRUE), (sys::CKA_EXTRACTABLE, FALSE)]]
            .concat();
    let template = described(&class, &kind, &more);
    let wrapping = from.derive_as(sys::CKD_NULL, &[], &theirs.0, ours.1, &template).unwrap();
    let unwrapping = to.derive_as(sys::CKD_NULL, &[], &ours.0, theirs.1, &template).unwrap();
    assert_eq!(from.flags(wrapping, PAST), [false, true, true], "not made by itself, and never in the open");
    let key = from.import(sys::CKK_GENERIC_SECRET, &"0b".repeat(20), LEAVES);
    let wrapped = from.wrap(sys::CKM_AES_KEY_WRAP_KWP, wrapping, key).unwrap();
    let value = to.unwrap(sys::CKM_AES_KEY_WRAP_KWP, unwrapping, &wrapped, sys::CKK_GENERIC_SECRET);
    assert_eq!(value.unwrap(), [0x0b; 20]);
    let open: Template<'_> = &[(sys::CKA_VALUE_LEN, &length), (sys::CKA_EXTRACTABLE, TRUE)];
    let open = described(&class, &kind, open);
    let open = from.derive_as(sys::CKD_NULL, &[], &theirs.0, ours.1, &open).unwrap();
    assert_eq!(from.flags(open, PAST), [false; 3]);
}

#[test]
fn wrapping_unwrapping_and_agreeing_keep_to_allowed_mechanisms() {
    let sim = Sim::new("");
    let (kw, kwp) = (sys::CKM_AES_KEY_WRAP, sys::CKM_AES_KEY_WRAP_KWP);
    let only = words(&[kwp]);
    let free = kek(&sim);
    let bound = sim.import(
        sys::CKK_AES,
        &"42".repeat(32),
        &[WRAPS, &[(sys::CKA_ALLOWED_MECHANISMS, &only)]].concat(),
    );
    let key = sim.import(sys::CKK_AES, &"11".repeat(16), LEAVES);
    assert_eq!(sim.wrap(kw, bound, key), Err(sys::CKR_MECHANISM_INVALID));
    assert_eq!(sim.wrap(kwp, bound, key), sim.wrap(kwp, free, key));
    let [bare, padded] = [kw, kwp].map(|how| sim.wrap(how, free, key).unwrap());
    assert_eq!(sim.unwrap(kw, bound, &bare, sys::CKK_AES), Err(sys::CKR_MECHANISM_INVALID));
    assert_eq!(sim.unwrap(kwp, bound, &padded, sys::CKK_AES).unwrap(), [0x11; 16]);
    let curve = bytes(P256);
    let pair = |allowed: &[u8]| {
        let private: Template<'_> = &[(sys::CKA_DERIVE, TRUE), (sys::CKA_ALLOWED_MECHANISMS, allowed)];
        sim.generate_pair(sys::CKM_EC_KEY_PAIR_GEN, &[(sys::CKA_EC_PARAMS, &curve)], private).unwrap()
    };
    let (peer, signs) = pair(&words(&[sys::CKM_ECDSA]));
    let (_, agrees) = pair(&words(&[sys::CKM_ECDSA, sys::CKM_ECDH1_DERIVE]));
    let derive = |base| sim.derive(sys::CKD_NULL, &[], &sim.point_of(peer), base, 32);
    assert_eq!(derive(signs), Err(sys::CKR_MECHANISM_INVALID));
    derive(agrees).unwrap();
}

#[test]
fn created_and_unwrapped_objects_are_executions_by_their_labels() {
    let sim = Sim::new("count_executions=100,fault=C_CreateObject:2=0x30!;C_UnwrapKey:2=0x30");
    let kek = kek(&sim);
    let class = sys::CKO_DATA.to_ne_bytes();
    let data: Template<'_> = &[(sys::CKA_CLASS, &class), (sys::CKA_LABEL, b"lost")];
    assert_eq!(sim.create(data), Err(sys::CKR_DEVICE_ERROR));
    assert_eq!(sim.find(data).len(), 1, "the reply was lost, not the object");
    let key = sim.import(sys::CKK_AES, &"11".repeat(16), LEAVES);
    let wrapped = sim.wrap(sys::CKM_AES_KEY_WRAP, kek, key).unwrap();
    let (class, kind) = (sys::CKO_SECRET_KEY.to_ne_bytes(), sys::CKK_AES.to_ne_bytes());
    let unwrap = |label: &[u8]| {
        let template = described(&class, &kind, &[]);
        let template = [&template[..], &[(sys::CKA_LABEL, label)]].concat();
        sim.unwrap_as(sys::CKM_AES_KEY_WRAP, kek, &wrapped, &template)
    };
    unwrap(b"one").unwrap();
    assert_eq!(unwrap(b"two"), Err(sys::CKR_DEVICE_ERROR));
    let count = |function, label: &[u8]| sim.sim.executions_of(function, label);
    assert_eq!(count("C_CreateObject", b"lost"), 1);
    assert_eq!((count("C_UnwrapKey", b"one"), count("C_UnwrapKey", b"two")), (1, 0));
}
