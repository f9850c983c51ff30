//! The module: its file, whether it loads, and whose it is.

use std::path::{Path, PathBuf};

use hsmux::{ModuleDescription, ModuleKind};

use super::access::{Place, me};
use super::finding::Finding;
use crate::connection::Site;
use crate::exit::{Exit, Failure, Result};

/// The file of a module.
pub(super) struct File {
    path: PathBuf,
    place: std::result::Result<Place, String>,
    /// The directories in which somebody could put another one in its place: its own, and that of a link to it.
    above: Vec<Place>,
    me: u32,
}

/// What a module says of itself, or why it does not load.
pub(super) struct Loaded {
    told: std::result::Result<Told, (Exit, String)>,
    kind: ModuleKind,
}

#[derive(Clone, Debug)]
struct Told {
    /// Of the file, without its directory.
    file: String,
    manufacturer: String,
    description: String,
    version: (u8, u8),
    cryptoki: (u8, u8),
    /// Of its tokens.
    models: Vec<String>,
}

/// The version of PKCS#11 that the engine is made for.
const CRYPTOKI_MIN: (u8, u8) = (2, 40);

impl File {
    pub(super) fn look(path: &Path) -> Self {
        let place = Place::look(path).map_err(|error| error.to_string());
        let own = Place::look_above(path).ok();
        let of_link = std::path::absolute(path).ok().and_then(|path| Place::look(path.parent()?).ok());
        let above = own.into_iter().chain(of_link).collect();
        Self { path: path.to_owned(), place, above, me: me() }
    }
}

impl Loaded {
    pub(super) fn of(site: &Site, described: &Result<ModuleDescription>) -> Self {
        let kind = site.config().map(hsmux::Config::module_kind).unwrap_or_default();
        let told = match described {
            Ok(module) => Ok(Told::of(site.module(), module)),
            Err(Failure::Said { exit, text }) => Err((*exit, text.clone())),
            Err(Failure::OutputClosed) => Err((Exit::Module, "it does not load".to_owned())),
        };
        Self { told, kind }
    }
}

impl Told {
    fn of(path: &Path, module: &ModuleDescription) -> Self {
        let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Self {
            file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            manufacturer: module.manufacturer.clone(),
            description: module.description.clone(),
            version: module.version,
            cryptoki: module.cryptoki,
            models: module.tokens.iter().map(|token| token.model.clone()).collect(),
        }
    }
}

/// Whether it is there, and who may change what every service on it would run.
pub(super) fn judge_file(file: &File) -> Vec<Finding> {
    let path = file.path.display();
    let place = match &file.place {
        Ok(place) if place.is_file => place,
        Ok(_) => {
            let what = format!("module {path} is no regular file");
            return vec![Finding::problem("module.file", what, LIBRARY)];
        }
        Err(why) => return vec![Finding::problem("module.file", format!("module {path}: {why}"), LIBRARY)],
    };
    let open = std::iter::once(place).chain(&file.above).find_map(|place| place.open_to(file.me));
    let permissions = match open {
        Some((why, advice)) => {
            Finding::problem("module.permissions", format!("{why}: the service runs what is in it"), advice)
        }
        None => {
            let what = format!("nobody but its owner may change the module (mode {:04o})", place.mode);
            Finding::ok("module.permissions", what)
        }
    };
    vec![Finding::ok("module.file", format!("module {path} is there")), permissions]
}

const LIBRARY: &str = "name the shared library of the HSM's vendor: module = \"/path/of/its/pkcs11.so\"; of SoftHSM2, \
                       `dpkg -L libsofthsm2 | grep so$` shows it";

const UNLOADED: &str = "`ldd MODULE` shows libraries that are missing; else see the vendor's client: its configuration, its \
                        environment variables, and whether this user may use it";

const HUNG: &str =
    "see whether the vendor's client reaches its HSM; if it only takes longer: --module-limit 5m";

/// Whether it loads, and what it says of itself.
pub(super) fn judge(loaded: &Loaded) -> Vec<Finding> {
    match &loaded.told {
        Err((exit, why)) => vec![
            Finding::problem("module.load", why, if *exit == Exit::Busy { HUNG } else { UNLOADED })
                .with_exit(*exit),
            Finding::skipped("module.version", "the module does not load"),
            Finding::skipped("module.kind", "the module does not load"),
        ],
        Ok(told) => vec![
            Finding::ok("module.load", format!("it loads: {}, {}", told.description, told.manufacturer)),
            judge_version(told),
            judge_kind(told, loaded.kind),
        ],
    }
}

