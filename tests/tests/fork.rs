//! A forked child: it may not use the module, and neither hangs nor harms its parent. Alone in its file, so that no
//! other test runs in the process that forks.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use hsmux::{Config, Engine, ErrorKind, Hmac, Key, KeySpec, Outcome, Tier};
use hsmux_tests::{Hsm, LONG, eventually};

/// Runs a closure in a forked child. False if it panics, or does not end.
#[cfg(unix)]
fn succeeds_in_a_child(run: impl FnOnce()) -> bool {
    let child = match fork::fork().unwrap() {
        fork::Fork::Child => {
            let ended = catch_unwind(AssertUnwindSafe(run));
            std::process::exit(i32::from(ended.is_err()));
        }
        fork::Fork::Parent(child) => child,
    };
    let mut status = None;
    eventually("the child has ended", || {
        status = fork::waitpid_nohang(child).unwrap();
        status.is_some()
    });
    status == Some(0)
}

fn assert_forked<T>(result: hsmux::Result<T>) {
    let error = result.map(drop).unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Forked, Outcome::NotDone), "{error}");
}

/// What a child does, by name.
type Check<'a> = (&'static str, &'a dyn Fn(&Engine));

fn use_key(key: &Key) {
    assert_forked(key.sign(Hmac::SHA256, b"x").wait());
    assert_forked(key.sign(Hmac::SHA256, b"x").deadline(None).wait());
    assert_forked(key.sign(Hmac::SHA256, b"x").deadline(None).wait_into(&mut [0; 32]));
    assert_forked(key.sign(Hmac::SHA256, b"x").submit().map_err(|refused| refused.error));
    assert_forked(futures::executor::block_on(key.sign(Hmac::SHA256, b"x").into_future()));
    key.sign_many(Hmac::SHA256, [b"x", b"y"]).wait().into_iter().for_each(assert_forked);
}

/// The pool's memory is the parent's: its bytes must not be given out twice.
fn draw(engine: &Engine) {
    assert_forked(engine.random(8).wait());
    assert_forked(engine.random(8).deadline(None).wait());
    assert_forked(engine.random(8).wait_into(&mut [0; 8]));
    assert_forked(engine.random(8).submit().map_err(|refused| refused.error));
    assert_forked(futures::executor::block_on(engine.random(8).into_future()));
    assert_eq!(engine.snapshot().random_pool.held, 0, "none of it is the child's");
}

#[test]
#[cfg(unix)]
fn a_forked_child_cannot_use_the_engine_and_does_not_harm_its_parent() {
    let hsm = Hsm::new(2, "keys=unseen:hmac");
    let engine = hsm.instances(2).sessions(2).build().unwrap();
    let key = engine.key("hmac").unwrap();
    let wanted = key.sign(Hmac::SHA256, b"message").wait().unwrap().into_vec();
    // Now the pool holds bytes that the parent will give out.
    let before = engine.random(8).wait().unwrap();
    assert!(engine.snapshot().random_pool.held > 0);
    let calls = hsm.calls();
    // The wrong tokens, so that only a child that does not look at them at all answers as it should.
    let config = "module = \"m\"\npin = \"prompt\"\n[[token]]\nname = \"other\"\n";
    let config: Config = config.parse().unwrap();
    let untouched = || assert_eq!(hsm.calls(), calls, "the module was called");

    let checks: [Check<'_>; 6] = [
        ("requests", &|engine| {
            use_key(&key);
            draw(engine);
        }),
        ("keys", &|engine| {
            assert_forked(engine.key("hmac"));
            assert_forked(engine.key("unseen"));
            assert_forked(engine.destroy_key("hmac"));
            assert_forked(engine.generate_key("new", KeySpec::Hmac(32)));
        }),
        ("a new engine", &|_| assert_forked(hsm.builder().build())),
        ("a drain", &|engine| {
            let start = quanta::Instant::now();
            engine.drain(LONG);
            assert!(start.elapsed() < LONG / 2, "it waited for {:?}", start.elapsed());
        }),
        ("a snapshot", &|engine| {
            assert!(engine.snapshot().tokens.is_empty() && engine.keys().is_empty());
            assert!(engine.snapshot().to_prometheus().contains("hsmux_requests_in_flight 0"));
        }),
        ("settings", &|engine| {
            assert_forked(engine.set_tier("sim-0", Tier { rank: 1, ..Tier::default() }));
            assert_forked(engine.drain_token("sim-0", LONG));
            assert_forked(engine.undrain_token("sim-0"));
            assert_forked(engine.reload(&config));
            engine.set_limits(1, 1);
            engine.set_deadline(None);
            engine.set_hang_limit(None);
        }),
    ];
    for (what, check) in checks {
        let check = || {
            check(&engine);
            untouched();
        };
        assert!(succeeds_in_a_child(check), "{what}");
    }
    // The child gets a copy of these, too.
    let mut held = Some((key, engine));
    let dropped = succeeds_in_a_child(|| {
        drop(held.take());
        untouched();
    });
    assert!(dropped, "a drop");

    let (key, engine) = held.unwrap();
    for limit in [None, Some(LONG)] {
        assert_eq!(key.sign(Hmac::SHA256, b"message").deadline(limit).wait().unwrap()[..], wanted);
    }
    assert_ne!(engine.random(8).wait().unwrap().as_bytes(), before.as_bytes());
    hsm.assert_sound();
    assert_eq!(engine.drain(LONG), 0);
    drop((key, engine));
    hsm.wait_closed();
}
