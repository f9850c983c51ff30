//! The answers, as their standards print them.

use hsmux::MacPadding;

/// SP 800-38A and 800-38B: of 128, 192 and 256 bits.
pub(super) const AES_KEYS: [&str; 3] = [
    "2b7e1516 28aed2a6 abf71588 09cf4f3c",
    "8e73b0f7 da0e6452 c810f32b 809079e5 62f8ead2 522c6b7b",
    "603deb10 15ca71be 2b73aef0 857d7781 1f352c07 3b6108d7 2d9810a3 0914dff4",
];

/// The message of SP 800-38A and 800-38B.
pub(super) const MESSAGE: &str = "6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51
    30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710";

/// SP 800-38A, F.1.1 to F.1.6.
pub(super) const ECB: [&str; 3] = [
    "3ad77bb40d7a3660a89ecaf32466ef97 f5d3d58503b9699de785895a96fdbaaf
     43b1cd7f598ece23881b00e3ed030688 7b0c785e27e8ad3f8223207104725dd4",
    "bd334f1d6e45f25ff712a214571fa5cc 974104846d0ad3ad7734ecb3ecee4eef
     ef7afd2270e2e60adce0ba2face6444e 9a4b41ba738d6c72fb16691603c18e0e",
    "f3eed1bdb5d2a03c064b5a7e3db181f8 591ccb10d410ed26dc5ba74a31362870
     b6ed21b99ca6f4f9f153e7b1beafed1d 23304b7a39f9f3ff067d8d8f9e24ecc7",
];

/// SP 800-38A, F.2.1 to F.2.6.
pub(super) const CBC: [&str; 3] = [
    "7649abac8119b246cee98e9b12e9197d 5086cb9b507219ee95db113a917678b2
     73bed6b8e3c1743b7116e69e22229516 3ff1caa1681fac09120eca307586e1a7",
    "4f021db243bc633d7178183a9fa071e8 b4d9ada9ad7dedf4e5e738763f69145a
     571b242012fb7ae07fa9baac3df102e0 08b0e27988598881d920a9e64f5615cd",
    "f58c4c04d6e5f1ba779eabfb5f7bfbd6 9cfc4e967edb808d679f777bc6702c7d
     39f23369a9d9bacfa530e26304231461 b2eb05e2c39be9fcda6c19078c6a9d1b",
];

/// SP 800-38A, F.5.1 to F.5.6.
pub(super) const CTR: [&str; 3] = [
    "874d6191b620e3261bef6864990db6ce 9806f66b7970fdff8617187bb9fffdff
     5ae4df3edbd5d35e5b4f09020db03eab 1e031dda2fbe03d1792170a0f3009cee",
    "1abc932417521ca24f2b0459fe7e6e0b 090339ec0aa6faefd5ccc2c6f4ce8e94
     1e36b26bd1ebc670d1bd1d665620abf7 4f78a7f6d29809585a97daec58c6b050",
    "601ec313775789a5b7a7f504bbf3d228 f443e3ca4d62b59aca84e990cacaf5c5
     2b0930daa23de94ce87017ba2d84988d dfc9c58db67aada613c2dd08457941a6",
];

/// SP 800-38B, D.1 to D.3: of the first 0, 16, 40 and 64 bytes of the message.
pub(super) const AES_CMAC: [[&str; 4]; 3] = [
    [
        "bb1d6929e95937287fa37d129b756746",
        "070a16b46b4d4144f79bdd9dd04a287c",
        "dfa66747de9ae63030ca32611497c827",
        "51f0bebf7e3b9d92fc49741779363cfe",
    ],
    [
        "d17ddf46adaacde531cac483de7a9367",
        "9e99a7bf31e710900662f65e617c5184",
        "8a1de5be2eb31aad089a82e6ee908b0e",
        "a1d5df0eed790f794d77589659f39a11",
    ],
    [
        "028962f61b7bf89efc6b551f4667d983",
        "28a7023f452e8f82bd4bf28d8c37c35c",
        "aaf3d8f1de5640c232f5b169b9c911e6",
        "e1992190549f6ed5696a2c056c315410",
    ],
];

/// SP 800-38B, D.4 and D.5, with their keys: of the first 0, 8, 20 and 32 bytes of the message.
pub(super) const TRIPLE_DES_CMAC: [(&str, [&str; 4]); 2] = [
    (
        "8aa83bf8cbda1062 0bc1bf19fbb6cd58 bc313d4a371ca8b5",
        ["b7a688e122ffaf95", "8e8f293136283797", "743ddbe0ce2dc2ed", "33e6b1092400eae5"],
    ),
    (
        "4cf15134a2850dd5 8a3d10ba80570d38 4cf15134a2850dd5",
        ["bd2ebf9a3ba00361", "4ff2ab813c53ce83", "62dd1b471902bd4e", "31b1e431dabc4eb8"],
    ),
];

