//! The table of what the engine is asked to show: each row is a load and the figures wanted from it, as data.
//!
//! `scripts/bench.sh` runs every row; the criterion bench `rows` runs those that need no option of the command line.

mod figure;
mod list;
mod needs;

pub use figure::{Asked, Figure, Measurement, What};
pub use list::ROWS;
pub use needs::{Options, options};

/// A row, or a part of one where it asks for several loads.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The number under which it is asked for.
    pub number: u8,
    /// What is done.
    pub case: &'static str,
    /// Where.
    pub place: Place,
    /// Options of `hsmux load`, without those that name module, token and PIN.
    pub load: &'static str,
    /// What is wanted.
    pub figures: &'static [Figure],
}

/// Where a row runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A new token of SoftHSM2.
    SoftHsm,
    /// The simulated HSM with this configuration.
    Sim(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Case;

    #[test]
    fn every_row_names_an_operation_and_compares_with_what_its_figures_need() {
        for row in ROWS {
            let words: Vec<_> = row.load.split_whitespace().collect();
            let after = |option: &str| {
                let places = words.iter().enumerate().filter(move |(_, word)| **word == option);
                places.map(|(place, _)| words[place + 1]).collect::<Vec<_>>()
            };
            let ops = after("--op");
            assert!(ops.len() == 1 && ops[0].parse::<Case>().is_ok(), "row {}: {}", row.number, row.load);
            let compared = after("--compare");
            assert!(!compared.is_empty(), "row {}: {}", row.number, row.load);
            for figure in row.figures {
                if let What::Ratio(name) = figure.what {
                    assert!(compared.contains(&name.as_str()), "row {}: {name}", row.number);
                }
            }
        }
    }

    #[test]
    fn every_number_of_the_table_has_a_row_but_those_that_no_load_can_show() {
        // 15 takes tokens of its own and 16 the simulator's counters: the bench `table` does both.
        let has_row = |number: &u8| ROWS.iter().any(|row| row.number == *number);
        assert_eq!((1..=16).filter(|number| !has_row(number)).collect::<Vec<_>>(), [15, 16]);
        assert!(ROWS.is_sorted_by_key(|row| row.number));
    }
}
