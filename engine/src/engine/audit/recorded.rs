//! Records of what is no request: changes of keys, and uses of them on the service session.

use std::borrow::Cow;
use std::sync::Arc;

use crate::audit::AuditMode;
use crate::audit::record::{Change, On, Text, Use};
use crate::engine::Shared;
use crate::error::Result;
use crate::keys::KeyVersion;
use crate::keys::catalogue::record::Terms;
use crate::keys::key_config::rfc3339;
use crate::keys::key_id::KeyId;
use crate::request::{Audited, Label, Ones};

/// What is under way and has a record in the audit log, if there is one. Dropped before its end, its outcome is unknown.
#[must_use = "its end is to be recorded"]
pub(crate) struct Recorded(Option<Box<Audited>>);

impl Recorded {
    /// Of what no log is kept of.
    pub(in crate::engine) const fn nowhere() -> Self {
        Self(None)
    }

    /// Notes something of a change that was not known at its beginning.
    pub(in crate::engine) fn note(&mut self, name: &'static str, text: impl Into<Box<str>>) {
        let Some((_, change)) = self.change() else { return };
        let text = text.into();
        match change.fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = text,
            None => change.fields.push((name, text)),
        }
    }

    /// Notes a time, if there is one.
    pub(in crate::engine) fn note_time(&mut self, name: &'static str, seconds: Option<u64>) {
        if let Some(seconds) = seconds {
            self.note(name, time_text(seconds));
        }
    }

    /// Notes what is settled when a managed key is made.
    pub(in crate::engine) fn note_terms(&mut self, terms: &Terms) {
        self.note("name", terms.name.as_str());
        self.note("spec", terms.spec.as_str());
        if !terms.algorithms.is_empty() {
            self.note("algorithms", terms.algorithms.join(" "));
        }
        if terms.host_modes {
            self.note("host_modes", "true");
        }
        if terms.tenant != 0 {
            self.note("tenant", terms.tenant.to_string());
        }
        self.note_time("active_from", terms.active_from);
        self.note_time("active_until", terms.active_until);
        if let Some(seconds) = terms.rotate_every {
            self.note("rotate_every_s", seconds.to_string());
        }
    }

    /// The key that a change is of, as soon as it has an identifier.
    pub(in crate::engine) fn of_key(&mut self, id: &KeyId, version: Option<u32>) {
        if let Some((on, _)) = self.change() {
            (on.key, on.version) = (Some(Text::from(id.as_str())), version);
        }
    }

    /// What the objects are called that a change is of.
    pub(in crate::engine) fn of_object(&mut self, object: Option<impl Into<Text>>) {
        if let Some((on, _)) = self.change() {
            on.object = object.map(Into::into);
        }
    }

    /// Something has changed that stays so, whatever fails after it: the record does not say then that nothing was done.
    pub(in crate::engine) fn has_changed(&mut self) {
        if let Some(audited) = &mut self.0 {
            audited.changes(true);
        }
    }

    /// What has changed is as it was.
    pub(in crate::engine) fn is_undone(&mut self) {
        if let Some(audited) = &mut self.0 {
            audited.changes(false);
        }
    }

    /// It runs on this token. Of a change the first one, where it is decided.
    pub(crate) fn runs_on(&mut self, token: usize) {
        if let Some(audited) = &mut self.0 {
            audited.ran_on(Some(token));
        }
    }

    /// Ends it, and keeps its answer back until the record is durable.
    pub(crate) fn end<T>(self, answer: Result<T>) -> Result<T> {
        match self.0 {
            Some(audited) => audited.settle(answer).wait(),
            None => answer,
        }
    }

    fn change(&mut self) -> Option<(&mut On, &mut Change)> {
        self.0.as_mut()?.change()
    }
}

impl Shared {
    /// Begins the record of a change of a key. With intents it waits until that is durable.
    ///
    /// # Errors
    /// `Audit`, if that fails, `Draining`: nothing is to be done then.
    pub(in crate::engine) fn begin_change(
        &self,
        operation: &'static str,
        label: &Label,
        describe: impl FnOnce(&mut Recorded),
    ) -> Result<Recorded> {
        let (key, version, object, algorithm) = (None, None, None, None);
        let (caller, request) = (label.caller(), label.request());
        let on = On { caller, key, version, object, operation: operation.into(), algorithm };
        self.begin_record(on, Ones::Change(Change { request, fields: Vec::new() }), describe)
    }

    /// Begins the record of a use of a key that is no request; else as [`Shared::begin_change`].
    pub(crate) fn begin_use(
        &self,
        version: &KeyVersion,
        (operation, algorithm): (Cow<'static, str>, Cow<'static, str>),
        label: &Label,
        one: Use,
    ) -> Result<Recorded> {
        let on = version.recorded(label.caller(), operation, Some(algorithm));
        self.begin_record(on, Ones::One(Use { request: label.request(), ..one }), |_| ())
    }

    fn begin_record(&self, on: On, ones: Ones, describe: impl FnOnce(&mut Recorded)) -> Result<Recorded> {
        self.core.check_open()?;
        let Some(book) = self.book.get() else { return Ok(Recorded::nowhere()) };
        let mut recorded = Recorded(Some(Box::new(Audited::new(Arc::clone(book), on, ones))));
        describe(&mut recorded);
        if book.mode == AuditMode::StrictIntent
            && let Some(audited) = &mut recorded.0
            && let Err(error) = audited.intend().wait()
        {
            Audited::refuse(&mut recorded.0, Some(error.kind()));
            return Err(error);
        }
        Audited::begin(&mut recorded.0);
        Ok(recorded)
    }
}

impl KeyVersion {
    /// What records say of this key.
    pub(crate) fn recorded(
        &self,
        caller: Option<Text>,
        operation: Cow<'static, str>,
        algorithm: Option<Cow<'static, str>>,
    ) -> On {
        let tie = self.tie.as_ref();
        On {
            caller,
            key: tie.map(|tie| Text::from(tie.id.as_str())),
            version: tie.map(|tie| tie.version),
            object: self.handles.name().filter(|_| tie.is_none()),
            operation,
            algorithm,
        }
    }
}

/// A second of Unix time, for people; its number where it lies after the year 9999.
fn time_text(seconds: u64) -> String {
    rfc3339(seconds).unwrap_or_else(|| seconds.to_string())
}
