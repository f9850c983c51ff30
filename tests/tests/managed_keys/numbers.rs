//! Tokens that give the numbers of objects that have gone to new ones.

use hsmux::{Curve, KeyConfig, KeySpec};
use hsmux_tests::eventually;

use crate::worker::{Place, Records, Site};

#[test]
fn a_record_that_has_the_number_of_one_that_has_gone_is_read() {
    let site = Site::new();
    let config = format!("{},reuse=objects", site.config(1, Records::OnToken));
    let engine = || Place::sim(&config, 1).engine().unwrap();
    let (writer, reader) = (engine(), engine());
    let spec = KeyConfig::new(KeySpec::Ec(Curve::P256));
    let ids = ["one", "two"].map(|name| writer.managed_keys().create(name, &spec).unwrap());
    let move_to = |name: &str| writer.managed_keys().set_alias("current", name).unwrap();
    let is_at = |id| reader.managed_keys().info("current").is_ok_and(|info| info.id == id);
    move_to("one");
    eventually("the alias is seen", || is_at(ids[0].clone()));
    for round in 0..4 {
        // Each move writes a record and takes the one before it away: the second has the number that the first has left.
        let (there, back) = if round % 2 == 0 { ("two", "one") } else { ("one", "two") };
        for name in [there, back, there] {
            move_to(name);
        }
        let wanted = &ids[usize::from(there == "two")];
        eventually("the last move is seen", || is_at(wanted.clone()));
    }
}
