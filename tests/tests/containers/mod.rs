//! The shop of `examples/compose` in containers of a real engine, with images made by `pillion image`.

mod engine;
mod load;
mod shop;