fn judge_version(told: &Told) -> Finding {
    const CHECK: &str = "module.version";
    let ((major, minor), (of, minor_of)) = (told.version, told.cryptoki);
    let what = format!("version {major}.{minor}, PKCS#11 {of}.{minor_of:02}");
    if told.cryptoki >= CRYPTOKI_MIN {
        return Finding::ok(CHECK, what);
    }
    Finding::warning(
        CHECK,
        format!("{what}: older than 2.40, which the engine is made for; mechanisms may be missing"),
        "update the vendor's client, if there is a newer one; try it with `hsmux load`",
    )
}

/// Whose module it seems to be, by names that vendors give their modules. Proxies have the names of what is behind them.
fn apparent(told: &Told) -> Option<ModuleKind> {
    let names = format!("{} {}", told.manufacturer, told.description).to_lowercase();
    let is_old = told.version.0 < 5;
    if told.file.contains("pkcs11-proxy") {
        Some(ModuleKind::Pkcs11Proxy)
    } else if names.contains("yubihsm") {
        Some(ModuleKind::YubiHsm)
    } else if names.contains("cloudhsm") || told.file.contains("cloudhsm") {
        Some(if is_old { ModuleKind::CloudHsmSdk3 } else { ModuleKind::CloudHsmSdk5 })
    } else if told.models.iter().any(|model| model.contains("LunaVirtual")) {
        // The token that a Luna client makes of a group.
        Some(ModuleKind::LunaHa)
    } else {
        None
    }
}

/// As a configuration has it.
const fn name(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::CloudHsmSdk5 => "cloudhsm-sdk5",
        ModuleKind::CloudHsmSdk3 => "cloudhsm-sdk3",
        ModuleKind::YubiHsm => "yubihsm",
        ModuleKind::Pkcs11Proxy => "pkcs11-proxy",
        ModuleKind::LunaHa => "luna-ha",
        _ => "standard",
    }
}

