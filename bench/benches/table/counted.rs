//! Row 16: PKCS#11 calls per operation, as the simulator counts them, which knows nothing of what the engine counts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hsmux::Engine;
use hsmux_bench::rows::{Figure, Measurement, What};
use hsmux_bench::{Api, Load, Runtime, Target, Window};
use p11_sim::Loaded;

use crate::write_line;

/// A load in this process, and how many calls an operation may take.
struct Counted {
    case: &'static str,
    op: &'static str,
    key: &'static str,
    load: Load,
    most: f64,
}

const TASKS: Api = Api::Async(Runtime::CurrentThread);

const LOADS: [Counted; 4] = [
    Counted {
        case: "ECDSA P-256, 64 tasks",
        op: "ecdsa-p256",
        key: "p256",
        load: Load { api: TASKS, callers: 64 },
        most: 2.0,
    },
    Counted {
        case: "AES-GCM 32 B, 64 tasks",
        op: "aes-gcm:32",
        key: "aes256",
        load: Load { api: TASKS, callers: 64 },
        most: 2.0,
    },
    Counted {
        case: "AES-ECB 16 B, 256 tasks",
        op: "aes-ecb:16",
        key: "aes256",
        load: Load { api: TASKS, callers: 256 },
        most: 0.05,
    },
    Counted {
        case: "AES-ECB 16 B, a window of 256",
        op: "aes-ecb:16",
        key: "aes256",
        load: Load { api: Api::Window, callers: 256 },
        most: 0.05,
    },
];

/// Every function that can be called for an operation.
const FUNCTIONS: [&str; 18] = [
    "C_OpenSession",
    "C_CloseSession",
    "C_GetSessionInfo",
    "C_Login",
    "C_FindObjectsInit",
    "C_FindObjects",
    "C_FindObjectsFinal",
    "C_GetAttributeValue",
    "C_CopyObject",
    "C_DestroyObject",
    "C_SignInit",
    "C_Sign",
    "C_EncryptInit",
    "C_Encrypt",
    "C_EncryptUpdate",
    "C_EncryptFinal",
    "C_DecryptInit",
    "C_Decrypt",
];

const ROUNDS: usize = 5;

const ROUND: Duration = Duration::from_millis(300);

/// Runs the row.
pub(crate) fn run(sim: &Path) {
    eprintln!("row 16: calls per operation");
    let sim = Loaded::open(sim).expect("the simulator");
    let engine = Engine::builder().module(sim.path()).tokens(["sim-0"]).pin("1234".to_owned());
    let engine = Arc::new(engine.build().expect("the engine starts"));
    for counted in LOADS {
        let case = counted.op.parse().expect("an operation");
        let target = Target::new(&engine, case, Some(counted.key)).expect("the engine serves");
        // What is tried once, and what a lane learns, is no part of an operation.
        drop(target.run(counted.load, Window::open_after(ROUND, Duration::ZERO)));
        let round = |_| {
            let before = calls(&sim);
            let cell = target.run(counted.load, Window::open_after(Duration::ZERO, ROUND)).cell;
            (calls(&sim) - before) as f64 / cell.all.max(1) as f64
        };
        let rounds: Vec<_> = (0..ROUNDS).map(round).collect();
        let figure = Figure::at_most(What::Calls, counted.most);
        let measured = Measurement::of(&rounds).ok_or("nothing ran");
        write_line(16, counted.case, &figure.to_string(), &figure, measured, "in process, simulator");
    }
}

fn calls(sim: &Loaded) -> u64 {
    FUNCTIONS.iter().map(|function| sim.calls_of(function)).sum()
}