/// SP 800-67, B.1, and NIST's examples of triple DES in ECB and CBC: one key.
pub(super) const TRIPLE_DES_KEY: &str = "0123456789abcdef 23456789abcdef01 456789abcdef0123";
pub(super) const TRIPLE_DES_IV: &str = "f69f2445df4f9b17";
pub(super) const TRIPLE_DES_ECB: [(&str, &str); 2] = [
    (
        "5468652071756663 6b2062726f776e20 666f78206a756d70",
        "a826fd8ce53b855f cce21c8112256fe6 68d5c05dd9b6b900",
    ),
    (
        "6bc1bee22e409f96 e93d7e117393172a ae2d8a571e03ac9c 9eb76fac45af8e51",
        "714772f339841d34 267fcc4bd2949cc3 ee11c22a576a3038 76183f99c0b6de87",
    ),
];
pub(super) const TRIPLE_DES_CBC: &str = "2079c3d53aa763e1 93b79e2569ab5262 516570481f25b50f 73c0bda85c8e0da7";

/// SP 800-20, table 1, first rows: plaintexts of one bit under a key of zeros with odd parity.
pub(super) const VARIABLE_PLAINTEXT: [(&str, &str); 4] = [
    ("8000000000000000", "95f8a5e5dd31d900"),
    ("4000000000000000", "dd7f121ca5015619"),
    ("2000000000000000", "2e8653104f3834ea"),
    ("1000000000000000", "4bd388ff6cd81d4f"),
];

/// Retail MACs: ISO/IEC 9797-1, annex B, with padding 1; ICAO Doc 9303 part 11, D.3, with padding 2. The key, the
/// message, the MAC.
pub(super) const RETAIL: [(MacPadding, &str, &str, &str); 3] = [
    (
        MacPadding::Method1,
        "0123456789abcdef fedcba9876543210",
        "4e6f77206973207468652074696d6520666f7220616c6c20",
        "a1c72e74ea3fa9b6",
    ),
    (
        MacPadding::Method2,
        "7962d9ece03d1acd 4c76089dce131543",
        "72c29c2371cc9bdb65b779b8e8d37b29ecc154aa56a8799fae2f498f76ed92f2",
        "5f1448eea8ad90a7",
    ),
    (
        MacPadding::Method2,
        "7962d9ece03d1acd 4c76089dce131543",
        "46b9342a41396cd7386bf5803104d7cedc122b9132139baf2eedc94ee178534f",
        "2f2d235d074d7449",
    ),
];

/// RFC 8032, 7.1: seed, message, signature.
pub(super) const ED25519: [(&str, &str, &str); 4] = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155
         5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da
         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac
         18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a
         2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589
         09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
];

/// RFC 3394, 4.1 to 4.6: so many bytes of the wrapping key and of the wrapped one, and the result.
pub(super) const KW: [(usize, usize, &str); 6] = [
    (16, 16, "1fa68b0a8112b447 aef34bd8fb5a7b82 9d3e862371d2cfe5"),
    (24, 16, "96778b25ae6ca435 f92b5b97c050aed2 468ab8a17ad84e5d"),
    (32, 16, "64e8c3f9ce0f5ba2 63e9777905818a2a 93c8191e7d6e8ae7"),
    (24, 24, "031d33264e15d332 68f24ec260743edc e1c6c7ddee725a93 6ba814915c6762d2"),
    (32, 24, "a8f9bc1612c68b3f f6e6f4fbe30e71e4 769c8b80a32cb895 8cd5d17d6b254da1"),
    (32, 32, "28c9f404c4b810f4 cbccb35cfb87f826 3f5786e2d80ed326 cbc7f0e71a99f43b fb988b9b7a02dd21"),
];

/// RFC 5649, 6: one wrapping key.
pub(super) const KWP_KEY: &str = "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8";
pub(super) const KWP: [(&str, &str); 2] = [
    (
        "c37b7e6492584340bed12207808941155068f738",
        "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a",
    ),
    ("466f7250617369", "afbeb0f07dfbf5419200f2ccb50bb24f"),
];

/// A key, a message, and its HMACs with SHA-256, SHA-384 and SHA-512.
type HmacAnswer = (Vec<u8>, Vec<u8>, Option<[&'static str; 3]>);

/// RFC 4231, 4.2 to 4.8. The answers of the first five are not written out: SoftHSM2 does not take their keys.
pub(super) fn hmac() -> [HmacAnswer; 7] {
    let counted = (1..=25).collect();
    let long: &[u8] =
        b"This is a test using a larger than block-size key and a larger than block-size data. \
        The key needs to be hashed before being used by the HMAC algorithm.";
    [
        (vec![0x0b; 20], b"Hi There".to_vec(), None),
        (b"Jefe".to_vec(), b"what do ya want for nothing?".to_vec(), None),
        (vec![0xaa; 20], vec![0xdd; 50], None),
        (counted, vec![0xcd; 50], None),
        (vec![0x0c; 20], b"Test With Truncation".to_vec(), None),
        (
            vec![0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
            Some([
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
                "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c6
                 0c2ef6ab4030fe8296248df163f44952",
                "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352
                 6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
            ]),
        ),
        (
            vec![0xaa; 131],
            long.to_vec(),
            Some([
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
                "6617178e941f020d351e2f254e8fd32c602420feb0b8fb9adccebb82461e99c5
                 a678cc31e799176d3860e6110c46523e",
                "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944
                 b6022cac3c4982b10d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58",
            ]),
        ),
    ]
}
