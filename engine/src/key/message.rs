//! Messages that say by what key they are to be read, and data keys, which are such messages.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::Key;
use crate::engine::{Engine, Shared};
use crate::envelope::data_key::{DataKey, DataKeyProvider, GeneratedDataKey};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::key_id::KeyId;
use crate::keys::managed::Managed;
use crate::message::blob::{Blob, BlobAlgorithm, BlobHeader, BlobRef};
use crate::message::context::EncryptionContext;
use crate::operation::{AesGcm, Ask, Decrypt, Plaintext, Random, Seal, random};
use crate::payload::Input;
use crate::request::Request;

impl Key {
    /// Encrypts a message into a blob that says by what version of what key it is to be read. Only who has the same context can
    /// read it.
    ///
    /// # Errors
    /// `InvalidInput` if the key is not managed, or the message has 4 GiB or more; what [`Request`] says of the rest.
    pub fn seal<'a>(
        &'a self,
        plain: impl Into<Cow<'a, [u8]>>,
        context: &EncryptionContext,
    ) -> Result<Request<'a, Seal>> {
        let plain = plain.into();
        let tie = self.version().tie.as_ref().ok_or_else(not_managed)?;
        let version = NonZeroU32::new(tie.version).ok_or_else(|| Error::internal("version 0 of a key"))?;
        let header = BlobHeader::new(tie.id.as_str(), version, BlobAlgorithm::AesGcm, plain.len())?;
        let how = AesGcm::new().aad(header.additional_data(context));
        Ok(self.request(Ask::encrypt(how), plain, blob, self.names(|| "aes-gcm")))
    }

    /// Decrypts a blob that this version of this key has made: [`Engine::key_for`] finds it.
    ///
    /// # Errors
    /// `InvalidInput` if it was made by another key or version. Whatever else is wrong with it, or with the context, is
    /// `DecryptFailed` when the request has run.
    pub fn open<'a>(
        &'a self,
        blob: BlobRef<'a>,
        context: &EncryptionContext,
    ) -> Result<Request<'a, Decrypt>> {
        let tie = self.version().tie.as_ref().ok_or_else(not_managed)?;
        if (blob.key_id(), blob.key_version().get()) != (tie.id.as_str(), tie.version) {
            let text = "another key or version has made it: Engine::key_for finds that";
            return Err(Error::refused(ErrorKind::InvalidInput, text));
        }
        Ok(self.decrypt(AesGcm::new().aad(blob.additional_data(context)), blob.sealed()))
    }

    /// Decrypts a blob and encrypts the message under this key, as to bring it to the latest version. The message never leaves the
    /// engine, and is wiped.
    ///
    /// # Errors
    /// As [`Engine::open`] and [`Key::seal`].
    ///
    /// # Blocking
    /// Until both are done.
    pub fn re_encrypt(
        &self,
        blob: &[u8],
        context: &EncryptionContext,
        new_context: &EncryptionContext,
    ) -> Result<Blob> {
        let message = self.open_other(BlobRef::parse(blob)?, context)?;
        self.seal(message.as_bytes(), new_context)?.wait()
    }

    /// Decrypts a blob by the version of the key that has made it, for whom this one is used.
    fn open_other(&self, blob: BlobRef<'_>, context: &EncryptionContext) -> Result<Plaintext> {
        let made_by = key_for(&self.shared, &blob)?;
        let key = Self { tenant: self.tenant, label: self.label.clone(), ..made_by };
        key.open(blob, context)?.wait()
    }

    /// Makes a data key: random bytes of the token, and the same encrypted under this key and the context.
    ///
    /// # Errors
    /// As [`Key::seal`].
    ///
    /// # Blocking
    /// Until the token has done both.
    pub fn generate_data_key(&self, context: &EncryptionContext) -> Result<GeneratedDataKey> {
        let drawn: Request<'_, Random> =
            Request::new(&self.shared, None, Ask::random(DataKey::LEN), Input::default(), random);
        let key = DataKey::try_from(drawn.wait()?.into_vec())?;
        let wrapped = self.seal(key.as_bytes().as_slice(), context)?.wait()?.into_vec();
        Ok(GeneratedDataKey { key, wrapped })
    }

    /// As [`Key::generate_data_key`], for who only hands it on: the plain key is wiped at once.
    ///
    /// # Errors
    /// As [`Key::generate_data_key`].
    ///
    /// # Blocking
    /// As [`Key::generate_data_key`].
    pub fn generate_wrapped_data_key(&self, context: &EncryptionContext) -> Result<Vec<u8>> {
        self.generate_data_key(context).map(|made| made.wrapped)
    }

    /// This key as what makes data keys for an [`Envelope`](crate::Envelope). It makes them under the latest version, and unwraps
    /// those of every version.
    ///
    /// # Errors
    /// `InvalidInput` if the key is not managed.
    pub fn data_keys(&self) -> Result<DataKeys> {
        let id = self.id().ok_or_else(not_managed)?;
        let managed = self.shared.managed_by_id(id)?;
        Ok(DataKeys { key: self.clone(), managed })
    }
}

