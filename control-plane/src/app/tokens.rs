//! Who a bearer token makes of its bearer.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::kubernetes::Reviewer;
use crate::ca::JoinToken;
use crate::identity::Caller;
use crate::xds::TokenCheck;

/// Accepts join tokens whose hashes are given, and service-account tokens if there is somebody to ask about them.
pub(super) fn check(accepted: Vec<[u8; 32]>, reviewer: Option<Reviewer>) -> TokenCheck {
    let (accepted, reviewer) = (Arc::new(accepted), reviewer.map(Arc::new));
    Arc::new(move |text: Zeroizing<String>| {
        let (accepted, reviewer) = (Arc::clone(&accepted), reviewer.clone());
        Box::pin(async move {
            let join = JoinToken::parse(&text);
            match (join, reviewer) {
                (Ok(token), _) if token.is_one_of(&accepted) => Caller::TokenHolder,
                (Err(_), Some(reviewer)) => reviewer.caller(&text).await,
                _ => Caller::Nobody("the join token is not one of this control plane"),
            }
        })
    })
}
