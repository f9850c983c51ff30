//! Which options of a row the program at hand has.

/// What to do with a row's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Options {
    /// The options, without those that turn off what this program has not got anyway.
    Known(Vec<String>),
    /// The row cannot run: this one is missing.
    Needs(String),
}

/// Looks a row's options up in what `hsmux load --help` says. An option is known if the help has it, and its value if
/// it is a number, or the help has it no values to choose from, or it is among those.
#[must_use]
pub fn options(load: &str, help: &str) -> Options {
    let mut known = Vec::new();
    let mut words = load.split_whitespace().peekable();
    while let Some(option) = words.next() {
        let value = words.next_if(|word| !word.starts_with("--"));
        match paragraph(help, option) {
            Some(text) if !is_auto(value) || text.contains("auto") => {
                known.extend([option].into_iter().chain(value).map(str::to_owned));
            }
            None if value == Some("off") => {}
            _ if is_auto(value) => return Options::Needs(format!("{option} auto")),
            _ => return Options::Needs(option.to_owned()),
        }
    }
    Options::Known(known)
}

/// The one value that came later than its option.
fn is_auto(value: Option<&str>) -> bool {
    value == Some("auto")
}

/// What the help says of an option, up to the next one.
fn paragraph<'a>(help: &'a str, option: &str) -> Option<&'a str> {
    let mut starts = help.lines().filter(|line| line.trim_start().starts_with("--"));
    let line = starts.find(|line| {
        let name = line.split_whitespace().next().unwrap_or_default();
        name.split('=').next() == Some(option)
    })?;
    let start = line.as_ptr() as usize - help.as_ptr() as usize;
    let rest = help.get(start..)?;
    let end = rest.match_indices('\n').map(|(at, _)| at + 1);
    let mut end = end.filter(|&at| rest[at..].trim_start_matches(' ').starts_with("--"));
    Some(&rest[..end.next().unwrap_or(rest.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "\
Options:
      --op <OP[:SIZE]>
          Operation and size

      --sessions <N>
          Sessions per token

      --instances-of <N>
          Something else
";

    fn known(words: &[&str]) -> Options {
        Options::Known(words.iter().map(|&word| word.to_owned()).collect())
    }

    #[test]
    fn what_the_help_has_is_kept() {
        assert_eq!(
            options("--op random --sessions 64", HELP),
            known(&["--op", "random", "--sessions", "64"])
        );
    }

    #[test]
    fn what_would_be_turned_off_is_left_out_if_it_is_not_there() {
        assert_eq!(options("--op random --copies off", HELP), known(&["--op", "random"]));
        let help = format!("{HELP}\n      --copies <WHEN>\n          auto, off or required\n");
        assert_eq!(options("--copies off", &help), known(&["--copies", "off"]));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(options("--op random --instances 2", HELP), Options::Needs("--instances".into()));
        assert_eq!(options("--host-modes --op random", HELP), Options::Needs("--host-modes".into()));
        assert_eq!(options("--sessions auto", HELP), Options::Needs("--sessions auto".into()));
        let help = HELP.replace("Sessions per token", "Sessions per token: N, MIN-MAX or auto");
        assert_eq!(options("--sessions auto", &help), known(&["--sessions", "auto"]));
    }
}
