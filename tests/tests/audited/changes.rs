//! Every change of a key, with every field of its record, and the intent before it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use hsmux::{AgreementKdf, Error, ManagedKeys, Outcome};
use serde_json::json;

use super::*;

/// A change that was made, and what its record has to say.
struct Made {
    operation: &'static str,
    /// The id of the key, and its version before and after.
    key: Option<(String, Option<u32>, Option<u32>)>,
    /// What is known before, and what only after.
    asked: Value,
    found: Value,
    object: Option<&'static str>,
    end: (&'static str, Option<&'static str>),
}

/// Makes changes, and remembers what they have to leave.
struct Maker<'a> {
    engine: &'a Engine,
    made: Vec<Made>,
}

impl Made {
    fn of(operation: &'static str, asked: Value, found: Value) -> Self {
        Self { operation, key: None, asked, found, object: None, end: ("done", None) }
    }

    /// Whether somebody can be named who has asked for it.
    fn has_caller(&self) -> bool {
        !["generate-key", "rotate-pin"].contains(&self.operation) && self.object != Some(PLAIN)
    }

    fn intent(&self, id: &str) -> Value {
        let mut said = json!({"kind": "intent", "operation": self.operation});
        if self.has_caller() {
            (said["caller"], said["request"]) = ("j.doe".into(), id.into());
        }
        if let Some((key, Some(version), _)) = &self.key {
            (said["key"], said["version"]) = (key.as_str().into(), (*version).into());
        }
        if self.asked.as_object().is_some_and(|asked| !asked.is_empty()) {
            said["fields"] = self.asked.clone();
        }
        said
    }

    fn record(&self, id: &str, number: &Value) -> Value {
        let mut said = self.intent(id);
        (said["kind"], said["intent"], said["outcome"]) =
            ("change".into(), number.clone(), self.end.0.into());
        self.end.1.iter().for_each(|error| said["error"] = (*error).into());
        if let Some((key, _, Some(version))) = &self.key {
            (said["key"], said["version"]) = (key.as_str().into(), (*version).into());
        }
        if self.operation != "rotate-pin" {
            said["token"] = SERIAL.into();
        }
        let found = self.found.as_object().unwrap().iter();
        found.for_each(|(name, value)| said["fields"][name] = value.clone());
        said
    }
}

/// Of a key of no importance.
const PLAIN: &str = "its id is the token's to choose";

