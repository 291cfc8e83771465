//! A value that nobody may see: it can't be printed, compared or copied, only revealed on purpose.

/// Something secret.
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The value, for the one call that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}
