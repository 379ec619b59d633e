//! Where intent and workloads come from.

mod documents;
pub mod files;
pub mod kubernetes;
pub mod registry;
pub mod watch;

pub use documents::{Combined, Documents, combine};
