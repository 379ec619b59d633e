//! Which route a request takes, and what the route makes of its path. Pure.

mod index;
mod rewrite;
mod table;
mod template;

pub use rewrite::{redirect_location, replace_all, rewrite_path, to_rust_groups};
pub use table::{Given, Match, fits, query_fits, select};
pub use template::{rewrite_to_expansion, template_to_regex};
