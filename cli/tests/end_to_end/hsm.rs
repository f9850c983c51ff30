//! A token directory of one test, and the binary run on it: one process at a time.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use softhsm_fixtures::SoftHsm;
use tempfile::TempDir;

/// The PIN of every token, unlike anything else that is printed.
pub(crate) const PIN: &str = "918273645";

const SO_PIN: &str = "5678";

pub(crate) struct Hsm {
    module: PathBuf,
    directory: TempDir,
}

/// How the binary ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Hsm {
    /// A directory with tokens of these labels; `None`, said aloud, if SoftHSM2 is not installed.
    pub(crate) fn with_tokens(labels: &[&str]) -> Option<Self> {
        let module = SoftHsm::for_tests()?.module().to_owned();
        let hsm = Self { module, directory: tempfile::tempdir().unwrap() };
        let tokens = hsm.path("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let conf = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        std::fs::write(hsm.path("softhsm2.conf"), conf).unwrap();
        hsm.write_pin("pin", PIN, 0o600);
        for label in labels {
            let pins = ["--pin", PIN, "--so-pin", SO_PIN];
            hsm.util(&[&["--init-token", "--free", "--label", label], &pins[..]].concat());
        }
        Some(hsm)
    }

    /// Puts a key on a token, by this label and identifier.
    pub(crate) fn import(&self, token: &str, label: &str, id: &str) {
        let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_to_end/test-p256.pem");
        self.util(&["--import", pem, "--token", token, "--label", label, "--id", id, "--pin", PIN]);
    }

    /// Puts a key on the token of this serial number.
    pub(crate) fn import_by_serial(&self, serial: &str, label: &str) {
        let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_to_end/test-p256.pem");
        self.util(&["--import", pem, "--serial", serial, "--label", label, "--id", "01", "--pin", PIN]);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn module(&self) -> &Path {
        &self.module
    }

    /// Writes a file for a PIN and returns the option that names it.
    pub(crate) fn write_pin(&self, name: &str, pin: &str, mode: u32) -> String {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path(name), format!("{pin}\n")).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        format!("--pin-source=file:{}", self.path(name).display())
    }

    /// The binary with the module, but without a PIN.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hsmux"));
        command.args(arguments).env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command.env("PKCS11_MODULE_PATH", &self.module).stdin(Stdio::null());
        command
    }

    /// Runs the binary without a PIN.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(&self.command(arguments).output().unwrap())
    }

    /// Runs the binary with the right PIN.
    pub(crate) fn run_with_pin(&self, arguments: &[&str]) -> Ended {
        let pin = format!("--pin-source=file:{}", self.path("pin").display());
        self.run(&[arguments, &[&pin]].concat())
    }

    fn util(&self, arguments: &[&str]) {
        let mut util = Command::new("softhsm2-util");
        util.args(arguments).env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        let output = util.arg("--module").arg(&self.module).output().unwrap();
        assert!(output.status.success(), "softhsm2-util: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Ended {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Checks a failure: its code, nothing on stdout, the words in its last line, and no PIN anywhere.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        let line = self.stderr.lines().last().unwrap_or_default();
        words.iter().for_each(|word| assert!(line.contains(word), "no {word:?} in {line:?}"));
        assert!(!self.stderr.contains(PIN), "{self:?}");
    }

    #[track_caller]
    pub(crate) fn succeeds(&self) {
        assert_eq!(self.code, Some(0), "{self:?}");
    }
}
