//! Several machines, which are network namespaces with an address each: the shop spread over three
//! of them, asked from a fourth.

mod docs;
mod join;
mod load;
mod shop;
mod world;
