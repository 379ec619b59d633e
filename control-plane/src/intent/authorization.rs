//! `AuthorizationPolicy`: who may ask a service for what.

use super::decode::{
    At, Context, Object, any_text, choice, dns_label, dns_name, is_label, port, text,
};
use super::document::Referent;
use super::meta::{Meta, Name};
use super::policy::Target;

/// Longest name of a service account, with its namespace.
const LONGEST: usize = 253;

/// `pillion.io/v1alpha1 AuthorizationPolicy`.
///
/// The sidecar of a service decides: what a policy with `Deny` meets is refused; then, if there is any policy with `Allow`,
/// what none of these meets is refused too. Without a policy, whoever the mesh lets in may ask for everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Namespace and name.
    pub name: Name,
    /// The services that it holds for; empty is every service of its namespace.
    pub services: Vec<Name>,
    /// What happens to what it meets.
    pub action: Action,
    /// It meets what any of these meets; none of them meets nothing.
    pub rules: Vec<AccessRule>,
}

/// What happens to what a policy meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is let in (the default).
    Allow,
    /// It is refused.
    Deny,
}

/// Who asks for what. Everything in it must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessRule {
    /// Any of these asks; empty is everybody, known or not.
    pub from: Vec<Peer>,
    /// By any of these methods; empty is every method.
    pub methods: Vec<String>,
    /// For any of these paths; empty is every path.
    pub paths: Vec<PathRule>,
    /// At any of these ports of the workload; empty is every port.
    pub ports: Vec<u16>,
}

/// Who asks, by certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A service account.
    Account(Name),
    /// Any service account of a namespace.
    Namespace(String),
}

/// Which paths, without the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRule {
    /// This one.
    Exact(String),
    /// All that begin so; written with a `*` at the end.
    Prefix(String),
}

impl AuthorizationPolicy {
    pub(crate) fn decode(cx: &mut Context, meta: &Meta, spec: &At<'_>) -> Option<Self> {
        let mut object = Object::open(cx, spec)?;
        let services = object.optional(cx, "targetRefs", |cx, at| some(cx, at, target));
        let actions = choice(&[("Allow", Action::Allow), ("Deny", Action::Deny)]);
        let action = object.optional(cx, "action", actions).unwrap_or(Action::Allow);
        let rules = object.list(cx, "rules", rule);
        let written = object.field("rules").is_some();
        object.finish(cx);
        if action == Action::Deny && rules.is_empty() && !(written && cx.failed()) {
            return cx.error(spec, "without `rules` nothing is refused: `Deny` needs at least one");
        }
        Some(Self {
            name: meta.name.clone(),
            services: services.unwrap_or_default(),
            action,
            rules,
        })
    }
}

