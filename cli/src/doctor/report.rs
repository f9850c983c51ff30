//! What was found, for people as it is found, or for programs at the end.

use std::io::{self, IsTerminal, Write};

use clap::builder::styling::{AnsiColor, Style};

use super::finding::{Finding, Level};
use crate::exit::{Failure, Result};

/// The findings so far.
pub(super) struct Report {
    findings: Vec<Finding>,
    form: Form,
}

#[derive(Clone, Copy)]
enum Form {
    Json,
    Text { colour: bool },
}

/// The document that `--json` prints: its name and version. Later versions may add fields; what changes the meaning of one
/// gets another version.
const SCHEMA: (&str, u32) = ("hsmux-doctor", 1);

impl Report {
    pub(super) fn new(json: bool) -> Self {
        let wants_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = io::stdout().is_terminal() && !wants_none;
        let form = if json { Form::Json } else { Form::Text { colour } };
        Self { findings: Vec::new(), form }
    }

    /// Takes findings down, and prints them if they are for people.
    pub(super) fn add(&mut self, findings: impl IntoIterator<Item = Finding>) -> Result {
        let mut out = io::stdout().lock();
        for finding in findings {
            if let Form::Text { colour } = self.form {
                write!(out, "{}", text(self.findings.last(), &finding, colour))?;
            }
            self.findings.push(finding);
        }
        Ok(out.flush()?)
    }

    /// Prints what is to be said of all of them, and ends.
    pub(super) fn end(self, strict: bool) -> Result {
        let mut out = io::stdout().lock();
        match self.form {
            Form::Json => {
                serde_json::to_writer_pretty(&mut out, &document(&self.findings)).map_err(io::Error::from)?;
                writeln!(out)?;
            }
            Form::Text { .. } => writeln!(out, "\n{}", summary(&self.findings))?,
        }
        out.flush()?;
        match first(&self.findings, strict) {
            Some(finding) => Err(Failure::new(finding.exit, format!("doctor: {}", finding.what))),
            None => Ok(()),
        }
    }
}

/// A finding with its advice, under the title of its area if that is another than that of the one before.
fn text(before: Option<&Finding>, finding: &Finding, colour: bool) -> String {
    let title = match before {
        Some(before) if before.area() == finding.area() => String::new(),
        Some(_) => format!("\n{}\n", finding.area()),
        None => format!("{}\n", finding.area()),
    };
    let style = if colour { style(finding.level) } else { Style::new() };
    let advice = finding.advice.iter().map(|advice| format!("           -> {advice}\n"));
    let name = finding.level.name();
    format!("{title}  {style}{name:<7}{style:#}  {}\n{}", finding.what, advice.collect::<String>())
}

const fn style(level: Level) -> Style {
    match level {
        Level::Ok => AnsiColor::Green.on_default(),
        Level::Skipped => Style::new().dimmed(),
        Level::Warning => AnsiColor::Yellow.on_default(),
        Level::Problem => AnsiColor::Red.on_default().bold(),
    }
}

fn summary(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let plural = |count, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    format!(
        "{}, {}, {} ok, {} skipped",
        plural(problems, "problem"),
        plural(warnings, "warning"),
        count(Level::Ok),
        count(Level::Skipped)
    )
}

fn document(findings: &[Finding]) -> serde_json::Value {
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    serde_json::json!({
        "schema": SCHEMA.0,
        "version": SCHEMA.1,
        "hsmux": env!("CARGO_PKG_VERSION"),
        "worst": worst,
        "findings": findings,
    })
}

/// The finding that the exit code is of: the first problem, else where warnings count the first of those.
fn first(findings: &[Finding], strict: bool) -> Option<&Finding> {
    let of = |level| findings.iter().find(|finding| finding.level == level);
    of(Level::Problem).or_else(|| of(Level::Warning).filter(|_| strict))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn some() -> Vec<Finding> {
        vec![
            Finding::ok("config.file", "it is good"),
            Finding::warning("config.state_dir", "there is none", "state_dir = \"/s\""),
            Finding::problem("pin.permissions", "others may read it", "chmod 600 /pin"),
            Finding::problem("module.load", "it does not", "reinstall it"),
            Finding::skipped("token.present", "the module does not load"),
        ]
    }

    #[test]
    fn lines_stand_under_the_title_of_their_area_with_advice_beneath() {
        let findings = some();
        let mut before = None;
        let mut all = String::new();
        for finding in &findings[..3] {
            all += &text(before, finding, false);
            before = Some(finding);
        }
        let expected = "\
Configuration
  ok       it is good
  warning  there is none
           -> state_dir = \"/s\"

PIN
  problem  others may read it
           -> chmod 600 /pin
";
        assert_eq!(all, expected);
        assert_eq!(summary(&findings), "2 problems, 1 warning, 1 ok, 1 skipped");
    }

    #[test]
    fn a_mark_has_a_colour_only_where_it_is_wanted() {
        let finding = &some()[2];
        let coloured = text(None, finding, true);
        assert!(coloured.contains("\u{1b}[") && coloured.contains("problem\u{1b}[0m"), "{coloured:?}");
        assert!(!text(None, finding, false).contains('\u{1b}'));
    }

    #[test]
    fn the_first_problem_says_how_it_ends_and_a_warning_only_where_it_counts() {
        let findings = some();
        for strict in [false, true] {
            assert_eq!(first(&findings, strict).map(|finding| finding.exit), Some(Exit::Pin));
        }
        assert!(first(&findings[..2], false).is_none());
        assert_eq!(first(&findings[..2], true).map(|finding| finding.check), Some("config.state_dir"));
        assert!(first(&findings[..1], true).is_none());
        assert!(first(&findings[4..], true).is_none(), "what is skipped is nobody's fault");
    }

    #[test]
    fn the_document_has_a_name_a_version_the_worst_level_and_all_findings() {
        let document = document(&some());
        assert_eq!((&document["schema"], &document["version"]), (&"hsmux-doctor".into(), &1.into()));
        assert_eq!(document["worst"], "problem");
        assert_eq!(document["findings"].as_array().map(Vec::len), Some(5));
        let second = serde_json::json!({
            "check": "config.state_dir",
            "level": "warning",
            "what": "there is none",
            "advice": "state_dir = \"/s\"",
        });
        assert_eq!(document["findings"][1], second);
    }
}
