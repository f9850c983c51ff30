//! Configurations that are read and refused.

use super::*;

#[test]
fn an_empty_text_is_the_default() {
    assert_eq!(Config::parse(""), Ok(Config::default()));
    assert_eq!(Config::parse(" , "), Ok(Config::default()));
}

#[test]
fn every_key_is_read() {
    let text = "null=1, op_us=12.5,call_us=3,cores=64,sessions=8,throttle=2,tokens=3,pin=77,pin_tries=9,keypad=1,holds_back=1,input_max=64,own_iv=1,stamped=1,seed=5";
    let config = Config::parse(text).unwrap();
    let live = Live { op_ns: 12_500, call_ns: 3_000, cores: 64, sessions: 8, throttle: 2, ..Live::default() };
    let expected = Config {
        null: true,
        tokens: 3,
        pin: "77".into(),
        pin_tries: 9,
        keypad: true,
        holds_back: true,
        input_max: 64,
        own_iv: OwnIv::Written,
        stamped: true,
        seed: 5,
        live,
        ..Config::default()
    };
    assert_eq!(config, expected);
    let old = Config::parse("interface=2.40,messages=0").unwrap();
    assert_eq!(old, Config { interface_3: false, messages: Messages::Missing, ..Config::default() });
    assert_eq!(Config::parse("own_iv=2").unwrap().own_iv, OwnIv::Silent);
    let faulty = Config::parse("wrong=ecb;ecb-decrypt;ecb-parts,wrong=cbc;ctr").unwrap();
    assert_eq!(faulty.wrong, [Wrong::Ecb, Wrong::EcbDecrypt, Wrong::EcbParts, Wrong::Cbc, Wrong::Ctr]);
    let again = Config::parse("reuse=sessions;objects,count_executions=9").unwrap();
    assert_eq!(again.reuse, Reuse { sessions: true, objects: true });
    assert_eq!(again.live.executions, 9);
    let stored = Config::parse("store=/objects,data=0").unwrap();
    assert_eq!(stored, Config { store: Some("/objects".into()), data: false, ..Config::default() });
    assert_eq!(Config::parse("forward=/m.so").unwrap().forward, Some("/m.so".into()));
}

#[test]
fn extra_keys_name_kind_variant_and_tokens() {
    let config = Config::parse("keys=a@sim-0+sim-2;b:p256#7@sim-1;c:hmac;d:rsa2048-decrypt").unwrap();
    let key = |label: &str, kind, variant, tokens: &[&str]| ExtraKey {
        label: label.into(),
        kind,
        usage: None,
        variant,
        tokens: tokens.iter().map(|&token| token.into()).collect(),
    };
    let expected = [
        key("a", Kind::Aes, 0, &["sim-0", "sim-2"]),
        key("b", Kind::P256, 7, &["sim-1"]),
        key("c", Kind::Hmac, 0, &[]),
        ExtraKey { usage: Some(Use::Decrypt), ..key("d", Kind::Rsa2048, 0, &[]) },
    ];
    assert_eq!(config.keys, expected);
}

#[test]
fn hidden_mechanisms_are_numbers_in_either_base_with_their_tokens() {
    let config = Config::parse("hide=0x1041;13@sim-0+sim-2").unwrap();
    let expected = [
        Hidden { mechanism: 0x1041, tokens: Vec::new() },
        Hidden { mechanism: 13, tokens: vec!["sim-0".into(), "sim-2".into()] },
    ];
    assert_eq!(config.hidden, expected);
}

#[test]
fn wrong_texts_are_refused_and_named() {
    let wrong = [
        "nonsense",
        "speed=9",
        "null=2",
        "op_us=x",
        "op_us=1.",
        "op_us=1.0001",
        "op_us=-1",
        "tokens=65",
        "hang=C_Sign",
        "hang=C_Sing:1",
        "hang=C_Sign:0",
        "fault=C_Sign:1",
        "fault=C_Sign:2%=maybe",
        "keys=",
        "keys=a:des",
        "keys=a#x",
        "keys=a:hmac-wrap",
        "keys=a:aes-sign",
        "hide=",
        "interface=3",
        "messages=3",
        "reuse=",
        "reuse=keys",
        "reuse=objects,forward=/m.so",
        "faults=G",
        "rules=C_Sign:1",
        "slower=0",
        "slower=1.0001",
        "slower=1000001",
        "slower=x@sim-0",
        "stall=x",
        "stall=-1",
        "stall=3600001",
        "faults=F:",
        "faults=F:1:2:3",
        "count_executions=on",
        "wrong=gcm",
        "hide=ECDSA",
        "hide=0x1041,forward=/m.so",
        "pin=",
        "forward=",
        "forward=/m.so,null=1",
        "forward=/m.so,store=/objects",
        "store=",
        "data=2",
        "seed=18446744073709551616",
    ];
    for text in wrong {
        assert!(Config::parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_change_while_in_use_keeps_what_it_does_not_name() {
    let live = Config::parse("op_us=5,cores=2,hang=C_Sign:1").unwrap().live;
    let changed = live.changed("op_us=7").unwrap();
    assert_eq!((changed.op_ns, changed.cores, changed.hangs.len()), (7_000, 2, 1));
    assert!(live.changed("hang=").unwrap().hangs.is_empty());
    let mixed = live.changed("faults=F").unwrap();
    assert!(!mixed.faults.is_empty());
    assert_eq!(mixed.changed("fault=C_Sign:1=flip").unwrap().faults.len(), 1);
    assert!(live.changed("tokens=2").is_err());
}

#[test]
fn rules_that_go_on_replace_others_stalls_are_of_their_text_alone_and_slowness_stays() {
    let live = Config::parse("fault=C_Sign:1=flip,slower=1.5;4@sim-1,stall=5;7@sim-0").unwrap().live;
    let slower = |thousandths, token: Option<&str>| Slower { thousandths, token: token.map(str::to_owned) };
    assert_eq!(live.slower, [slower(1_500, None), slower(4_000, Some("sim-1"))]);
    let stall = |ms, token: Option<&str>| Stall::Begin {
        time: Duration::from_millis(ms),
        token: token.map(str::to_owned),
    };
    assert_eq!(live.stalls, [stall(5, None), stall(7, Some("sim-0"))]);
    let changed = live.changed("rules=C_Sign:2=flip;C_Sign:1=hang").unwrap();
    assert_eq!((changed.faults.len(), changed.slower.len(), changed.stalls.len()), (2, 2, 0));
    assert!(changed.changed("slower=").unwrap().slower.is_empty());
    assert_eq!(changed.changed("stall=").unwrap().stalls, [Stall::End]);
}

#[test]
fn a_seed_of_the_process_is_the_same_in_it_and_none_of_small_numbers() {
    let seed = || Config::parse("seed=process").unwrap().seed;
    assert!(seed() > u64::from(u32::MAX) && seed() == seed());
}

#[test]
fn flags_are_flipped_on_the_tokens_that_are_named() {
    let config = Config::parse("flags=0x400@sim-1;0x10000,flags=2").unwrap();
    assert_eq!((config.flipped("sim-0"), config.flipped("sim-1")), (0x10002, 0x10402));
    assert!(Config::parse("flags=low").unwrap_err().contains("NUMBER[@TOKEN]"));
}
