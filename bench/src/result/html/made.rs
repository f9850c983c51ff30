//! What runs were made by and on, and what differs between them.

use super::words::{bytes, escape};
use super::{Run, words};
use crate::result::{LoadResult, Token};

/// Values for each run, each `None` where it has none.
type Row = (String, Vec<Option<String>>);

/// The section: a row for each fact, a column for each run, then the profiles.
pub(super) fn section(runs: &[Run<'_>]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let facts: String = rows(runs).iter().map(drawn).collect();
    let head = |run: &Run<'_>| format!("<th scope=\"col\">{}</th>", escape(&run.name()));
    let head = match runs {
        [_] => String::new(),
        _ => format!(
            "<thead><tr><th scope=\"col\">Run</th>{}</tr></thead>",
            runs.iter().map(head).collect::<String>()
        ),
    };
    let profiles: String = runs.iter().map(profile).collect();
    format!(
        "<section class=\"card\"><h2>What it ran on</h2><table class=\"facts\">{head}<tbody>{facts}</tbody></table>\
         {profiles}</section>\n"
    )
}

fn rows(runs: &[Run<'_>]) -> Vec<Row> {
    let mut rows: Vec<Row> = FACTS.map(|(name, of)| row(runs, name, of)).into();
    let mut names: Vec<&String> = runs.iter().flat_map(|run| run.result.made.config.keys()).collect();
    names.sort_unstable();
    names.dedup();
    rows.extend(names.into_iter().map(|name| row(runs, name, |it| it.made.config.get(name).cloned())));
    rows.retain(|(_, values)| values.iter().any(Option::is_some));
    rows
}

fn row(runs: &[Run<'_>], name: &str, of: impl Fn(&LoadResult) -> Option<String>) -> Row {
    (name.to_owned(), runs.iter().map(|run| of(run.result)).collect())
}

type Fact = (&'static str, fn(&LoadResult) -> Option<String>);

const FACTS: [Fact; 12] = [
    ("Begun", |it| Some(it.made.time.clone())),
    ("Command", |it| Some(it.made.command.clone())),
    ("Arrivals", |it| Some(it.arrivals.clone())),
    ("Seed", |it| Some(it.made.seed.to_string())),
    ("hsmux", |it| Some(it.made.hsmux.clone())),
    ("Commit", |it| it.made.commit.clone()),
    ("Processor", |it| Some(format!("{}, {} cores", it.made.machine.cpu, it.made.machine.cores))),
    ("Memory", |it| Some(bytes(it.made.machine.memory_bytes))),
    ("System", |it| Some(it.made.machine.system.clone())),
    ("Module", |it| {
        let module = &it.made.module;
        Some(format!("{}: {} {}", module.file, module.library, module.version))
    }),
    ("Cryptoki", |it| Some(it.made.module.cryptoki.clone())),
    ("Tokens", |it| {
        let said = |token: &Token| {
            let Token { label, manufacturer, model, firmware } = token;
            format!("{label} ({manufacturer} {model}, firmware {firmware})")
        };
        let tokens: Vec<_> = it.made.tokens.iter().map(said).collect();
        (!tokens.is_empty()).then(|| tokens.join("\n"))
    }),
];

fn drawn((name, values): &Row) -> String {
    let differs = values.windows(2).any(|two| two[0] != two[1]);
    let class = if differs { " class=\"differs\"" } else { "" };
    let cell =
        |value: &Option<String>| format!("<td>{}</td>", value.as_deref().map_or("–".to_owned(), escape));
    let cells: String = values.iter().map(cell).collect();
    format!("<tr{class}><th scope=\"row\">{}</th>{cells}</tr>", escape(name))
}

fn profile(run: &Run<'_>) -> String {
    let Some(profile) = &run.result.profile else { return String::new() };
    let name = run.cell().map_or_else(String::new, |letter| format!(" of {letter}"));
    let lines = words::count(profile.lines().count() as u64);
    format!(
        "<details class=\"profile\"><summary>Profile{name}, {lines} lines</summary><pre>{}</pre></details>",
        escape(profile)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    #[test]
    fn rows_whose_values_differ_are_marked() {
        let results = [example::payment_auth(), example::payment_auth_tuned()];
        let run = |index| Run { index, is_one_of_several: true, result: &results[index] };
        let rows = rows(&[run(0), run(1)]);
        let of = |name: &str| drawn(rows.iter().find(|row| row.0 == name).unwrap());
        assert!(of("sessions").contains("differs") && of("Commit").contains("differs"));
        assert!(!of("Processor").contains("differs") && !of("deadline").contains("differs"));
    }
}
