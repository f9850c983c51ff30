//! The functions of PKCS#11 that the engine calls, and how often it did.

use crate::sync::{AtomicU64, Ordering};

macro_rules! functions {
    ($($name:ident),* $(,)?) => {
        /// A function of the module.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Function { $($name),* }

        impl Function {
            pub(crate) const ALL: [Self; [$(Self::$name),*].len()] = [$(Self::$name),*];

            /// The name in the standard.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$name => concat!("C_", stringify!($name))),* }
            }
        }
    };
}

functions!(
    Initialize,
    Finalize,
    GetInfo,
    GetSlotList,
    GetSlotInfo,
    GetTokenInfo,
    GetMechanismList,
    GetMechanismInfo,
    OpenSession,
    CloseSession,
    Login,
    SetPIN,
    FindObjectsInit,
    FindObjects,
    FindObjectsFinal,
    GetAttributeValue,
    CreateObject,
    CopyObject,
    DestroyObject,
    GenerateKey,
    GenerateKeyPair,
    DeriveKey,
    WrapKey,
    UnwrapKey,
    SignInit,
    Sign,
    VerifyInit,
    Verify,
    EncryptInit,
    Encrypt,
    EncryptUpdate,
    EncryptFinal,
    DecryptInit,
    Decrypt,
    DecryptUpdate,
    DecryptFinal,
    MessageEncryptInit,
    EncryptMessage,
    MessageEncryptFinal,
    MessageDecryptInit,
    DecryptMessage,
    MessageDecryptFinal,
    GenerateRandom,
);

impl Function {
    /// Whether the function only prepares an operation.
    pub(crate) const fn is_init(self) -> bool {
        matches!(
            self,
            Self::SignInit
                | Self::VerifyInit
                | Self::EncryptInit
                | Self::DecryptInit
                | Self::MessageEncryptInit
                | Self::MessageDecryptInit
                | Self::FindObjectsInit
        )
    }
}

/// Calls by function, counted by the one thread that holds a session; read by anyone.
#[derive(Debug)]
pub(crate) struct CallCounts([AtomicU64; Function::ALL.len()]);

impl CallCounts {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Function::ALL.len()])
    }

    /// Counts one call without a locked instruction: there is a single writer. Relaxed: counters order nothing.
    pub(crate) fn count(&self, function: Function) {
        let counter = &self.0[function as usize];
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Counts one call, where several threads may.
    pub(crate) fn count_shared(&self, function: Function) {
        self.0[function as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn of(&self, function: Function) -> u64 {
        self.0[function as usize].load(Ordering::Relaxed)
    }

    /// Adds what `other` has counted.
    pub(crate) fn add(&self, other: &Self) {
        for function in Function::ALL {
            self.0[function as usize].fetch_add(other.of(function), Ordering::Relaxed);
        }
    }
}
