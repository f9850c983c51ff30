//! Results as one HTML page that needs nothing beside it: no network, no script, no font.
//!
//! Charts are SVG with a title and a description, and a table of their figures below. Colours are told apart by people
//! who see fewer of them, and lines by their dashes, too. The page is made for a wide screen, a phone and paper, in
//! light and dark. What it shows of documents is escaped, and a policy in its head forbids scripts and requests.

mod axis;
mod baselines;
mod chart;
mod course;
mod curve;
mod heat;
mod made;
mod parts;
mod percentiles;
#[cfg(test)]
mod screens;
mod stages;
mod summary;
mod table;
mod time;
mod words;

use self::words::escape;
use super::LoadResult;

/// How many results a page tells apart by colour and dash. More are shown, and begin anew with the first colour.
pub const RUNS_MAX: usize = 6;

const STYLE: &str = include_str!("html/style.css");

/// A result on the page.
#[derive(Clone, Copy)]
struct Run<'a> {
    /// Its place, from 0: number of its colour and dash.
    index: usize,
    /// Whether others stand beside it.
    is_one_of_several: bool,
    result: &'a LoadResult,
}

/// The page of one result, or of several over each other; ratios are to the first.
#[must_use]
pub fn page(results: &[LoadResult]) -> String {
    let is_one_of_several = results.len() > 1;
    let run = |(index, result)| Run { index, is_one_of_several, result };
    let runs: Vec<_> = results.iter().enumerate().map(run).collect();
    let charts = [
        percentiles::figure(&runs),
        curve::figure(&runs),
        time::rates(&runs),
        time::latencies(&runs),
        heat::figures(&runs),
        stages::figure(&runs),
        baselines::figure(&runs),
        parts::tokens(&runs),
    ];
    let tables = [parts::errors(&runs), parts::operations(&runs), parts::phases(&runs), summary::all(&runs)];
    format!(
        "{}{}<main>{}<div class=\"charts\">{}</div>{}{}</main></body></html>\n",
        head(&runs),
        summary::header(&runs),
        summary::headline(&runs),
        charts.concat(),
        tables.concat(),
        made::section(&runs),
    )
}

fn head(runs: &[Run<'_>]) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>{} · hsmux load</title>\n<style>\n{STYLE}</style></head><body>\n",
        escape(&summary::title(runs)),
    )
}