fn judge_kind(told: &Told, kind: ModuleKind) -> Finding {
    const CHECK: &str = "module.kind";
    let names = format!("{}, {}", told.description, told.manufacturer);
    let set = name(kind);
    match apparent(told) {
        Some(apparent) if apparent != kind => Finding::warning(
            CHECK,
            format!(
                "the module calls itself {names}, and module_kind is {set}: what is busy may be taken for broken"
            ),
            format!("module_kind = \"{}\"", name(apparent)),
        ),
        // These have no names of their own.
        None if !matches!(kind, ModuleKind::Standard | ModuleKind::Pkcs11Proxy | ModuleKind::LunaHa) => {
            Finding::warning(
                CHECK,
                format!("the module calls itself {names}, which does not look like module_kind {set}"),
                "module_kind = \"standard\", unless it is a proxy's name",
            )
        }
        _ => Finding::ok(CHECK, format!("module_kind {set} fits its names")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn told(manufacturer: &str, description: &str) -> Told {
        Told {
            file: "pkcs11.so".to_owned(),
            manufacturer: manufacturer.to_owned(),
            description: description.to_owned(),
            version: (2, 6),
            cryptoki: (2, 40),
            models: Vec::new(),
        }
    }

    #[test]
    fn a_file_that_is_missing_is_none_or_others_may_change_is_a_problem() {
        let judge = |place: std::result::Result<(bool, u32), &str>| {
            let path = PathBuf::from("/m.so");
            let place = place.map(|(is_file, mode)| Place { path: path.clone(), is_file, owner: 0, mode });
            let file = File { path, place: place.map_err(str::to_owned), above: Vec::new(), me: 1000 };
            judge_file(&file).iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        assert_eq!(judge(Ok((true, 0o755))), [Level::Ok, Level::Ok]);
        assert_eq!(judge(Ok((true, 0o775))), [Level::Ok, Level::Problem]);
        assert_eq!(judge(Ok((false, 0o755))), [Level::Problem]);
        assert_eq!(judge(Err("no such file")), [Level::Problem]);
    }

    #[test]
    fn a_module_that_others_may_put_another_in_the_place_of_is_a_problem_by_directory_and_by_link() {
        use std::os::unix::fs::PermissionsExt;

        let top = tempfile::tempdir().unwrap();
        let (real, links) = (top.path().join("real"), top.path().join("links"));
        for directory in [&real, &links] {
            std::fs::create_dir(directory).unwrap();
        }
        std::fs::write(real.join("m.so"), "").unwrap();
        std::os::unix::fs::symlink(real.join("m.so"), links.join("m.so")).unwrap();
        let judged = || judge_file(&File::look(&links.join("m.so"))).remove(1);
        let set_mode =
            |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
        for path in [&real.join("m.so"), &real, &links] {
            set_mode(path, 0o755).unwrap();
        }
        assert_eq!(judged().level, Level::Ok);
        for directory in [&real, &links] {
            set_mode(directory, 0o777).unwrap();
            let finding = judged();
            assert_eq!(finding.level, Level::Problem);
            assert_eq!(finding.advice.unwrap(), format!("chmod go-w {}", directory.display()));
            set_mode(directory, 0o755).unwrap();
        }
    }

    #[test]
    fn a_module_that_does_not_load_ends_with_its_class() {
        let loaded =
            Loaded { told: Err((Exit::Usage, "other init-args".into())), kind: ModuleKind::Standard };
        let findings = judge(&loaded);
        assert_eq!((findings[0].level, findings[0].exit), (Level::Problem, Exit::Usage));
        assert!(findings[1..].iter().all(|finding| finding.level == Level::Skipped), "{findings:?}");
        let hung = Loaded { told: Err((Exit::Busy, "it hangs".into())), kind: ModuleKind::Standard };
        assert!(judge(&hung)[0].advice.as_deref().unwrap().contains("--module-limit"));
    }

    #[test]
    fn a_version_before_2_40_is_a_warning() {
        let level = |cryptoki| judge_version(&Told { cryptoki, ..told("a", "b") }).level;
        assert_eq!([(2, 40), (3, 0), (3, 2)].map(level), [Level::Ok; 3]);
        assert_eq!([(2, 20), (2, 1), (1, 99)].map(level), [Level::Warning; 3]);
    }

    #[test]
    fn a_kind_that_does_not_fit_the_names_is_a_warning_with_the_setting() {
        use ModuleKind::{CloudHsmSdk3, CloudHsmSdk5, LunaHa, Pkcs11Proxy, Standard, YubiHsm};
        let softhsm = || told("SoftHSM", "Implementation of PKCS11");
        let yubihsm = || told("Yubico (www.yubico.com)", "YubiHSM PKCS#11 Library");
        let cloudhsm = |major| Told { version: (major, 1), ..told("AWS", "CloudHSM PKCS#11") };
        let luna = || Told { models: vec!["LunaVirtual".to_owned()], ..told("SafeNet", "Chrystoki") };
        let proxy = || Told { file: "libpkcs11-proxy.so".to_owned(), ..softhsm() };
        for (told, kind) in [
            (softhsm(), Standard),
            (softhsm(), Pkcs11Proxy),
            (softhsm(), LunaHa),
            (yubihsm(), YubiHsm),
            (cloudhsm(5), CloudHsmSdk5),
            (cloudhsm(3), CloudHsmSdk3),
            (luna(), LunaHa),
            (proxy(), Pkcs11Proxy),
        ] {
            assert_eq!(judge_kind(&told, kind).level, Level::Ok, "{told:?} {kind:?}");
        }
        for (told, kind, advice) in [
            (softhsm(), YubiHsm, "standard"),
            (softhsm(), CloudHsmSdk5, "standard"),
            (yubihsm(), Standard, "yubihsm"),
            (cloudhsm(5), Standard, "cloudhsm-sdk5"),
            (cloudhsm(3), CloudHsmSdk5, "cloudhsm-sdk3"),
            (luna(), Standard, "luna-ha"),
            (proxy(), Standard, "pkcs11-proxy"),
        ] {
            let finding = judge_kind(&told, kind);
            assert_eq!(finding.level, Level::Warning, "{told:?} {kind:?}");
            assert!(finding.advice.unwrap().contains(&format!("module_kind = \"{advice}\"")));
        }
    }
}
