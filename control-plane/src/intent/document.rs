//! One file's text to its documents.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::authorization::AuthorizationPolicy;
use super::decode::{At, Context, Object as Fields, any_text, quoted, text};
use super::external::ExternalService;
use super::gateway::{Gateway, GatewayRef};
use super::grant::ReferenceGrant;
use super::http_route::{HttpRoute, ParentRef};
use super::l4_route::{L4Kind, L4Route};
use super::mesh::Mesh;
use super::meta::{Kind, Meta, Name};
use super::namespace::Namespace;
use super::policy::{Target, TrafficPolicy};
use super::problem::{Problem, Severity, nearest};
use super::process::Process;
use super::secret::Secret;
use super::service::Service;
use super::workload::Workload;
use super::yaml::{self, Chunk, Node, Value};

/// Which object a document describes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectId {
    /// Its kind.
    pub kind: Kind,
    /// Namespace and name.
    pub name: Name,
}

/// `Kind namespace/name`
impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Where a document stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named to [`read`].
    pub file: Arc<str>,
    /// 1-based document in the file; 0 for an object of an API.
    pub document: usize,
    /// 1-based line; 0 for an object of an API.
    pub line: u32,
}

/// `file:line`
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// A good document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Where it stands.
    pub place: Place,
    /// What it describes.
    pub id: ObjectId,
    /// What it says.
    pub object: Object,
    pub(crate) references: Vec<Reference>,
}

impl Document {
    /// The same, where nobody knows which gateways there are: none is missed.
    pub(crate) fn without_gateways(mut self) -> Self {
        self.references.retain(|one| !matches!(one.target, Referent::Gateway(_)));
        self
    }
}

/// What a document says.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A `Mesh`.
    Mesh(Arc<Mesh>),
    /// A `Namespace`.
    Namespace(Arc<Namespace>),
    /// A `Service`.
    Service(Arc<Service>),
    /// A `Workload`.
    Workload(Arc<Workload>),
    /// A `Secret`.
    Secret(Arc<Secret>),
    /// A `Gateway`.
    Gateway(Arc<Gateway>),
    /// An `HTTPRoute` or `GRPCRoute`.
    Route(Arc<HttpRoute>),
    /// A `TLSRoute` or `TCPRoute`.
    L4Route(Arc<L4Route>),
    /// A `ReferenceGrant`.
    ReferenceGrant(Arc<ReferenceGrant>),
    /// A `TrafficPolicy`.
    TrafficPolicy(Arc<TrafficPolicy>),
    /// An `AuthorizationPolicy`.
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    /// An `ExternalService`.
    ExternalService(Arc<ExternalService>),
    /// A `Process`.
    Process(Arc<Process>),
}

/// A place at which a document speaks of another object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reference {
    pub(crate) target: Referent,
    pub(crate) place: (u32, u32),
    pub(crate) path: String,
}

/// What is spoken of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Referent {
    Parent(ParentRef),
    Gateway(GatewayRef),
    Certificate(Name),
    Egress(Name),
    External { service: Name, port: Option<u16> },
    Backend { service: Name, port: Option<u16> },
    PolicyTarget(Target),
    Dependency(Name),
}

/// What was found in one file.
#[derive(Debug, Clone, Default)]
pub struct FileDocuments {
    /// The good documents, in order.
    pub documents: Vec<Document>,
    /// The bad ones, as far as it is known what they describe. `None` could be anything.
    pub rejected: Vec<Option<ObjectId>>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Reads the documents of one file. `file` is only its name, for the messages.
#[must_use]
pub fn read(file: &str, content: &str) -> FileDocuments {
    let file: Arc<str> = file.into();
    let mut found = FileDocuments::default();
    for chunk in yaml::chunks(content) {
        let mut cx = Context::new(Arc::clone(&file), chunk.document);
        match read_chunk(&mut cx, chunk) {
            Outcome::Good(document) => found.documents.push(*document),
            Outcome::Bad(id) => found.rejected.push(id),
            Outcome::Empty => {}
        }
        found.problems.append(&mut cx.problems);
    }
    found
}

enum Outcome {
    Good(Box<Document>),
    Bad(Option<ObjectId>),
    /// Nothing in it, or a kind that is somebody else's.
    Empty,
}

/// Reads one object of an API, such as Kubernetes'. `place` names it in the messages.
#[must_use]
pub fn read_object(place: &str, object: &serde_json::Value) -> FileDocuments {
    let mut cx = Context::new(place.into(), 0);
    let mut found = FileDocuments::default();
    match read_node(&mut cx, &yaml::of_json(object), 0) {
        Outcome::Good(document) => found.documents.push(*document),
        Outcome::Bad(id) => found.rejected.push(id),
        Outcome::Empty => {}
    }
    found.problems = cx.problems;
    found
}

fn read_chunk(cx: &mut Context, chunk: Chunk<'_>) -> Outcome {
    match yaml::parse(chunk) {
        Ok(Some(node)) => read_node(cx, &node, chunk.document),
        Ok(None) => Outcome::Empty,
        Err(error) => {
            // A message may repeat a piece of the text.
            let secret = chunk.text.contains("Secret") || chunk.text.contains("PRIVATE KEY");
            let reason = if secret { "the reason may show a key" } else { &error.message };
            let message = format!("this is not YAML: {reason}");
            cx.note(Severity::Error, (error.line, error.column), "", message);
            Outcome::Bad(None)
        }
    }
}

fn read_node(cx: &mut Context, node: &Node, document: usize) -> Outcome {
    let root = At::root(node);
    let kind = match kind(cx, &root) {
        Ok(Some(kind)) => kind,
        Ok(None) => return Outcome::Empty,
        Err(()) => return Outcome::Bad(None),
    };
    cx.lenient = !kind.is_ours();
    let decoded = decode(cx, &root, kind);
    match decoded {
        Some((id, object)) if !cx.failed() => {
            let line = node.line;
            let place = Place { file: cx.file(), document, line };
            let references = std::mem::take(&mut cx.references);
            Outcome::Good(Box::new(Document { place, id, object, references }))
        }
        _ => Outcome::Bad(identify(node, kind)),
    }
}

/// The kind; `Ok(None)` for one that is left to others (with a warning), `Err` for a mistake.
fn kind(cx: &mut Context, root: &At<'_>) -> Result<Option<Kind>, ()> {
    let mut object = Fields::open(cx, root).ok_or(())?;
    let api_version = object.required(cx, "apiVersion", text);
    let kind_at = object.field("kind");
    let written = object.required(cx, "kind", text).ok_or(())?;
    let api_version = api_version.ok_or(())?;
    let at = kind_at.as_ref().unwrap_or(root);
    cx.object.clone_from(&written);
    if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == written) {
        let versions = kind.api_versions();
        if versions.contains(&api_version.as_str()) {
            return Ok(Some(kind));
        }
        let message = format!("a {kind} of apiVersion `{api_version}` is unknown");
        cx.note(Severity::Error, (root.node.line, root.node.column), "apiVersion", message);
        if let Some(last) = cx.problems.last_mut() {
            last.expected = Some(quoted(versions));
        }
        return Err(());
    }
    let names = Kind::ALL.map(Kind::as_str);
    if let Some(meant) = nearest(&written, names) {
        cx.error::<()>(at, format!("unknown kind `{written}`, did you mean `{meant}`?"));
        return Err(());
    }
    if api_version.starts_with("pillion.io/") {
        cx.expected::<()>(at, format!("one of {}", quoted(&names)));
        return Err(());
    }
    cx.warn(at, format!("the kind `{written}` has no effect here"));
    Ok(None)
}

