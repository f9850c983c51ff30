//! Signs from blocking and async callers with a key of a token, and checks every signature.
//!
//! `PKCS11_MODULE_PATH`, `TOKEN`, `PIN` and `KEY` (a P-256 key) say where: without them it says so and ends.

#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::time::Duration;

use hsmux::{Ecdsa, Engine, Key};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let read = |name| std::env::var(name).ok();
    let (Some(module), Some(token), Some(pin), Some(key)) =
        (read("PKCS11_MODULE_PATH"), read("TOKEN"), read("PIN"), read("KEY"))
    else {
        eprintln!("set PKCS11_MODULE_PATH, TOKEN, PIN and KEY to run this example");
        return Ok(());
    };
    let engine = Engine::builder().module(module).tokens([token]).pin(pin).build()?;
    let key = engine.key(&key)?;

    let started = std::time::SystemTime::now();
    let blocking = sign_blocking(&key, 2_000)?;
    let inline = started.elapsed()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let started = std::time::SystemTime::now();
    let awaited = runtime.block_on(sign_async(&key, 64, 100))?;
    println!(
        "{blocking} signatures inline in {inline:?}, {awaited} from 64 tasks in {:?}",
        started.elapsed()?
    );
    let left = engine.drain(Duration::from_secs(5));
    println!("drained, {left} sessions left");
    Ok(())
}

fn sign_blocking(key: &Key, count: u32) -> hsmux::Result<u32> {
    for i in 0..count {
        let message = i.to_be_bytes().to_vec();
        let signature = key.sign(Ecdsa::P256_SHA256, message.clone()).deadline(None).wait()?;
        assert!(key.verify(Ecdsa::P256_SHA256, message, &signature).wait()?.is_valid(), "signature {i}");
    }
    Ok(count)
}

async fn sign_async(key: &Key, tasks: u32, each: u32) -> Result<u32, Box<dyn std::error::Error>> {
    let mut running = Vec::new();
    for task in 0..tasks {
        let key = key.clone();
        running.push(tokio::spawn(async move {
            for i in 0..each {
                let message = (task * each + i).to_be_bytes().to_vec();
                let signature = key.sign(Ecdsa::P256_SHA256, message.clone()).await?;
                assert!(key.verify(Ecdsa::P256_SHA256, message, &signature).await?.is_valid());
            }
            Ok::<_, hsmux::Error>(each)
        }));
    }
    let mut signed = 0;
    for task in running {
        signed += task.await??;
    }
    Ok(signed)
}