/// At least one of something.
fn some<T>(
    cx: &mut Context,
    at: &At<'_>,
    decode: impl Fn(&mut Context, &At<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let items = at.items(cx)?;
    if items.is_empty() {
        return cx.expected(at, "at least one element");
    }
    Some(items.iter().filter_map(|at| decode(cx, at)).collect())
}

fn target(cx: &mut Context, at: &At<'_>) -> Option<Name> {
    let mut object = Object::open(cx, at)?;
    let group = object.optional(cx, "group", any_text).unwrap_or_default();
    let kind = object.required(cx, "kind", text);
    let name_at = object.field("name");
    let name = object.required(cx, "name", dns_name);
    object.finish(cx);
    if (group.as_str(), kind?.as_str()) != ("", "Service") {
        return cx.expected(at, "a Service (group `\"\"`)");
    }
    let name = Name::new(cx.namespace.clone(), name?);
    if let Some(at) = name_at {
        cx.refer(&at, Referent::PolicyTarget(Target::Service(name.clone())));
    }
    Some(name)
}

fn rule(cx: &mut Context, at: &At<'_>) -> Option<AccessRule> {
    let mut object = Object::open(cx, at)?;
    let from = object.optional(cx, "from", peers);
    let to = object.optional(cx, "to", operation);
    object.finish(cx);
    Some(AccessRule { from: from.unwrap_or_default(), ..to.unwrap_or_default() })
}

fn peers(cx: &mut Context, at: &At<'_>) -> Option<Vec<Peer>> {
    let mut object = Object::open(cx, at)?;
    let accounts = object.optional(cx, "serviceAccounts", |cx, at| some(cx, at, account));
    let namespaces = object.optional(cx, "namespaces", |cx, at| some(cx, at, dns_label));
    object.finish(cx);
    if accounts.is_none() && namespaces.is_none() {
        return cx.expected(at, "`serviceAccounts`, `namespaces`, or no `from` for everybody");
    }
    let accounts = accounts.unwrap_or_default().into_iter().map(Peer::Account);
    let namespaces = namespaces.unwrap_or_default().into_iter().map(Peer::Namespace);
    Some(accounts.chain(namespaces).collect())
}

/// `name`, of the policy's own namespace, or `namespace/name`.
fn account(cx: &mut Context, at: &At<'_>) -> Option<Name> {
    let written = text(cx, at)?;
    let (namespace, name) = match written.split_once('/') {
        Some((namespace, name)) => (namespace.to_owned(), name),
        None => (cx.namespace.clone(), written.as_str()),
    };
    if written.len() <= LONGEST && is_label(&namespace) && name.split('.').all(is_label) {
        return Some(Name::new(namespace, name));
    }
    cx.expected(at, "a service account: its name, or `NAMESPACE/NAME`")
}

fn operation(cx: &mut Context, at: &At<'_>) -> Option<AccessRule> {
    let mut object = Object::open(cx, at)?;
    let methods = object.optional(cx, "methods", |cx, at| some(cx, at, method));
    let paths = object.optional(cx, "paths", |cx, at| some(cx, at, path));
    let ports = object.optional(cx, "ports", |cx, at| some(cx, at, port));
    object.finish(cx);
    if methods.is_none() && paths.is_none() && ports.is_none() {
        return cx.expected(at, "`methods`, `paths`, `ports`, or no `to` for everything");
    }
    Some(AccessRule {
        from: Vec::new(),
        methods: methods.unwrap_or_default(),
        paths: paths.unwrap_or_default(),
        ports: ports.unwrap_or_default(),
    })
}

fn method(cx: &mut Context, at: &At<'_>) -> Option<String> {
    let written = text(cx, at)?;
    if written.len() <= 32 && written.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
    {
        return Some(written);
    }
    cx.expected(at, "a method in capital letters, such as `GET`")
}

fn path(cx: &mut Context, at: &At<'_>) -> Option<PathRule> {
    let written = text(cx, at)?;
    let prefix = written.strip_suffix('*');
    let rest = prefix.unwrap_or(&written);
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"*?#".contains(&byte);
    if !rest.starts_with('/') || !rest.bytes().all(plain) {
        return cx.expected(at, "a path such as `/orders`, or `/orders/*` for all that begin so");
    }
    Some(match prefix {
        Some(prefix) => PathRule::Prefix(prefix.to_owned()),
        None => PathRule::Exact(written),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{assemble, read};
    use super::*;

    fn parsed(spec: &str) -> (Option<AuthorizationPolicy>, Vec<String>) {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
             apiVersion: pillion.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: a, namespace: shop}}\nspec: {spec}\n"
        );
        let found = read("a.yaml", &text);
        let parsed = assemble(found.documents, found.problems);
        let policy = parsed.intent.authorizations.values().next().map(|one| one.as_ref().clone());
        (policy, parsed.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn everything_is_read() {
        let (policy, problems) = parsed(
            "{targetRefs: [{kind: Service, name: web}], rules: [{from: {serviceAccounts: [cart, ops/root], namespaces: [edge]}, \
             to: {methods: [GET], paths: [/a, /b/*], ports: [8080]}}, {}]}",
        );
        assert_eq!(problems, [""; 0]);
        let policy = policy.unwrap();
        assert_eq!(
            (policy.action, &policy.services[0]),
            (Action::Allow, &Name::new("shop", "web"))
        );
        let rule = &policy.rules[0];
        let accounts = ["shop", "ops"].map(|namespace| {
            Peer::Account(Name::new(namespace, if namespace == "ops" { "root" } else { "cart" }))
        });
        assert_eq!(rule.from[..2], accounts);
        assert_eq!(rule.from[2], Peer::Namespace("edge".to_owned()));
        assert_eq!(rule.paths, [PathRule::Exact("/a".into()), PathRule::Prefix("/b/".into())]);
        assert_eq!(policy.rules[1], AccessRule::default());
    }

    #[test]
    fn what_could_be_meant_otherwise_is_refused() {
        for (spec, place) in [
            ("{rules: [{from: {}}]}", "rules[0].from"),
            ("{rules: [{to: {paths: []}}]}", "rules[0].to.paths"),
            ("{rules: [{to: {paths: ['/a*b']}}]}", "rules[0].to.paths[0]"),
            ("{rules: [{to: {methods: [get]}}]}", "rules[0].to.methods[0]"),
            ("{rules: [{from: {serviceAccounts: [a/b/c]}}]}", "serviceAccounts[0]"),
            ("{action: Deny}", "spec"),
            ("{targetRefs: []}", "targetRefs"),
            ("{rule: []}", "rule"),
        ] {
            let (policy, problems) = parsed(spec);
            assert!(policy.is_none(), "{spec}");
            assert!(problems.iter().any(|one| one.contains(place)), "{spec}: {problems:?}");
        }
        let (policy, problems) = parsed("{targetRefs: [{kind: Service, name: wep}]}");
        assert!(policy.is_some() && problems[0].contains("did you mean `web`"), "{problems:?}");
    }
}