impl Maker<'_> {
    fn keys(&self) -> ManagedKeys<'_> {
        self.engine.managed_keys().for_caller("j.doe").for_request(self.made.len() as u64)
    }

    /// Of a key that is there: its state before and after, and what more there is to say.
    fn state(&mut self, operation: &'static str, key: &str, states: [&str; 2], asked: Value, more: Value) {
        let (id, version) = self.key(key);
        let mut found = json!({"state_before": states[0], "state": states[1]});
        more.as_object().unwrap().iter().for_each(|(name, value)| found[name] = value.clone());
        let key = Some((id, Some(version), Some(version)));
        self.made.push(Made { key, ..Made::of(operation, asked, found) });
    }

    /// Of a key by its name or id: its id, and its latest version.
    fn key(&self, name: &str) -> (String, u32) {
        let info = self.engine.managed_keys().info(name).unwrap();
        (info.id.to_string(), info.versions.iter().map(|version| version.version).max().unwrap())
    }

    fn create(&mut self) {
        let (from, until) = (UNIX_EPOCH + DAYS_TO_2100 * DAY, UNIX_EPOCH + (DAYS_TO_2100 + 365) * DAY);
        let config = KeyConfig::new(KeySpec::Aes(32)).encrypts_by(AesGcm::new()).encrypts_by(AesEcb);
        let config = config.host_modes().tenant(7).active_from(from).active_until(until);
        let id = self.keys().create("vault", &config.rotate_every(90 * DAY)).unwrap();
        let asked = json!({
            "name": "vault", "spec": "aes-256", "algorithms": "aes-gcm aes-ecb", "host_modes": "true", "tenant": "7",
            "active_from": "2100-01-01T00:00:00Z", "active_until": "2101-01-01T00:00:00Z",
            "rotate_every_s": "7776000",
        });
        let made = Made::of("create-key", asked, json!({"state": "pre-activation"}));
        self.made.push(Made { key: Some((id.to_string(), None, Some(1))), ..made });
        let id = self.keys().create("card", &KeyConfig::new(KeySpec::Ec(Curve::P256))).unwrap();
        let made =
            Made::of("create-key", json!({"name": "card", "spec": "ec-p256"}), json!({"state": "active"}));
        self.made.push(Made { key: Some((id.to_string(), None, Some(1))), ..made });
    }

    fn adopt(&mut self) {
        let id = self.keys().adopt("hmac", "adopted", &KeyConfig::new(KeySpec::Hmac(32))).unwrap();
        let asked = json!({"name": "adopted", "spec": "hmac-256"});
        let made = Made::of("adopt-key", asked, json!({"state": "active"}));
        let key = Some((id.to_string(), None, Some(1)));
        self.made.push(Made { key, object: Some("hmac"), ..made });
    }

    fn live(&mut self) {
        self.keys().activate("vault").unwrap();
        self.state("activate-key", "vault", ["pre-activation", "active"], json!({}), json!({}));
        assert_eq!(self.keys().rotate("card").unwrap(), 2);
        let found = json!({"version_before": "1", "state_before": "active", "state": "active"});
        let key = Some((self.key("card").0, Some(1), Some(2)));
        self.made.push(Made { key, ..Made::of("rotate-key", json!({}), found) });
        self.keys().suspend("card").unwrap();
        self.state("suspend-key", "card", ["active", "suspended"], json!({}), json!({}));
        self.keys().resume("card").unwrap();
        self.state("resume-key", "card", ["suspended", "active"], json!({}), json!({}));
        self.refused();
        self.keys().deactivate("card").unwrap();
        self.state("deactivate-key", "card", ["active", "deactivated"], json!({}), json!({}));
    }

    /// A change that its state does not allow.
    fn refused(&mut self) {
        let error = self.keys().destroy("card").unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotDone);
        let (id, version) = self.key("card");
        let made = Made::of("destroy-key", json!({}), json!({"state_before": "active"}));
        let end = ("not-done", Some(error.kind().name()));
        self.made.push(Made { key: Some((id, Some(version), Some(version))), end, ..made });
    }

    fn aliases(&mut self) {
        let set = |maker: &mut Self, key: &str, found: Value| {
            maker.keys().set_alias("pay", key).unwrap();
            let (id, version) = maker.key(key);
            let made = Made::of("set-alias", json!({"alias": "pay"}), found);
            maker.made.push(Made { key: Some((id, Some(version), Some(version))), ..made });
        };
        set(self, "card", json!({}));
        let card = self.key("card").0;
        set(self, "vault", json!({"key_before": card}));
        let vault = self.key("vault").0;
        self.keys().remove_alias("pay").unwrap();
        self.made.push(Made::of("remove-alias", json!({"alias": "pay"}), json!({"key_before": vault})));
    }

    fn end(&mut self) {
        // After the year 9999, so that the time is a number.
        let at = self.keys().schedule_destruction("card", Duration::from_secs(1 << 40)).unwrap();
        let at = at.duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
        let states = ["deactivated", "deactivated"];
        self.state("schedule-key-destruction", "card", states, json!({"destroy_at": at}), json!({}));
        self.keys().cancel_destruction("card").unwrap();
        let more = json!({"destroy_at_before": at});
        self.state("cancel-key-destruction", "card", states, json!({}), more);
        self.keys().mark_compromised("card").unwrap();
        self.state("mark-key-compromised", "card", ["deactivated", "compromised"], json!({}), json!({}));
        let (id, version) = self.key("card");
        self.keys().destroy(id.as_str().parse::<hsmux::KeyId>().as_ref().unwrap()).unwrap();
        let found = json!({"state_before": "compromised", "state": "destroyed"});
        let key = Some((id, Some(version), Some(version)));
        self.made.push(Made { key, ..Made::of("destroy-key", json!({}), found) });
    }

    /// Keys that the catalogue knows nothing of, and the PIN.
    fn unmanaged(&mut self) {
        self.engine.generate_key("plain", KeySpec::Ed25519).unwrap();
        let asked = json!({"name": "plain", "spec": "ed25519"});
        self.made.push(Made { object: Some(PLAIN), ..Made::of("generate-key", asked, json!({})) });
        self.engine.destroy_key("plain").unwrap();
        let made = Made::of("destroy-key", json!({"name": "plain"}), json!({"tokens": SERIAL}));
        self.made.push(Made { object: Some(PLAIN), ..made });
        self.engine.rotate_pin("5678".to_owned()).unwrap();
        let found = json!({"new_pin": SERIAL});
        self.made.push(Made::of("rotate-pin", json!({"tokens": SERIAL}), found));
    }
}

