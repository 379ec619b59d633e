//! The xDS client: a sans-io session, the store of what it brought, and the translation of
//! resources into the [`model`](crate::model).

pub mod kind;
pub mod session;
pub mod translate;
