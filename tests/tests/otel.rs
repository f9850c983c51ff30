//! Instruments of OpenTelemetry observe what the engine has done, for as long as it lives.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of tests fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hsmux::{AesEcb, AesGcm};
use hsmux_tests::{Hsm, wait_idle};
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};

/// Data points by instrument and attributes, as `name{a=1,b=2}`.
type Points = BTreeMap<String, f64>;

fn key<'a>(name: &str, attributes: impl Iterator<Item = &'a KeyValue>) -> String {
    let mut attributes: Vec<_> = attributes.map(|pair| format!("{}={}", pair.key, pair.value)).collect();
    attributes.sort();
    format!("{name}{{{}}}", attributes.join(","))
}

fn points<T: Copy>(name: &str, data: &MetricData<T>, number: impl Fn(T) -> f64) -> Points {
    match data {
        MetricData::Gauge(gauge) => {
            gauge.data_points().map(|point| (key(name, point.attributes()), number(point.value()))).collect()
        }
        MetricData::Sum(sum) => {
            assert!(sum.is_monotonic(), "{name}");
            sum.data_points().map(|point| (key(name, point.attributes()), number(point.value()))).collect()
        }
        _ => panic!("{name} is of another kind"),
    }
}

/// What the provider exports now.
fn collect(provider: &SdkMeterProvider, exporter: &InMemoryMetricExporter) -> Points {
    exporter.reset();
    provider.force_flush().unwrap();
    let all = exporter.get_finished_metrics().unwrap();
    let metrics = all.iter().flat_map(|resource| resource.scope_metrics()).flat_map(|scope| scope.metrics());
    metrics
        .flat_map(|metric| match metric.data() {
            AggregatedMetrics::U64(data) => points(metric.name(), data, |value| value as f64),
            AggregatedMetrics::F64(data) => points(metric.name(), data, |value| value),
            AggregatedMetrics::I64(_) => panic!("{} has a sign", metric.name()),
        })
        .collect()
}

#[test]
fn instruments_observe_what_was_done_until_the_engine_is_dropped() {
    let hsm = Hsm::new(1, "");
    let engine = Arc::new(hsm.builder().sessions(2).build().unwrap());
    let exporter = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(exporter.clone()).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    hsmux::otel::register(&engine, &provider.meter("test"));

    let aes = engine.key("aes256").unwrap();
    (0..40).for_each(|_| drop(aes.encrypt(AesEcb, vec![1; 16]).deadline(None).wait().unwrap()));
    (0..3).for_each(|_| drop(aes.decrypt(AesGcm::new(), vec![0; 40]).wait().unwrap_err()));
    wait_idle(&engine);
    let seen = collect(&provider, &exporter);
    let expected = [
        ("hsmux.operations{operation=encrypt-aes-ecb,result=ok,token=sim-0}", 40.0),
        ("hsmux.operations{operation=decrypt-aes-gcm,result=error,token=sim-0}", 3.0),
        ("hsmux.operation_errors{kind=decrypt-failed,operation=decrypt-aes-gcm,token=sim-0}", 3.0),
        ("hsmux.operation_duration_count{operation=encrypt-aes-ecb,stage=total,token=sim-0}", 40.0),
        ("hsmux.operation_duration_bucket{le=+Inf,operation=encrypt-aes-ecb,stage=token,token=sim-0}", 40.0),
        (
            "hsmux.operation_duration_bucket{le=0.000001,operation=encrypt-aes-ecb,stage=queued,token=sim-0}",
            40.0,
        ),
        ("hsmux.operation_duration_sum{operation=encrypt-aes-ecb,stage=queued,token=sim-0}", 0.0),
        ("hsmux.requests_in_flight{}", 0.0),
        ("hsmux.requests_refused{}", 0.0),
        ("hsmux.hung_calls{}", 0.0),
        ("hsmux.sessions{state=hung,token=sim-0}", 0.0),
        ("hsmux.pkcs11_calls{function=C_Encrypt}", hsm.sim.calls_of("C_Encrypt") as f64),
    ];
    for (name, value) in expected {
        assert_eq!(seen.get(name), Some(&value), "{name}: {seen:#?}");
    }
    assert!(seen["hsmux.operation_duration_sum{operation=encrypt-aes-ecb,stage=token,token=sim-0}"] > 0.0);

    // The same families as on the page for Prometheus, but for what the SDK has itself.
    let page = engine.snapshot().to_prometheus();
    let of_page = page.lines().filter_map(|line| line.strip_prefix("# TYPE hsmux_")?.split(' ').next());
    let of_page: BTreeSet<_> = of_page
        .filter(|name| *name != "build_info")
        .map(|name| name.trim_end_matches("_total").trim_end_matches("_seconds"))
        .collect();
    let of_meter = seen.keys().filter_map(|name| name.strip_prefix("hsmux.")?.split('{').next());
    let of_meter: BTreeSet<_> = of_meter
        .map(|name| if name.starts_with("operation_duration") { "operation_duration" } else { name })
        .collect();
    assert_eq!(of_meter, of_page);

    // The instruments do not keep the engine.
    assert_eq!(Arc::strong_count(&engine), 1);
    drop((aes, engine));
    hsm.wait_closed();
    let last = collect(&provider, &exporter);
    assert!(last.is_empty() || last == seen, "{last:#?}");
    provider.shutdown().unwrap();
}
