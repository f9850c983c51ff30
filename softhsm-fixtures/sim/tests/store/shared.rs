//! Several processes, and the same one again, on one directory.

use cryptoki_sys as sys;
use tempfile::TempDir;

use crate::processes::{Process, change, destroy, make, only};
use crate::raw::call;
use crate::sim::{FALSE, Sim, TRUE, Template, bytes, words};

fn directory() -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let config = format!("store={}", directory.path().display());
    (directory, config)
}

/// A key for MACs on the token.
fn mac_key(sim: &Sim, label: &str) -> u64 {
    let on_token: Template<'_> = &[(sys::CKA_TOKEN, TRUE), (sys::CKA_LABEL, label.as_bytes())];
    sim.import(sys::CKK_GENERIC_SECRET, &"0b".repeat(20), on_token)
}

#[test]
fn what_one_process_makes_changes_and_destroys_another_finds() {
    let (_directory, config) = directory();
    let sim = Sim::new(&config);
    let mut other = Process::start(&config);
    assert_eq!(other.ask("log_in 1234"), "done");
    assert_eq!(other.ask("make theirs one"), "done");
    let theirs = only(sim.raw, sim.session, "theirs").unwrap();
    assert_eq!(sim.value(theirs, sys::CKA_VALUE), b"one");
    for value in ["two", "three", "four"] {
        assert_eq!(other.ask(&format!("change theirs {value}")), "done");
        assert_eq!(sim.value(theirs, sys::CKA_VALUE), value.as_bytes(), "under the handle that it had");
    }
    let ours = mac_key(&sim, "ours");
    assert_eq!(other.ask("mac ours"), "done");
    assert_eq!(other.ask("destroy ours"), "done");
    assert_eq!(sim.raw.mac(sim.session, ours, b"x"), Err(sys::CKR_KEY_HANDLE_INVALID));
    assert_eq!(sim.read(ours, sys::CKA_LABEL), Err(sys::CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(sim.destroy(ours), Err(sys::CKR_OBJECT_HANDLE_INVALID));
    assert!(sim.find(&[(sys::CKA_LABEL, b"ours")]).is_empty());
    sim.destroy(theirs).unwrap();
    assert_eq!(other.ask("change theirs five"), format!("{:#x}", sys::CKR_OBJECT_HANDLE_INVALID));
}

#[test]
fn changes_in_one_tick_of_the_clock_are_all_seen() {
    let (_directory, config) = directory();
    let (one, two) = (Sim::new(&config), Sim::new(&config));
    for round in 0..200 {
        let label = format!("r{round}");
        make(one.raw, one.session, &label, "x").unwrap();
        let found = only(two.raw, two.session, &label).unwrap();
        change(one.raw, one.session, &label, "y").unwrap();
        assert_eq!(two.value(found, sys::CKA_VALUE), b"y", "{round}");
        destroy(two.raw, two.session, &label).unwrap();
        assert_eq!(only(one.raw, one.session, &label), Err(sys::CKR_OBJECT_HANDLE_INVALID), "{round}");
    }
}

#[test]
fn threads_of_one_process_know_each_object_under_one_handle() {
    let (_directory, config) = directory();
    let sim = Sim::new(&config);
    let slot = sim.raw.slots().unwrap()[0];
    let (threads, each) = (4, 50);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (raw, session) = (sim.raw, sim.raw.open(slot).unwrap());
            scope.spawn(move || {
                for number in 0..each {
                    let label = format!("t{thread}-{number}");
                    let made = make(raw, session, &label, "x").unwrap();
                    assert_eq!(only(raw, session, &label), Ok(made));
                }
            });
        }
    });
    let class = sys::CKO_DATA.to_ne_bytes();
    let found = sim.raw.find_all(sim.session).unwrap();
    let data = found.into_iter().filter(|object| sim.value(*object, sys::CKA_CLASS) == class);
    let labels: Vec<_> = data.map(|object| sim.value(object, sys::CKA_LABEL)).collect();
    let distinct: std::collections::BTreeSet<_> = labels.iter().collect();
    assert_eq!((labels.len(), distinct.len()), (threads * each, threads * each));
}

