//! `hsmux audit`: verifies a log, proves what is in it, and shows it. It needs no HSM.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam::sync::Parker;
use hsmux::{AuditCheckpoint, AuditConsistency, AuditInclusion, AuditKey, AuditLog, AuditReport};

use crate::connection::Connection;
use crate::exit::{Exit, Failure, Result, printable};

/// Options of `hsmux audit`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Args)]
struct Key {
    #[command(flatten)]
    connection: Connection,

    /// Print JSON instead: an object with the key in DER, in hexadecimal
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Check every record and checkpoint, and say where the first bad one is
    #[command(after_help = VERIFY_HELP)]
    Verify(Verify),
    /// Prove that a record is in the log, or that the log only grew: as JSON, to be checked without the log
    #[command(after_help = PROVE_HELP)]
    Prove(Prove),
    /// Check a proof
    #[command(after_help = CHECK_HELP)]
    Check(Check),
    /// Print the public key of the checkpoints, in PEM: the only one of these that needs the HSM
    Key(Box<Key>),
    /// Show the last records. They are not verified
    #[command(after_help = TAIL_HELP)]
    Tail(Tail),
}

const VERIFY_HELP: &str = "\
Examples:
  hsmux audit verify /var/lib/pay/audit --key audit.pem
  hsmux audit verify /mnt/copy/audit --key audit.pem --since kept/checkpoint

Exit codes:
  0   the log is as it was written
  2   options, or the log cannot be read
  11  it is not; stdout says where that begins";

const PROVE_HELP: &str = "\
Examples:
  hsmux audit prove /var/lib/pay/audit --sequence 4711 > proof.json
  hsmux audit prove /var/lib/pay/audit --grown-from 4000 --size 5000 > proof.json";

const CHECK_HELP: &str = "\
Examples:
  hsmux audit check proof.json --key audit.pem

Exit codes:
  0   it proves what it says
  2   options, or it is no proof
  11  it does not";

const TAIL_HELP: &str = "\
Examples:
  hsmux audit tail /var/lib/pay/audit
  hsmux audit tail /var/lib/pay/audit --follow --json | jq 'select(.error)'";

#[derive(Debug, clap::Args)]
struct Keys {
    /// File with a public key that checkpoints are signed with: PEM, DER, or a verifier key of signed notes. May be given
    /// several times. Without one, whoever can write to the log can have written all of it
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// The log
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    #[command(flatten)]
    keys: Keys,

    /// A checkpoint that was kept elsewhere: the log must hold all that it held then
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,

    /// Print the report as a line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("proof").required(true)))]
struct Prove {
    /// The log
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Prove that this record is in the log; they are counted from 0
    #[arg(long, value_name = "N", group = "proof")]
    sequence: Option<u64>,

    /// Prove that the log holds all that it held when it had so many records
    #[arg(long, value_name = "N", group = "proof")]
    grown_from: Option<u64>,

    /// The log when it had so many records. Default: the last checkpoint, if it covers that, else all there is
    #[arg(long, value_name = "M")]
    size: Option<u64>,

    /// Accepted like everywhere; a proof is JSON anyway
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Check {
    /// The proof; `-` is stdin
    #[arg(value_name = "FILE")]
    proof: PathBuf,

    #[command(flatten)]
    keys: Keys,

    /// Print what is proven as a line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Tail {
    /// The log
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// How many records
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    records: usize,

    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,

    /// Print the records as they are in the log: a JSON object a line
    #[arg(long)]
    json: bool,
}

/// A proof of either kind.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Proof {
    Inclusion(AuditInclusion),
    Consistency(AuditConsistency),
}

/// Longest file of a key, checkpoint or proof that is read, in bytes.
const FILE_LEN_MAX: u64 = 1 << 20;

/// How long is waited for the next record: nothing tells of it.
const STEP: Duration = Duration::from_millis(100);

/// Does what is asked for.
pub(crate) fn run(args: Args) -> Result {
    match args.what {
        What::Verify(args) => verify(&args),
        What::Prove(args) => prove(&args),
        What::Check(args) => check(&args),
        What::Key(args) => key(&args),
        What::Tail(args) => tail(&args),
    }
}

fn verify(args: &Verify) -> Result {
    let keys = args.keys.read()?;
    let since = args.since.as_deref().map(read).transpose()?;
    let since = since.map(|bytes| AuditCheckpoint::parse(&bytes)).transpose().map_err(usage)?;
    let report = AuditLog::at(&args.directory).verify(&keys, since.as_ref()).map_err(usage)?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json(&report)?)?;
    } else {
        say(&mut out, &report, keys.is_empty())?;
    }
    out.flush()?;
    match report.fault {
        None => Ok(()),
        Some(_) => Err(Failure::new(Exit::Audit, "the audit log does not verify")),
    }
}

