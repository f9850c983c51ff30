//! The raw mechanism: whatever a vendor offers, through the same scheduler.

use std::fmt;
use std::sync::Arc;

/// A mechanism by its number, for what this crate does not name: vendors' mechanisms, or those of a later standard.
///
/// The input goes to the token as it is and the output comes back as it is: nothing is hashed, padded, framed or
/// verified, and the engine cannot say whether the key fits. Tokens that do not list the mechanism are not asked.
/// Decryption by `CKM_RSA_PKCS` or `CKM_RSA_X_509` must be allowed as that of
/// [`RsaPkcs1Encryption`](crate::RsaPkcs1Encryption) must.
///
/// ```
/// use hsmux::RawMechanism;
///
/// // CKM_AES_MAC_GENERAL, whose parameter is the length of the MAC as a CK_ULONG.
/// let mac = RawMechanism::new(0x1084).parameter(8_u64.to_ne_bytes()).output_max(8);
/// # let _ = mac;
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RawMechanism {
    pub(in crate::operation) number: u64,
    pub(in crate::operation) parameter: Arc<[u8]>,
    pub(in crate::operation) output_max: Option<u32>,
}

impl RawMechanism {
    /// The mechanism with this `CKM_` number, without a parameter.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self { number, parameter: [].into(), output_max: None }
    }

    /// The bytes that `pParameter` points to, laid out as the module's header says for this machine. A structure
    /// that holds pointers cannot be given.
    #[must_use]
    pub fn parameter(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.parameter = bytes.as_ref().into();
        self
    }

    /// Most bytes of an output. Default: as long as the input and 1 024 bytes more, which is enough for anything
    /// but what expands. A shorter bound saves memory; one that is too short makes the call fail, and the session
    /// is closed, for some modules keep the operation.
    #[must_use]
    pub const fn output_max(mut self, bytes: u32) -> Self {
        self.output_max = Some(bytes);
        self
    }
}

/// Shows the length of the parameter only: it may hold an IV or a label.
impl fmt::Debug for RawMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawMechanism")
            .field("number", &format_args!("{:#x}", self.number))
            .field("parameter_len", &self.parameter.len())
            .field("output_max", &self.output_max)
            .finish()
    }
}
