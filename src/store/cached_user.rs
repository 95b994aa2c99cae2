use std::{
    any::Any,
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

/// The cached value of a user, in a [`Checked`](super::Checked) session.
///
/// A store that [keeps](Self::kept) values in the process returns clones of them: a manager decodes the value once, and
/// finds what it has decoded in every clone. (Of several managers with different types of details, the first one does.)
/// Other stores return what they have read ([`From<Bytes>`](Self::from)), as [`Checked::new`](super::Checked::new)
/// does.
#[derive(Clone)]
pub struct CachedUser(Value);

#[derive(Clone)]
enum Value {
    Read(Bytes),
    Kept(Arc<Kept>),
}

struct Kept {
    value: Bytes,
    /// The detail, of the type of the first manager that decoded it.
    detail: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl CachedUser {
    /// A value that the store keeps in the process, with what it decodes to; to be returned for this user only.
    pub fn kept(value: Bytes) -> Self {
        let detail = OnceLock::new();
        Self(Value::Kept(Arc::new(Kept { value, detail })))
    }

    /// The value itself.
    pub fn value(&self) -> &Bytes {
        match &self.0 {
            Value::Read(value) => value,
            Value::Kept(kept) => &kept.value,
        }
    }

    /// The detail that the value was decoded to, if it is of this type.
    pub(crate) fn detail<D: Any + Send + Sync>(&self) -> Option<Arc<D>> {
        let Value::Kept(kept) = &self.0 else {
            return None;
        };
        Arc::downcast(Arc::clone(kept.detail.get()?)).ok()
    }

    /// Keeps the detail with the value, unless there is one of another type.
    pub(crate) fn keep_detail<D: Any + Send + Sync>(&self, detail: &Arc<D>) {
        if let Value::Kept(kept) = &self.0 {
            // Another request was faster.
            let _ = kept.detail.set(Arc::clone(detail) as _);
        }
    }
}

impl From<Bytes> for CachedUser {
    fn from(value: Bytes) -> Self {
        Self(Value::Read(value))
    }
}

impl From<CachedUser> for Bytes {
    fn from(user: CachedUser) -> Self {
        match user.0 {
            Value::Read(value) => value,
            Value::Kept(kept) => kept.value.clone(),
        }
    }
}

impl Deref for CachedUser {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.value()
    }
}

impl PartialEq for CachedUser {
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}

impl Eq for CachedUser {}

impl fmt::Debug for CachedUser {
    /// Shows the length, and not the value, which may be sensitive.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedUser({} bytes)", self.value().len())
    }
}
