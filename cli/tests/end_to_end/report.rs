//! `hsmux report`: pages of results, and what is refused.

use std::path::PathBuf;

use hsmux_bench::result::example;

use crate::sim::Sim;

fn result(sim: &Sim, name: &str) -> PathBuf {
    let path = sim.path(name);
    example::payment_auth().write(&path).unwrap();
    path
}

#[test]
fn a_page_stands_beside_the_first_result_unless_it_is_sent_elsewhere() {
    let sim = Sim::new("null=1");
    let paths = [result(&sim, "a.json"), result(&sim, "b.json")];
    let [a, b] = [&paths[0], &paths[1]].map(|path| path.to_str().unwrap());
    let beside = sim.path("report.html");
    let ended = sim.run(&["report", a]);
    ended.succeeds();
    assert_eq!(ended.stdout, format!("{}\n", beside.display()));
    assert!(std::fs::read_to_string(beside).unwrap().starts_with("<!doctype html>"));
    let elsewhere = sim.path("ab.html");
    let ended = sim.run(&["report", a, b, "-o", elsewhere.to_str().unwrap()]);
    ended.succeeds();
    assert_eq!(ended.stdout, format!("{}\n", elsewhere.display()));
    assert!(std::fs::read_to_string(elsewhere).unwrap().contains("B payment-auth"));
}

#[test]
fn what_is_no_result_is_refused_by_name_and_no_page_is_written() {
    let sim = Sim::new("null=1");
    let good = result(&sim, "good.json");
    let bad = sim.path("bad.json");
    std::fs::write(&bad, "{\"schema\": 7}").unwrap();
    let [good, bad] = [&good, &bad].map(|path| path.to_str().unwrap());
    sim.run(&["report", good, bad]).fails(2, &[bad, "has schema 7"]);
    sim.run(&["report", "/nowhere/result.json"]).fails(2, &["/nowhere/result.json cannot be read"]);
    assert!(!sim.path("report.html").exists());
    sim.run(&["report", good, "-o", "/nowhere/page.html"])
        .fails(2, &["/nowhere/page.html cannot be written"]);
    assert_eq!(sim.run(&["report"]).code, Some(2));
    assert_eq!(sim.run(&[&["report"][..], &[good; 7]].concat()).code, Some(2));
}
