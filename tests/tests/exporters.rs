//! What exporters write is what happened, read back by other code: Prometheus' text and HdrHistogram's interval log.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of tests fails its test")]

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use hsmux::{AesEcb, AesGcm, Ecdsa, Engine, ErrorKind, IntervalLog, Key, Snapshot};
use hsmux_tests::Hsm;
use openmetrics_parser::prometheus::parse_prometheus;
use openmetrics_parser::{HistogramValue, MetricNumber, PrometheusValue};

const SIGNATURES: u64 = 150;
const BLOCKS: u64 = 70;
const BAD: u64 = 5;

/// Signs through the queue, encrypts inline, and fails to decrypt.
fn work(engine: &Engine) {
    let (p256, aes) = (engine.key("p256").unwrap(), engine.key("aes256").unwrap());
    (0..SIGNATURES).for_each(|i| drop(p256.sign(Ecdsa::P256_SHA256, &i.to_be_bytes()).wait().unwrap()));
    (0..BLOCKS).for_each(|_| encrypt(&aes));
    for _ in 0..BAD {
        let error = aes.decrypt(AesGcm::new(), vec![0; 40]).wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DecryptFailed);
    }
}

fn encrypt(aes: &Key) {
    aes.encrypt(AesEcb, [1; 16].as_slice()).deadline(None).wait().unwrap();
}

/// Every sample of a page but those of histograms, by family and labels with their values.
type Samples = BTreeMap<(String, Vec<(String, String)>), f64>;
type Histograms = Vec<(BTreeMap<String, String>, HistogramValue)>;

/// A page as another parser reads it. It refuses a second HELP or TYPE of a family, a family that comes twice, and two
/// samples with the same labels.
fn read(page: &str) -> (Samples, Histograms) {
    let number = |number: MetricNumber| number.as_f64();
    let (mut samples, mut histograms) = (Samples::new(), Vec::new());
    for (name, family) in parse_prometheus(page).unwrap().families {
        assert!(!family.help.is_empty(), "{name}");
        for sample in family.iter_samples() {
            let labels = sample.get_labelset().unwrap();
            let labels = labels.iter().map(|(name, value)| (name.clone(), value.clone()));
            let value = match &sample.value {
                PrometheusValue::Counter(counter) => number(counter.value),
                PrometheusValue::Gauge(gauge) => number(*gauge),
                PrometheusValue::Histogram(histogram) => {
                    histograms.push((labels.collect(), histogram.clone()));
                    continue;
                }
                other => panic!("{name}: {other:?}"),
            };
            assert!(samples.insert((name.clone(), labels.collect()), value).is_none(), "{name} twice");
        }
    }
    (samples, histograms)
}

/// The sum of a family's samples that carry a label.
fn sum(samples: &Samples, family: &str, label: (&str, &str)) -> f64 {
    let has = |labels: &[(String, String)]| labels.iter().any(|(name, value)| (&**name, &**value) == label);
    samples.iter().filter(|((name, labels), _)| name == family && has(labels)).map(|(_, value)| value).sum()
}

/// Small enough to be exact.
fn float(count: u64) -> f64 {
    count as f64
}

fn total(samples: &Samples, family: &str) -> f64 {
    samples.iter().filter(|((name, _), _)| name == family).map(|(_, value)| value).sum()
}

