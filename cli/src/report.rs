//! `hsmux report`: results of load runs as a page.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hsmux_bench::result::{LoadResult, html};

use crate::exit::{Exit, Failure, Result};

/// Options of `hsmux report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Results of `hsmux load`, in JSON. Several are laid over each other, and ratios are to the first; six at most, for
    /// colours and dashes tell them apart
    #[arg(value_name = "FILE", required = true, num_args = 1..=html::RUNS_MAX)]
    results: Vec<PathBuf>,

    /// Where to write the page. Default: report.html beside the first FILE
    #[arg(long, short, value_name = "FILE.html")]
    output: Option<PathBuf>,
}

/// Examples and exit codes, for `--help`.
pub(crate) const HELP: &str = "\
Examples:
  hsmux report runs/a/result.json
  hsmux report runs/a/result.json runs/b/result.json -o ab.html

The page needs no network and runs no script. Stdout says where it is.

Exit codes:
  0  the page is written
  2  options, a FILE that is no result of a load run, or the page cannot be written";

/// The page's name where none is given.
const DEFAULT_NAME: &str = "report.html";

/// Writes the page, then says on stdout where it is.
pub(crate) fn run(args: &Args) -> Result {
    let results = args.results.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    let output = args.output();
    std::fs::write(&output, html::page(&results)).map_err(|error| {
        Failure::new(Exit::Usage, format!("{} cannot be written: {error}", output.display()))
    })?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", output.display())?;
    Ok(out.flush()?)
}

fn read(path: &Path) -> Result<LoadResult> {
    LoadResult::read(path).map_err(|failure| Failure::new(Exit::Usage, failure.to_string()))
}

impl Args {
    fn output(&self) -> PathBuf {
        match (&self.output, self.results.first()) {
            (Some(output), _) => output.clone(),
            (None, Some(first)) => first.with_file_name(DEFAULT_NAME),
            (None, None) => DEFAULT_NAME.into(),
        }
    }
}