#[test]
fn objects_of_every_kind_outlive_the_process_and_work_in_the_next_one() {
    let (_directory, config) = directory();
    let first = Sim::new(&config);
    let (curve, list) = (bytes("06082a8648ce3d030107"), words(&[sys::CKM_ECDSA]));
    let bits = 2_048_u64.to_ne_bytes();
    let named: Template<'_> = &[
        (sys::CKA_TOKEN, TRUE),
        (sys::CKA_LABEL, b"kept"),
        (sys::CKA_END_DATE, b"20991231"),
        (sys::CKA_ALLOWED_MECHANISMS, &list),
    ];
    let of = |attribute| [named, &[attribute]].concat();
    let on_curve = of((sys::CKA_EC_PARAMS, &curve));
    let pairs = [
        first.generate_pair(sys::CKM_EC_KEY_PAIR_GEN, &on_curve, named).unwrap(),
        first
            .generate_pair(
                sys::CKM_RSA_PKCS_KEY_PAIR_GEN,
                &[(sys::CKA_TOKEN, TRUE), (sys::CKA_LABEL, b"rsa"), (sys::CKA_MODULUS_BITS, &bits)],
                &[(sys::CKA_TOKEN, TRUE), (sys::CKA_LABEL, b"rsa")],
            )
            .unwrap(),
    ];
    let passing = first.import(sys::CKK_AES, &"11".repeat(16), &[(sys::CKA_LABEL, b"passing")]);
    assert_eq!(first.value(passing, sys::CKA_LABEL), b"passing");
    let mac = mac_key(&first, "mac");
    let made = first.raw.mac(first.session, mac, b"x").unwrap();
    make(first.raw, first.session, "data", "value").unwrap();
    let point = first.value(pairs[0].0, sys::CKA_EC_POINT);
    let signed = first.sign(sys::CKM_SHA256_RSA_PKCS, &[], pairs[1].1, b"x").unwrap();
    drop(first);

    let next = Sim::new(&config);
    let key = |class, label| next.key(class, label);
    let (private, public) = (sys::CKO_PRIVATE_KEY, sys::CKO_PUBLIC_KEY);
    assert_eq!(next.value(key(public, "kept"), sys::CKA_EC_POINT), point);
    let by_next = next.sign(sys::CKM_ECDSA, &[], key(private, "kept"), &[7; 32]).unwrap();
    next.verify(sys::CKM_ECDSA, &[], key(public, "kept"), &[7; 32], &by_next).unwrap();
    let refused = next.sign(sys::CKM_ECDSA_SHA256, &[], key(private, "kept"), b"x");
    assert_eq!(refused, Err(sys::CKR_MECHANISM_INVALID));
    assert_eq!(next.value(key(private, "kept"), sys::CKA_END_DATE), b"20991231");
    let flags = [sys::CKA_LOCAL, sys::CKA_SENSITIVE, sys::CKA_EXTRACTABLE, sys::CKA_NEVER_EXTRACTABLE];
    assert_eq!(next.flags(key(private, "kept"), flags), [true, true, false, true]);
    next.verify(sys::CKM_SHA256_RSA_PKCS, &[], key(public, "rsa"), b"x", &signed).unwrap();
    assert_eq!(next.sign(sys::CKM_SHA256_RSA_PKCS, &[], key(private, "rsa"), b"x").unwrap(), signed);
    assert_eq!(next.raw.mac(next.session, key(sys::CKO_SECRET_KEY, "mac"), b"x").unwrap(), made);
    assert_eq!(next.value(only(next.raw, next.session, "data").unwrap(), sys::CKA_VALUE), b"value");
    assert!(next.find(&[(sys::CKA_LABEL, b"passing")]).is_empty(), "an object of a session");
}

#[test]
fn each_token_has_a_folder_of_its_own() {
    let (directory, config) = directory();
    let sim = Sim::new(&format!("tokens=2,{config}"));
    mac_key(&sim, "first");
    let other = sim.raw.open(sim.raw.slots().unwrap()[1]).unwrap();
    sim.raw.log_in(other, "1234").unwrap();
    assert_eq!(only(sim.raw, other, "first"), Err(sys::CKR_OBJECT_HANDLE_INVALID));
    make(sim.raw, other, "second", "x").unwrap();
    assert!(sim.find(&[(sys::CKA_LABEL, b"second")]).is_empty());
    for token in ["sim-0", "sim-1"] {
        let files = std::fs::read_dir(directory.path().join(token)).unwrap();
        let objects = files.filter(|file| file.as_ref().unwrap().file_name().len() > 32).count();
        assert_eq!(objects, 1, "the keys that are there from the start are in no file: {token}");
    }
}