#[test]
fn a_scrape_counts_what_was_done_and_what_failed() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    work(&engine);
    let snapshot = engine.snapshot();
    let (samples, histograms) = read(&snapshot.to_prometheus());

    let done = |operation| sum(&samples, "hsmux_operations_total", ("operation", operation));
    assert_eq!(
        [done("sign-ecdsa"), done("encrypt-aes-ecb"), done("decrypt-aes-gcm")],
        [SIGNATURES, BLOCKS, BAD].map(float)
    );
    assert_eq!(sum(&samples, "hsmux_operations_total", ("result", "error")), float(BAD));
    assert_eq!(sum(&samples, "hsmux_operation_errors_total", ("kind", "decrypt-failed")), float(BAD));
    let calls = sum(&samples, "hsmux_pkcs11_calls_total", ("function", "C_Sign"));
    assert_eq!(calls, float(hsm.sim.calls_of("C_Sign")));
    let sessions: usize = snapshot.tokens.iter().map(|token| token.sessions).sum();
    assert_eq!(total(&samples, "hsmux_sessions"), float(sessions as u64));
    assert_eq!(total(&samples, "hsmux_build_info"), 1.0);
    for idle in ["hsmux_requests_queued", "hsmux_requests_refused_total", "hsmux_hung_calls_total"] {
        assert_eq!(samples[&(idle.to_owned(), Vec::new())], 0.0, "{idle}");
    }

    for stage in ["queued", "token", "total"] {
        let of_stage = histograms.iter().filter(|(labels, _)| labels["stage"] == stage);
        let counts: u64 = of_stage.map(|(_, histogram)| histogram.count.unwrap()).sum();
        assert_eq!(counts, SIGNATURES + BLOCKS, "{stage}");
    }
    for (labels, histogram) in &histograms {
        let counts: Vec<f64> = histogram.buckets.iter().map(|bucket| bucket.count.as_f64()).collect();
        let bounds: Vec<f64> = histogram.buckets.iter().map(|bucket| bucket.upper_bound).collect();
        assert!(counts.is_sorted() && bounds.is_sorted(), "{labels:?}: {histogram:?}");
        assert_eq!(bounds.len(), 23);
        assert_eq!((bounds[0], bounds[21], bounds[22]), (1e-6, 10.0, f64::INFINITY));
        assert_eq!(counts[22], float(histogram.count.unwrap()));
        let sum = histogram.sum.unwrap().as_f64();
        match (&*labels["operation"], &*labels["stage"]) {
            ("encrypt-aes-ecb", "queued") => assert_eq!((counts[0], sum), (float(BLOCKS), 0.0)),
            ("sign-ecdsa", "total") => assert!(sum > 0.0 && sum < 60.0, "{sum}"),
            _ => {}
        }
    }
}

#[test]
fn counters_of_a_later_scrape_are_never_lower() {
    let hsm = Hsm::new(1, "null=1");
    let engine = hsm.builder().build().unwrap();
    let counters = |snapshot: Snapshot| {
        let (mut samples, histograms) = read(&snapshot.to_prometheus());
        samples.retain(|(name, _), _| name.ends_with("_total"));
        let sums = histograms.into_iter().map(|(labels, value)| {
            (("sum".to_owned(), labels.into_iter().collect()), value.sum.unwrap().as_f64())
        });
        samples.into_iter().chain(sums).collect::<Samples>()
    };
    let mut before = Samples::new();
    let aes = engine.key("aes256").unwrap();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| (0..20_000).for_each(|_| encrypt(&aes)));
        while !worker.is_finished() {
            let now = counters(engine.snapshot());
            assert!(before.iter().all(|(key, value)| now.get(key) >= Some(value)), "{before:?} then {now:?}");
            before = now;
        }
    });
}

/// The rules of the text format that a parser may be lax about.
#[test]
fn a_page_keeps_the_rules_of_the_format() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    work(&engine);
    let mut snapshot = engine.snapshot();
    // Labels of tokens are an operator's: the format's own characters may be among them, and they may be alike.
    snapshot.tokens.iter_mut().for_each(|token| token.label = "p\\a\"y\n-1".to_owned());
    let page = snapshot.to_prometheus();
    assert!(page.ends_with('\n') && !page.contains("\n\n"));
    let (mut series, mut family, mut families) = (HashSet::new(), "", HashSet::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap();
            assert!(families.insert(family), "{family} twice");
            let kind =
                lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {family} ")[..])).unwrap();
            assert_eq!(kind == "counter", family.ends_with("_total"), "{family}");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{line}");
        assert!(series.insert(sample), "{sample} twice");
        let name = sample.split('{').next().unwrap();
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} after {family}"));
        assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{line}");
        if sample.contains("token=") {
            let token = sample.split("token=\"").nth(1).unwrap();
            assert!(token.starts_with(r#"p\\a\"y\n-1"#), "{line}");
        }
    }
    assert_eq!(families.len(), 44);
    read(&page);
}

