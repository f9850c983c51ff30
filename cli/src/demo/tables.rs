//! Tables at the end of the demo.

use std::collections::BTreeMap;
use std::io::Write;

use hdrhistogram::Histogram;
use hsmux::{OperationKind, Snapshot, Stage};
use hsmux_bench::mixed::{Check, Report};

use super::live::sum;
use crate::exit::Result;
use crate::figures::{ratio, table, time};

/// Times by kind of operation and stage, of all tokens.
pub(super) fn percentiles(out: &mut impl Write, snapshot: &Snapshot) -> Result {
    let mut stages: BTreeMap<(OperationKind, usize), Histogram<u64>> = BTreeMap::new();
    for operation in snapshot.tokens.iter().flat_map(|token| &token.operations) {
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            let (key, times) = ((operation.kind, place), operation.stage(stage).clone());
            let both = match stages.remove(&key) {
                Some(other) => sum(other, times),
                None => times,
            };
            stages.insert(key, both);
        }
    }
    let mut table = table(["operation", "stage", "count", "p50", "p90", "p99", "p99.9", "max"], 2);
    for ((kind, place), times) in &stages {
        let mut row = vec![kind.to_string(), Stage::ALL[*place].as_str().to_owned(), times.len().to_string()];
        row.extend([0.5, 0.9, 0.99, 0.999].map(|quantile| time(times.value_at_quantile(quantile))));
        row.push(time(times.max()));
        table.add_row(row);
    }
    writeln!(out, "\nTimes: queued for a session, on the token, and in all\n{table}")?;
    Ok(())
}

/// PKCS#11 calls per operation: an Init and the operation are two, random bytes that the pool does not serve take one.
pub(super) fn calls(out: &mut impl Write, before: &Snapshot, after: &Snapshot) -> Result {
    let families: [(&str, &[&str], &[OperationKind]); 4] = [
        (
            "signature or MAC",
            &["C_SignInit", "C_Sign"],
            &[
                OperationKind::SignRsaPkcs1,
                OperationKind::SignRsaPss,
                OperationKind::SignEcdsa,
                OperationKind::SignHmac,
            ],
        ),
        (
            "encryption",
            &[
                "C_EncryptInit",
                "C_Encrypt",
                "C_EncryptUpdate",
                "C_EncryptFinal",
                "C_MessageEncryptInit",
                "C_EncryptMessage",
                "C_MessageEncryptFinal",
            ],
            &[OperationKind::EncryptAesGcm, OperationKind::EncryptAesEcb],
        ),
        (
            "decryption",
            &[
                "C_DecryptInit",
                "C_Decrypt",
                "C_DecryptUpdate",
                "C_DecryptFinal",
                "C_MessageDecryptInit",
                "C_DecryptMessage",
                "C_MessageDecryptFinal",
            ],
            &[OperationKind::DecryptAesGcm, OperationKind::DecryptAesEcb],
        ),
        ("random bytes", &["C_GenerateRandom"], &[OperationKind::Random]),
    ];
    let texts = families.map(|(name, functions, kinds)| {
        let made: u64 =
            functions.iter().map(|function| count(after, function) - count(before, function)).sum();
        let mut served = served(after, kinds) - served(before, kinds);
        if kinds == [OperationKind::Random] {
            // The pool's refills are operations of the token, too.
            let (before, after) = (&before.random_pool, &after.random_pool);
            served += (after.requests - before.requests) - (after.refills - before.refills);
        }
        format!("{:.2} per {name}", ratio(made, served))
    });
    writeln!(out, "\nPKCS#11 calls: {}", texts.join(", "))?;
    Ok(())
}

/// What other software has checked.
pub(super) fn checks(out: &mut impl Write, report: &Report, check: Check) -> Result {
    let mut table = table(["operation", "answered", "errors", "lost", "checked", "wrong"], 1);
    for (work, tally) in &report.works {
        let counts = [tally.answered, tally.failed, tally.lost(), tally.checked, tally.wrong];
        table.add_row([work.to_string()].into_iter().chain(counts.map(|count| count.to_string())));
    }
    let how = match check {
        Check::Every => "every output".to_owned(),
        Check::Sample(size) => {
            format!("of each caller and kind up to {size} outputs, drawn evenly from the whole run")
        }
    };
    writeln!(
        out,
        "\nChecked by other software (RustCrypto): {how}; random bytes all for repetition\n{table}"
    )?;
    Ok(())
}

fn count(snapshot: &Snapshot, function: &str) -> u64 {
    snapshot.calls.get(function).copied().unwrap_or_default()
}

fn served(snapshot: &Snapshot, kinds: &[OperationKind]) -> u64 {
    let operations = snapshot.tokens.iter().flat_map(|token| &token.operations);
    operations.filter(|operation| kinds.contains(&operation.kind)).map(|operation| operation.count).sum()
}