#[test]
fn objects_and_handles_outlive_the_end_of_use_and_the_removal_of_the_token() {
    let (_directory, config) = directory();
    let sim = Sim::new(&config);
    mac_key(&sim, "kept");
    sim.sim.configure("fault=C_SignInit:1=removed").unwrap();
    let key = sim.key(sys::CKO_SECRET_KEY, "kept");
    assert_eq!(sim.raw.mac(sim.session, key, b"x"), Err(sys::CKR_DEVICE_REMOVED));
    let mut other = Process::start(&config);
    assert_eq!(other.ask("log_in 1234"), "done");
    assert_eq!(other.ask("mac kept"), "done", "it is another process's device");
    assert_eq!(other.ask("make meanwhile x"), "done");
    sim.sim.configure("removed=").unwrap();
    let session = sim.raw.open(sim.raw.slots().unwrap()[0]).unwrap();
    sim.raw.log_in(session, "1234").unwrap();
    assert_eq!(only(sim.raw, session, "kept"), Ok(key));
    sim.raw.mac(session, key, b"x").unwrap();
    only(sim.raw, session, "meanwhile").unwrap();
    sim.raw.finalise().unwrap();
    assert_eq!(other.ask("destroy meanwhile"), "done");
    sim.raw.initialise().unwrap();
    let session = sim.raw.open(sim.raw.slots().unwrap()[0]).unwrap();
    sim.raw.log_in(session, "1234").unwrap();
    assert_eq!(only(sim.raw, session, "meanwhile"), Err(sys::CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(only(sim.raw, session, "kept"), Ok(key));
}

#[test]
fn lost_replies_leave_objects_and_refusals_leave_none() {
    let (_directory, config) = directory();
    let sim = Sim::new(&format!(
        "{config},fault=C_CreateObject:1=0x30!;C_CreateObject:2=0x30;C_SetAttributeValue:2=0x30!@/lost;C_DestroyObject:1=0x30!"
    ));
    let other = Sim::new(&config);
    let seen = |label| only(other.raw, other.session, label);
    assert_eq!(make(sim.raw, sim.session, "lost", "x"), Err(sys::CKR_DEVICE_ERROR));
    assert_eq!(make(sim.raw, sim.session, "refused", "x"), Err(sys::CKR_DEVICE_ERROR));
    let lost = seen("lost").unwrap();
    assert_eq!(seen("refused"), Err(sys::CKR_OBJECT_HANDLE_INVALID));
    change(sim.raw, sim.session, "lost", "y").unwrap();
    assert_eq!(change(sim.raw, sim.session, "lost", "z"), Err(sys::CKR_DEVICE_ERROR));
    assert_eq!(other.value(lost, sys::CKA_VALUE), b"z");
    assert_eq!(destroy(sim.raw, sim.session, "lost"), Err(sys::CKR_DEVICE_ERROR));
    assert_eq!(seen("lost"), Err(sys::CKR_OBJECT_HANDLE_INVALID));
}

#[test]
fn private_objects_of_other_processes_are_there_after_the_login_only() {
    let (_directory, config) = directory();
    let sim = Sim::new(&config);
    let mut other = Process::start(&config);
    make(sim.raw, sim.session, "hidden", "x").unwrap();
    sim.create(&[
        (sys::CKA_CLASS, &sys::CKO_DATA.to_ne_bytes()),
        (sys::CKA_TOKEN, TRUE),
        (sys::CKA_PRIVATE, FALSE),
        (sys::CKA_LABEL, b"shown"),
    ])
    .unwrap();
    let unseen = format!("{:#x}", sys::CKR_OBJECT_HANDLE_INVALID);
    assert_eq!(other.ask("change hidden y"), unseen);
    assert_eq!(other.ask("change shown y"), "done");
    assert_eq!(other.ask("log_in 1234"), "done");
    assert_eq!(other.ask("change hidden y"), "done");
    call!(sim.raw, C_Logout(sim.session)).unwrap();
    assert!(sim.find(&[(sys::CKA_LABEL, b"hidden")]).is_empty());
}

#[test]
fn a_pin_that_one_process_sets_counts_for_all_and_for_later_ones() {
    let (_directory, config) = directory();
    let mut other = Process::start(&config);
    let incorrect = format!("{:#x}", sys::CKR_PIN_INCORRECT);
    let sim = Sim::new(&config);
    sim.raw.set_pin(sim.session, "1234", "56789").unwrap();
    assert_eq!(other.ask("log_in 1234"), incorrect);
    assert_eq!(other.ask("log_in 56789"), "done");
    assert_eq!(other.ask("set_pin 1234 abcd"), incorrect);
    assert_eq!(other.ask("set_pin 56789 abcd"), "done");
    assert_eq!(sim.raw.set_pin(sim.session, "56789", "efgh"), Err(sys::CKR_PIN_INCORRECT));
    let mut later = Process::start(&config);
    assert_eq!(later.ask("log_in abcd"), "done");
}

#[test]
fn damage_is_told_and_a_directory_that_cannot_be_is_refused() {
    let (directory, config) = directory();
    let sim = Sim::new(&config);
    let key = mac_key(&sim, "key");
    let folder = directory.path().join("sim-0");
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let object = files.max_by_key(|path| path.file_name().unwrap().len()).unwrap();
    let whole = std::fs::read(&object).unwrap();
    let name = object.file_stem().unwrap().to_str().unwrap();
    std::fs::write(folder.join(format!("{name}.1")), &whole[..whole.len() / 2]).unwrap();
    assert_eq!(sim.raw.mac(sim.session, key, b"x"), Err(sys::CKR_DEVICE_ERROR));
    std::fs::write(folder.join(format!("{name}.2")), &whole).unwrap();
    sim.raw.mac(sim.session, key, b"x").unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    sim.raw.finalise().unwrap();
    sim.sim.configure(&format!("store={}", file.display())).unwrap();
    assert_eq!(sim.raw.initialise(), Err(sys::CKR_ARGUMENTS_BAD));
}