fn decode(cx: &mut Context, root: &At<'_>, kind: Kind) -> Option<(ObjectId, Object)> {
    let mut object = Fields::open(cx, root)?;
    object.ignore(&["apiVersion", "kind", "status"]);
    let meta = object.required(cx, "metadata", |cx, at| Meta::decode(cx, at, kind));
    let spec = if kind == Kind::Secret {
        object.ignore(&["type", "data", "stringData", "immutable"]);
        Some(root.clone())
    } else if kind == Kind::Namespace {
        object.ignore(&["spec"]);
        Some(root.clone())
    } else {
        object.required(cx, "spec", |_, at| Some(at.clone()))
    };
    object.finish(cx);
    let (meta, spec) = (meta?, spec?);
    let decoded = match kind {
        Kind::Mesh => Object::Mesh(Arc::new(Mesh::decode(cx, &meta, &spec)?)),
        Kind::Namespace => Object::Namespace(Arc::new(Namespace::of(&meta))),
        Kind::Service => Object::Service(Arc::new(Service::decode(cx, &meta, &spec)?)),
        Kind::Workload => Object::Workload(Arc::new(Workload::decode(cx, &meta, &spec)?)),
        Kind::Secret => Object::Secret(Arc::new(Secret::decode(cx, &meta, &spec)?)),
        Kind::Gateway => Object::Gateway(Arc::new(Gateway::decode(cx, &meta, &spec)?)),
        Kind::HttpRoute => Object::Route(Arc::new(HttpRoute::decode(cx, &meta, &spec)?)),
        Kind::GrpcRoute => Object::Route(Arc::new(HttpRoute::decode_grpc(cx, &meta, &spec)?)),
        Kind::TlsRoute => {
            Object::L4Route(Arc::new(L4Route::decode(cx, &meta, &spec, L4Kind::Tls)?))
        }
        Kind::TcpRoute => {
            Object::L4Route(Arc::new(L4Route::decode(cx, &meta, &spec, L4Kind::Tcp)?))
        }
        Kind::ReferenceGrant => {
            Object::ReferenceGrant(Arc::new(ReferenceGrant::decode(cx, &meta, &spec)?))
        }
        Kind::TrafficPolicy => {
            Object::TrafficPolicy(Arc::new(TrafficPolicy::decode(cx, &meta, &spec)?))
        }
        Kind::AuthorizationPolicy => {
            Object::AuthorizationPolicy(Arc::new(AuthorizationPolicy::decode(cx, &meta, &spec)?))
        }
        Kind::ExternalService => {
            Object::ExternalService(Arc::new(ExternalService::decode(cx, &meta, &spec)?))
        }
        Kind::Process => Object::Process(Arc::new(Process::decode(cx, &meta, &spec)?)),
    };
    Some((ObjectId { kind, name: meta.name }, decoded))
}

/// Which object a bad document speaks of, so that its last good version stays. Problems of this second look
/// are known already.
fn identify(node: &Node, kind: Kind) -> Option<ObjectId> {
    let Value::Map(fields) = &node.value else { return None };
    let (_, metadata) = fields.iter().find(|(key, _)| key.name == "metadata")?;
    let mut scratch = Context::new("".into(), 0);
    let mut object = Fields::open(&mut scratch, &At::root(metadata))?;
    let name = object.optional(&mut scratch, "name", any_text)?;
    let namespace = object.optional(&mut scratch, "namespace", any_text);
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    Some(ObjectId { kind, name: Name { namespace, name } })
}
