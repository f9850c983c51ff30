//! A mixed load on the simulated HSM, whose outputs other software checks.

use hsmux_bench::check::{FurtherMaterial, Material, Software};
use hsmux_bench::mixed::{Further, Labels};
use p11_sim::material;
use p256::pkcs8::EncodePublicKey;
use rsa::pkcs1::DecodeRsaPrivateKey;

/// The keys of a mixed load on the simulated HSM.
pub(crate) const LABELS: Labels = Labels {
    rsa: "rsa2048",
    p256: "p256",
    p384: "p384",
    aes: "aes256",
    hmac: "hmac",
    further: Some(FURTHER),
};

const FURTHER: Further =
    Further { p256: "p256-2", aes: "aes-2", hmac: "hmac-2", cmac: "cmac", des: "des", des_mac: "des-mac" };

/// What the simulator has to be told of them.
pub(crate) const KEYS: &str = "keys=p256-2:p256;aes-2:aes;hmac-2:hmac;cmac:aes-mac;des:des3;des-mac:des3-mac";

/// Other software with the same keys.
pub(crate) fn software() -> Software {
    fn der(key: &impl EncodePublicKey) -> Vec<u8> {
        key.to_public_key_der().unwrap().into_vec()
    }
    let rsa = rsa::PrivateKey::from_pkcs1_der(material::RSA_2048[0].pkcs1_der()).unwrap().to_public_key();
    let rsa = der(&rsa);
    let p256 = |label| der(material::p256(0, label, 0).verifying_key());
    let further = FurtherMaterial {
        p256: &p256(FURTHER.p256),
        aes: &material::aes(0, FURTHER.aes, 0),
        hmac: &material::hmac(0, FURTHER.hmac, 0),
        cmac: &material::aes(0, FURTHER.cmac, 0),
        des: &material::triple_des(0, FURTHER.des, 0),
        des_mac: &material::triple_des(0, FURTHER.des_mac, 0),
    };
    let material = Material {
        rsa: &rsa,
        p256: &p256(LABELS.p256),
        p384: &der(material::p384(0, LABELS.p384, 0).verifying_key()),
        aes: &material::aes(0, LABELS.aes, 0),
        hmac: &material::hmac(0, LABELS.hmac, 0),
        further: Some(further),
    };
    Software::new(material).unwrap()
}
