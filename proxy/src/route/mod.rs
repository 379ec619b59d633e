//! Which route a request takes, and what the route makes of its path. Pure.

mod rewrite;
mod table;

pub use rewrite::{redirect_location, replace_all, rewrite_path, to_rust_groups};
pub use table::{Match, fits, query_fits, select};
