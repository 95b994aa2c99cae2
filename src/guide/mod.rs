//! What operators and reviewers need to know, apart from the API.

#[doc = include_str!("threat_model.md")]
pub mod threat_model {}
