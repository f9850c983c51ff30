//! Every use of a key, with every field of its record.

use std::collections::BTreeSet;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use hsmux::{
    AesCbc, AesCtr, AesEcb, AesGcm, AgreementKdf, Cipher, Cmac, Curve, DataKeyProvider, Ecdsa, Ed25519,
    EncryptionContext, Error, Hmac, Key, KeyWrap, MacPadding, OperationKind, RawMechanism, RetailMac,
    RsaOaep, RsaPkcs1, RsaPkcs1Encryption, RsaPss, SignAlgorithm, TripleDesCbc, TripleDesEcb,
};
use serde_json::json;

use super::*;

type Run<'a> = Box<dyn Fn(&Key) -> Result<(), Error> + 'a>;

/// One use of a key, and what its record has to say.
struct Case<'a> {
    operation: &'static str,
    algorithm: &'static str,
    /// The label of the key.
    key: &'static str,
    input: Option<Vec<u8>>,
    /// The label of the other key.
    other: Option<&'static str>,
    is_on_host: bool,
    outcome: &'static str,
    error: Option<&'static str>,
    run: Run<'a>,
}

impl<'a> Case<'a> {
    fn new(
        names: (&'static str, &'static str),
        key: &'static str,
        input: Option<&[u8]>,
        run: impl Fn(&Key) -> Result<(), Error> + 'a,
    ) -> Self {
        let ((operation, algorithm), input, run) = (names, input.map(<[u8]>::to_vec), Box::new(run));
        let (is_on_host, outcome) = (false, "done");
        Self { operation, algorithm, key, input, other: None, is_on_host, outcome, error: None, run }
    }

    fn of_other(self, other: &'static str) -> Self {
        Self { other: Some(other), ..self }
    }

    fn on_host(self) -> Self {
        Self { is_on_host: true, ..self }
    }

    fn fails(self, outcome: &'static str, error: &'static str) -> Self {
        Self { outcome, error: Some(error), ..self }
    }

    /// What its intent has to say, under this id.
    fn intent(&self, key: &Key, id: &str) -> Value {
        let mut said = json!({
            "kind": "intent", "caller": "desk", "request": id,
            "operation": self.operation, "algorithm": self.algorithm,
        });
        match key.id() {
            Some(key_id) => {
                (said["key"], said["version"]) = (key_id.as_str().into(), key.version_number().into());
            }
            None => said["object"] = uri(self.key).into(),
        }
        self.input.iter().for_each(|input| said["input"] = ring_sha256(input).into());
        self.other.iter().for_each(|other| said["other"] = uri(other).into());
        said
    }

    /// And its record, if that intent has this number.
    fn record(&self, mut intent: Value, number: &Value) -> Value {
        (intent["kind"], intent["intent"]) = ("use".into(), number.clone());
        intent["outcome"] = self.outcome.into();
        self.error.iter().for_each(|error| intent["error"] = (*error).into());
        if !self.is_on_host {
            intent["token"] = SERIAL.into();
        }
        intent
    }
}

const MESSAGE: &[u8] = b"sixteen bytes ..";

fn signatures<'a>(engine: &'a Engine) -> Vec<Case<'a>> {
    let sign = |operation, algorithm, key, how: SignAlgorithm| {
        Case::new((operation, algorithm), key, Some(MESSAGE), move |key| {
            key.sign(how.clone(), MESSAGE).wait().map(drop)
        })
    };
    let retail = RetailMac::new(&engine.key("des").unwrap(), MacPadding::Method2).unwrap();
    let (p256, signer) = (Ecdsa::P256_SHA256, engine.key("card").unwrap());
    let signature = signer.sign(p256, MESSAGE).wait().unwrap();
    vec![
        sign("sign-rsa-pkcs1", "rsa-pkcs1-sha256", "rsa2048", RsaPkcs1::SHA256.into()),
        sign("sign-rsa-pss", "rsa-pss-sha256", "rsa2048", RsaPss::SHA256.into()),
        sign("sign-ecdsa", "ecdsa-p256-sha256", "card", p256.into()),
        sign("sign-ecdsa", "ecdsa-p256-sha256", "p256", p256.into()),
        sign("sign-ed25519", "ed25519", "ed", Ed25519.into()),
        sign("sign-hmac", "hmac-sha256", "hmac", Hmac::SHA256.into()),
        sign("sign-aes-cmac", "aes-cmac", "mac", Cmac::Aes.into()),
        sign("sign-3des-cmac", "3des-cmac", "des-mac", Cmac::TripleDes.into()),
        sign("sign-retail-mac", "retail-mac", "des", retail.into()).of_other("des"),
        sign("sign-raw", "raw", "hmac", RawMechanism::new(0x251).into()),
        Case::new(("verify", "ecdsa-p256-sha256"), "card", Some(MESSAGE), move |key| {
            key.verify(p256, MESSAGE, &signature).wait().map(drop)
        })
        .on_host(),
    ]
}

