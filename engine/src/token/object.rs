//! Session objects: keys that live no longer than their users.

use std::sync::Arc;

use crate::pkcs11::ObjectHandle;
use crate::token::Token;

/// An object of a token's service session, destroyed when this is dropped. It can be used from every session of the
/// token (PKCS#11 2.40, 2.2: session objects are seen by all sessions that the application has with the token).
pub(crate) struct SessionObject {
    token: Arc<Token>,
    epoch: u64,
    object: ObjectHandle,
}

impl SessionObject {
    pub(crate) const fn new(token: Arc<Token>, epoch: u64, object: ObjectHandle) -> Self {
        Self { token, epoch, object }
    }
}

impl Drop for SessionObject {
    fn drop(&mut self) {
        // On the service thread: whoever drops the last use may be a worker, or a caller that must not wait.
        self.token.destroy_later(self.epoch, self.object);
    }
}

impl std::fmt::Debug for SessionObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionObject").field("object", &self.object).finish_non_exhaustive()
    }
}
