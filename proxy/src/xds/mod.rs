//! The xDS client: a sans-io session, the store of what it brought, and the translation of
//! resources into the [`model`](crate::model).

pub mod access_log;
pub mod client;
pub mod dump;
pub mod identity;
pub mod keep;
pub mod kind;
pub mod last_good;
pub mod load_report;
pub mod local;
mod references;
pub mod register;
pub mod session;
pub mod status;
pub mod store;
pub mod translate;