/// Both directions of a cipher.
fn cipher<'a>(
    engine: &Engine,
    names: [&'static str; 2],
    algorithm: &'static str,
    key: &'static str,
    how: impl Into<Cipher>,
) -> [Case<'a>; 2] {
    let how = how.into();
    let encrypted = engine.key(key).unwrap().encrypt(how.clone(), MESSAGE).wait().unwrap().into_vec();
    let (input, back) = (encrypted.clone(), how.clone());
    [
        Case::new((names[0], algorithm), key, Some(MESSAGE), move |key| {
            key.encrypt(how.clone(), MESSAGE).wait().map(drop)
        }),
        Case::new((names[1], algorithm), key, Some(&input), move |key| {
            key.decrypt(back.clone(), &encrypted[..]).wait().map(drop)
        }),
    ]
}

fn ciphers<'a>(engine: &Engine) -> Vec<Case<'a>> {
    let raw = RawMechanism::new(0x1081);
    let mut cases: Vec<Case<'_>> = [
        cipher(engine, ["encrypt-aes-gcm", "decrypt-aes-gcm"], "aes-gcm", "vault", AesGcm::new()),
        cipher(engine, ["encrypt-aes-ecb", "decrypt-aes-ecb"], "aes-ecb", "aes256", AesEcb),
        cipher(engine, ["encrypt-aes-cbc", "decrypt-aes-cbc"], "aes-cbc", "aes256", AesCbc::new()),
        cipher(engine, ["encrypt-aes-ctr", "decrypt-aes-ctr"], "aes-ctr", "aes256", AesCtr::new()),
        cipher(engine, ["encrypt-3des-ecb", "decrypt-3des-ecb"], "3des-ecb", "des", TripleDesEcb),
        cipher(engine, ["encrypt-3des-cbc", "decrypt-3des-cbc"], "3des-cbc", "des", TripleDesCbc::new()),
        cipher(engine, ["encrypt-raw", "decrypt-raw"], "raw", "aes256", raw),
    ]
    .into_iter()
    .flatten()
    .collect();
    let rsa = [
        cipher(engine, ["encrypt-rsa-oaep", "decrypt-rsa-oaep"], "rsa-oaep-sha256", "rsa", RsaOaep::SHA256),
        cipher(engine, ["encrypt-rsa-pkcs1", "decrypt-rsa-pkcs1"], "rsa-pkcs1", "rsa", RsaPkcs1Encryption),
    ];
    for [encrypt, decrypt] in rsa {
        cases.extend([encrypt.on_host(), decrypt]);
    }
    cases.push(
        Case::new(("decrypt-aes-gcm", "aes-gcm"), "vault", Some(&[0; 40]), |key| {
            key.decrypt(AesGcm::new(), &[0; 40][..]).wait().map(drop)
        })
        .fails("done", "decrypt-failed"),
    );
    cases
}

/// What is no request: agreements, wrapping and unwrapping.
fn transports<'a>(engine: &'a Engine, hsm: &'a Hsm) -> Vec<Case<'a>> {
    let peer = engine.key("agree").unwrap().public_key_der().unwrap();
    let point = peer[peer.len() - 65..].to_vec();
    let input = [&point[..], b"both"].concat();
    let agree = move |key: &Key| {
        let kdf = AgreementKdf::X963(hsmux::Hash::Sha256);
        key.agree(&point, kdf, b"both", KeySpec::Aes(16)).map(drop)
    };
    let faulty = agree.clone();
    let other = || engine.key("leaves").unwrap();
    let mut cases = vec![
        Case::new(("agree-ecdh", "ecdh-p256-x963-sha256"), "agree", Some(&input), agree.clone()),
        Case::new(("agree-ecdh", "ecdh-p256-x963-sha256"), "ours", Some(&input), agree),
        Case::new(("agree-ecdh", "ecdh-p256-x963-sha256"), "agree", Some(&input), move |key| {
            hsm.sim.configure("fault=C_DeriveKey:1=0x30").unwrap();
            let failed = faulty(key);
            hsm.sim.configure("fault=").unwrap();
            failed
        })
        .fails("unknown", "device"),
    ];
    let all = [
        (KeyWrap::AesKw, ("wrap-aes-kw", "unwrap-aes-kw", "aes-kw")),
        (KeyWrap::AesKwp, ("wrap-aes-kwp", "unwrap-aes-kwp", "aes-kwp")),
    ];
    for (how, (wrap, unwrap, algorithm)) in all {
        let wrapped = engine.key("kek").unwrap().wrap(how, &other()).unwrap().into_vec();
        let mut broken = wrapped.clone();
        broken[9] ^= 1;
        let open =
            move |wrapped: Vec<u8>| move |key: &Key| key.unwrap(how, &wrapped, KeySpec::Aes(32)).map(drop);
        cases.extend([
            Case::new((wrap, algorithm), "kek", None, move |key| key.wrap(how, &other()).map(drop))
                .of_other("leaves"),
            Case::new((unwrap, algorithm), "kek", Some(&wrapped), open(wrapped.clone())),
            Case::new((unwrap, algorithm), "kek", Some(&broken), open(broken.clone()))
                .fails("done", "decrypt-failed"),
        ]);
    }
    cases
}