const DAY: Duration = Duration::from_secs(86_400);
const DAYS_TO_2100: u32 = 47_482;

/// What the specification says of changes: operations, and what their fields may be.
fn documented() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let text = include_str!("../../../engine/docs/audit.md").split("**Changes.**").nth(1).unwrap();
    let rows = text.split("\n\n").nth(1).unwrap().lines().skip(2);
    let mut found = BTreeMap::<_, BTreeSet<_>>::new();
    let quoted = |cell: &'static str| cell.split('`').skip(1).step_by(2);
    for row in rows {
        let cells: Vec<_> = row.split('|').collect();
        for operation in quoted(cells[1]).filter(|name| name.contains('-')) {
            found.entry(operation).or_default().extend(quoted(cells[2]));
        }
    }
    found
}

#[test]
fn every_kind_of_change_leaves_an_intent_and_a_record_with_every_field() {
    make_every_change(AuditMode::StrictIntent);
}

#[test]
fn without_intents_every_kind_of_change_leaves_the_same_record() {
    make_every_change(AuditMode::Strict);
}

fn make_every_change(mode: AuditMode) {
    let (hsm, site) = (Hsm::new(1, "seed=1"), tempfile::tempdir().unwrap());
    let then = SystemTime::now();
    let (log, state) = (site.path().join("audit"), site.path().join("state"));
    let builder = hsm.builder().state_dir(state).audit(Audit::new(&log).mode(mode));
    let engine = builder.build().unwrap();
    let mut maker = Maker { engine: &engine, made: Vec::new() };
    maker.create();
    maker.adopt();
    maker.live();
    maker.aliases();
    maker.end();
    maker.unmanaged();
    let made = maker.made;
    let public_key = engine.managed_keys().audit_public_key().unwrap();
    assert_eq!(engine.drain(LONG), 0);

    let specified = documented();
    let tested: BTreeSet<_> = made.iter().map(|made| made.operation).collect();
    assert_eq!(tested, specified.keys().copied().collect());
    let all = records(&log);
    let (intents, changes) = (of_kind(&all, "intent"), of_kind(&all, "change"));
    let wanted = if mode == AuditMode::StrictIntent { made.len() } else { 0 };
    assert_eq!((intents.len(), changes.len()), (wanted, made.len()), "{changes:?}");
    for (number, (made, change)) in made.iter().zip(changes).enumerate() {
        let mut change_said = said(change);
        let object = change_said.as_object_mut().unwrap().remove("object");
        match made.object {
            Some(PLAIN) => assert!(object.unwrap().as_str().unwrap().starts_with("pkcs11:id=%")),
            wanted => assert_eq!(object, wanted.map(|label| uri(label).into())),
        }
        let id = number.to_string();
        match intents.get(number) {
            Some(intent) => {
                assert_eq!(said(intent), made.intent(&id));
                assert_eq!(change_said, made.record(&id, &intent["seq"]));
                assert!(intent["seq"].as_u64() < change["seq"].as_u64());
            }
            None => {
                change_said["intent"] = Value::Null;
                assert_eq!(change_said, made.record(&id, &Value::Null));
            }
        }
        let fields = change["fields"].as_object().into_iter().flat_map(|fields| fields.keys());
        fields.for_each(|name| assert!(specified[made.operation].contains(&**name), "{name}"));
    }
    assert_times(&all, then);
    verify(&log, &public_key);
}

#[test]
fn what_the_engine_does_because_it_is_due_says_so() {
    let (hsm, site) = (Hsm::new(1, "seed=1"), tempfile::tempdir().unwrap());
    let log = site.path().join("audit");
    let engine = hsm.builder().audit(Audit::new(&log).mode(AuditMode::StrictIntent)).build().unwrap();
    let keys = engine.managed_keys();
    let id = keys.create("old", &KeyConfig::new(KeySpec::Hmac(32))).unwrap();
    keys.deactivate("old").unwrap();
    keys.schedule_destruction("old", Duration::from_secs(1)).unwrap();
    let by_schedule = |record: &Value| record["fields"]["by"] == "schedule";
    eventually("it is destroyed", || records(&log).iter().filter(|record| by_schedule(record)).count() > 1);
    assert_eq!(engine.drain(LONG), 0);
    let all = records(&log);
    let of_it: Vec<_> = all.iter().filter(|record| by_schedule(record)).collect();
    assert_eq!((of_it.len(), &of_it[0]["kind"]), (2, &"intent".into()));
    assert_eq!((&of_it[1]["key"], &of_it[1]["intent"]), (&id.as_str().into(), &of_it[0]["seq"]));
    let fields = &of_it[1]["fields"];
    assert_eq!((&fields["state_before"], &fields["state"]), (&"deactivated".into(), &"destroyed".into()));
    assert!(time_of(&fields["destroy_at_before"]) <= time_of(&of_it[1]["time"]), "{fields}");
}

/// An engine whose log can be written to no more: each record begins a segment, and the directory has gone.
fn engine_without_a_disk(hsm: &Hsm, site: &Path) -> Engine {
    let log = site.join("audit");
    let audit = Audit::new(&log).mode(AuditMode::StrictIntent).segment_len(1);
    let engine = hsm.builder().state_dir(site.join("state")).audit(audit).build().unwrap();
    engine.managed_keys().create("card", &KeyConfig::new(KeySpec::Ec(Curve::P256))).unwrap();
    std::fs::rename(&log, site.join("gone")).unwrap();
    engine
}

/// Something that is to be refused.
type Try<'a> = &'a dyn Fn() -> Result<(), Error>;

#[test]
fn nothing_begins_whose_intent_cannot_be_written() {
    let (hsm, site) = (Hsm::new(1, "seed=1,keys=agree:p256-agree"), tempfile::tempdir().unwrap());
    let engine = engine_without_a_disk(&hsm, site.path());
    let (keys, spec) = (engine.managed_keys(), KeySpec::Ec(Curve::P256));
    let (card, agree) = (engine.key("card").unwrap(), engine.key("agree").unwrap());
    let der = agree.public_key_der().unwrap();
    let raw = AgreementKdf::Raw;
    let tries: [(&str, Try<'_>); 13] = [
        ("sign", &|| card.sign(Ecdsa::P256_SHA256, b"message").wait().map(drop)),
        ("agree", &|| agree.agree(&der[der.len() - 65..], raw, b"", KeySpec::Aes(16)).map(drop)),
        ("create", &|| keys.create("other", &KeyConfig::new(spec)).map(drop)),
        ("adopt", &|| keys.adopt("hmac", "adopted", &KeyConfig::new(KeySpec::Hmac(32))).map(drop)),
        ("rotate", &|| keys.rotate("card").map(drop)),
        ("suspend", &|| keys.suspend("card")),
        ("schedule", &|| keys.schedule_destruction("card", DAY).map(drop)),
        ("destroy", &|| keys.destroy("card")),
        ("set alias", &|| keys.set_alias("pay", "card")),
        ("remove alias", &|| keys.remove_alias("pay")),
        ("generate", &|| engine.generate_key("plain", spec).map(drop)),
        ("destroy unmanaged", &|| engine.destroy_key("hmac")),
        ("rotate PIN", &|| engine.rotate_pin("5678".to_owned()).map(drop)),
    ];
    let done = || CHANGING.map(|function| hsm.sim.calls_of(function));
    let before = done();
    for (name, try_it) in tries {
        let error = try_it().unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Audit, Outcome::NotDone), "{name}");
    }
    assert_eq!(done(), before);
    drop((card, agree));
    engine.drain(LONG);
}

/// What a token is asked to do, or to change.
const CHANGING: [&str; 9] = [
    "C_Sign",
    "C_DeriveKey",
    "C_GenerateKey",
    "C_GenerateKeyPair",
    "C_CreateObject",
    "C_DestroyObject",
    "C_SetPIN",
    "C_WrapKey",
    "C_UnwrapKey",
];