/// A managed key that makes and unwraps data keys: made by [`Key::data_keys`].
///
/// What it has made is forgotten by an [`Envelope`](crate::Envelope) when the key is rotated, or its state changes.
#[derive(Clone, Debug)]
pub struct DataKeys {
    key: Key,
    managed: Arc<Managed>,
}

impl DataKeyProvider for DataKeys {
    fn generate(&self, context: &EncryptionContext) -> Result<GeneratedDataKey> {
        self.key.generate_data_key(context)
    }

    fn unwrap(&self, wrapped: &[u8], context: &EncryptionContext) -> Result<DataKey> {
        // The same answer for whatever was not wrapped by this key.
        let blob = BlobRef::parse(wrapped).map_err(|_| Error::decrypt_failed())?;
        if blob.key_id() != self.managed.id.as_str() {
            return Err(Error::decrypt_failed());
        }
        let plain = self.key.open_other(blob, context)?;
        DataKey::try_from(plain.into_vec()).map_err(|_| Error::decrypt_failed())
    }

    fn epoch(&self) -> u64 {
        self.managed.changes()
    }
}

impl Engine {
    /// The version of the key that has made a blob, and no later one.
    ///
    /// # Errors
    /// `KeyNotFound` if no key has its id, or the key has no such version; as [`Engine::key`].
    ///
    /// # Blocking
    /// As [`Engine::key`], the first time that a version is asked for.
    pub fn key_for(&self, blob: &BlobRef<'_>) -> Result<Key> {
        key_for(&self.shared, blob)
    }

    /// Decrypts a blob, by whatever version of whatever key has made it.
    ///
    /// # Errors
    /// `InvalidInput` for what is no blob; `KeyNotFound`; `DecryptFailed` for whatever is wrong with the blob or its context;
    /// `KeyState` if the key may not decrypt any more.
    ///
    /// # Blocking
    /// Until it is done, within the engine's deadline. [`Key::open`] makes a request of it, which can be awaited.
    pub fn open(&self, blob: &[u8], context: &EncryptionContext) -> Result<Plaintext> {
        let blob = BlobRef::parse(blob)?;
        self.key_for(&blob)?.open(blob, context)?.wait()
    }
}

fn key_for(shared: &Arc<Shared>, blob: &BlobRef<'_>) -> Result<Key> {
    let id: KeyId = blob.key_id().parse()?;
    let version = shared.version_by_id(&id, blob.key_version().get())?;
    Ok(Key { is_pinned: true, ..Key::new(shared, version) })
}

/// Makes the blob of what the token wrote. The additional data says the rest.
fn blob(ask: &Ask, sealed: Vec<u8>) -> Result<Blob> {
    let aad = ask.additional_data().ok_or_else(|| Error::internal("a blob without additional data"))?;
    Blob::of_sealed(aad, &sealed)
}

fn not_managed() -> Error {
    Error::refused(ErrorKind::InvalidInput, "it is no managed key, and has no id to be written down")
}
