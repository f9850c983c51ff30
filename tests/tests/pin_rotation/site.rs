//! Tokens whose PINs outlive a process, PINs in files, and a state directory.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use hsmux::{Copies, Engine, Key, PinSource, Pkcs11Uri};
use hsmux_tests::Ready;
use p11_sim::Loaded;

/// The PIN that tokens have first.
pub(crate) const OLD: &str = "old-4711-old";
/// The one that they get.
pub(crate) const NEW: &str = "new-0815-new";

/// A key as one token has it: its requests go nowhere else.
pub(crate) fn key_of(engine: &Engine, label: &str) -> Key {
    let uri: Pkcs11Uri = format!("pkcs11:token={label};object=hmac").parse().unwrap();
    engine.key(&uri).unwrap()
}

/// Tokens, and all there is about them.
pub(crate) struct Site {
    place: tempfile::TempDir,
    tokens: usize,
}

impl Site {
    pub(crate) fn new(tokens: usize) -> Self {
        let site = Self { place: tempfile::tempdir().unwrap(), tokens };
        for (hours, name, pin) in [(2, "old", OLD), (1, "new", NEW)] {
            site.write(name, pin);
            // Files that are written one after the other may have the same time.
            let then = SystemTime::now() - Duration::from_secs(3600 * hours);
            std::fs::File::open(site.path(name)).unwrap().set_modified(then).unwrap();
        }
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Puts a PIN into a file that nobody else reads.
    pub(crate) fn write(&self, name: &str, pin: &str) -> PinSource {
        let path = self.path(name);
        std::fs::write(&path, pin).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        PinSource::File(path)
    }

    /// A file with a PIN, as it is.
    pub(crate) fn file(&self, name: &str) -> PinSource {
        PinSource::File(self.path(name))
    }

    pub(crate) fn labels(&self) -> Vec<String> {
        (0..self.tokens).map(|index| format!("sim-{index}")).collect()
    }

    /// The simulator's configuration.
    pub(crate) fn config(&self, more: &str) -> String {
        let (store, log) = (self.path("store"), self.path("log"));
        format!("tokens={},pin={OLD},store={},pin_log={},{more}", self.tokens, store.display(), log.display())
    }

    /// A simulator of these tokens.
    pub(crate) fn sim(&self, more: &str) -> Loaded {
        Loaded::private_copy(&self.config(more)).unwrap()
    }

    /// A builder on a simulator, with a PIN.
    pub(crate) fn builder(&self, sim: &Loaded, pin: PinSource) -> Ready {
        let builder = Engine::builder().module(sim.path()).tokens(self.labels()).pin(pin);
        builder.state_dir(self.path("state")).copies(Copies::Off).sessions(2)
    }

    /// The PIN that a token has.
    pub(crate) fn pin_of(&self, token: usize) -> String {
        let file = self.path("store").join(format!("sim-{token}")).join("pin");
        std::fs::read_to_string(file).unwrap_or_else(|_| OLD.to_owned())
    }

    pub(crate) fn pins(&self) -> Vec<String> {
        (0..self.tokens).map(|token| self.pin_of(token)).collect()
    }

    /// The PINs that a token was tried with, as `right` or `wrong`.
    pub(crate) fn tries(&self, token: usize) -> Vec<String> {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let of = format!("sim-{token} ");
        log.lines().filter_map(|line| line.strip_prefix(&of)).map(str::to_owned).collect()
    }

    /// Wrong tries of all tokens.
    pub(crate) fn wrong(&self) -> usize {
        (0..self.tokens).map(|token| self.tries(token).iter().filter(|how| *how == "wrong").count()).sum()
    }

    /// What the records of rotations say, by token: their stage; none without a record.
    pub(crate) fn stages(&self) -> Vec<String> {
        let text = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        let entries = std::fs::read_dir(self.path("state")).unwrap().map(|entry| entry.unwrap().path());
        let is_record = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("pin-rotation-") && name.ends_with(".toml")
        };
        let records: Vec<_> = entries.filter(is_record).map(text).collect();
        let value = |record: &String, key: &str| {
            let line = record.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim_matches([' ', '=', '"']).to_owned()
        };
        let stage = |label: &String| {
            let of = records.iter().find(|record| value(record, "label ") == *label);
            of.map_or_else(|| "none".to_owned(), |record| value(record, "stage "))
        };
        self.labels().iter().map(stage).collect()
    }

    /// All that is in the state directory.
    pub(crate) fn state_text(&self) -> String {
        let entries = std::fs::read_dir(self.path("state")).unwrap();
        entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    }
}
