//! A pretended Kubernetes API: lists and watches with versions and bookmarks, patches, status, optimistic concurrency,
//! token reviews; over TLS, as the real one. It can be killed, and forget its past.

mod rules;
mod server;
mod store;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::ca::Ca;
use crate::port::Port;
use crate::wait;
use server::{Api, BEARER, api_version};
use store::{KINDS, Key};

/// A cluster. It ends when this is dropped.
#[derive(Debug)]
pub struct Kubernetes {
    api: Arc<Api>,
    port: Port,
    tls: Arc<ServerConfig>,
    dir: TempDir,
    task: Option<JoinHandle<()>>,
}

impl Kubernetes {
    /// An empty cluster.
    ///
    /// # Errors
    /// When there is no port, or no certificate can be made.
    pub async fn start() -> anyhow::Result<Self> {
        let (dir, port) = (tempfile::tempdir()?, Port::reserve()?);
        let ca = Ca::new("cluster")?;
        let leaf = ca.leaf("https://kubernetes.default")?;
        let files = ca.write(dir.path(), "api", &leaf)?;
        let tls = ca.server(&leaf, false, &["http/1.1"])?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{}", port.address()), "tls-server-name": "localhost",
                "certificate-authority": files.roots,
            }}],
            "users": [{"name": "test", "user": {"token": BEARER.trim_start_matches("Bearer ")}}],
            "contexts": [{"name": "test", "context":
                {"cluster": "test", "user": "test", "namespace": "pillion-system"}}],
        });
        std::fs::write(dir.path().join("kubeconfig"), kubeconfig.to_string())?;
        let mut cluster = Self { api: Arc::new(Api::new()), port, tls, dir, task: None };
        cluster.serve().await?;
        Ok(cluster)
    }

    /// The file that says how to reach it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// A folder for what belongs to it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts to serve (again), on the same port.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn serve(&mut self) -> anyhow::Result<()> {
        let address = self.port.address();
        let listener = wait::until("the port of the API is free", || async {
            TcpListener::bind(address).await.ok()
        });
        let (listener, api) = (listener.await?, Arc::clone(&self.api));
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls));
        self.task = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (api, acceptor) = (Arc::clone(&api), acceptor.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| {
                        let api = Arc::clone(&api);
                        async move { Ok::<_, std::convert::Infallible>(api.answer(request).await) }
                    });
                    // How a connection ends is the client's business.
                    let _ = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        }));
        Ok(())
    }

    /// Ends the server and all connections, as a crash would. The objects stay.
    pub fn kill(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Forgets what happened so far: watches that ask for it are told 410.
    pub fn compact(&self) {
        self.api.with(|store| store.compact());
    }

    /// Creates an object, or replaces all of it but the status.
    ///
    /// # Panics
    /// When it is of an unknown kind, or has no name.
    pub fn apply(&self, object: Value) {
        let key = key(&object);
        self.api
            .with(|store| match store.get(&key) {
                Some(_) => store.replace(key, object, false),
                None => store.create(key, object),
            })
            .expect("a test writes what can be written");
    }

    /// Writes only the status of an object.
    ///
    /// # Panics
    /// When there is none.
    pub fn set_status(&self, object: Value) {
        let key = key(&object);
        self.api.with(|store| store.replace(key, object, true)).expect("the object exists");
    }

    /// Deletes an object.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.api.with(|store| store.delete(&key));
    }

    /// An object as it is now.
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.api.with(|store| store.get(&key).cloned())
    }

    /// Lets a token be that of a service account, for these audiences.
    pub fn token(&self, token: &str, namespace: &str, account: &str, audiences: &[&str]) {
        let user = format!("system:serviceaccount:{namespace}:{account}");
        let audiences = audiences.iter().map(|one| (*one).to_owned()).collect();
        let mut tokens = self.api.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(token.to_owned(), (user, audiences));
    }

    /// Makes a token worthless.
    pub fn revoke(&self, token: &str) {
        self.api.tokens.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }

    /// What clients wrote so far: each object as it was after it.
    pub fn written(&self) -> Vec<Value> {
        self.api.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Verb and resource of every request so far.
    pub fn requests(&self) -> Vec<(String, String)> {
        self.api.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.kill();
    }
}

fn key(object: &Value) -> Key {
    let known = |kind: &&(&str, &str, &str, &str, bool)| {
        object["kind"] == kind.2 && object["apiVersion"] == api_version(kind.0, kind.1)
    };
    let kind = KINDS.iter().find(known).unwrap_or_else(|| panic!("unknown: {object}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let namespace = if kind.4 { text(&metadata["namespace"]) } else { String::new() };
    (kind.3.to_owned(), namespace, text(&metadata["name"]))
}