/// A line of a log, decoded by other code than wrote it: tag, and how many times it holds.
fn decoded(line: &str) -> (String, u64, Vec<u64>) {
    let fields: Vec<&str> = line.split(',').collect();
    let [tag, _, _, _, encoded] = fields[..] else { panic!("{line}") };
    let bytes = base64::prelude::BASE64_STANDARD.decode(encoded).unwrap();
    let word = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((word(&bytes, 0) & 0xFFFF_FF0F, word(&bytes, 4) as usize), (0x1C84_9304, bytes.len() - 8));
    let mut plain = Vec::new();
    flate2::read::ZlibDecoder::new(&bytes[8..]).read_to_end(&mut plain).unwrap();
    // Cookie, length, offset, digits, lowest (8 bytes), highest (8), ratio (8).
    assert_eq!((word(&plain, 0) & 0xFFFF_FF0F, word(&plain, 4) as usize), (0x1C84_9303, plain.len() - 40));
    assert_eq!((word(&plain, 8), word(&plain, 12)), (0, 2));
    let mut payload = plain[40..].iter();
    let mut counts = Vec::new();
    while let Some(&first) = payload.next() {
        let (mut value, mut shift, mut byte) = (u64::from(first & 0x7F), 7, first);
        while byte & 0x80 != 0 {
            byte = *payload.next().unwrap();
            // The ninth byte holds eight bits.
            value |= u64::from(if shift == 56 { byte } else { byte & 0x7F }) << shift;
            shift += 7;
            if shift > 56 {
                break;
            }
        }
        let value = (value >> 1) as i64 ^ -((value & 1) as i64);
        match u64::try_from(value) {
            Ok(count) => counts.push(count),
            Err(_) => counts.resize(counts.len() + usize::try_from(-value).unwrap(), 0),
        }
    }
    (tag.strip_prefix("Tag=").unwrap().to_owned(), counts.iter().sum(), counts)
}

#[test]
fn an_interval_log_holds_what_each_interval_did() {
    let hsm = Hsm::new(2, "");
    let engine = hsm.builder().build().unwrap();
    work(&engine);
    // What came before the log is in no interval.
    let mut log = IntervalLog::new(Vec::new(), &engine.snapshot()).unwrap();
    work(&engine);
    log.record(&engine.snapshot()).unwrap();
    log.record(&engine.snapshot()).unwrap();
    let aes = engine.key("aes256").unwrap();
    (0..3).for_each(|_| encrypt(&aes));
    log.record(&engine.snapshot()).unwrap();
    let bytes = log.into_inner();
    let text = std::str::from_utf8(&bytes).unwrap();
    let stages = |operation: &str, count: u64| {
        ["queued", "token", "total"].map(|stage| (format!("{operation}.{stage}"), count)).to_vec()
    };
    let expected =
        [stages("sign-ecdsa", SIGNATURES), stages("encrypt-aes-ecb", BLOCKS), stages("encrypt-aes-ecb", 3)];
    let expected = expected.concat();

    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("Tag=")).map(decoded).collect();
    let counts: Vec<_> = lines.iter().map(|(tag, count, _)| (tag.clone(), *count)).collect();
    assert_eq!(counts, expected, "{text}");

    let mut read = Vec::new();
    let mut ends = Vec::new();
    for entry in IntervalLogIterator::new(&bytes) {
        let LogEntry::Interval(interval) = entry.unwrap() else { continue };
        let encoded = base64::prelude::BASE64_STANDARD.decode(interval.encoded_histogram()).unwrap();
        let times: Histogram<u64> = Deserializer::new().deserialize(&mut &encoded[..]).unwrap();
        read.push((interval.tag().unwrap().as_str().to_owned(), times.len()));
        ends.push((interval.start_timestamp(), interval.duration(), times));
    }
    assert_eq!(read, expected);
    assert!(
        ends[0].0.is_zero() && ends.last().unwrap().0 >= ends[0].1,
        "intervals follow each other: {text}"
    );
    // Both readers agree on every count: below 256 ns a place is a nanosecond, above it a 128th of a doubling.
    for ((_, _, counts), (.., times)) in lines.iter().zip(&ends) {
        let places = times.iter_all().map(|step| step.count_at_value()).chain(std::iter::repeat(0));
        assert!(counts.iter().copied().zip(places).all(|(ours, theirs)| ours == theirs));
    }
}

#[test]
fn an_interval_log_refuses_a_snapshot_that_is_not_later() {
    let hsm = Hsm::new(1, "null=1");
    let engine = hsm.builder().build().unwrap();
    let aes = engine.key("aes256").unwrap();
    let early = engine.snapshot();
    encrypt(&aes);
    let mut log = IntervalLog::new(Vec::new(), &engine.snapshot()).unwrap();
    assert_eq!(log.record(&early).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    encrypt(&aes);
    log.record(&engine.snapshot()).unwrap();
    let text = String::from_utf8(log.into_inner()).unwrap();
    let counts: Vec<_> =
        text.lines().filter(|line| line.starts_with("Tag=")).map(|line| decoded(line).1).collect();
    assert_eq!(counts, [1, 1, 1], "the refused one changed nothing");
}
