//! The functions of PKCS#11 2.40, in the order of its function list, and those of 3.0 that are counted.

macro_rules! functions {
    ($($name:ident),* $(,)?) => {
        /// A function of the interface, under its name in the standard.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(non_camel_case_types, reason = "the standard's names")]
        #[expect(clippy::enum_variant_names, reason = "the standard's names")]
        pub(crate) enum Function { $($name),* }

        impl Function {
            pub(crate) const ALL: [Self; [$(Self::$name),*].len()] = [$(Self::$name),*];

            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
        }
    };
}

functions!(
    C_Initialize,
    C_Finalize,
    C_GetInfo,
    C_GetFunctionList,
    C_GetSlotList,
    C_GetSlotInfo,
    C_GetTokenInfo,
    C_GetMechanismList,
    C_GetMechanismInfo,
    C_InitToken,
    C_InitPIN,
    C_SetPIN,
    C_OpenSession,
    C_CloseSession,
    C_CloseAllSessions,
    C_GetSessionInfo,
    C_GetOperationState,
    C_SetOperationState,
    C_Login,
    C_Logout,
    C_CreateObject,
    C_CopyObject,
    C_DestroyObject,
    C_GetObjectSize,
    C_GetAttributeValue,
    C_SetAttributeValue,
    C_FindObjectsInit,
    C_FindObjects,
    C_FindObjectsFinal,
    C_EncryptInit,
    C_Encrypt,
    C_EncryptUpdate,
    C_EncryptFinal,
    C_DecryptInit,
    C_Decrypt,
    C_DecryptUpdate,
    C_DecryptFinal,
    C_DigestInit,
    C_Digest,
    C_DigestUpdate,
    C_DigestKey,
    C_DigestFinal,
    C_SignInit,
    C_Sign,
    C_SignUpdate,
    C_SignFinal,
    C_SignRecoverInit,
    C_SignRecover,
    C_VerifyInit,
    C_Verify,
    C_VerifyUpdate,
    C_VerifyFinal,
    C_VerifyRecoverInit,
    C_VerifyRecover,
    C_DigestEncryptUpdate,
    C_DecryptDigestUpdate,
    C_SignEncryptUpdate,
    C_DecryptVerifyUpdate,
    C_GenerateKey,
    C_GenerateKeyPair,
    C_WrapKey,
    C_UnwrapKey,
    C_DeriveKey,
    C_SeedRandom,
    C_GenerateRandom,
    C_GetFunctionStatus,
    C_CancelFunction,
    C_WaitForSlotEvent,
    C_GetInterfaceList,
    C_GetInterface,
    C_MessageEncryptInit,
    C_EncryptMessage,
    C_MessageEncryptFinal,
    C_MessageDecryptInit,
    C_DecryptMessage,
    C_MessageDecryptFinal,
);

impl Function {
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.name() == name)
    }

    /// Whether operations run by it.
    pub(crate) const fn is_operation(self) -> bool {
        self.ends_operation()
            || matches!(
                self,
                Self::C_SignInit
                    | Self::C_VerifyInit
                    | Self::C_EncryptInit
                    | Self::C_DecryptInit
                    | Self::C_EncryptUpdate
                    | Self::C_DecryptUpdate
                    | Self::C_EncryptMessage
                    | Self::C_DecryptMessage
                    | Self::C_GenerateRandom
            )
    }

    /// Whether it names the key with which the calls after it run.
    pub(crate) const fn begins_operation(self) -> bool {
        matches!(
            self,
            Self::C_SignInit
                | Self::C_VerifyInit
                | Self::C_EncryptInit
                | Self::C_DecryptInit
                | Self::C_MessageEncryptInit
                | Self::C_MessageDecryptInit
        )
    }

    /// Whether it runs with the key that another call has named.
    pub(crate) const fn runs_with_key(self) -> bool {
        self.is_operation() && !self.begins_operation() && !matches!(self, Self::C_GenerateRandom)
    }

    /// Whether sessions are made ready by it, or keys found.
    pub(crate) const fn is_setup(self) -> bool {
        matches!(
            self,
            Self::C_GetTokenInfo
                | Self::C_OpenSession
                | Self::C_GetSessionInfo
                | Self::C_Login
                | Self::C_FindObjectsInit
                | Self::C_FindObjects
                | Self::C_GetAttributeValue
        )
    }

    /// Whether the active operation is over after it, whatever it answers but for a buffer that is too small.
    pub(crate) const fn ends_operation(self) -> bool {
        matches!(
            self,
            Self::C_Sign
                | Self::C_Verify
                | Self::C_Encrypt
                | Self::C_Decrypt
                | Self::C_EncryptFinal
                | Self::C_DecryptFinal
        )
    }

    /// Whether a successful call is work for a crypto core.
    pub(crate) const fn occupies_core(self) -> bool {
        matches!(
            self,
            Self::C_Encrypt
                | Self::C_EncryptUpdate
                | Self::C_EncryptFinal
                | Self::C_EncryptMessage
                | Self::C_Decrypt
                | Self::C_DecryptMessage
                | Self::C_DecryptUpdate
                | Self::C_DecryptFinal
                | Self::C_Digest
                | Self::C_DigestUpdate
                | Self::C_DigestFinal
                | Self::C_Sign
                | Self::C_SignUpdate
                | Self::C_SignFinal
                | Self::C_SignRecover
                | Self::C_Verify
                | Self::C_VerifyUpdate
                | Self::C_VerifyFinal
                | Self::C_VerifyRecover
                | Self::C_GenerateKey
                | Self::C_GenerateKeyPair
                | Self::C_WrapKey
                | Self::C_UnwrapKey
                | Self::C_DeriveKey
                | Self::C_GenerateRandom
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_found_by_its_name_and_stands_at_its_index() {
        for (i, function) in Function::ALL.into_iter().enumerate() {
            assert_eq!((function as usize, Function::by_name(function.name())), (i, Some(function)));
        }
        assert_eq!(Function::by_name("C_Nothing"), None);
    }
}
