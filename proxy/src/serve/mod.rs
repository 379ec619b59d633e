//! The request path: `accept -> identify -> read -> route -> admit -> pick -> forward -> reply`.
//!
//! Read [`exchange`] first: it is that list, in plain async functions. One struct a lifetime:
//! [`listener::Listener`], [`connection::Connection`] (peer and identity), [`exchange::Exchange`]
//! (one request, holding one snapshot), and in [`attempt`] one try.
//!
//! | step | where |
//! |---|---|
//! | accept | [`server`], [`listener`] |
//! | identify | [`identify`], [`connection`], [`http1`] |
//! | read | [`read`] |
//! | route, admit | [`exchange`], [`filter`], [`admit`] |
//! | pick, forward | [`attempt`] |
//! | reply | [`reply`], [`body`] |

mod admit;
mod again;
mod attempt;
mod body;
mod clock;
mod connection;
mod exchange;
mod filter;
mod handover;
mod headers;
mod hedge;
mod http1;
mod http2;
mod identify;
mod lifetime;
mod listener;
mod listener_stats;
mod local_reply;
mod meter;
mod mirror;
mod network_filter;
mod overload;
mod preface;
mod read;
mod record;
mod redirects;
mod reply;
mod route_stats;
mod server;
mod source;
mod speak_first;
mod stats;
mod tcp;
mod timers;
mod tunnel;
mod upgrade;

pub use listener::ListenerError;
pub use overload::Overload;
pub use server::{Context, ListenerView, Own, Server};
