//! HTTP to the store, as kube-apiserver speaks it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::store::{KINDS, Key, Refused, Store};

/// The token of whoever may use the API.
pub(super) const BEARER: &str = "Bearer cluster-token";
/// A silent watch says this often where it is.
const BOOKMARK: Duration = Duration::from_millis(500);

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Api {
    store: Mutex<Store>,
    changed: watch::Sender<u64>,
    /// Username and audiences by token.
    pub(super) tokens: Mutex<HashMap<String, (String, Vec<String>)>>,
    /// Verb, plural name (and subresource) of every request, in order.
    pub(super) requests: Mutex<Vec<(String, String)>>,
    /// Every object that was written over HTTP, as it was then.
    pub(super) written: Mutex<Vec<Value>>,
}

/// A request, taken apart.
struct Asked {
    kind: &'static (&'static str, &'static str, &'static str, &'static str, bool),
    namespace: String,
    name: Option<String>,
    status: bool,
    query: HashMap<String, String>,
}

impl Api {
    pub(super) fn new() -> Self {
        Self {
            store: Mutex::default(),
            changed: watch::Sender::new(0),
            tokens: Mutex::default(),
            requests: Mutex::default(),
            written: Mutex::default(),
        }
    }

    /// Does something with the store, and tells the watches.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store();
        let done = act(&mut store);
        self.changed.send_replace(store.version());
        done
    }

    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        match self.serve(request).await {
            Ok(answer) => answer,
            Err((code, reason)) => refusal(code, reason),
        }
    }

    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Refused> {
        if request.headers().get(header::AUTHORIZATION).is_none_or(|token| token != BEARER) {
            return Err((401, "Unauthorized"));
        }
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        if path == "/apis/authentication.k8s.io/v1/tokenreviews" {
            self.note("create", "tokenreviews");
            let review = read(request).await?;
            return Ok(json_answer(201, &self.review(review)));
        }
        let asked = parse(&path, request.uri().query().unwrap_or_default())?;
        let watching =
            asked.query.get("watch").is_some_and(|value| value == "true" || value == "1");
        let sub = if asked.status { "/status" } else { "" };
        let verb = match (&method, &asked.name) {
            (&Method::GET, None) if watching => "watch",
            (&Method::GET, None) => "list",
            (&Method::GET, _) => "get",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, _) => "delete",
            _ => return Err((405, "MethodNotAllowed")),
        };
        self.note(verb, &format!("{}{sub}", asked.kind.3));
        if watching {
            return Ok(self.watch(&asked));
        }
        if verb == "list" {
            return Ok(json_answer(200, &self.list(&asked)));
        }
        let apply = request.headers().get(header::CONTENT_TYPE);
        let apply =
            apply.is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"));
        let content =
            if matches!(verb, "get" | "delete") { Value::Null } else { read(request).await? };
        let named = asked.name.clone().or_else(|| text(&content["metadata"]["name"]));
        let key: Key =
            (asked.kind.3.to_owned(), asked.namespace.clone(), named.ok_or((422, "Invalid"))?);
        let done = self.with(|store| match verb {
            "get" => store.get(&key).cloned().ok_or((404, "NotFound")),
            "create" => store.create(key, content),
            "update" => store.replace(key, content, asked.status),
            "patch" if apply && store.get(&key).is_none() => store.create(key, content),
            "patch" => store.patch(key, &content, asked.status),
            "delete" => {
                let gone = store.get(&key).cloned().ok_or((404, "NotFound"))?;
                store.delete(&key);
                Ok(gone)
            }
            _ => Err((405, "MethodNotAllowed")),
        })?;
        if matches!(verb, "create" | "update" | "patch") {
            self.note_written(&asked, done.clone());
        }
        Ok(json_answer(if verb == "create" { 201 } else { 200 }, &done))
    }

    fn list(&self, asked: &Asked) -> Value {
        let store = self.store();
        let (group, version, kind, plural, _) = asked.kind;
        // Items of a list do not say what they are.
        let items: Vec<Value> = store.list(plural, &asked.namespace);
        json!({
            "apiVersion": api_version(group, version), "kind": format!("{kind}List"),
            "metadata": {"resourceVersion": store.version().to_string()}, "items": items,
        })
    }

    /// Answers with events until the client goes, or the server is stopped.
    fn watch(self: Arc<Self>, asked: &Asked) -> Answer {
        let (group, version, kind, plural, _) = *asked.kind;
        let from = asked.query.get("resourceVersion").and_then(|text| text.parse().ok());
        let (lines, body) = mpsc::channel::<Bytes>(16);
        let mut changed = self.changed.subscribe();
        tokio::spawn(async move {
            let mut at: u64 = from.unwrap_or(0);
            loop {
                changed.borrow_and_update();
                let news = self.store().since(at, plural);
                let now = self.store().version();
                let Some(news) = news else {
                    let gone = json!({"type": "ERROR", "object": status(410, "Expired")});
                    // A client that is gone needs no news.
                    let _ = lines.send(line(&gone)).await;
                    return;
                };
                for (version, event) in news {
                    if lines.send(line(&event)).await.is_err() {
                        return;
                    }
                    at = version;
                }
                at = at.max(now);
                let bookmark = json!({"type": "BOOKMARK", "object": {
                    "apiVersion": api_version(group, version), "kind": kind,
                    "metadata": {"resourceVersion": at.to_string(), "creationTimestamp": null},
                }});
                tokio::select! {
                    _ = changed.changed() => {}
                    () = tokio::time::sleep(BOOKMARK) => {
                        if lines.send(line(&bookmark)).await.is_err() {
                            return;
                        }
                    }
                    () = lines.closed() => return,
                }
            }
        });
        let mut answer = Response::new(UnsyncBoxBody::new(Lines(body)));
        answer.headers_mut().insert(header::CONTENT_TYPE, JSON);
        answer
    }

    fn review(&self, mut review: Value) -> Value {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let known = review["spec"]["token"].as_str().and_then(|token| tokens.get(token));
        let asked = review["spec"]["audiences"].as_array().cloned().unwrap_or_default();
        let common = |(_, audiences): &&(String, Vec<String>)| {
            asked.iter().any(|one| audiences.iter().any(|own| one == own))
        };
        review["status"] = match known.filter(common) {
            Some((user, audiences)) => json!({
                "authenticated": true, "audiences": audiences, "user": {"username": user},
            }),
            None => json!({"error": "invalid bearer token"}),
        };
        review
    }

    fn note(&self, verb: &str, resource: &str) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.push((verb.to_owned(), resource.to_owned()));
    }

    fn note_written(&self, asked: &Asked, mut object: Value) {
        let (group, version, kind, ..) = *asked.kind;
        object["apiVersion"] = api_version(group, version).into();
        object["kind"] = kind.into();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(object);
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `/api/v1/…` or `/apis/GROUP/VERSION/…`, then `[namespaces/NS/]PLURAL[/NAME[/status]]`.
fn parse(path: &str, query: &str) -> Result<Asked, Refused> {
    let unknown = (404, "NotFound");
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", "v1", rest @ ..] => ("", None, rest),
        ["apis", group, version, rest @ ..] => (*group, Some(*version), rest),
        _ => return Err(unknown),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (plural, name, status) = match rest {
        [plural] => (*plural, None, false),
        [plural, name] => (*plural, Some((*name).to_owned()), false),
        [plural, name, "status"] => (*plural, Some((*name).to_owned()), true),
        _ => return Err(unknown),
    };
    let kind = KINDS.iter().find(|kind| {
        kind.0 == group && kind.3 == plural && version.is_none_or(|version| kind.1 == version)
    });
    let kind = kind.ok_or(unknown)?;
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(Asked { kind, namespace: namespace.to_owned(), name, status, query })
}

async fn read(request: Request<Incoming>) -> Result<Value, Refused> {
    let bytes = request.into_body().collect().await.map_err(|_| (400, "BadRequest"))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|_| (400, "BadRequest"))
}

const JSON: http::HeaderValue = http::HeaderValue::from_static("application/json");

fn json_answer(code: u16, content: &Value) -> Answer {
    let mut answer = Response::new(UnsyncBoxBody::new(Full::from(content.to_string())));
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    answer.headers_mut().insert(header::CONTENT_TYPE, JSON);
    answer
}

fn refusal(code: u16, reason: &str) -> Answer {
    json_answer(code, &status(code, reason))
}

fn status(code: u16, reason: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": format!("it is so: {reason}"), "reason": reason, "code": code,
    })
}

pub(super) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A body that comes line by line.
struct Lines(mpsc::Receiver<Bytes>);

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
