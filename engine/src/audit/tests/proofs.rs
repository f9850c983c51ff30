//! Proofs of a real log.

use super::*;

/// A log of 30 signatures and a few checkpoints.
fn written(place: &Path) -> Audit {
    let settings = settings(place).checkpoints(6, LONG).segment_len(2_000);
    let journal = open(&settings);
    write_with_checkpoints(&journal, 6, 4);
    close(&journal);
    settings
}

#[test]
fn every_record_is_proven_to_be_in_the_log_to_somebody_who_has_only_the_key() {
    let place = tempfile::tempdir().unwrap();
    let settings = written(place.path());
    let log = log(&settings);
    for sequence in 0..verified(&settings).records {
        let proof = log.prove_inclusion(sequence, None).unwrap();
        let text = serde_json::to_string(&proof).unwrap();
        let read: AuditInclusion = serde_json::from_str(&text).unwrap();
        read.check(&keys()).unwrap();
        let record: serde_json::Value = serde_json::from_str(read.record()).unwrap();
        assert_eq!(record["seq"], sequence);
        // Of something else.
        let other = text.replace(r#"time\":\"2"#, r#"time\":\"1"#);
        let other: AuditInclusion = serde_json::from_str(&other).unwrap();
        assert_eq!(other.check(&[]).unwrap_err().kind(), ErrorKind::Audit);
        assert_eq!(read.check(&[Ed(2).key()]).unwrap_err().kind(), ErrorKind::Audit, "another key");
    }
}

#[test]
fn every_checkpoint_is_proven_to_have_grown_into_the_last() {
    let place = tempfile::tempdir().unwrap();
    let settings = written(place.path());
    let log = log(&settings);
    let sizes = files::list(&settings.directory).unwrap().checkpoints;
    assert!(sizes.len() > 2, "{sizes:?}");
    for old in &sizes {
        let proof = log.prove_consistency(*old, None).unwrap();
        proof.check(&keys()).unwrap();
        let text = serde_json::to_string(&proof).unwrap();
        let read: AuditConsistency = serde_json::from_str(&text).unwrap();
        assert_eq!(read, proof);
        let other = text.replacen(&format!("\"old_size\":{old}"), "\"old_size\":2", 1);
        let other: AuditConsistency = serde_json::from_str(&other).unwrap();
        assert!(other.check(&[]).is_err(), "{old}");
    }
    // Between checkpoints the proof holds, but nobody has signed for it.
    let unsigned = log.prove_consistency(2, Some(5)).unwrap();
    unsigned.check(&[]).unwrap();
    assert!(unsigned.check(&keys()).is_err());
}

#[test]
fn there_is_no_proof_of_what_is_not_there_or_does_not_verify() {
    let place = tempfile::tempdir().unwrap();
    let settings = written(place.path());
    let log = log(&settings);
    let count = verified(&settings).records;
    for (sequence, size) in [(count, None), (5, Some(5)), (0, Some(count + 1))] {
        assert_eq!(log.prove_inclusion(sequence, size).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    for (old, new) in [(0, None), (5, Some(4)), (5, Some(count + 1))] {
        assert_eq!(log.prove_consistency(old, new).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let first = settings.directory.join(files::segment(0));
    let damaged = std::fs::read_to_string(&first).unwrap().replacen("sign", "sigh", 1);
    std::fs::write(&first, damaged).unwrap();
    assert_eq!(log.prove_inclusion(0, None).unwrap_err().kind(), ErrorKind::Audit);
}

#[test]
fn a_tail_begins_where_it_is_asked_to_and_goes_on_with_what_comes() {
    let place = tempfile::tempdir().unwrap();
    let settings = written(place.path());
    let all = records(&settings);
    for count in [0, 1, 5, 20, 1_000] {
        let mut tail = log(&settings).tail(count).unwrap();
        let read: Vec<serde_json::Value> = std::iter::from_fn(|| tail.next_record().unwrap())
            .map(|text| serde_json::from_str(&text).unwrap())
            .collect();
        assert_eq!(read, all[all.len().saturating_sub(count)..], "{count}");
    }
    let mut tail = log(&settings).tail(0).unwrap();
    close(&open(&settings));
    let next = |tail: &mut AuditTail| tail.next_record().unwrap().is_some();
    assert!(next(&mut tail) && next(&mut tail) && !next(&mut tail), "a start and a stop");
    // A line that is being written is no record yet.
    let segment = settings
        .directory
        .join(files::segment(*files::list(&settings.directory).unwrap().segments.last().unwrap()));
    let whole = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, [&whole[..], b"{\"v\":1"].concat()).unwrap();
    assert!(!next(&mut tail));
    assert!(AuditLog::at(place.path()).tail(1).is_err(), "no log");
}
