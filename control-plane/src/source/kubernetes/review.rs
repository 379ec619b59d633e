//! Who a service-account token belongs to: `TokenReview`.

use std::time::Duration;

use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::Cluster;
use super::access::TOKEN_AUDIENCE;
use super::objects::api_resource;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Questions at a time, so that nobody can make us flood the API server.
static QUESTIONS: Semaphore = Semaphore::const_new(16);
/// Longest token that is asked about, in bytes.
const MAX_TOKEN: usize = 16 << 10;

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Cluster {
    /// Asks the API server whose token this is. `None`: nobody's, or it is not meant for us (audience `pillion`).
    ///
    /// # Errors
    /// The API server cannot be asked now; in words, without the token.
    pub async fn review(&self, token: &str) -> Result<Option<Account>, String> {
        if token.len() > MAX_TOKEN || !looks_like_jwt(token) {
            return Ok(None);
        }
        let _permit = QUESTIONS.acquire().await.map_err(|error| error.to_string())?;
        let resource = api_resource("authentication.k8s.io", "v1", "TokenReview", "tokenreviews");
        let mut review = DynamicObject::new("", &resource)
            .data(json!({"spec": {"token": token, "audiences": [TOKEN_AUDIENCE]}}));
        review.metadata.name = None;
        let api = self.all(&resource);
        let params = PostParams::default();
        let asked = tokio::time::timeout(LIMIT, api.create(&params, &review)).await;
        let answer = asked
            .map_err(|_| "the Kubernetes API gave no answer in time".to_owned())?
            .map_err(|error| error.to_string())?;
        Ok(account(&answer.data["status"]))
    }
}

/// A server that knows nothing of audiences leaves them out: then the token was not checked for ours.
fn account(status: &Value) -> Option<Account> {
    let audiences = status["audiences"].as_array()?;
    if status["authenticated"] != true || !audiences.iter().any(|one| one == TOKEN_AUDIENCE) {
        return None;
    }
    let user = status["user"]["username"].as_str()?;
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    Some(Account { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn looks_like_jwt(token: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c))
    };
    token.split('.').count() == 3 && token.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_service_accounts_with_our_audience_are_somebody() {
        let status = |authenticated: bool, audiences: Value, user: &str| {
            account(&json!({
                "authenticated": authenticated, "audiences": audiences, "user": {"username": user},
            }))
        };
        let shop = "system:serviceaccount:shop:catalog";
        let expected = Account { namespace: "shop".into(), name: "catalog".into() };
        assert_eq!(status(true, json!(["pillion"]), shop), Some(expected));
        assert_eq!(status(false, json!(["pillion"]), shop), None);
        assert_eq!(status(true, json!(["https://kubernetes.default.svc"]), shop), None);
        assert_eq!(status(true, Value::Null, shop), None);
        assert_eq!(status(true, json!(["pillion"]), "admin"), None);
    }

    #[test]
    fn a_join_token_is_not_sent_to_the_api_server() {
        assert!(looks_like_jwt("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln_-"));
        for other in ["", "a.b", "a..c", "a.b.c.d", "a.b.c d", "a.b.é"] {
            assert!(!looks_like_jwt(other), "{other}");
        }
    }
}