fn say(out: &mut impl Write, report: &AuditReport, is_unsigned: bool) -> io::Result<()> {
    if let Some(fault) = &report.fault {
        let line = fault.line.map_or_else(String::new, |line| format!(", line {line}"));
        let record = fault.sequence.map_or_else(String::new, |sequence| format!(": record {sequence}"));
        return writeln!(out, "{}", printable(&format!("BAD: {}{line}{record}: {}", fault.file, fault.why)));
    }
    writeln!(out, "{}", printable(&format!("good: {} records of {}", report.records, report.log)))?;
    writeln!(out, "root {}, {} checkpoints", report.root, report.checkpoints)?;
    if is_unsigned {
        writeln!(out, "no key was given: signatures were not checked")?;
    }
    if report.covered < report.records {
        let open = report.records - report.covered;
        writeln!(out, "the last {open} records are not under a checkpoint yet")?;
    }
    if report.lost > 0 {
        writeln!(out, "{} records were not written, as the log says itself (kind gap)", report.lost)?;
    }
    if report.torn > 0 {
        writeln!(out, "{} bytes at the end are no whole record yet", report.torn)?;
    }
    Ok(())
}

fn prove(args: &Prove) -> Result {
    let log = AuditLog::at(&args.directory);
    let proof = match (args.sequence, args.grown_from) {
        (Some(sequence), _) => json(&log.prove_inclusion(sequence, args.size)?)?,
        (None, old) => json(&log.prove_consistency(old.unwrap_or_default(), args.size)?)?,
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{proof}")?;
    Ok(out.flush()?)
}

/// How long the engine may take to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Prints the public key that checkpoints are verified with.
fn key(args: &Key) -> Result {
    let site = args.connection.resolve()?;
    let engine = site.builder(&site.tokens()?, site.pin()?).sessions(1).build()?;
    let der = engine.managed_keys().audit_public_key();
    engine.drain(DRAIN);
    let der = der?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::json!({ "spki": data_encoding::HEXLOWER.encode(&der) }))?;
    } else {
        writeln!(out, "-----BEGIN PUBLIC KEY-----")?;
        // RFC 7468, 2: lines of 64 characters.
        let text = data_encoding::BASE64.encode(&der);
        for line in text.as_bytes().chunks(64) {
            out.write_all(line)?;
            writeln!(out)?;
        }
        writeln!(out, "-----END PUBLIC KEY-----")?;
    }
    Ok(out.flush()?)
}

fn check(args: &Check) -> Result {
    let keys = args.keys.read()?;
    let proof = serde_json::from_slice(&read(&args.proof)?);
    let proof =
        proof.map_err(|_| Failure::new(Exit::Usage, format!("{}: no proof", args.proof.display())))?;
    let (text, value) = match &proof {
        Proof::Inclusion(proof) => {
            proof.check(&keys)?;
            (format!("good: in the log is {}", proof.record()), json(proof)?)
        }
        Proof::Consistency(proof) => {
            proof.check(&keys)?;
            ("good: the log only grew".to_owned(), json(proof)?)
        }
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{}", if args.json { value } else { printable(&text) })?;
    Ok(out.flush()?)
}

fn tail(args: &Tail) -> Result {
    let mut tail = AuditLog::at(&args.directory).tail(args.records)?;
    let mut out = io::stdout().lock();
    let parker = Parker::new();
    loop {
        while let Some(record) = tail.next_record()? {
            let line = if args.json { record } else { in_words(&record) };
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        if !args.follow {
            return Ok(());
        }
        parker.park_timeout(STEP);
    }
}

/// A record on one line: number, time and kind, then the other fields by their names.
fn in_words(record: &str) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(record) else {
        return printable(record);
    };
    let plain = |name: &str| match &fields.get(name) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let mut line = format!("{:>8}  {}  {:<10}", plain("seq"), plain("time"), plain("kind"));
    let shown = |name: &&String| !["v", "seq", "time", "kind", "chain"].contains(&name.as_str());
    for name in fields.keys().filter(shown) {
        line.push_str(&format!(" {name}={}", plain(name)));
    }
    printable(&line)
}

impl Keys {
    fn read(&self) -> Result<Vec<AuditKey>> {
        self.keys.iter().map(|path| AuditKey::parse(&read(path)?).map_err(usage)).collect()
    }
}

/// A small file; `-` is stdin.
fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = match path.to_str() {
        Some("-") => io::stdin().lock().take(FILE_LEN_MAX).read_to_end(&mut bytes),
        _ => File::open(path).and_then(|file| file.take(FILE_LEN_MAX).read_to_end(&mut bytes)),
    };
    read.map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display())))?;
    Ok(bytes)
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Failure::new(Exit::Other, error.to_string()))
}

/// What was given is wrong, whatever the library calls it.
fn usage(error: hsmux::Error) -> Failure {
    Failure::new(Exit::Usage, error.to_string())
}