impl Run<'_> {
    /// Number of its colour and dash.
    const fn colour(&self) -> usize {
        self.index % RUNS_MAX
    }

    /// What it is called beside others: a letter, and past `Z` a number.
    fn letter(&self) -> String {
        match u8::try_from(self.index) {
            Ok(index @ 0..26) => char::from(b'A' + index).to_string(),
            _ => (self.index + 1).to_string(),
        }
    }

    /// Letter and title.
    fn name(&self) -> String {
        format!("{} {}", self.letter(), self.result.title)
    }

    /// Its letter as a cell of a table, if tables need one.
    fn cell(&self) -> Option<String> {
        self.is_one_of_several.then(|| self.letter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Interval, Latency, example};

    /// What must not come out of a label.
    const HOSTILE: &str = "</script></style></title><b onload='x' class=\"y\">&\u{0}\n";

    fn every_text(of: &mut LoadResult) -> Vec<&mut String> {
        let made = &mut of.made;
        let (machine, module) = (&mut made.machine, &mut made.module);
        let mut texts =
            vec![&mut of.title, &mut of.arrivals, &mut made.time, &mut made.hsmux, &mut made.command];
        texts.extend([&mut machine.cpu, &mut machine.system, &mut module.file, &mut module.library]);
        texts.extend([&mut module.version, &mut module.cryptoki]);
        texts.extend(made.commit.iter_mut().chain(&mut of.profile).chain(&mut of.notes));
        texts.extend(made.config.values_mut());
        for token in &mut made.tokens {
            texts.extend([&mut token.label, &mut token.manufacturer, &mut token.model, &mut token.firmware]);
        }
        texts.extend(of.operations.iter_mut().map(|it| &mut it.name));
        texts.extend(of.phases.iter_mut().map(|it| &mut it.name));
        texts.extend(of.stages.iter_mut().flat_map(|it| [&mut it.operation, &mut it.stage]));
        texts.extend(of.tokens.iter_mut().map(|it| &mut it.token));
        texts.extend(of.errors.iter_mut().flat_map(|it| [&mut it.kind, &mut it.outcome, &mut it.first]));
        texts.extend(of.knee.iter_mut().map(|it| &mut it.slo));
        texts.extend(of.baselines.iter_mut().map(|it| &mut it.name));
        texts
    }

    /// Elements that stand open at the end, after a check that each closes the one opened last.
    #[track_caller]
    fn open_elements(page: &str) -> Vec<&str> {
        const VOID: [&str; 3] = ["!doctype", "meta", "br"];
        let mut open = Vec::new();
        for tag in page.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').unwrap_or_else(|| panic!("tag without an end: {tag}"));
            let name = tag.split_whitespace().next().unwrap_or_default();
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "closed by </{name}>"),
                None if tag.ends_with('/') || VOID.contains(&name) => {}
                None => open.push(name),
            }
        }
        open
    }

    #[test]
    fn no_text_of_a_document_breaks_out_of_its_place() {
        let mut result = example::payment_auth();
        for text in every_text(&mut result) {
            *text = HOSTILE.to_owned();
        }
        result.made.config.insert(HOSTILE.to_owned(), HOSTILE.to_owned());
        for page in [page(&[result.clone()]), page(&[result, example::payment_auth()])] {
            assert!(!page.contains("</script>") && !page.contains("<b onload"));
            assert_eq!(page.matches("</style>").count(), 1);
            assert!(page.matches("&lt;/script&gt;").count() > 40);
            assert_eq!(open_elements(&page), [""; 0]);
        }
    }

    #[test]
    fn the_page_asks_for_nothing_and_runs_nothing() {
        let page = page(&[example::payment_auth(), example::payment_auth_tuned()]);
        for part in ["<script", "http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(part), "{part}");
        }
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn every_element_is_closed_and_every_id_is_used_once() {
        for results in [vec![], vec![example::payment_auth()], vec![example::payment_auth(); 8]] {
            let page = page(&results);
            assert_eq!(open_elements(&page), [""; 0]);
            let mut ids: Vec<_> = page.split(" id=\"").skip(1).map(|rest| rest.split('"').next()).collect();
            let all = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), all);
        }
    }

    #[test]
    fn every_chart_has_a_title_a_description_and_a_table() {
        let page = page(&[example::payment_auth()]);
        let charts: Vec<_> = page.split("<figure").skip(1).collect();
        assert_eq!(charts.len(), 8);
        for chart in charts {
            let chart = chart.split("</figure>").next().unwrap_or_default();
            assert!(chart.contains("<table"), "{chart}");
            if chart.contains("role=\"img\"") {
                assert!(chart.contains("<title id=") && chart.contains("<desc id="), "{chart}");
            }
        }
    }

    #[test]
    fn an_empty_run_has_a_page_without_figures_that_are_no_numbers() {
        let mut empty = example::payment_auth();
        (empty.operations, empty.stages, empty.tokens) = Default::default();
        (empty.errors, empty.curve, empty.baselines, empty.rounds) = Default::default();
        (empty.knee, empty.phases, empty.notes, empty.profile) = Default::default();
        empty.series = vec![Interval::default()];
        empty.total.latency = Latency::default();
        (empty.total.ops, empty.total.errors, empty.total.seconds, empty.total.ops_per_s) = (0, 0, 0.0, 0.0);
        let mut without_series = empty.clone();
        without_series.series.clear();
        for page in [page(&[empty.clone()]), page(&[without_series]), page(&[empty, example::payment_auth()])]
        {
            assert_eq!(open_elements(&page), [""; 0]);
            for part in ["NaN", "inf"] {
                let text = page.split("</style>").last().unwrap_or_default();
                assert!(!text.contains(part), "{part}: {text}");
            }
        }
    }

    #[test]
    fn several_runs_stand_side_by_side_with_ratios_to_the_first() {
        let [first, mut second] = [example::payment_auth(), example::payment_auth_tuned()];
        second.total.ops_per_s = 2.0 * first.total.ops_per_s;
        let page = page(&[first, second]);
        for part in ["A payment-auth", "B payment-auth", "2.00 ×", "class=\"differs\""] {
            assert!(page.contains(part), "{part}");
        }
    }
}