/// A key that another tool has made and that may leave the token.
fn import_one_that_leaves(hsm: &Hsm) -> (Pkcs11, Session) {
    let module = Pkcs11::new(hsm.sim.path()).unwrap();
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let session = module.open_rw_session(module.get_slots_with_token().unwrap()[0]).unwrap();
    session.login(UserType::User, Some(&AuthPin::from("1234"))).unwrap();
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(true),
        Attribute::Label(b"leaves".to_vec()),
        Attribute::Id(b"leaves".to_vec()),
        Attribute::Value(vec![7; 32]),
    ];
    session.create_object(&template).unwrap();
    (module, session)
}

/// The names of every operation that is a use of a key.
fn operations() -> BTreeSet<&'static str> {
    let requests = OperationKind::ALL.into_iter().filter(|kind| *kind != OperationKind::Random);
    let others = ["agree-ecdh", "wrap-aes-kw", "wrap-aes-kwp", "unwrap-aes-kw", "unwrap-aes-kwp"];
    requests.map(OperationKind::as_str).chain(others).collect()
}

#[test]
fn every_kind_of_use_leaves_an_intent_and_a_record_with_every_field() {
    let keys =
        "des:des3;des-mac:des3-mac;mac:aes-mac;kek:aes-wrap;agree:p256-agree;ed:ed25519;rsa:rsa2048-decrypt";
    let (hsm, site) = (Hsm::new(1, &format!("seed=1,keys={keys}")), tempfile::tempdir().unwrap());
    let then = SystemTime::now();
    let other_tool = import_one_that_leaves(&hsm);
    let log = site.path().join("audit");
    let builder = hsm.builder().allow_rsa_pkcs1_decryption();
    let engine = builder.audit(Audit::new(&log).mode(AuditMode::StrictIntent)).build().unwrap();
    let managed = engine.managed_keys();
    managed.create("card", &KeyConfig::new(KeySpec::Ec(Curve::P256))).unwrap();
    managed.rotate("card").unwrap();
    managed.create("vault", &KeyConfig::new(KeySpec::Aes(32))).unwrap();
    managed.create("ours", &KeyConfig::new(KeySpec::EcAgreement(Curve::P256))).unwrap();
    let mut cases = signatures(&engine);
    cases.extend(ciphers(&engine));
    cases.extend(transports(&engine, &hsm));

    let tested: BTreeSet<_> = cases.iter().map(|case| case.operation).collect();
    assert_eq!(tested, operations());
    let mut wanted = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let id = format!("case-{number}");
        let key = engine.key(case.key).unwrap().for_caller("desk").for_request(id.as_str());
        let failed = (case.run)(&key).err().map(|error| error.kind().name());
        assert_eq!(failed, case.error, "{} by {}", case.operation, case.key);
        wanted.push((case.intent(&key, &id), case));
    }
    let public_key = managed.audit_public_key().unwrap();
    assert_eq!(engine.drain(LONG), 0);
    drop(other_tool);

    let all = records(&log);
    for (intent, case) in wanted {
        let of_it: Vec<_> = all.iter().filter(|record| record["request"] == intent["request"]).collect();
        assert_eq!(of_it.len(), 2, "{} by {}: {of_it:?}", case.operation, case.key);
        assert_eq!((said(of_it[0]), of_it[0]["v"].clone()), (intent.clone(), 1.into()));
        assert_eq!(said(of_it[1]), case.record(intent, &of_it[0]["seq"]));
    }
    assert_times(&all, then);
    verify(&log, &public_key);
}

#[test]
fn a_data_key_is_recorded_when_it_is_made_and_when_it_is_unwrapped() {
    let (hsm, site) = (Hsm::new(1, "seed=1"), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let engine = hsm.builder().audit(Audit::new(&log)).build().unwrap();
    engine.managed_keys().create("vault", &KeyConfig::new(KeySpec::Aes(32))).unwrap();
    let context = EncryptionContext::builder().pair("purpose", "test").build().unwrap();
    let vault = engine.key("vault").unwrap().for_caller("desk").for_request("data");
    let made = vault.generate_data_key(&context).unwrap();
    vault.data_keys().unwrap().unwrap(&made.wrapped, &context).unwrap();
    assert_eq!(engine.drain(LONG), 0);
    let all = records(&log);
    let of_it: Vec<_> = all.iter().filter(|record| record["request"] == "data").collect();
    let operations: Vec<_> = of_it.iter().map(|record| record["operation"].as_str().unwrap()).collect();
    assert_eq!(operations, ["encrypt-aes-gcm", "decrypt-aes-gcm"]);
    for record in of_it {
        assert_eq!((&record["caller"], &record["version"]), (&"desk".into(), &1.into()));
        assert_eq!((&record["outcome"], &record["token"]), (&"done".into(), &SERIAL.into()));
    }
}
